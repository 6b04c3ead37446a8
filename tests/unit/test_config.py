"""User files: every problem at once, each at its place, never a traceback."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import config
from edgeopt.artifact import digest_of
from edgeopt.errors import ConfigError
from edgeopt.recipe import Recipe
from edgeopt.target import Target

RECIPE = """\
recipe: 1
name: tiny
model: {factory: model:build, weights: w.safetensors}
input: {shape: [3, 8, 8]}
data:
  train: {loader: data:train}
  calibrate: {path: c.npz}
  select: {loader: data:select}
  evaluate: {loader: data:evaluate}
metrics: [top1]
seed: 3
steps:
  - prune: {macs_ratio: 0.5}
  - distill
  - quantize:
gates:
  top1: {min: 0.9}
targets:
  - cpu
  - name: board
"""


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def problems(folder: Path, text: str | bytes, overrides: tuple[str, ...] = (), model: Any = Recipe) -> list[str]:
    """The problems of a file, with its path shortened to ``f``."""
    file = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, model, overrides)
    return str(caught.value).replace(str(file), "f").splitlines()


def read(folder: Path, *overrides: str) -> Recipe:
    return config.load(write(folder, RECIPE), Recipe, overrides)


def test_a_good_recipe_is_read(tmp_path):
    recipe = read(tmp_path)
    assert recipe.input.shape == (3, 8, 8)
    assert recipe.steps == ({"prune": {"macs_ratio": 0.5}}, {"distill": {}}, {"quantize": {}})
    assert [target.name for target in recipe.targets] == ["cpu", "board"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 3", "sead: 3", "f:11:1: unknown key 'sead' (did you mean 'seed'?)"),
        ("min: 0.9", "mix: 0.9", "f:17:10: unknown key 'mix' (did you mean 'min'?)"),
        ("name: board", "name: board\n    gate: {}", "f:21:5: unknown key 'gate' (did you mean 'gates'?)"),
        ("name: tiny\n", "", "f:1:1: missing key 'name'"),
        (", weights: w.safetensors", "", "f:3:8: missing key 'weights'"),
        ("seed: 3", "seed: three", "f:11:7: seed should be a valid integer, got 'three'"),
        ("seed: 3", "seed: 3.5", "f:11:7: seed should be a valid integer, got 3.5"),
        ("seed: 3", "seed: '3'", "f:11:7: seed should be a valid integer, got '3'"),
        ("seed: 3", "seed: -1", "f:11:7: seed should be greater than or equal to 0, got -1"),
        ("8, 8]", "8, 0]", "f:4:23: input.shape.2 should be greater than or equal to 1, got 0"),
        ("metrics: [top1]", "metrics: top1", "f:10:10: metrics should be a list, got 'top1'"),
        ("metrics: [top1]", "metrics: []", "f:10:10: metrics should have at least 1 item"),
        ("model:build", "model.build", "f:3:18: model.factory string should match pattern"),
        ("recipe: 1", "recipe: 2", "f:1:9: recipe should be 1, got 2"),
        ("{min: 0.9}", "{min: 0.9, max: 0.8}", "f:17:9: min 0.9 is above max 0.8: no value can pass"),
        ("{min: 0.9}", "{}", "f:17:9: a gate needs at least one of max, min, max_drop, max_ratio"),
        ("{min: 0.9}", "{min: }", "f:17:9: a gate needs at least one of max, min, max_drop, max_ratio"),
        ("{min: 0.9}", "{max_drop: -1}", "f:17:20: gates.top1.max_drop should be greater than or equal to 0, got -1"),
        ("{path: c.npz}", "{}", "f:7:14: give either a loader or a path"),
        ("{path: c.npz}", "{path: c.npz, loader: a:b}", "f:7:14: give either a loader or a path"),
        ("- distill", "- {distill: , prune: }", "f:13:3: step 2 names 2 stages"),
        ("seed: 3", "seed: 3\nseed: 4", "f:12:1: duplicate key 'seed', already set in line 11"),
    ],
)
def test_each_kind_of_problem_has_its_place(tmp_path, old, new, expected):
    assert RECIPE.count(old) == 1
    (problem,) = problems(tmp_path, RECIPE.replace(old, new))
    assert problem.startswith(expected)


def test_a_wrong_choice_suggests_the_near_one(tmp_path):
    (problem,) = problems(tmp_path, "target: 1\nname: t\nruntime: x\naccept: [estimatd]\n", model=Target)
    assert problem == (
        "f:4:10: accept.0 should be 'estimated' or 'simulated', got 'estimatd' (did you mean 'estimated'?)"
    )


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path):
    text = RECIPE.replace("name: tiny", "name: -tiny\nname: again").replace("shape", "shap").replace("0.9", "high")
    lines = problems(tmp_path, text.replace("seed: 3", "sed: 3"))
    places = [tuple(int(part) for part in line.split(":")[1:3]) for line in lines]
    assert places == sorted(places)
    assert [line.partition(": ")[2].split(",")[0] for line in lines] == [
        "name string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'",
        "duplicate key 'name'",
        "missing key 'shape'",
        "unknown key 'shap' (did you mean 'shape'?)",
        "unknown key 'sed' (did you mean 'seed'?)",
        "gates.top1.min should be a valid number",
    ]


def test_a_list_with_a_wrong_item_is_not_called_too_short(tmp_path):
    assert problems(tmp_path, RECIPE.replace("[3, 8, 8]", "[x]")) == [
        "f:4:17: input.shape.0 should be a valid integer, got 'x'"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "f:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: [1, 2", "f:1:9: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 'b", "f:1:6: not valid YAML: found unexpected end of stream"),
        ("\ta: 1", "f:1:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: *b", "f:1:4: not valid YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1", "f:2:1: not valid YAML: but found another document"),
        ("a: 1\nb: x\x07", "f:2:5: not valid YAML: the character U+0007 is not allowed"),
        ('a: "\\UFFFFFFFF"', "f:1:1: not valid YAML: "),
        ('b: 1\na: "\\ud800"', "f:2:4: half of a surrogate pair is not a character"),
        ("", "f: the file is empty"),
        ("# only a comment\n", "f: the file is empty"),
        ("- a\n- b", "f:1:1: should be a mapping of keys to values"),
        ("~", "f:1:1: should be a mapping of keys to values"),
        ("? [a]\n: b", "f:1:3: a key should be plain text"),
        ("a: .nan", "f:1:4: infinity and NaN are not allowed here"),
        ("a: [1, -.inf]", "f:1:8: infinity and NaN are not allowed here"),
        ("a: !!binary aGk=", "f:1:4: a bytes is not allowed here"),
        ("a: 1\nb: !!set ''", "f:2:4: a set is not allowed here"),
        ("a: !!int ''", "f:1:4: cannot read this value as int"),
        ("a: !!bool maybe", "f:1:4: cannot read this value as bool"),
        ("a: !!timestamp soon", "f:1:4: cannot read this value as timestamp"),
        ("a: !!python/object/apply:os.getcwd []", "f:1:4: the YAML tag python/object/apply:os.getcwd is not allowed"),
        ("a: !!set {x}", "f:1:4: the YAML tag set is not allowed here"),
        ("a: !!python/name:os.getcwd ''", "f:1:4: cannot read this value as python/name:os.getcwd"),
        (f"a: 0x{'f' * 5000}", "f:1:4: this number is too large"),
        (f"a: {'9' * 5000}", "f:1:4: cannot read this value as int"),
        (b"a: \xff", "f: not UTF-8 text (byte 3)"),
        ("a: 1".encode("utf-16"), "f: not UTF-8 text (byte 0)"),
    ],
)
def test_broken_yaml_has_its_place(tmp_path, text, expected):
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(expected)


def test_files_that_cannot_be_read(tmp_path):
    write(tmp_path, RECIPE)
    with pytest.raises(ConfigError, match=r"no such file \(did you mean 'recipe\.yaml'\?\)"):
        config.load(tmp_path / "recipee.yaml", Recipe)
    with pytest.raises(ConfigError, match=r"no such file$"):
        config.load(tmp_path / "nowhere" / "recipe.yaml", Recipe)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path, Recipe)
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        config.load(tmp_path / "recipe.yaml" / "recipe.yaml", Recipe)


def test_a_byte_order_mark_is_no_problem(tmp_path):
    file = write(tmp_path, b"\xef\xbb\xbf" + RECIPE.encode())
    assert config.load(file, Recipe).name == "tiny"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E3", 1000.0), ("-2.5e+1", -25.0), ("1.5", 1.5), ("7", 7), ("1e", "1e"), ("2020-01-01",) * 2],
)
def test_numbers_are_what_they_look_like(tmp_path, text, value):
    document = config.parse(write(tmp_path, f"a: {text}"))
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "a: &a [*a]",
        "a: " + "[" * 60 + "]" * 60,
        "[" * 100_000,
        "a: {" * 10_000,
        "a: " + "x" * 2_000_000,
        "a: [" + "1, " * 30_000 + "1]",
    ],
    ids=["aliases", "cycle", "deep", "very deep", "very deep mapping", "long", "many"],
)
def test_a_bomb_is_refused(tmp_path, text):
    (problem,) = problems(tmp_path, text)
    assert problem.endswith("too large or too deep for a configuration file")


# Overrides


@pytest.mark.parametrize(
    ("override", "get", "expected"),
    [
        ("seed=9", lambda r: r.seed, 9),
        (" seed =9", lambda r: r.seed, 9),
        ("name=other", lambda r: r.name, "other"),
        ("name=a=b", lambda r: r.name, None),
        ("input.shape=[1, 4]", lambda r: r.input.shape, (1, 4)),
        ("input.shape.2=16", lambda r: r.input.shape, (3, 8, 16)),
        ("model.args.width=1e1", lambda r: r.model.args, {"width": 10.0}),
        ("gates.top1.max_drop=0.02", lambda r: r.gates["top1"].max_drop, 0.02),
        ("gates.size_mib.max=1", lambda r: r.gates["size_mib"].max, 1.0),
        ("steps.prune.macs_ratio=0.4", lambda r: r.steps[0], {"prune": {"macs_ratio": 0.4}}),
        ("steps.0.prune.macs_ratio=0.4", lambda r: r.steps[0], {"prune": {"macs_ratio": 0.4}}),
        ("steps.prune={a: 1}", lambda r: r.steps[0], {"prune": {"a": 1}}),
        ("steps.distill.epochs=2", lambda r: r.steps[1], {"distill": {"epochs": 2}}),
        ("steps.1.distill.epochs=2", lambda r: r.steps[1], {"distill": {"epochs": 2}}),
        ("steps.quantize.scheme=int8", lambda r: r.steps[2], {"quantize": {"scheme": "int8"}}),
        ("targets.cpu.gates.top1.min=0.5", lambda r: r.targets[0].gates["top1"].min, 0.5),
        ("targets.board.gates.top1.min=0.5", lambda r: r.targets[1].gates["top1"].min, 0.5),
        ("targets.0=gpu", lambda r: r.targets[0].name, "gpu"),
        ("targets.cpu=gpu", lambda r: r.targets[0].name, "gpu"),
        ("targets=[gpu]", lambda r: [t.name for t in r.targets], ["gpu"]),
    ],
)
def test_override(tmp_path, override, get, expected):
    if expected is None:
        assert problems(tmp_path, RECIPE, (override,))[0].startswith(f"--set {override}: name string should match")
    else:
        assert get(read(tmp_path, override)) == expected


def test_overrides_apply_in_order(tmp_path):
    assert read(tmp_path, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "--set seed: expected KEY.KEY=VALUE"),
        ("=1", "--set =1: expected KEY.KEY=VALUE"),
        ("a..b=1", "--set a..b=1: expected KEY.KEY=VALUE"),
        ("seed=[", "--set seed=[: not valid YAML: "),
        ("seed=.nan", "--set seed=.nan: infinity and NaN are not allowed here"),
        ("seed=!!int ''", "--set seed=!!int '': cannot read this value as int"),
        ("model.args.x=!!binary aGk=", "--set model.args.x=!!binary aGk=: a bytes is not allowed here"),
        ("model.args.x=&a [*a]", "--set model.args.x=&a [*a]: too large or too deep"),
        ("model.args.x={a: 1, a: 2}", "--set model.args.x={a: 1, a: 2}: duplicate key 'a', already set"),
        ("seed.x=1", "--set seed.x=1: seed has no keys below it"),
        ("steps.prun.x=1", "--set steps.prun.x=1: steps has no 'prun' (did you mean 'prune'?)"),
        ("steps.9.x=1", "--set steps.9.x=1: steps has no '9'"),
        ("steps.².x=1", "--set steps.².x=1: steps has no '²'"),
        ("targets.gpu=x", "--set targets.gpu=x: targets has no 'gpu' (did you mean 'cpu'?)"),
        ("sead=1", "--set sead=1: unknown key 'sead' (did you mean 'seed'?)"),
        ("gates.top1.mn=1", "--set gates.top1.mn=1: unknown key 'mn' (did you mean 'min'?)"),
        ("seed=x", "--set seed=x: seed should be a valid integer, got 'x'"),
        ("input.shape=[3, x]", "--set input.shape=[3, x]: input.shape.1 should be a valid integer, got 'x'"),
        ("data.train={}", "--set data.train={}: give either a loader or a path"),
        ("name=", "--set name=: name should be a valid string, got None"),
    ],
)
def test_a_wrong_override_names_the_option(tmp_path, override, expected):
    found = problems(tmp_path, RECIPE, (override,))
    assert found[0].startswith(expected)
    assert not any(line.startswith("f:") for line in found)


def test_override_fills_what_was_left_empty(tmp_path):
    file = write(tmp_path, RECIPE.replace("gates:\n  top1: {min: 0.9}", "gates:"))
    assert config.load(file, Recipe, ("gates.top1.min=0.5",)).gates["top1"].min == 0.5


# Properties


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["cpu", "a:b"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
YAMLISH = st.text(alphabet="{}[]:-,&*!|>'\"%@`#?<=~\\ \n\tab01.e\x00\ufeff\ud7ff½²", max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def only_config_errors(file: Path, model: Any, overrides: tuple[str, ...] = ()) -> None:
    """Reading gives the model, and then a digest can be made of the data; or it gives a ConfigError."""
    with contextlib.suppress(ConfigError):
        document = config.parse(file, overrides)
        value = document.read(model)
        document.check()
        assert isinstance(value, model)
        assert len(digest_of(document.data)) == 64


@given(text=YAMLISH | st.text() | st.binary(max_size=40))
def test_no_text_gives_a_traceback(folder, text):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    only_config_errors(write(folder, raw), Recipe)


@given(tree=st.dictionaries(st.sampled_from([*Recipe.model_fields, *Target.model_fields, "x"]), TREES, max_size=5))
@pytest.mark.parametrize("model", [Recipe, Target])
def test_no_tree_gives_a_traceback(folder, model, tree):
    only_config_errors(write(folder, yaml.safe_dump(tree, allow_unicode=True)), model)


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


@given(data=st.data())
def test_no_change_of_a_good_recipe_gives_a_traceback(folder, data):
    tree = copy.deepcopy(yaml.safe_load(RECIPE))
    *way, last = data.draw(st.sampled_from([place for place in places(tree) if place]))
    node = tree
    for part in way:
        node = node[part]
    node[last] = data.draw(TREES)
    only_config_errors(write(folder, yaml.safe_dump(tree)), Recipe)


KEYS = st.sampled_from(["steps", "prune", "distill", "targets", "cpu", "board", "gates", "top1", "0", "1", "seed", "é"])


@given(keys=st.lists(KEYS, min_size=1, max_size=4), value=YAMLISH | st.sampled_from(["1", "{a: 1}", "[1, x]", ""]))
def test_no_override_gives_a_traceback(folder, keys, value):
    only_config_errors(write(folder, RECIPE), Recipe, (f"{'.'.join(keys)}={value}",))
