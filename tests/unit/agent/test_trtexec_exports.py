"""Readers of what trtexec exports. The files are synthetic, in the documented form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.agent import AgentError
from edgeopt.agent.runtimes import Layer, Port
from edgeopt.agent.trtexec import exports
from edgeopt.statistics import percentile_interval

#: what may stand in a layer's name; only the separator of the fields themselves would be ambiguous
names = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda name: '", "' not in name and "\r" not in name)
awkward = st.sampled_from(
    ['a "quoted" one', "back\\slash", "new\nline", "ends with \\", '"', "{ForeignNode[a...b]}", "]", "}"]
)
numbers = st.floats(1e-4, 1e4).map(lambda value: float(f"{value:g}"))


def written_profile(times_ms: dict[str, float], *, medians: bool = True) -> str:
    """As ``Profiler::exportJSONProfile`` writes it: names as they are."""
    out = '[\n  { "count" : 7 }\n'
    for name, ms in times_ms.items():
        median = f', "medianMs" : {ms:g}' if medians else ""
        out += f', {{ "name" : "{name}", "timeMs" : {7 * ms:g}, "averageMs" : {ms:g}{median}, "percentage" : 1.5 }}\n'
    return out + "]\n"


@given(st.dictionaries(names | awkward, numbers, max_size=6), st.booleans())
def test_a_profile_reads_back_whatever_the_names_are(tmp_path_factory, times_ms, medians) -> None:
    file = tmp_path_factory.mktemp("p") / "profile.json"
    file.write_text(written_profile(times_ms, medians=medians), encoding="utf-8", newline="")
    assert exports.profile(file) == times_ms


@given(st.dictionaries(names | awkward, numbers, min_size=1, max_size=4), st.data())
def test_a_profile_that_is_cut_off_names_the_file_and_the_place(tmp_path_factory, times_ms, data) -> None:
    text = written_profile(times_ms).rstrip()
    file = tmp_path_factory.mktemp("p") / "profile.json"
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))], encoding="utf-8", newline="")
    with pytest.raises(AgentError, match=r"^profile\.json:\d+:\d+: cut off"):
        exports.profile(file)


def test_a_layer_that_never_ran_does_not_spoil_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(
        '[\n  { "count" : 0 }\n'
        ', { "name" : "a", "timeMs" : 0, "averageMs" : -nan, "medianMs" : nan, "percentage" : nan }\n]\n'
    )
    assert exports.profile(file) == {}
    assert exports.with_times([Layer("a", "", (), "", "GPU", "")], {})[0].time_us is None


def test_times_are_read_and_cut_files_refused(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    runs = [
        {"startEnqMs": 0.0, "h2dMs": 0.2, "computeMs": 1.5 + i, "d2hMs": 0.3, "latencyMs": 2.0 + i} for i in range(3)
    ]
    file.write_text(json.dumps(runs, indent=1))
    found = exports.times(file)
    assert found.latency.tolist() == [2.0, 3.0, 4.0]
    assert found.compute.tolist() == [1.5, 2.5, 3.5]
    file.write_text(json.dumps(runs, indent=1)[:90])
    with pytest.raises(AgentError, match=r"^times\.json:\d+:\d+: cut off or no JSON"):
        exports.times(file)
    for wrong, why in (("[]", "no timed run"), ('[{"computeMs": 1}]', "latencyMs"), ("{}", "no timed run")):
        file.write_text(wrong)
        with pytest.raises(AgentError, match=why):
            exports.times(file)
    with pytest.raises(AgentError, match=r"wrote no gone\.json"):
        exports.times(tmp_path / "gone.json")


@pytest.mark.parametrize("key", ["latencyMs", "computeMs"])
@pytest.mark.parametrize("ms", [float("nan"), float("inf"), 0.0, -3.0])
def test_a_run_that_took_no_time_is_refused_by_its_place(tmp_path: Path, key: str, ms: float) -> None:
    file = tmp_path / "times.json"
    fine = {"latencyMs": 2.0, "computeMs": 1.5}
    file.write_text(json.dumps([fine, {**fine, key: ms}, fine]))
    with pytest.raises(AgentError, match=rf"^times\.json: run 1 took no time.*{key} is {ms}$"):
        exports.times(file)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=300), st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9]))
def test_trtexec_takes_the_same_percentile_as_we_do(samples: list[float], percent: float) -> None:
    """The ⌈p n⌉-th smallest; where p n is an integer, 32-bit rounding may take it one further."""
    ascending = np.sort(samples)
    ours = percentile_interval(samples, percent / 100).value
    theirs = exports.percentile(samples, percent)
    exact = percent / 100 * len(samples)
    if abs(exact - round(exact)) > 1e-3:
        assert theirs == ours
    else:
        rank = max(round(exact), 1)
        assert theirs in ascending[max(rank - 2, 0) : rank + 1]


def test_the_percentile_by_hand() -> None:
    samples = list(range(1, 11))
    # 10 - 1 - int(0.1 * 10 = 1) = 8, the ninth; for 95 % int(0.5) = 0, the tenth
    assert exports.percentile(samples, 90) == 9
    assert exports.percentile(samples, 95) == 10
    assert exports.percentile(samples, 50) == 5
    assert exports.percentile([7], 99) == 7


DETAILED = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
    "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
    "TacticName": "sm80_xmma_fprop",
    "Metadata": "[ONNX Layer: conv1]\x1f[ONNX Layer: relu1]\x1e[ONNX Layer: conv1]",
}


def test_layer_information_of_10_and_of_11() -> None:
    conv = Layer("conv1 + relu1", "CaskConvolution", ("conv1", "relu1"), "i8", "GPU", "sm80_xmma_fprop")
    old = exports.layer_info(json.dumps({"Layers": [DETAILED], "Bindings": ["x", "y"]}))
    assert old == exports.LayerInfo((conv,), ("x", "y"), True)
    moved = {**DETAILED, "Inputs": [{"Name": "x", "Format": "Thirty-two wide", "DataType": "Int8"}]}
    ports = [{"Name": "x", "IOMode": "Input"}, {"Name": "y", "IOMode": "Output"}]
    assert exports.layer_info(json.dumps({"Layers": [moved], "I/O Tensors": ports})) == old


def test_layers_without_details_are_names() -> None:
    found = exports.layer_info(
        '{"Layers": ["Reformatting CopyNode for Input Tensor 0 to a", "a + b"\n], "Bindings": []}'
    )
    assert not found.detailed
    assert [(layer.name, layer.source, layer.precision) for layer in found.layers] == [
        ("Reformatting CopyNode for Input Tensor 0 to a", (), ""),
        ("a + b", ("a", "b"), ""),
    ]


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("Row major linear FP16 format", "f16"), ("Half", "f16"), ("Row major linear BF16", "bf16"), ("Float", "f32"),
        ("Row major Int8 format", "i8"), ("UInt8", "u8"), ("Int32", "i32"), ("Bool", "bool"), ("FP8", "f8"), ("?", ""),
    ],
)  # fmt: skip
def test_numbers_of_layers(said: str, short: str) -> None:
    layer = {"Name": "a", "LayerType": "x", "Inputs": [{"Name": "i", "Format/Datatype": said}]}
    assert exports.layer_info(json.dumps({"Layers": [layer]})).layers[0].precision == short


def test_layers_of_a_dla_core() -> None:
    raw = {"Layers": [{"Name": "{ForeignNode[conv1...relu3]}", "LayerType": "DLA"}, {"Name": "pool", "LayerType": "x"}]}
    dla, pool = exports.layer_info(json.dumps(raw)).layers
    assert (dla.device, dla.source) == ("DLA", ("conv1", "relu3"))
    assert pool.device == "GPU"


@given(st.lists(names.filter(lambda name: not set("\x1e\x1f") & set(name)), max_size=5, unique=True))
def test_sources_are_those_of_the_metadata(nodes: list[str]) -> None:
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    assert exports.sources(metadata) == tuple(nodes)


def test_layer_information_that_is_cut_off_or_none() -> None:
    text = json.dumps({"Layers": [DETAILED], "Bindings": ["x"]}, indent=1)
    with pytest.raises(AgentError, match=r"^layers\.json:\d+:\d+: cut off or no JSON"):
        exports.layer_info(text[:-20], "layers.json")
    for wrong in ("[]", "{}", '{"Layers": 3}'):
        with pytest.raises(AgentError, match='it has no "Layers"'):
            exports.layer_info(wrong)


def test_times_find_layers_by_name_escaped_or_not() -> None:
    layers = [Layer(name, "", (), "", "GPU", "") for name in ('a "b"', "c\\d", "e", "not run")]
    times_ms = {'a "b"': 1.0, "c\\\\d": 2.0, "e": 3.0}
    assert [layer.time_us for layer in exports.with_times(layers, times_ms)] == [1000.0, 2000.0, 3000.0, None]


def written_output(outputs: dict[str, np.ndarray]) -> str:
    """As ``exportJSONOutput`` writes it."""
    sep, out = "  ", "[\n"
    for name, value in outputs.items():
        out += f'{sep}{{ "name" : "{name}"\n'
        sep = ", "
        shown = ", ".join(f"{v:g}" for v in value.ravel())
        out += f'  , "dimensions" : "{"x".join(map(str, value.shape))}"\n  , "values" : [ {shown} ]\n  }}\n'
    return out + "]\n"


@given(names | awkward, st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=2, max_size=12))
def test_outputs_have_six_digits_and_may_be_no_numbers(tmp_path_factory, name, values) -> None:
    given_values = np.array(values, np.float32).reshape(1, -1)
    file = tmp_path_factory.mktemp("o") / "output.json"
    text = written_output({name: given_values, "second": np.arange(6, dtype=np.int32).reshape(2, 3)})
    file.write_text(text, encoding="utf-8", newline="")
    ports = [Port("second", (2, 3), "int32"), Port(name, given_values.shape, "float32")]
    if name == "second":
        return
    second, first = exports.outputs(file, ports)
    np.testing.assert_array_equal(second, np.arange(6, dtype=np.int32).reshape(2, 3))
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, given_values, rtol=1e-5)
    file.write_text(text[: len(text) // 2], encoding="utf-8", newline="")
    with pytest.raises(AgentError, match=r"output\.json"):
        exports.outputs(file, ports)


def test_outputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "output.json"
    file.write_text(written_output({"y": np.zeros((1, 2))}).replace('"1x2"', '"1x3"'))
    with pytest.raises(AgentError, match=r"y has 2 values for the shape \[1, 3\]"):
        exports.outputs(file, [Port("y", (1, 3), "float32")])
    file.write_text(written_output({"y": np.zeros((1, 2))}))
    with pytest.raises(AgentError, match="lacks the outputs z; it has y"):
        exports.outputs(file, [Port("z", (1, 2), "float32")])
