"""Float16 by Cast nodes: what is computed, what stays float32 and why, and that names are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgeopt.data import Split
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.cast import Cast, CastParams
from tests import onnx_nets
from tests.unit.test_half import op, small, types


def run(folder: Path, out: Path, samples: np.ndarray | None = None) -> StageOutput:
    out.mkdir(exist_ok=True)
    given = onnx_nets.samples(40) if samples is None else samples

    def no_agent(environment: str = "") -> Any:
        raise AssertionError("a cast needs no device")

    split = Split("calibrate", given, None, "0" * 64)
    context = StageContext(out, folder, 7, {"calibrate": split}, lambda *progress: None, no_agent, no_agent)
    return Cast().run({"model": onnx_nets.artifact(folder)}, CastParams(), context)


def test_everything_behind_the_preprocessing_is_float16_and_nearly_the_same(tmp_path: Path) -> None:
    file = onnx_nets.convolutional(tmp_path / "model.onnx")
    output = run(tmp_path, tmp_path / "out")
    assert (output.kind, output.notes, output.summary) == ("onnx-fp16", (), "8 nodes in float16")
    assert output.meta["preprocess_nodes"] == onnx_nets.PREPROCESS_NODES
    before, after = onnx.load(file), onnx.load(tmp_path / "out" / "model.onnx")
    assert (after.graph.input[0], after.graph.output[0]) == (before.graph.input[0], before.graph.output[0])
    names = [node.name for node in before.graph.node]
    assert [node.name for node in after.graph.node if node.name in names] == names
    added = [node for node in after.graph.node if node.name not in names]
    assert [(node.op_type, node.attribute[0].i) for node in added] == [("Cast", 10), ("Cast", 1)]
    known = types(after)
    for node in after.graph.node:
        if node.name in names and node.name not in onnx_nets.PREPROCESS_NODES:
            floats = {known[name] for name in (*node.input, *node.output) if known.get(name) in (1, 10)}
            assert floats == {TensorProto.FLOAT16}, node.name
    unseen = onnx_nets.samples(50, seed=1)
    wanted, given = onnx_nets.run(file, unseen), onnx_nets.run(tmp_path / "out" / "model.onnx", unseen)
    assert given.dtype == np.float32
    assert not np.array_equal(wanted, given)
    assert onnx_nets.noise_ratio_db(wanted, given) > 50


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    onnx_nets.convolutional(tmp_path / "model.onnx")
    run(tmp_path, tmp_path / "a")
    run(tmp_path, tmp_path / "b")
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()


def swelling(file: Path) -> Path:
    """Grows to 3e4 in the middle: times the headroom of 4 that is beyond 65504."""
    nodes = [
        op("Relu", "x", "a"),
        op("Mul", "a up", "b"),
        op("Relu", "b", "c"),
        op("Mul", "c down", "d"),
        op("Sigmoid", "d", "y"),
    ]
    model = small(nodes, {"up": np.float32(3e4), "down": np.float32(1e-4)})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, file)
    return file


def test_what_grows_beyond_float16_on_the_samples_stays_float32_and_is_named(tmp_path: Path) -> None:
    file = swelling(tmp_path / "model.onnx")
    values = np.random.default_rng(0).uniform(0, 1, (40, 4)).astype(np.float32)
    values[3, 2] = 1
    output = run(tmp_path, tmp_path / "out", values)
    assert output.meta["float32_nodes"] == ["net.b/Mul", "net.c/Relu", "net.d/Mul"]
    assert output.notes[0] == "net.b/Mul stays float32: 'b' reaches 1.2e+05, and float16 ends at 65504"
    assert "headroom" in output.notes[-1]
    wanted, given = onnx_nets.run(file, values * 3), onnx_nets.run(tmp_path / "out" / "model.onnx", values * 3)
    assert np.isfinite(given).all()
    np.testing.assert_allclose(given, wanted, rtol=1e-3)


def test_tensorrt_takes_it(tmp_path: Path) -> None:
    from benchmarks.qdq_graphs import TensorRtRtx
    from edgeopt.backends.onnxruntime import with_batch

    swelling(tmp_path / "model.onnx")
    run(tmp_path, tmp_path / "out", np.ones((4, 4), np.float32))
    answer = TensorRtRtx().ask(with_batch((tmp_path / "out" / "model.onnx").read_bytes(), 1))
    assert answer.accepted, answer.why
