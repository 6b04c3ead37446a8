"""``edgeopt targets``, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeopt import tools
from tests.sshd import HOST, Sshd

#: A device with LiteRT can do what it says only where the converter is installed too.
CONVERTS = 0 if tools.status("litert-torch").state == "installed" else 3

ROOT = Path(__file__).parents[2]
EDGEOPT = [sys.executable, "-m", "edgeopt", "targets"]


def run(*arguments: object, code: int = 0, cwd: Path = ROOT) -> tuple[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [*EDGEOPT, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "targets").mkdir()
    return tmp_path


def write(workspace: Path, name: str, text: str) -> None:
    (workspace / "targets" / f"{name}.yaml").write_text(f"target: 1\nname: {name}\n{text}\n")


def test_the_list_shows_how_deep_each_target_goes() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--format", "json")[0])}
    assert rows["cpu"]["depth"] == "measure"
    assert rows["snapdragon-8-gen-3"]["depth"] == "simulate"
    assert [toolkit["runtime"] for toolkit in rows["cpu"]["toolkits"]] == ["openvino", "onnxruntime"]
    assert not rows["cpu"]["device"]["asked"]
    text, _ = run("list")
    assert re.search(r"^snapdragon-8-gen-3 +qnn \S+ +none +simulate$", text, re.MULTILINE)


def test_the_doctor_finds_this_machine_well() -> None:
    text, _ = run("doctor", "cpu-onnxruntime", "snapdragon-8-elite")
    assert re.search(r"^cpu-onnxruntime +onnxruntime \S+ +this machine +measure$", text, re.MULTILINE)
    assert re.search(r"^snapdragon-8-elite +qnn \S+ +none +simulate$", text, re.MULTILINE)
    assert "fix:" not in text


def test_the_doctor_tells_the_line_that_mends_it(workspace: Path) -> None:
    write(workspace, "hail", "runtime: hailo\ndevice: {access: none}")
    write(workspace, "npu", "runtime: qnn\ndevice: {kind: npu, access: none, arch: v74}")
    write(workspace, "other", "runtime: onnxruntime\ndevice: {access: {python: /no/such/python}}")
    text, _ = run("doctor", "hail", "npu", "other", code=3, cwd=workspace)
    assert "hail: hailo is not available: Hailo's Dataflow Compiler" in text
    assert "npu: unknown HTP 'v74' (did you mean" in text
    assert "fix: device: {arch: ...} is one of v68, v69" in text
    assert "other: " in text
    assert "/no/such/python" in text
    rows = json.loads(run("doctor", "hail", "--format", "json", code=3, cwd=workspace)[0])
    assert rows[0]["depth"] is None
    assert rows[0]["problems"][0]["what"].startswith("hailo is not available")


def test_a_target_that_there_is_not_gets_a_hint() -> None:
    assert "did you mean 'cpu-openvino'" in run("doctor", "cpu-openvin", code=2)[1]


def test_one_broken_file_does_not_hide_the_others(workspace: Path) -> None:
    write(workspace, "bad", "runtime: onnxruntime\ndevise: {}")
    rows = {row["name"]: row for row in json.loads(run("list", "--format", "json", cwd=workspace)[0])}
    assert "unknown key 'devise'" in rows["bad"]["problems"][0]["what"]
    assert rows["cpu"]["problems"] == []


def test_init_writes_a_target_that_the_doctor_finds_well(workspace: Path) -> None:
    text, told = run("init", "box", "--python", sys.executable, cwd=workspace)
    file = workspace / "targets" / "box.yaml"
    assert file.read_text() == text
    assert "wrote targets/box.yaml" in told
    assert yaml.safe_load(text)["device"]["access"] == {"python": sys.executable}
    run("doctor", "box", code=CONVERTS, cwd=workspace)
    before = file.read_bytes()
    assert "is there already" in run("init", "box", code=2, cwd=workspace)[1]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("../x",), "name: "),
        (("x", "--ssh", "-oProxyCommand=touch y"), "ssh: "),
        (("x", "--ssh", "a", "--adb", "b"), "one way"),
        (("x", "--python", "/no/such/python"), "/no/such/python"),
    ],
)
def test_init_refuses_and_writes_nothing(workspace: Path, arguments: tuple[str, ...], says: str) -> None:
    code = 3 if "--python" in arguments else 2
    assert says in run("init", *arguments, code=code, cwd=workspace)[1]
    assert list(workspace.rglob("*")) == [workspace / "targets"]


def test_a_device_behind_ssh_is_examined_and_drafted(
    sshd: Sshd, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_SSH_CONFIG", str(sshd.config))
    run("init", "lab", "--ssh", HOST, "--python", sys.executable, cwd=workspace)
    drafted = yaml.safe_load((workspace / "targets" / "lab.yaml").read_text())
    assert drafted["device"]["access"] == {"ssh": HOST, "python": sys.executable}
    text, _ = run("doctor", "lab", code=CONVERTS, cwd=workspace)
    depth = "nothing" if CONVERTS else "measure"
    assert re.search(rf"^lab +openvino \S+ +ssh {HOST} +{depth}$", text, re.MULTILINE)
    sshd.trust("other_key")
    text, _ = run("doctor", "lab", code=3, cwd=workspace)
    assert f"ssh {HOST}: not reached" in text
    assert "host key" in text
    assert "ssh-keygen -R" in text
    sshd.trust()
    sshd.write_config(sshd.port, key="other_key")
    text, _ = run("doctor", "lab", code=3, cwd=workspace)
    assert f"ssh-copy-id {HOST}" in text


def test_a_recipe_with_a_runtime_that_is_not_available_is_told_why(workspace: Path) -> None:
    write(workspace, "hail", "runtime: hailo\ndevice: {access: none}")
    recipe = yaml.safe_load((ROOT / "recipes" / "digits" / "recipe.yaml").read_text())
    recipe["targets"] = ["hail"]
    (workspace / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name in ("model.py", "data.py", "weights.safetensors"):
        (workspace / name).symlink_to(ROOT / "recipes" / "digits" / name)
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "check", str(workspace)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert "hailo is not available: " in done.stderr


def test_the_index_of_families_names_every_target_and_its_links_lead_somewhere() -> None:
    docs = ROOT / "docs" / "targets"
    index = (docs / "README.md").read_text()
    assert {file.stem for file in (ROOT / "targets").glob("*.yaml")} <= set(re.findall(r"`([\w.-]+)`", index))
    for page in docs.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (docs / link).exists(), f"{page.name}: {link}"
