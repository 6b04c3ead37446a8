"""What bad input gets: a message with where and how, the right exit code, no traceback, earlier results untouched."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt.cli import app
from tests import tiny

CLI = CliRunner()
EARLIER = '{"schema": 1, "targets": {}}'
MODEL_OUTPUT = "return self.head(torch.flatten(self.down(self.block(self.stem(x))), 1))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "recipe")


def run(*arguments: object) -> tuple[int, str]:
    """Run edgeopt in this process; returns exit code and all output. A traceback fails the test."""
    result = CLI.invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "internal error" not in result.output, result.output
    return result.exit_code, result.output


def compile_(folder: Path, *options: object) -> tuple[int, str]:
    """Compile only as far as it goes; an earlier result lies in the output folder and must stay as it is."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    (out / "run.json").write_text(EARLIER)
    code, output = run("compile", folder, "--out", out, "--cache", folder / "cache", *options)
    assert [path.name for path in out.iterdir()] == ["run.json"]
    assert (out / "run.json").read_text() == EARLIER
    assert [path.name for path in folder.iterdir() if path.name.startswith(".out")] == []
    return code, output


def edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 7", "seed: 7\nseed: 8", "recipe.yaml:20:1: duplicate key 'seed', already set in line 19"),
        ("seed: 7", "sede: 7", "recipe.yaml:19:1: unknown key 'sede' (did you mean 'seed'?)"),
        ("macs_ratio: 0.6", "macs_ratio: 50%", "recipe.yaml:21:43: "),
        ("macs_ratio: 0.6", "macs_ratio: 1.5", "less than 1"),
        ("macs_ratio: 0.6", "ratio: 0.6", "unknown key 'ratio' (did you mean 'macs_ratio'?)"),
        ("criterion: l1", "criterion: l3", "unknown criterion 'l3' (there are: l1, l2_group,"),
        ("  - prune: ", "  - prun: ", "unknown step 'prun' (did you mean 'prune'?)"),
        ("[top1]", "[top_1]", "unknown metric 'top_1' (did you mean 'top1'?)"),
        ("  - tiny-openvino", "  - tiny-openvin", "unknown target 'tiny-openvin' (did you mean 'tiny-openvino'?)"),
        ("[top1]", "[top1, top1]", "'top1' is listed twice"),
        ("size_mib:", "size_mb:", "no gate on 'size_mb' (did you mean 'size_mib'?)"),
        ("min: 0.9", "max: 0.9", "better when higher"),
        ("data:evaluate", "data:evalute", "data.py defines no 'evalute' (did you mean 'evaluate'?)"),
        ("model:build", "modell:build", "there is no modell.py beside the recipe"),
        ("weights.safetensors", "weight.safetensors", "no such file"),
        ("seed: 7", "seed: [", "recipe.yaml:"),
        ("  top1: {min: 0.9, max_drop: 0.05}", "  size_mib: {max: 1}", "no accuracy gate"),
        (
            "  - quantize: {scheme: int8}",
            "  - quantize: {scheme: int8}\n  - prune: {macs_ratio: 0.5}",
            "quantize comes last",
        ),
    ],
)
def test_a_mistake_in_the_recipe_is_told_by_check_and_compile(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder, "recipe.yaml", old, new)
    for code, output in (run("check", folder), compile_(folder)):
        assert code == 2
        assert message in output
        assert f"{folder / 'recipe.yaml'}:" in output


def test_all_problems_come_at_once(folder: Path) -> None:
    edit(folder, "recipe.yaml", "seed: 7", "sede: 7")
    edit(folder, "recipe.yaml", "macs_ratio: 0.6", "macs_ratio: 6")
    edit(folder, "recipe.yaml", "tiny-openvino", "tiny-openvin")
    code, output = run("check", folder)
    assert code == 2
    assert "unknown key 'sede'" in output
    assert "macs_ratio" in output


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"- a\n- b\n"])
def test_an_unreadable_recipe(folder: Path, content: bytes | None) -> None:
    if content is None:
        (folder / "recipe.yaml").unlink()
    else:
        (folder / "recipe.yaml").write_bytes(content)
    code, output = compile_(folder)
    assert code == 2
    assert "recipe.yaml" in output


