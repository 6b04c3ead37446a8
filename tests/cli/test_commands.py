"""The commands that do not compile: each prints what it promises, as text and as JSON."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgeopt import __version__
from edgeopt.cli import app
from edgeopt.recipe import Recipe
from edgeopt.target import Target

ROOT = Path(__file__).parents[2]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_version() -> None:
    assert run("--version").strip() == f"edgeopt {__version__}"


def test_check_lists_steps_candidates_and_gates() -> None:
    text = run("check", ROOT / "recipes" / "digits")
    assert "openvino-int8-pruned" in text
    assert "gate top1 max_drop" in text
    plan = json.loads(run("check", ROOT / "recipes" / "digits", "--format", "json"))
    assert {step["stage"] for step in plan["steps"]} >= {"load", "prune", "distill", "quantize", "compile"}
    assert plan["targets"]["cpu"]["candidates"][0] == "openvino-float"
    assert gc.isenabled()  # also where the command is one of several in a process


@pytest.mark.parametrize("weights", ["weights.safetensors", "net.pt"])
def test_a_new_recipe_passes_check_once_its_factory_exists(tmp_path: Path, weights: str) -> None:
    (tmp_path / weights).touch()
    run("recipe", "init", tmp_path, "--factory", "net:build")
    assert "there is no net.py" in run("check", tmp_path, code=2)
    (tmp_path / "net.py").write_text("def build():\n    ...\n")
    assert ": ok:" in run("check", tmp_path)


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    run("recipe", "init", tmp_path)
    (tmp_path / "recipe.yaml").write_text("mine")
    assert "already" in run("recipe", "init", tmp_path, code=2)
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


def test_schemas_describe_the_formats() -> None:
    recipe, target = (json.loads(run(kind, "schema")) for kind in ("recipe", "target"))
    assert set(recipe["properties"]) == set(Recipe.model_fields)
    assert set(target["properties"]) == set(Target.model_fields)
    steps = {name for item in recipe["properties"]["steps"]["items"]["anyOf"] for name in item["properties"]}
    assert steps == {"prune", "distill", "quantize"}


def test_targets_are_listed_and_shown() -> None:
    rows = json.loads(run("targets", "list", "--beside", ROOT / "recipes" / "digits", "--format", "json"))
    assert {"cpu", "cpu-openvino", "cpu-onnxruntime"} <= {row["name"] for row in rows}
    assert yaml.safe_load(run("targets", "show", "cpu"))["runtime"] == ["openvino", "onnxruntime"]
    assert "did you mean 'cpu'" in run("targets", "show", "cpuu", code=2)


@pytest.mark.parametrize("file", sorted((ROOT / "targets").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_target_file_has_the_name_of_its_target(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["name"] == file.stem


def test_the_store_is_looked_after(tmp_path: Path) -> None:
    assert json.loads(run("cache", "info", "--cache", tmp_path, "--format", "json"))["objects"] == 0
    assert "removed 0 actions" in run("cache", "gc", "--cache", tmp_path)
    assert "as they were written" in run("cache", "verify", "--cache", tmp_path)
    run("cache", "clear", "--yes", "--cache", tmp_path)


def test_inspect_refuses_what_is_no_artefact(tmp_path: Path) -> None:
    assert "manifest.json" in run("inspect", tmp_path, code=2)
    assert "no artefact" in run("inspect", "abcdef", "--cache", tmp_path, code=2)
