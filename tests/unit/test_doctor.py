"""What keeps a target from doing what it says, with devices that are made up, and this machine as it is."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from edgeopt import doctor, provenance
from edgeopt.access import Connection, Facts, Machine
from edgeopt.doctor import Diagnosis, Problem
from edgeopt.errors import StageError
from edgeopt.target import Device

MACHINE = Machine(cpu="Cortex", flags=("asimddp",), cores=4, memory_mib=4096, system="Linux 6 aarch64")
FACTS = Facts("2", "3.11", 1, MACHINE, {"onnxruntime": "1.31.1"}, {"openvino": "No module named 'openvino'"})


class Planted(Connection):
    """A device of which the answer is known."""

    def __init__(self, answer: Callable[[], Facts]) -> None:
        super().__init__()
        self.name, self._answer = "planted", answer

    def start(self, **options: Any) -> Any:
        return contextlib.nullcontext(SimpleNamespace(probe=lambda limit_s: self._answer()))

    def _lock(self, who: str) -> str | None:
        return None

    def _holds(self) -> bool:
        return True

    def _unlock(self, *, at_once: bool = False) -> None:
        pass

    def close(self) -> None:
        pass


def write(folder: Path, name: str, **values: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"target": 1, "name": name, "runtime": "onnxruntime", **values}))
    return file


def examine(file: Path, answer: Callable[[], Facts] = lambda: FACTS, **options: Any) -> Diagnosis:
    (found,) = doctor.examine({file.stem: file}, connect=lambda device: Planted(answer), **options)
    return found


def over_ssh(**device: Any) -> dict[str, Any]:
    return {"device": {"access": {"ssh": "board"}, **device}}


def test_a_device_with_its_runtime_can_be_measured(tmp_path: Path) -> None:
    found = examine(write(tmp_path, "board", **over_ssh()))
    assert (found.depth, found.problems) == ("measure", ())
    assert found.device.machine == "Cortex, 4 cores, 4096 MiB, Linux 6 aarch64"


def test_this_machine_is_asked_for_real(tmp_path: Path) -> None:
    file = write(tmp_path, "here", runtime=["openvino", "onnxruntime"], device={"access": {"python": sys.executable}})
    (found,) = doctor.examine({"here": file}, limit_s=60)
    assert (found.depth, found.problems) == ("measure", ())
    assert found.device.machine


def test_a_device_that_is_not_reached_tells_why_and_how_to_mend_it(tmp_path: Path) -> None:
    def refuse() -> Facts:
        raise StageError("the host key of the device is not known", where="ssh board", fix="connect by hand once")

    found = examine(write(tmp_path, "board", **over_ssh()), refuse)
    assert found.depth is None
    assert found.problems == (Problem("ssh board: the host key of the device is not known", "connect by hand once"),)


def test_without_its_device_a_toolkit_still_goes_as_deep_as_it_can(tmp_path: Path) -> None:
    def refuse() -> Facts:
        raise StageError("away", where="ssh board")

    found = examine(write(tmp_path, "npu", runtime="qnn", **over_ssh(kind="npu", arch="v75")), refuse)
    assert (found.depth, [problem.what for problem in found.problems]) == ("simulate", ["ssh board: away"])


def test_a_python_without_numpy_is_told_in_a_line(tmp_path: Path) -> None:
    def die() -> Facts:
        raise StageError("the agent died; it last wrote:\nModuleNotFoundError: No module named 'numpy'", where="x")

    found = examine(write(tmp_path, "board", device={"access": {"ssh": "board", "python": "/opt/bin/python3"}}), die)
    problem = Problem("ssh board: its Python has no numpy", "on the device: /opt/bin/python3 -m pip install numpy")
    assert found.problems == (problem,)


@pytest.mark.parametrize("error", [KeyError("cpu"), TypeError("x"), OSError("full"), AttributeError("y"), ValueError()])
def test_what_goes_wrong_while_a_device_is_asked_is_a_problem_of_it(tmp_path: Path, error: Exception) -> None:
    def fail() -> Facts:
        raise error

    (problem,) = examine(write(tmp_path, "board", **over_ssh()), fail).problems
    assert problem.what.startswith(f"ssh board: asking it failed: {type(error).__name__}")


def test_a_runtime_that_does_not_load_and_says_nothing(tmp_path: Path) -> None:
    found = examine(
        write(tmp_path, "board", runtime="openvino", **over_ssh()), lambda: replace(FACTS, missing={"openvino": " \n"})
    )
    assert "it does not say why" in found.problems[0].what


def test_a_runtime_that_does_not_load_on_the_device(tmp_path: Path) -> None:
    found = examine(write(tmp_path, "board", runtime=["openvino", "onnxruntime"], **over_ssh()))
    assert [toolkit.depth for toolkit in found.toolkits] == [None, "measure"]
    assert found.depth is None
    (problem,) = found.problems
    assert problem.what == "openvino does not load on the device: No module named 'openvino'"
    assert problem.fix == "on the device: python3 -m pip install openvino"


@pytest.mark.parametrize(
    ("device", "machine", "what"),
    [
        ({"features": ["vnni"]}, {}, "the target says vnni, the device has none"),
        ({"arch": "sm_87"}, {"gpu": "Thor (sm_110)"}, "the target says sm_87, the device is Thor (sm_110)"),
        ({"power_mode": "15W"}, {}, "the target says power mode 15W, the device is in none it names"),
        ({"power_mode": "15W"}, {"power_mode": "MAXN"}, "the target says power mode 15W, the device is in MAXN"),
    ],
)
def test_a_device_that_is_not_what_the_target_says(
    tmp_path: Path, device: dict[str, Any], machine: dict[str, Any], what: str
) -> None:
    facts = replace(FACTS, machine=replace(MACHINE, **machine))
    file = write(tmp_path, "board", **over_ssh(**device))
    assert [problem.what for problem in examine(file, lambda: facts).problems] == [what]
    agreeing = {"flags": ("avx_vnni",), "gpu": "Orin (sm_87)", "power_mode": "15W"}
    assert examine(file, lambda: replace(FACTS, machine=replace(MACHINE, **agreeing))).problems == ()


def test_devices_are_asked_at_the_same_time_and_once_each(tmp_path: Path) -> None:
    asked, all_at_once = [], threading.Barrier(3, timeout=30)

    def connect(device: Device) -> Planted:
        def answer() -> Facts:
            asked.append(device.access.ssh)
            all_at_once.wait()
            return FACTS

        return Planted(answer)

    files = {
        f"{host}{number}": write(tmp_path, f"{host}{number}", device={"access": {"ssh": host}})
        for host in ("a", "b", "c")
        for number in (1, 2)
    }
    found = doctor.examine(files, connect=connect, limit_s=30)
    assert sorted(asked) == ["a", "b", "c"]
    assert [one.name for one in found] == list(files)
    assert {one.depth for one in found} == {"measure"}


def test_a_device_that_never_answers_does_not_hold_the_others_up(tmp_path: Path) -> None:
    forever = threading.Event()

    def connect(device: Device) -> Planted:
        def answer() -> Facts:
            if device.access.ssh == "slow":
                forever.wait()
            return FACTS

        return Planted(answer)

    files = {name: write(tmp_path, name, device={"access": {"ssh": name}}) for name in ("slow", "quick")}
    start = time.monotonic()
    slow, quick = doctor.examine(files, connect=connect, limit_s=0.5)
    forever.set()
    assert time.monotonic() - start < 20
    assert quick.problems == ()
    assert slow.problems == (Problem("ssh slow: no answer within 0.5 s", "is it on? try `ssh slow`"),)


def test_listing_asks_no_device(tmp_path: Path) -> None:
    def connect(device: Device) -> Connection:
        raise AssertionError("a device was asked")

    (found,) = doctor.examine({"a": write(tmp_path, "a", **over_ssh())}, ask=False, connect=connect)
    assert (found.depth, found.device.asked, found.device.access) == ("measure", False, "ssh board")


def test_a_toolkit_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(provenance, "version", none)
    provenance.tool_version.cache_clear()
    try:
        found = examine(write(tmp_path, "npu", runtime="qnn", device={"kind": "npu", "access": "none", "arch": "v75"}))
    finally:
        provenance.tool_version.cache_clear()
    assert found.depth is None
    (problem,) = found.problems
    assert problem.what == "qnn needs onnx, onnxruntime, onnxruntime-qnn"
    assert problem.fix.startswith("pip install 'edgeopt[")
    assert "qnn" in problem.fix


def test_an_architecture_that_there_is_not(tmp_path: Path) -> None:
    found = examine(write(tmp_path, "npu", runtime="qnn", device={"kind": "npu", "access": "none", "arch": "v74"}))
    assert found.depth is None
    assert "unknown HTP 'v74' (did you mean" in found.problems[0].what


@pytest.mark.parametrize("runtime", ["intel-npu", "openvino-npu", "hailo", "snpe", "edge-tpu", "executorch"])
def test_a_runtime_that_people_ask_for_tells_what_is_missing(tmp_path: Path, runtime: str) -> None:
    (problem,) = examine(write(tmp_path, "x", runtime=runtime, device={"access": "none"})).problems
    assert problem.what.startswith(f"{runtime} is not available: ")
    assert len(problem.what) > 60


def test_an_unknown_runtime_gets_a_hint(tmp_path: Path) -> None:
    (problem,) = examine(write(tmp_path, "x", runtime="qnnn", device={"access": "none"})).problems
    assert problem.what == "unknown backend 'qnnn' (did you mean 'qnn'?)"


def test_a_file_that_is_no_target_is_a_problem_of_that_target_alone(tmp_path: Path) -> None:
    files = {"good": write(tmp_path, "good"), "bad": write(tmp_path, "bad", devise={})}
    good, bad = doctor.examine(files, connect=lambda device: Planted(lambda: FACTS))
    assert good.problems == ()
    assert "unknown key 'devise' (did you mean 'device'?)" in bad.problems[0].what
    assert bad.depth is None


def test_no_available_runtime_is_called_not_available() -> None:
    from edgeopt import registry

    assert not {name for name in registry.builtin("backends") if doctor.not_available(name)}
