"""Target files: their rules, and where they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt import config, target
from edgeopt.errors import ConfigError
from edgeopt.target import Target

TARGET = "target: 1\nname: board\nruntime: onnxruntime\n"
ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str = TARGET, name: str = "board.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def problems(folder: Path, text: str) -> list[str]:
    file = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, Target)
    return str(caught.value).replace(str(file), "f").splitlines()


@pytest.mark.parametrize("file", sorted((ROOT / "targets").glob("*.yaml")), ids=lambda file: file.stem)
def test_built_in_targets_are_named_like_their_files(file):
    assert config.load(file, Target).name == file.stem


def test_one_runtime_or_several(tmp_path):
    one = config.load(write(tmp_path), Target)
    several = config.load(write(tmp_path, TARGET.replace("onnxruntime", "[openvino, onnxruntime]")), Target)
    assert one.runtime == ("onnxruntime",)
    assert several.runtime == ("openvino", "onnxruntime")


def test_what_is_left_out_is_the_least_that_works(tmp_path):
    found = config.load(write(tmp_path), Target)
    assert found.precision == ("int8",)
    assert found.limits.channel_multiple == 1
    assert found.measure.threads == found.measure.batch == 1
    assert found.accept == ()
    assert found.gates == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("runtime: []", "f:3:10: runtime should have at least 1 item"),
        ("runtime: [a, a]", "f:3:10: 'a' is listed twice"),
        ("runtime: 3", "f:3:10: runtime should be a list, got 3"),
        ("runtime: x\nprecision: [int4]", "f:4:13: precision.0 should be 'fp16' or 'int8', got 'int4'"),
        ("runtime: x\nprecision: [int8, int8]", "f:4:12: 'int8' is listed twice"),
        ("runtime: x\ndevice: {kind: tpu}", "f:4:16: device.kind should be 'cpu', 'gpu', 'npu' or 'mcu', got 'tpu'"),
        ("runtime: x\ndevice: {access: {ssh: a, adb: b}}", "f:4:18: a device is reached in one way"),
        ("runtime: x\ndevice: {access: {ssh: '-oProxyCommand=x'}}", "f:4:24: should be a host as"),
        ("runtime: x\ndevice: {access: {ssh: 'a; rm b'}}", "f:4:24: should be a host as"),
        ("runtime: x\ndevice: {access: {ssh: 'me@-x'}}", "f:4:24: should be a host as"),
        ("runtime: x\ndevice: {access: {adb: '$(id)'}}", "f:4:24: should be a serial number as"),
        ("runtime: x\ndevice: {access: {folder: /tmp}}", "f:4:18: folder is for a device that is reached over"),
        ("runtime: x\ndevice: {access: {ssh: a, folder: tmp}}", "f:4:35: should be an absolute path on the device"),
        ("runtime: x\ndevice: {access: remote}", "f:4:18: device.access should be"),
        ("runtime: x\ndevice: {features: [vnn]}", "f:4:21: device.features.0 should be 'vnni', got 'vnn'"),
        ("runtime: x\nlimits: {channel_multiple: 0}", "f:4:28: limits.channel_multiple should be greater"),
        ("runtime: x\nmeasure: {percentile: 100}", "f:4:23: measure.percentile should be less than 100"),
        ("runtime: x\nmeasure: {min_seconds: 0}", "f:4:24: measure.min_seconds should be greater than 0"),
        ("runtime: x\nmesure: {}", "f:4:1: unknown key 'mesure' (did you mean 'measure'?)"),
        ("runtime: x\nmeasure: {thread: 1}", "f:4:11: unknown key 'thread' (did you mean 'threads'?)"),
        ("runtime: x\ngates: {size_mib: {}}", "f:4:19: a gate needs at least one of"),
    ],
)
def test_wrong_target_files(tmp_path, line, expected):
    (problem,) = problems(tmp_path, TARGET.replace("runtime: onnxruntime", line))
    assert problem.startswith(expected)


@pytest.mark.parametrize("name", ["samples", "run.json", "report.html"])
def test_a_target_cannot_take_the_place_of_a_file_of_the_run(tmp_path, name):
    (problem,) = problems(tmp_path, TARGET.replace("board", name))
    assert problem == f"f:2:7: '{name}' is a file or folder of every run; choose another name"


def test_the_nearest_target_of_a_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipes" / "face"
    recipe.mkdir(parents=True)
    above = write(tmp_path / "targets")
    assert target.locate("board", recipe) == above
    beside = write(recipe / "targets")
    assert target.locate("board", recipe) == beside


def test_built_in_targets_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert target.locate("cpu", tmp_path) == ROOT / "targets" / "cpu.yaml"
    assert {"cpu", "cpu-openvino", "cpu-onnxruntime"} <= set(target.available(tmp_path))


def test_a_target_given_as_a_file_lies_beside_the_recipe_or_here(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe"
    beside, here = write(recipe, name="mine.yaml"), write(tmp_path / "here", name="mine.yaml")
    monkeypatch.chdir(here.parent)
    assert target.locate("mine.yaml", recipe) == beside
    beside.unlink()
    assert target.locate("mine.yaml", recipe).resolve() == here
    assert target.locate(str(here), recipe) == here


def test_an_unknown_target_says_which_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown target 'cpu-openvin' \(did you mean 'cpu-openvino'\?\)"):
        target.locate("cpu-openvin", tmp_path)
    with pytest.raises(ConfigError, match=r"unknown target 'zzz' \(there are: .*, cpu, "):
        target.locate("zzz", tmp_path)
    with pytest.raises(ConfigError, match="no such target file 'zzz"):
        target.locate("zzz.yaml", tmp_path)
