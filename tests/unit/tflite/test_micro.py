"""What TFLM says, and which operator that is; the lines are those of tflite-micro."""

from __future__ import annotations

import pytest

from edgeopt.agent import tflite_file
from edgeopt.errors import StageError
from edgeopt.tflite import micro
from tests import tflite_nets

GRAPH = tflite_file.read(tflite_nets.convolutional())
MULTIPLIED = "open: TFLM cannot run this model: Input type UINT8 (3) not supported. / Node MUL (number 1) failed to {}"


@pytest.mark.parametrize("how", ["invoke with status 1", "prepare with status 1"])
def test_the_operator_that_fails_is_found_by_its_number(how: str) -> None:
    (found,) = micro.culprits(MULTIPLIED.format(how), GRAPH)
    assert found.name == "preprocess/Mul"


def test_of_a_kind_that_is_lacking_all_are_meant() -> None:
    said = "Didn't find op for builtin opcode 'CONV_2D' / Failed to get registration from op code CONV_2D"
    assert [one.name for one in micro.culprits(said, GRAPH)] == ["stem.0/Conv+stem.1/Relu", "body.2/Conv"]


@pytest.mark.parametrize("said", ["", "out of memory", "Node MUL (number 99) failed to invoke"])
def test_what_does_not_say_means_none(said: str) -> None:
    assert micro.culprits(said, GRAPH) == ()


def test_the_refusal_names_the_nodes() -> None:
    origin = {"stem.0/Conv+stem.1/Relu": ("stem.0/Conv", "stem.1/Relu")}
    error = micro.refusal(StageError("no"), [GRAPH.operators[3], GRAPH.operators[1]], origin, "here")
    assert error.what == "no; it is CONV_2D at stem.0/Conv, stem.1/Relu, MUL at preprocess/Mul"
    assert error.where == "here"
    assert "operators that TFLM has" in error.fix
    kept = micro.refusal(StageError("no", fix="do this"), [], {}, "")
    assert (kept.what, kept.fix) == ("no", "do this")