def test_an_override_goes_through_the_same_checks(folder: Path) -> None:
    code, output = compile_(folder, "--set", "steps.prune.macs_ratio=2")
    assert code == 2
    assert "--set steps.prune.macs_ratio=2" in output


def test_an_unknown_target_on_the_command_line(folder: Path) -> None:
    code, output = compile_(folder, "--target", "tiny-openvno")
    assert code == 2
    assert "did you mean 'tiny-openvino'" in output


def _truncate(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:200])


def _empty(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def _change_weights(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "weights.safetensors")
    change(state)
    save_file(state, folder / "weights.safetensors")


def _nan(folder: Path) -> None:
    _change_weights(folder, lambda state: state["head.weight"].fill_(float("nan")))  # type: ignore[attr-defined]


def _missing_key(folder: Path) -> None:
    _change_weights(folder, lambda state: state.pop("head.bias"))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch bomb-went-off",)


def _bomb(folder: Path) -> None:
    import torch

    torch.save({"head.bias": _Bomb()}, folder / "weights.pt")
    edit(folder, "recipe.yaml", "weights.safetensors", "weights.pt")


def _bare_pickle(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(pickle.dumps({"head.bias": _Bomb()}))
    edit(folder, "recipe.yaml", "weights.safetensors", "weights.pt")


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (_truncate, ["weights.safetensors"]),
        (_empty, ["weights.safetensors"]),
        (_nan, ["head.weight", "NaN"]),
        (_missing_key, ["head.bias", "missing"]),
        (_bomb, ["weights.pt", "would run code", "safetensors"]),
        (_bare_pickle, ["weights.pt"]),
        (lambda f: edit(f, "recipe.yaml", "{width: 16}", "{width: 24}"), ["stem.0.weight"]),
        (lambda f: edit(f, "model.py", "return Net(width, classes)", "raise RuntimeError('no')"), ["model.py:", "no"]),
        (lambda f: edit(f, "model.py", "return Net(width, classes)", "return 5"), ["int", "Module"]),
        (
            lambda f: edit(f, "model.py", "import torch\n", "import torch\nimport nothing_like_it\n"),
            ["model.py:2", "nothing_like_it"],
        ),
        (lambda f: edit(f, "data.py", "_split(4, 400)", "_split(1, 256)"), ["overlap", "'train' and 'evaluate'"]),
        (lambda f: edit(f, "data.py", "_split(4, 400)", "_split(4, 0)"), ["data.evaluate", "empty"]),
        (
            lambda f: edit(f, "data.py", "astype(np.int64)", "astype(np.int64) + 4"),
            ["top1: needs labels 0 to 3, got 4 to 7"],
        ),
        (lambda f: edit(f, "data.py", "(count, 8, 8, 1)", "(count, 8, 9, 1)"), ["[8, 9, 1]"]),
        (lambda f: edit(f, "data.py", "return samples,", "return samples.astype(np.float32),"), ["float32", "uint8"]),
        (lambda f: edit(f, "recipe.yaml", "{width: 16}", "{widht: 16}"), ["widht"]),
    ],
)
def test_wrong_weights_models_and_data(
    folder: Path, spoil: Callable[[Path], None], messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    spoil(folder)
    code, output = compile_(folder)
    assert code == 2, output
    for message in messages:
        assert message in output
    assert not (folder / "bomb-went-off").exists()


def test_a_model_that_exits_is_no_success(folder: Path) -> None:
    edit(folder, "model.py", "return Net(width, classes)", "raise SystemExit(0)")
    code, output = compile_(folder)
    assert code != 0
    assert "exit" in output.lower()


def test_a_model_that_cannot_be_exported_names_its_line(folder: Path) -> None:
    branch = "if x.sum() > 0:\n            x = x + 1\n        " + MODEL_OUTPUT
    edit(folder, "model.py", MODEL_OUTPUT, branch)
    line = next(n for n, text in enumerate((folder / "model.py").read_text().splitlines(), 1) if "x.sum()" in text)
    code, output = compile_(folder, "--set", "steps=[]")
    assert code == 3, output
    assert f"model.py:{line}" in output


def test_calibration_with_one_constant_image(folder: Path) -> None:
    constant = (
        "def calibrate():\n    import numpy as np\n    return np.full((64, 8, 8, 1), 7, np.uint8), np.zeros(64, int)"
    )
    edit(folder, "data.py", "def calibrate():\n    return _split(2, 64)", constant)
    code, output = compile_(folder, "--set", "steps=[quantize]")
    assert code == 2, output
    assert "calibrat" in output


def test_an_output_folder_that_holds_something_else(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("years of work")
    code, output = run("compile", folder, "--out", folder / "mine", "--cache", folder / "cache")
    assert code == 2
    assert "--out" in output
    assert (folder / "mine" / "thesis.tex").read_text() == "years of work"


def test_an_output_folder_that_cannot_be_written(folder: Path) -> None:
    code, output = run("compile", folder, "--out", "/proc/edgeopt/out", "--cache", folder / "cache")
    assert code == 2
    assert "cannot be written" in output


def test_a_store_that_cannot_be_written(folder: Path) -> None:
    code, output = run("compile", folder, "--out", folder / "out", "--cache", "/proc/edgeopt")
    assert code == 3
    assert "EDGEOPT_CACHE" in output


def test_a_full_disk(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        code, output = run("compile", folder, "--out", folder / "out", "--cache", small / "cache")
        assert code == 3, output
        assert "space" in output.lower()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_missing_toolkit_is_told_before_any_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt import provenance

    real = provenance.tool_version
    monkeypatch.setattr(provenance, "tool_version", lambda name: "" if name == "nncf" else real(name))
    code, output = compile_(folder)
    assert code == 3
    assert "pip install 'edgeopt[openvino]'" in output


def test_an_unknown_exception_is_a_bug_with_a_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt import engine

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("who would have thought")

    monkeypatch.setattr(engine, "execute", broken)
    result = CLI.invoke(app, ["compile", str(folder), "--out", str(folder / "o"), "--cache", str(folder / "cache")])
    assert result.exit_code == 3
    assert "Traceback" not in result.output
    log = Path(result.output.rpartition("log ")[2].strip())
    assert "ZeroDivisionError: who would have thought" in log.read_text()
    log.unlink()


def test_a_report_of_nothing(tmp_path: Path) -> None:
    for content in (None, "", "{}", '{"schema": 99}', '{"schema": 1}'):
        if content is not None:
            (tmp_path / "run.json").write_text(content)
        code, output = run("report", tmp_path)
        assert code == 2
        assert ("no run" if content is None else "run.json") in output


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeopt", "compile", str(folder), "--out", str(folder / "out")]
    return subprocess.Popen(
        [*command, "--cache", str(folder / "cache")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        process_group=0,
    )


def _wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the run ended before {word!r}")


@pytest.mark.parametrize("moment", ["distill: started", "quantize:openvino: started", "measure:tiny-openvino: started"])
def test_kill_9_loses_at_most_the_running_stage(folder: Path, moment: str) -> None:
    process = _start(folder)
    _wait_for(process, moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (folder / "out").exists()
    code, output = run("compile", folder, "--out", folder / "out", "--cache", folder / "cache", "--explain")
    assert code in (0, 4), output
    step = moment.partition(":")[0]
    finished = {"distill": ["prune"], "quantize": ["distill", "export"], "measure": ["quantize:openvino"]}[step]
    for name in finished:
        assert f"{name}: reused" in output
    assert run("cache", "verify", "--cache", folder / "cache")[0] == 0


def test_ctrl_c_exits_130_and_the_next_run_goes_on(folder: Path) -> None:
    process = _start(folder)
    _wait_for(process, "distill: started")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not (folder / "out").exists()
    code, output = run("compile", folder, "--out", folder / "out", "--cache", folder / "cache", "--explain")
    assert code in (0, 4)
    assert "prune: reused" in output


def test_two_runs_at_once_share_the_work(folder: Path) -> None:
    first, second = _start(folder), _start(folder)
    time.sleep(0)
    for process in (first, second):
        _, errors = process.communicate(timeout=180)
        assert process.returncode in (0, 4), errors
    assert run("cache", "verify", "--cache", folder / "cache")[0] == 0
    assert (folder / "out" / "run.json").is_file()
