"""Placement, on layer maps that can be added up by hand."""

from __future__ import annotations

import json

import pytest

from edgeopt import placement, verdict
from edgeopt.placement import Placement
from edgeopt.verdict import Gate

MACS = {"stem/Conv": 600, "stem/Relu": 0, "body/Conv": 300, "model/Add": 0, "head/Gemm": 100}


def layer(name, op, source=(), precision="i8", device="NPU", **more):
    return {"name": name, "op": op, "source": list(source), "precision": precision, "device": device, **more}


CONV = layer("a", "Conv", ["stem/Conv", "stem/Relu"])
BODY = layer("b", "Conv", ["body/Conv", "model/Add"])
HEAD = layer("c", "Gemm", ["head/Gemm"])


def placed(*layers, macs=MACS, **more) -> Placement:
    return placement.of(layers, macs, "NPU", **more)


def value(found: Placement, metric: str):
    measurement = next(m for m in found.measurements() if m.metric == metric)
    return measurement.value, measurement.interval


def outcome(found: Placement, metric: str = "fallback_macs", limit: float = 0.0) -> str:
    measurement = next(m for m in found.measurements() if m.metric == metric)
    return verdict.decide(Gate(metric, "max", limit), measurement).outcome


def test_all_of_it_where_it_should_be():
    found = placed(CONV, BODY, HEAD, asked="int8")
    assert found.operators == {"NPU": {"i8": 3}}
    assert found.macs == {"NPU": {"i8": 1000}}
    assert (found.total_macs, found.source_nodes, found.unmapped_nodes) == (1000, 5, 0)
    assert value(found, "fallback_macs") == (0.0, None)
    assert value(found, "fallback_operators") == (0.0, None)
    assert found.notes() == ()
    assert outcome(found) == outcome(found, "fallback_operators") == "pass"


def test_a_fallback_is_named_with_its_share_and_reason():
    slow = layer("b", "Conv", ["body/Conv"], "f32", "CPU", why="no INT8 kernel for a window of 9x9")
    found = placed(CONV, slow, HEAD)
    assert found.macs == {"CPU": {"f32": 300}, "NPU": {"i8": 700}}
    assert value(found, "fallback_macs") == (0.3, None)
    assert value(found, "fallback_operators") == (pytest.approx(1 / 3), None)
    assert [(f.name, f.op, f.macs, f.source) for f in found.fallbacks] == [("b", "Conv", 300, ("body/Conv",))]
    assert found.notes() == ("Conv b runs on CPU, not NPU, 30 % of the MACs: no INT8 kernel for a window of 9x9",)
    assert outcome(found) == "fail"
    assert outcome(found, limit=0.3) == "pass"


def test_what_no_layer_names_never_counts_as_accelerated():
    found = placed(CONV, HEAD)
    assert [(node.name, node.macs) for node in found.unmapped] == [("body/Conv", 300)]
    assert found.unmapped_nodes == 2  # and the addition, which has no MACs
    assert value(found, "fallback_macs") == (0.3, (0.0, 0.3))
    assert outcome(found) == "inconclusive"
    assert outcome(found, limit=0.3) == "pass"
    assert found.notes() == ("no compiled layer names body/Conv: folded into another, or unknown where it runs",)


def test_a_known_fallback_fails_whatever_is_unmapped():
    found = placed(layer("a", "Conv", ["stem/Conv"], device="CPU"))
    assert value(found, "fallback_macs") == (1.0, (0.6, 1.0))
    assert outcome(found) == "fail"


def test_without_a_map_nothing_is_measured():
    for found, why in (
        (placed(), "does not tell its layers"),
        (placed(layer("all", "EPContext")), "no compiled layer names a node"),
        (placed(HEAD, macs={**MACS, "body/Conv": None}), "shapes of some nodes"),
        (placed(HEAD, macs={"head/Gemm": 0}), "no multiply-accumulates"),
    ):
        measurement = found.measurements()[0]
        assert measurement.value is None
        assert why in measurement.why
        assert outcome(found) == "not_measured"
    assert placed().measurements()[1].value is None


def test_unknown_macs_leave_the_operators_known():
    found = placed(CONV, layer("b", "Conv", ["body/Conv"], device="CPU"), macs={**MACS, "body/Conv": None})
    assert found.macs == {}
    assert found.fallbacks[0].macs is None
    assert value(found, "fallback_operators") == (0.5, None)


@pytest.mark.parametrize(
    "op",
    ["QuantizeLinear", "DequantizeLinear", "FakeQuantize", "QUANTIZE", "DEQUANTIZE", "Quantize", "Dequantize"],
)
def test_quantization_that_did_not_fuse(op):
    left = layer("q", op, ["stem/Conv"])
    found = placed(CONV, left, BODY, HEAD)
    assert [layer.name for layer in found.unfused] == ["q"]
    assert found.macs == {"NPU": {"i8": 1000}}  # the convolution computes, the quantization does not


