"""OpenVINO on the host: names and bytes that do not depend on what the process did before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest

from edgeopt.agent.runtimes import Layer
from edgeopt.backends import Compiled
from edgeopt.backends.openvino import Openvino, _Renumbered, convert, names_in, save
from edgeopt.errors import StageError
from tests import onnx_nets


def layer(name: str, *source: str) -> Layer:
    return Layer(name, "Convolution", source, "u8", "CPU", "jit_avx2_I8", 12.0)


def test_made_up_names_are_numbered_in_the_order_in_which_they_are_met() -> None:
    rename = _Renumbered()
    names = ["Constant_3045", "Constant_17", "Reshape_3/fq_weights_1", "Constant_3045", "MatMul_9/WithoutBiases"]
    assert [rename(name) for name in names] == [
        "Constant.0",
        "Constant.1",
        "Reshape.0/fq_weights_1",
        "Constant.0",
        "MatMul.0/WithoutBiases",
    ]


@pytest.mark.parametrize("name", ["stem.0/Conv", "stem.0/Conv#2", "blocks.Block_1/Conv", "node_Conv_219", "conv1_2"])
def test_names_of_the_model_are_kept(name: str) -> None:
    assert _Renumbered({name})(name) == name


def test_a_layer_named_like_a_made_up_one_is_kept() -> None:
    assert _Renumbered({"Constant_5"})("Constant_5") == "Constant_5"


def test_sources_are_the_nodes_of_the_model() -> None:
    compiled = Compiled("model.xml", {"output": ("head/Gemm",), "image": ()})
    layers = [
        layer("Add_99", "Convert_12", "preprocess/Cast_original", "preprocess/Add"),
        layer(
            "stem/Conv/WithoutBiases", "stem/Conv/WithoutBiases/fq_weights_1", "stem/Conv/WithoutBiases", "stem/Conv"
        ),
        layer("output", "image", "head/Gemm/WithoutBiases", "output"),
        layer("MatMul_7", "MatMul_7/fq_output_0"),
    ]
    assert [(entry["name"], entry["source"]) for entry in Openvino().layer_map(layers, compiled)] == [
        ("Add.0", ["preprocess/Cast", "preprocess/Add"]),
        ("stem/Conv/WithoutBiases", ["stem/Conv"]),
        ("output", ["head/Gemm"]),
        ("MatMul.0", []),
    ]


def test_a_saved_file_has_no_trace_of_the_process(tmp_path: Path) -> None:
    source = onnx_nets.convolutional(tmp_path / "source.onnx")
    texts = []
    for attempt in range(2):
        file = tmp_path / f"{attempt}.xml"
        save(convert(source), file, names_in(source))
        texts.append(file.read_text(encoding="utf-8"))
        assert file.with_suffix(".bin").is_file()
    assert texts[0] == texts[1]
    assert "conversion_parameters" not in texts[0]
    assert "source.onnx" not in texts[0]
    assert 'name="stem/Conv' in texts[0]
    assert 'name="Constant.0"' in texts[0]


def test_weights_stay_float32(tmp_path: Path) -> None:
    source = onnx_nets.convolutional(tmp_path / "source.onnx")
    save(convert(source), tmp_path / "model.xml", names_in(source))
    model = openvino.Core().read_model(tmp_path / "model.xml")
    kinds = {op.get_element_type().get_type_name() for op in model.get_ops() if op.get_type_name() == "Constant"}
    assert "f32" in kinds
    assert "f16" not in kinds


def test_an_operation_that_openvino_does_not_know(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["y"], name="odd", domain="my.domain")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "model.onnx")
    with pytest.raises(StageError, match="Frobnicate"):
        convert(tmp_path / "model.onnx")


def test_the_input_shape_is_reshaped_with_the_batch(tmp_path: Path) -> None:
    onnx_nets.convolutional(tmp_path / "model.onnx")
    out = tmp_path / "out"
    out.mkdir()
    Openvino().compile(onnx_nets.artifact(tmp_path), onnx_nets.request(5), out)
    model = openvino.Core().read_model(out / "model.xml")
    assert list(model.input(0).shape) == [5, 8, 8, 3]
    assert list(model.output(0).shape) == [5, 4]
    assert np.prod(model.input(0).shape) == 5 * 8 * 8 * 3
