"""Quantize: the scheme comes from the runtime, the overrides from the target, the ranges from ``calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import provenance
from edgeopt.data import Split
from edgeopt.errors import ConfigError, MissingBackend, PlanError
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.quantize import Quantize, QuantizeParams
from edgeopt.target import Target
from tests import onnx_nets


def target(*runtimes: str, features: tuple[str, ...] = (), **quantization: Any) -> Target:
    return Target(
        target=1,
        name="board",
        runtime=runtimes,
        device={"features": features},  # type: ignore[arg-type]
        quantization=quantization,
    )


def bind(runtime: str, given: Target, **params: Any) -> QuantizeParams:
    return Quantize().bind(QuantizeParams(runtime=runtime, **params), given)


def run(
    folder: Path, params: QuantizeParams, samples: np.ndarray, progress: list[tuple[float, float]] | None = None
) -> StageOutput:
    source, out = folder / "float", folder / "int8"
    onnx_nets.convolutional(source / "model.onnx")
    out.mkdir()
    split = Split("calibrate", samples, None, "0" * 64)

    def note(done: float, total: float, *rest: object) -> None:
        if progress is not None:
            progress.append((done, total))

    def no_agent(environment: str = "") -> Any:
        raise AssertionError("quantization needs no device")

    context = StageContext(out, folder, 7, {"calibrate": split}, note, no_agent, no_agent)
    return Quantize().run({"model": onnx_nets.artifact(source)}, params, context)


@pytest.mark.parametrize(
    ("runtime", "features", "quantizer", "reduce_range"),
    [
        ("onnxruntime", (), "onnxruntime_qdq", True),
        ("onnxruntime", ("vnni",), "onnxruntime_qdq", False),
        ("openvino", (), "nncf", "all"),
        ("openvino", ("vnni",), "nncf", "none"),
    ],
)
def test_the_runtime_and_the_device_decide_the_scheme(
    runtime: str, features: tuple[str, ...], quantizer: str, reduce_range: object
) -> None:
    bound = bind(runtime, target("onnxruntime", "openvino", features=features))
    assert bound.quantizer == quantizer
    assert bound.options["reduce_range"] == reduce_range


def test_all_options_are_in_the_bound_parameters_so_that_a_new_default_changes_the_key() -> None:
    bound = bind("onnxruntime", target("onnxruntime"))
    assert bound.options == {
        "activations": "uint8",
        "per_channel": True,
        "reduce_range": True,
        "float_outputs": True,
        "quantize_bias": True,
        "tensors": "all",
    }


def test_binding_twice_changes_nothing() -> None:
    given = target("openvino", preset="performance")
    once = bind("openvino", given)
    assert Quantize().bind(once, given) == once


def test_the_target_overrides_the_recipe_which_overrides_the_scheme() -> None:
    assert bind("onnxruntime", target("onnxruntime", reduce_range=False)).options["reduce_range"] is False
    assert bind("onnxruntime", target("onnxruntime"), options={"reduce_range": False}).options["reduce_range"] is False
    both = bind("onnxruntime", target("onnxruntime", reduce_range=True), options={"reduce_range": False})
    assert both.options["reduce_range"] is True


def test_options_under_a_runtimes_name_are_for_that_one_alone() -> None:
    given = target("openvino", "onnxruntime", onnxruntime={"reduce_range": False}, openvino={"preset": "performance"})
    assert bind("onnxruntime", given).options["reduce_range"] is False
    assert bind("openvino", given).options["preset"] == "performance"


def test_options_for_several_runtimes_must_suit_all_of_them() -> None:
    with pytest.raises(ConfigError, match="onnxruntime_qdq has no option 'preset'"):
        bind("onnxruntime", target("openvino", "onnxruntime", preset="performance"))


def test_a_misspelt_option_says_where_and_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'per_channel'") as caught:
        bind("onnxruntime", target("onnxruntime", per_chanel=False))
    assert caught.value.where == "target board: quantization"


def test_options_of_a_runtime_that_are_no_mapping() -> None:
    with pytest.raises(ConfigError, match="expected options, got 3"):
        bind("onnxruntime", target("onnxruntime", onnxruntime=3))


def test_an_unknown_quantizer() -> None:
    with pytest.raises(ConfigError, match=r"unknown quantizer 'ncnf' .did you mean 'nncf'"):
        bind("openvino", target("openvino", quantizer="ncnf"))


def test_a_quantizer_whose_file_the_runtime_cannot_read() -> None:
    with pytest.raises(PlanError, match="writes openvino-ir, which onnxruntime does not read") as caught:
        bind("onnxruntime", target("onnxruntime"), quantizer="nncf")
    assert "onnxruntime_qdq" in caught.value.fix


def test_only_calibration_data_is_read() -> None:
    assert Quantize().data(QuantizeParams()) == ("calibrate",)


def test_the_artefact_keeps_what_later_stages_need(tmp_path: Path) -> None:
    progress: list[tuple[float, float]] = []
    output = run(tmp_path, bind("onnxruntime", target("onnxruntime")), onnx_nets.samples(40), progress)
    assert output.kind == "onnx-qdq"
    assert {key: output.meta[key] for key in ("input", "outputs", "preprocess")} == {
        key: onnx_nets.META[key] for key in ("input", "outputs", "preprocess")
    }
    assert output.meta["quantizer"] == "onnxruntime_qdq"
    assert output.meta["options"]["per_channel"] is True
    assert output.summary == "4 of 4 layers int8, 40 calibration samples"
    assert progress[-1] == (40, 40)


def test_nncf_through_the_stage(tmp_path: Path) -> None:
    output = run(tmp_path, bind("openvino", target("openvino", bias_correction="fast")), onnx_nets.samples(40))
    assert output.kind == "openvino-ir"
    assert (tmp_path / "int8" / "model.xml").is_file()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.full((5, 8, 8, 3), 9, np.uint8), "all values of all 5 calibration samples are 9"),
        (np.repeat(onnx_nets.samples(1), 6, axis=0), "all 6 calibration samples are the same"),
        (np.full((1, 8, 8, 3), 9, np.uint8), "all values of all 1 calibration samples are 9"),
    ],
)
def test_calibration_that_says_nothing_is_refused(
    tmp_path: Path, runtime: str, samples: np.ndarray, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        run(tmp_path, bind(runtime, target(runtime)), samples)
    assert caught.value.where == "data.calibrate"
    assert "different samples" in caught.value.fix


def test_one_ordinary_sample_is_enough_to_run(tmp_path: Path) -> None:
    run(tmp_path, bind("onnxruntime", target("onnxruntime")), onnx_nets.samples(1))


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "tool_version", lambda name: "" if name == "nncf" else "1")
    with pytest.raises(MissingBackend, match="nncf") as caught:
        run(tmp_path, bind("openvino", target("openvino")), onnx_nets.samples(4))
    assert "pip install 'edgeopt[openvino]'" in caught.value.fix


def test_unbound_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="not bound"):
        run(tmp_path, QuantizeParams(), onnx_nets.samples(4))
