"""The recipe's own rules; what config.load does with them is tested there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgeopt.recipe import Limit, Preprocess, RawSpec, Recipe, SplitSpec

RECIPE: dict[str, Any] = {
    "recipe": 1,
    "name": "tiny",
    "model": {"factory": "model:build", "weights": "w.safetensors"},
    "input": {"shape": [3, 8, 6]},
    "preprocess": {"raw": {"shape": [8, 6, 3], "dtype": "uint8"}, "scale": 255, "mean": [0.5, 0.4, 0.3]},
    "data": {name: {"loader": f"data:{name}"} for name in ("train", "calibrate", "select", "evaluate")},
    "metrics": ["top1"],
    "targets": ["cpu"],
}


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps({**RECIPE, **changes}))


def reason(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        recipe(**changes)
    (error,) = caught.value.errors()
    return error["msg"].removeprefix("Value error, ")


def test_a_recipe_cannot_be_changed_once_read():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 3  # type: ignore[misc]


def test_a_target_may_be_a_mere_name():
    assert recipe().targets == recipe(targets=[{"name": "cpu", "gates": {}}]).targets


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"prune": {"macs_ratio": 0.5}}], ({"prune": {"macs_ratio": 0.5}},)),
        (["distill"], ({"distill": {}},)),
        ([{"distill": None}], ({"distill": {}},)),
        ([], ()),
    ],
)
def test_step_parameters_may_be_left_out(steps, expected):
    assert recipe(steps=steps).steps == expected


@pytest.mark.parametrize("steps", ["prune", 3, [3], [["prune"]], [{"prune": 3}], [{}], [{"a": {}, "b": {}}], [None]])
def test_steps_that_are_no_steps_are_refused(steps):
    assert reason(steps=steps)


@pytest.mark.parametrize(
    ("net", "raw"),
    [([3, 8, 6], [8, 6, 3]), ([1, 5, 5], [5, 5, 1]), ([2, 2, 2], [2, 2, 2]), ([40], [40]), ([10, 40], [10, 40])],
)
def test_raw_image_is_height_width_channels_and_other_input_stays(net, raw):
    found = recipe(input={"shape": net}, preprocess={"raw": {"shape": raw, "dtype": "uint8"}})
    assert found.preprocess is not None
    assert found.preprocess.raw.shape == tuple(raw)


@pytest.mark.parametrize(("net", "raw"), [([3, 8, 6], [3, 8, 6]), ([8, 6, 3], [8, 6, 3]), ([3, 8, 6], [6, 8, 3])])
def test_raw_image_in_another_order_is_refused(net, raw):
    """The samples of every raw image are transposed, so that a recipe in another order would be given garbage."""
    why = reason(input={"shape": net}, preprocess={"raw": {"shape": raw, "dtype": "uint8"}})
    assert f"preprocess.raw.shape {raw} does not lead to input.shape {net}: a raw image is (H, W, C)" in why


def test_raw_series_of_another_shape_is_refused():
    why = reason(input={"shape": [10, 40]}, preprocess={"raw": {"shape": [40, 10], "dtype": "int16"}})
    assert "they should be equal" in why


@pytest.mark.parametrize("name", ["mean", "std"])
def test_normalisation_has_one_value_or_one_per_channel(name):
    raw = {"shape": [8, 6, 3], "dtype": "uint8"}
    for values in ([1.0], [1.0, 1.0, 1.0]):
        assert recipe(preprocess={"raw": raw, name: values})
    assert reason(preprocess={"raw": raw, name: [1.0, 1.0]}) == (
        f"preprocess.{name} has 2 values; give 1 or 3, one per channel"
    )


@pytest.mark.parametrize("fields", [{}, {"min": None}, {"max": None, "max_ratio": None}])
def test_a_gate_without_a_threshold_is_refused(fields):
    """It would look like a gate in the recipe, and judge nothing."""
    with pytest.raises(ValidationError, match="at least one of"):
        Limit(**fields)


def test_a_gate_that_nothing_can_pass_is_refused():
    assert Limit(min=1.0, max=1.0)
    with pytest.raises(ValidationError, match="no value can pass"):
        Limit(min=1.0, max=0.9)


def test_a_split_has_one_source():
    assert SplitSpec(path="a.npz").loader is None
    for fields in ({}, {"path": "a.npz", "loader": "data:a"}):
        with pytest.raises(ValidationError, match="either a loader or a path"):
            SplitSpec(**fields)


@pytest.mark.parametrize(
    "factory", ["model", "model:", ":build", "model:build()", "../model:build", "model:a b", "1m:b", "m/n:b"]
)
def test_a_reference_is_module_and_callable(factory):
    assert "should match pattern" in reason(model={"factory": factory, "weights": "w"})


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-a", ".a", "a b", "a" * 81])
def test_a_name_is_fit_for_a_folder(name):
    assert "should" in reason(name=name)


@pytest.mark.parametrize("value", [0, -1.0])
@pytest.mark.parametrize("name", ["scale", "std"])
def test_division_by_nothing_is_refused(name, value):
    fields: dict[str, Any] = {"raw": RawSpec(shape=(4,), dtype="uint8"), name: value if name == "scale" else (value,)}
    with pytest.raises(ValidationError, match="greater than 0"):
        Preprocess(**fields)


def test_the_forms_of_a_metric():
    forms = [
        "top1",
        {"tar": {"far": 0.001}},
        {"mae": None},
        {"factory": "mine:Dice"},
        {"factory": "a.b:C", "name": "d"},
    ]
    assert [(spec.name, spec.factory, spec.args) for spec in recipe(metrics=forms).metrics] == [
        ("top1", None, {}),
        ("tar", None, {"far": 0.001}),
        ("mae", None, {}),
        ("dice", "mine:Dice", {}),
        ("d", "a.b:C", {}),
    ]


@pytest.mark.parametrize("form", [5, None, ["top1"], {"a": {}, "b": {}}, {"tar": [0.001]}, {"factory": "no colon"}, {}])
def test_what_is_no_metric(form):
    with pytest.raises(ValidationError):
        recipe(metrics=[form])


def splits(**evaluate: Any) -> dict[str, Any]:
    return {**RECIPE["data"], "evaluate": evaluate}


def test_evaluation_sets():
    made = recipe(data=splits(sets={"day": {"loader": "data:day"}, "night": {"path": "night.npz", "samples": 5}}))
    assert list(made.data.evaluate.sets) == ["day", "night"]


@pytest.mark.parametrize(
    ("evaluate", "why"),
    [
        (
            {"sets": {"a": {"loader": "d:a"}}, "loader": "d:b"},
            "give either a loader or a path; evaluate may have sets instead",
        ),
        ({"sets": {"a": {"sets": {"b": {"loader": "d:b"}}}}}, "a set cannot have sets"),
        ({"sets": {"a": {"loader": "d:a"}}, "samples": 5}, "give `samples` within each set"),
        ({"sets": {"worst": {"loader": "d:a"}}}, "no set can be called 'worst', which stands for the worst of them"),
        ({"sets": {}}, "Dictionary should have at least 1 item after validation, not 0"),
    ],
)
def test_evaluation_sets_that_make_no_sense(evaluate, why):
    assert reason(data=splits(**evaluate)) == why


@pytest.mark.parametrize("name", ["a[b]", "a b", ""])
def test_the_name_of_a_set_fits_into_that_of_a_number(name):
    with pytest.raises(ValidationError, match="pattern"):
        recipe(data=splits(sets={name: {"loader": "d:a"}}))


def test_only_evaluate_has_sets():
    data = {**RECIPE["data"], "select": {"sets": {"a": {"loader": "d:a"}}}}
    assert reason(data=data) == "select cannot have sets; only evaluate can"


def test_schema_is_for_editors():
    schema = Recipe.model_json_schema()
    assert schema["additionalProperties"] is False
    word, spelled_out, short = schema["properties"]["metrics"]["items"]["anyOf"]
    assert (word, spelled_out) == ({"type": "string"}, {"$ref": "#/$defs/MetricSpec"})
    assert {one["type"] for one in short["additionalProperties"]["anyOf"]} == {"object", "null"}
    items = schema["properties"]["targets"]["items"]["anyOf"]
    assert {"type": "string"} in items
