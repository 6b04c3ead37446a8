"""The contract of every discovered stage. A new file in ``edgeopt/stages`` is picked up by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import edgeopt.stages
from edgeopt import registry
from edgeopt.stage import Params

KINDS = {
    *("torch", "onnx", "onnx-qdq", "onnx-fp16", "openvino-ir", "tflite", "tflite-int8"),
    *("torch-program", "outputs", "scores", "parity"),
    *(quantizer.produces for quantizer in registry.builtin("quantizers").values()),
    *(backend.produces for backend in registry.builtin("backends").values()),
}
STAGES = registry.builtin("stages")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lives_in_the_file_of_its_name(name: str) -> None:
    assert (Path(edgeopt.stages.__file__).parent / f"{name}.py").is_file()
    assert STAGES[name].name == name


@pytest.mark.parametrize("name", STAGES)
def test_what_enters_the_key_is_declared(name: str) -> None:
    stage: Any = STAGES[name]
    assert isinstance(stage.version, int)
    assert stage.version >= 1
    assert all(isinstance(tool, str) and tool for tool in stage.tools)
    assert isinstance(stage.in_recipe, bool)
    assert isinstance(stage.on_device, bool)
    assert stage.produces
    assert stage.produces <= KINDS
    assert all(kinds and kinds <= KINDS for kinds in stage.accepts.values())


@pytest.mark.parametrize("name", STAGES)
def test_parameters_are_frozen_and_know_their_keys(name: str) -> None:
    params = STAGES[name].Params
    assert issubclass(params, Params)
    assert params.model_config["frozen"]
    assert params.model_config["extra"] == "forbid"
    assert params.model_config["strict"]
    with pytest.raises(ValidationError, match="no_such_parameter"):
        params.model_validate_json('{"no_such_parameter": 1}')
    for field in params.model_fields:
        assert field in (params.__doc__ or ""), f"{params.__name__} does not describe {field}"


def test_a_stage_holds_no_state() -> None:
    assert all(not vars(stage) for stage in STAGES.values())
