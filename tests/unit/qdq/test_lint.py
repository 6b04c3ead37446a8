"""The linter against the real parser and builder, rule by rule and on random graphs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.qdq_graphs import TensorRtRtx, draw, draw_operator
from edgeopt.errors import ConfigError
from edgeopt.qdq import lint, read, refused
from edgeopt.qdq.rules import RULES
from tests.unit.qdq import patterns

STAGES = {rule.id: rule.stage for rule in RULES}


@pytest.fixture(scope="module")
def tensorrt() -> TensorRtRtx:
    return TensorRtRtx()


def test_every_rule_has_a_model_that_breaks_it() -> None:
    shown = {rule for rule, _ in (patterns.REFUSED | patterns.CRASHES).values()}
    assert shown == {rule.id for rule in RULES if rule.stage != "meaning"}
    assert len(STAGES) == len(RULES)


@pytest.mark.parametrize("name", patterns.REFUSED)
def test_what_a_rule_names_is_refused_by_tensorrt_when_the_rule_says(name: str, tensorrt: TensorRtRtx) -> None:
    rule, make = patterns.REFUSED[name]
    model = make()
    findings = refused(lint(model))
    assert rule in {finding.rule for finding in findings}
    answer = tensorrt.ask(model.SerializeToString())
    assert not answer.accepted
    assert answer.imported == all(finding.stage == "build" for finding in findings), answer.why


@pytest.mark.parametrize("name", patterns.ACCEPTED)
def test_what_no_rule_names_is_accepted(name: str, tensorrt: TensorRtRtx) -> None:
    model = patterns.ACCEPTED[name]()
    assert refused(lint(model)) == ()
    answer = tensorrt.ask(model.SerializeToString())
    assert answer.accepted, answer.why


ASK = """
import sys
from benchmarks.qdq_graphs import TensorRtRtx
sys.exit(0 if TensorRtRtx().ask(sys.stdin.buffer.read()).accepted else 7)
"""


@pytest.mark.parametrize("name", patterns.CRASHES)
def test_what_kills_the_builder_is_named(name: str) -> None:
    rule, make = patterns.CRASHES[name]
    model = make()
    assert rule in {finding.rule for finding in refused(lint(model))}
    given = model.SerializeToString()
    done = subprocess.run([sys.executable, "-c", ASK], input=given, capture_output=True, check=False, timeout=120)
    assert done.returncode not in (0, 1), "it builds: the rule is out of date"


def test_200_random_graphs_get_the_verdict_of_tensorrt(tensorrt: TensorRtRtx) -> None:
    """Import and, of every fourth graph, the build; benchmarks/qdq_linter.py builds all of 1200."""
    accepted = 0
    for seed in range(5000, 5200):
        model = draw(seed)
        findings = refused(lint(model))
        at_import = any(finding.stage == "import" for finding in findings)
        needs_build = bool(findings) and not at_import
        answer = tensorrt.ask(model.SerializeToString(), build=needs_build or seed % 4 == 0)
        wanted = f"graph {seed}: {[str(finding) for finding in findings]}, TensorRT: {answer.why}"
        assert answer.imported is not at_import, wanted
        assert answer.accepted is not bool(findings), wanted
        accepted += answer.accepted
    assert 60 <= accepted <= 160  # or the graphs show nothing


def test_100_random_operators_get_the_verdict_of_tensorrt(tensorrt: TensorRtRtx) -> None:
    accepted = 0
    for seed in range(100):
        model = draw_operator(seed)
        findings = refused(lint(model))
        answer = tensorrt.ask(model.SerializeToString())
        wanted = f"operator {seed}: {[str(finding) for finding in findings]}, TensorRT: {answer.why}"
        assert answer.imported is not any(finding.stage == "import" for finding in findings), wanted
        assert answer.accepted is not bool(findings), wanted
        accepted += answer.accepted
    assert 20 <= accepted <= 80  # or they show nothing


def test_a_finding_names_node_tensor_module_and_what_to_do() -> None:
    rule, make = patterns.REFUSED["activation, uint8, zero point 57"]
    first, *_ = lint(make())
    assert (first.rule, first.severity, first.stage, first.repairable) == (rule, "error", "import", True)
    assert (first.op, first.tensor) == ("QuantizeLinear", "x0")
    assert first.node.endswith("/QuantizeLinear")
    assert first.module.startswith("net.conv")
    assert "57" in first.why
    assert "ActivationSymmetric" in first.advice
    assert str(first) == (
        f"zero-point: QuantizeLinear {first.node!r} of module {first.module!r}, tensor 'x0': {first.why}"
    )


def test_the_module_comes_from_the_exporters_metadata_if_it_is_there() -> None:
    model = patterns.REFUSED["activation, int16"][1]()
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'features', 'features.3', 'conv2d']")
    assert "features.3" in {finding.module for finding in lint(model)}


def test_graphs_inside_of_nodes_are_read(tensorrt: TensorRtRtx) -> None:
    model = patterns.nested()
    assert {finding.rule for finding in lint(model)} == {"zero-point"}
    assert not tensorrt.ask(model.SerializeToString()).accepted


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("uint8, zero point 0", "uint8-activations"),
        ("no zero point", "uint8-activations"),
        ("float weights through uint8", "uint8-activations"),
        ("a scale for each channel of an activation", "per-channel-activations"),
        ("a computed scale that feeds no convolution", "scale-computed"),
    ],
)
def test_what_is_accepted_with_another_meaning_is_a_warning(name: str, rule: str) -> None:
    found = lint(patterns.ACCEPTED[name]())
    assert {finding.rule for finding in found} == {rule}
    assert {finding.severity for finding in found} == {"warning"}


def test_files_that_are_no_model(tmp_path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="cannot be read"):
        read(file)
    file.write_bytes(b"\xff\xff\xff\xffno model")
    with pytest.raises(ConfigError, match="no ONNX file"):
        read(file)
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="no ONNX file"):
        read(file)


def _scale() -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), "s")


def _elsewhere(**entries: str) -> TensorProto:
    tensor = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _with(field: str, value: Any) -> TensorProto:
    tensor = _scale()
    setattr(tensor, field, value)
    return tensor


QUANTIZE = ("QuantizeLinear", ["x", "s"], ["y"])
#: Name -> nodes, the scale, what is said of it.
BROKEN: dict[str, tuple[list[Any], Callable[[], TensorProto], str]] = {
    "no such file": ([QUANTIZE], lambda: _elsewhere(location="none.bin"), "external data .*none.bin"),
    "a file elsewhere": ([QUANTIZE], lambda: _elsewhere(location="../../etc/passwd"), "external data .* outside"),
    "no file": ([QUANTIZE], lambda: _elsewhere(offset="0"), "external data"),
    "no number": ([QUANTIZE], lambda: _elsewhere(location="weights.bin", offset="many"), "external data"),
    "a short file": ([QUANTIZE], lambda: _elsewhere(location="weights.bin"), "'s' do not fill its shape \\[4\\]"),
    "cut off": ([QUANTIZE], lambda: _with("raw_data", b"abc"), "'s' do not fill its shape \\[4\\]"),
    "too few": ([QUANTIZE], lambda: _with("raw_data", b"abcd"), "'s' do not fill its shape \\[4\\]"),
    "no type": ([QUANTIZE], lambda: _with("data_type", 99), "type of 's' has number 99"),
    "undefined type": ([QUANTIZE], lambda: _with("data_type", 0), "type of 's' has number 0"),
    "one input": ([("QuantizeLinear", ["x"], ["y"])], _scale, "needs a tensor and a scale, and reads \\['x'\\]"),
    "no input": ([("DequantizeLinear", [], ["y"])], _scale, "needs a tensor and a scale"),
    "an empty scale": ([("DequantizeLinear", ["x", ""], ["y"])], _scale, "needs a tensor and a scale"),
    "no output": ([("Cast", ["x"], [])], _scale, "Cast '' writes nothing"),
    "two writers": ([QUANTIZE, QUANTIZE], _scale, "2 nodes write 'y'"),
    "a circle": (
        [("Identity", ["b"], ["a"]), ("Identity", ["a"], ["b"]), QUANTIZE], _scale, "nodes wait for each other"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_a_configuration_error_that_says_what_is_broken(name: str, tmp_path: Path) -> None:
    nodes, scale, says = BROKEN[name]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 4]) for end in "xy"]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "g", ends[:1], ends[1:], [scale()])
    (tmp_path / "weights.bin").write_bytes(b"short")
    file = tmp_path / "model.onnx"
    file.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ConfigError, match=says) as error:
        read(file)
    assert error.value.where == str(file)
    assert error.value.fix


def test_external_data_beside_the_model_are_read(tmp_path: Path) -> None:
    file, model = tmp_path / "model.onnx", patterns.conv()
    before = [tensor.raw_data for tensor in model.graph.initializer]
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert [tensor.raw_data for tensor in read(file).graph.initializer] == before
