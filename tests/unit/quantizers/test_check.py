"""Reading back what a quantizer wrote: every ignored option is found, and the layer is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeopt import registry
from edgeopt.errors import ConfigError, StageError
from edgeopt.quantizers import Layer, check, constant_range, largest_weight

GOOD = [
    Layer("stem/Conv", 16, 16, 64, "uint8", "convolution"),
    Layer("head/Gemm", 4, 4, 60, "uint8", "product"),
]


def test_layers_as_asked_for_give_no_notes() -> None:
    assert check(GOOD, per_channel=True, reduced=GOOD, activations="uint8") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": 1}, "per-channel"),
        ({"largest": 65}, "beyond 64"),
        ({"activation": "int8"}, "not uint8"),
    ],
)
def test_an_ignored_option_is_an_error_that_names_the_layer(change: dict[str, object], words: str) -> None:
    layers = [replace(GOOD[0], **change), GOOD[1]]  # type: ignore[arg-type]
    with pytest.raises(StageError, match=words) as caught:
        check(layers, per_channel=True, reduced=layers, activations="uint8")
    assert "stem/Conv" in caught.value.what
    assert "head/Gemm" not in caught.value.what


def test_a_scale_per_channel_where_one_was_asked_for_is_an_error() -> None:
    with pytest.raises(StageError, match="one for all"):
        check(GOOD, per_channel=False)


def test_only_reduced_layers_are_held_to_seven_bits() -> None:
    wide = replace(GOOD[1], largest=127)
    assert check([GOOD[0], wide], per_channel=True, reduced=GOOD[:1]) == ()


@pytest.mark.parametrize("change", [{"scales": 0, "largest": 0}, {"activation": ""}])
def test_a_layer_that_stays_float_is_a_note(change: dict[str, object]) -> None:
    (note,) = check([GOOD[0], replace(GOOD[1], **change)], per_channel=True)  # type: ignore[arg-type]
    assert "1 of 2" in note
    assert "head/Gemm" in note


def test_nothing_quantized_is_an_error() -> None:
    with pytest.raises(StageError, match="left all layers float: stem/Conv"):
        check([replace(GOOD[0], scales=0)], per_channel=True)
    with pytest.raises(StageError, match="to quantize"):
        check([], per_channel=True)


def test_the_largest_weight_counts_minus_128() -> None:
    assert largest_weight(np.array([-128, 3], np.int8)) == 128
    assert largest_weight(np.array([], np.int8)) == 0


@pytest.mark.parametrize("name", registry.builtin("quantizers"))
def test_an_unknown_or_wrong_option_is_a_configuration_error(name: str) -> None:
    params = registry.find("quantizers", name).Params
    option = next(iter(params.model_fields))
    with pytest.raises(ConfigError, match=f"no option '{option}s' .did you mean '{option}'") as caught:
        params.parse({f"{option}s": True}, name, "target t: quantization")
    assert caught.value.where == "target t: quantization"
    with pytest.raises(ConfigError, match=f"{option}: .* got 'no such value'"):
        params.parse({option: "no such value"}, name, "")


def test_many_names_are_shortened() -> None:
    text = constant_range([f"layer{index:02}" for index in range(20)]).what
    assert "layer00" in text
    assert "and 12 more" in text