def test_a_kernel_that_only_quantizes_did_not_fuse_whatever_the_compiler_calls_it():
    """As TensorRT's code generator does where a convolution is followed by no activation."""
    alone = layer("__myl_MulAddMulMinMaxRounCast", "kgen", ["getitem_6_QuantizeLinear"], "f32")
    fused = layer("__myl_MulMaxMinRounCast", "kgen", ["model/Add", "add_QuantizeLinear"], "f32")
    found = placed(CONV, alone, fused, BODY, HEAD)
    assert [layer.name for layer in found.unfused] == ["__myl_MulAddMulMinMaxRounCast"]


@pytest.mark.parametrize(
    ("op", "source", "counts"),
    [
        ("Reorder", [], True),
        ("ReorderOutput", ["stem/Conv"], True),
        ("Reformat", ["stem/Conv"], True),
        ("Transpose", [], True),
        ("Cast", [], True),
        ("Transpose", ["preprocess/Transpose"], False),  # the network's own
        ("Convert", ["preprocess/Cast"], False),
        ("Conv", [], False),
    ],
)
def test_reformats_are_those_that_the_network_does_not_have(op, source, counts):
    found = placed(CONV, layer("r", op, source, "f32", "CPU"), BODY, HEAD)
    assert [layer.name for layer in found.reformats] == (["r"] if counts else [])
    assert found.macs == {"NPU": {"i8": 1000}}
    assert [layer.name for layer in found.fallbacks] == ["r"]  # it runs elsewhere all the same


def test_macs_of_a_node_that_several_layers_compute_belong_to_the_least_favourable_one():
    tiles = [layer("t1", "Conv", ["stem/Conv"]), layer("t2", "Conv", ["stem/Conv"], "i8", "CPU")]
    for order in (tiles, tiles[::-1]):
        found = placed(*order, BODY, HEAD)
        assert found.macs == {"CPU": {"i8": 600}, "NPU": {"i8": 400}}
        assert sum(sum(macs.values()) for macs in found.macs.values()) == found.total_macs
    halves = [layer("h1", "Conv", ["stem/Conv"]), layer("h2", "Conv", ["stem/Conv"], "f16")]
    assert placed(*halves, BODY, HEAD).macs == {"NPU": {"f16": 600, "i8": 400}}


@pytest.mark.parametrize("op", ["Reformat", "Copy", "QuantizeLinear", "DEQUANTIZE", "FakeQuantize"])
@pytest.mark.parametrize("device", ["NPU", "CPU"])
def test_what_only_moves_or_quantizes_never_stands_for_the_layer_that_computes(op, device):
    """The one that computes body/Conv is missing from the map."""
    found = placed(CONV, layer("r", op, ["body/Conv", "model/Add"], device=device), HEAD)
    assert [(node.name, node.macs) for node in found.unmapped] == [("body/Conv", 300)]
    assert found.unmapped_nodes == 1  # a node without MACs may be no more than a move
    assert found.macs == {"NPU": {"i8": 700}}
    assert value(found, "fallback_macs") == (0.3, (0.0, 0.3))
    assert outcome(found) == "inconclusive"


@pytest.mark.parametrize(
    "op", ["Conv", "CONV_2D", "ConvAddRelu", "FullyConnected", "FULLY_CONNECTED", "Gemm", "BATCH_MATMUL", "MatMul"]
)
@pytest.mark.parametrize("source", [[], ["made up"]])
def test_a_heavy_layer_elsewhere_that_no_node_is_known_of_may_hold_any_macs(op, source):
    found = placed(CONV, BODY, HEAD, layer("x", op, source, device="CPU"))
    assert value(found, "fallback_macs") == (1.0, (0.0, 1.0))
    assert f"{op} x on CPU" in found.measurements()[0].why
    assert outcome(found) == outcome(found, limit=0.9) == "inconclusive"
    assert Placement.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("op", "source", "device"),
    [("Conv", [], "NPU"), ("Convert", [], "CPU"), ("Relu", [], "CPU"), ("Conv", ["stem/Relu"], "CPU")],
)
def test_other_layers_hold_no_more_macs_than_their_nodes(op, source, device):
    found = placed(CONV, BODY, HEAD, layer("x", op, source, device=device))
    assert value(found, "fallback_macs") == (0.0, None)


def test_float_where_int8_was_asked_for():
    kernel = layer("d", "Convolution", ["body/Conv"], "u8", exec="brgconv_avx2_dw_f32")
    found = placed(CONV, kernel, layer("c", "Gemm", ["head/Gemm"], "f16"), asked="int8")
    assert found.macs == {"NPU": {"f16": 100, "f32": 300, "i8": 600}}
    assert [(layer.name, layer.precision) for layer in found.in_float] == [("d", "f32"), ("c", "f16")]
    assert "in float although INT8 was asked for: Convolution d, 30 % of the MACs" in found.notes()[0]
    assert placed(CONV, kernel, HEAD).in_float == ()
    soft = layer("s", "Softmax", ["model/Add"], "f32")
    assert placed(CONV, BODY, HEAD, soft, asked="int8").in_float == ()  # it has no MACs


def test_it_survives_json():
    found = placed(CONV, layer("b", "Conv", ["body/Conv"], "f32", "CPU", why="w"), layer("q", "Quantize"), asked="int8")
    assert Placement.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
