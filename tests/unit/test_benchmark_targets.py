"""The benchmark of the targets: what it makes of a run, and the files that it writes. Its figures are not asserted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import small_nets, targets
from benchmarks.frame import ROOT
from edgeopt import config, placement
from edgeopt.target import Target
from tests import made_up_run

LAYERS = [
    {"name": "conv0", "op": "CONV_2D", "source": ["stem/Conv"], "precision": "i8", "device": "NPU"},
    {"name": "conv1", "op": "CONV_2D", "source": ["body/Conv"], "precision": "i8", "device": "CPU", "why": "too large"},
]
DIGEST = "ef" * 32


def run_of(tmp_path: Path, note: str) -> dict:
    """One candidate whose layer map has one fallback, which the notes tell or not."""
    placed = placement.of(LAYERS, {"stem/Conv": 3, "body/Conv": 1}, "NPU")
    record = made_up_run.without_devices(made_up_run.record()).targets["ethos-u55-128"]
    candidate = json.loads(json.dumps(asdict(record.candidate("ethos-int8"))))
    candidate["placed"] = placed.to_json()
    folder = tmp_path / "objects" / DIGEST[:2] / DIGEST
    folder.mkdir(parents=True)
    (folder / "layer_map.json").write_text(json.dumps(LAYERS), encoding="utf-8")
    return {
        "stages": [{"stage": "compile", "output": DIGEST, "notes": [note]}],
        "targets": {
            "ethos": {"error": "", "shipped": "ethos-int8", "candidates": [candidate]},
            "gone": {"error": "no\n  fix", "shipped": "", "candidates": []},
        },
    }


@pytest.mark.parametrize(("note", "unnamed"), [("CONV_2D conv1 runs on CPU, not NPU", 0), ("all is well", 1)])
def test_a_fallback_that_no_note_tells_breaks_the_claim(tmp_path, note, unnamed):
    rows = list(targets._rows("digits", run_of(tmp_path, note), tmp_path))
    compiled, failed = rows
    assert (compiled["layers"], compiled["fallbacks"], compiled["unnamed"]) == (2, 1, unnamed)
    assert compiled["latency"] == "estimated"
    assert compiled["outputs"] == "simulated"
    assert (failed["outcome"], failed["why"]) == ("failed", "no fix")
    served, named, _ = targets._claims(rows)
    assert not served.holds
    assert named.holds is (unnamed == 0)


def test_targets_are_served_here_or_say_why_not():
    files = sorted((ROOT / "targets").glob("*.yaml"))
    able, unable = targets._split(files, ())
    assert {file.stem for file in able} | set(unable) == {file.stem for file in files}
    assert all(unable.values())
    assert [file.stem for file in targets._split(files, ("cpu-openvino",))[0]] == ["cpu-openvino"]


@pytest.mark.parametrize("file", sorted((ROOT / "targets").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_hurried_target_is_still_a_target(tmp_path, file):
    hurried = config.load(targets._hurried(file, tmp_path), Target)
    assert hurried.measure.max_seconds <= 2
    assert set(hurried.gates) == {"fallback_macs"}


def test_the_recipe_of_a_net_is_valid(tmp_path):
    from edgeopt import plan

    (tmp_path / "resnet_20").mkdir()
    (tmp_path / "resnet_20" / "weights.safetensors").write_bytes(b"trained before")
    for net in ("digits", "resnet_20"):
        file = small_nets.recipe(net, tmp_path / net, [ROOT / "targets" / "cpu-openvino.yaml"])
        made = plan.plan(file)
        assert made.recipe.name == net
        assert [step.stage for step in made.steps].count("quantize") == 1
        assert not {step.stage for step in made.steps} & {"prune", "distill"}
    assert (tmp_path / "resnet_20" / "weights.safetensors").read_bytes() == b"trained before"
