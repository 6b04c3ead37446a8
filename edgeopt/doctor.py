"""What this machine can do for a target, and what would mend it: the toolkits here, and the device where there is one.

Devices are asked at the same time, and none for longer than a limit.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt import config, device, registry, tools
from edgeopt.access import Connection, Facts
from edgeopt.backends import Backend, Depth, not_available
from edgeopt.errors import EdgeoptError, StageError
from edgeopt.target import Access, Device, Target

#: From the least.
DEPTHS: tuple[Depth, ...] = ("compile", "simulate", "estimate", "measure")
LIMIT_S = 20.0
_ABSENT = re.compile(r"ModuleNotFoundError: No module named '(\w+)'")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the line that mends it; empty if there is none."""

    what: str
    fix: str = ""


@dataclass(frozen=True)
class Toolkit:
    """A runtime of a target, on this machine.

    Attributes:
        runtime: As the target names it.
        version: Empty if it is not installed, or is not on this machine.
        depth: How far it goes here and now; ``None`` if nowhere.
        problems: Why it does not go as far as the target says.
    """

    runtime: str
    version: str
    depth: Depth | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Reached:
    """The device of a target.

    Attributes:
        access: ``none``, ``local``, ``ssh lab-orin-3`` …
        asked: Whether anything tried to reach it.
        machine: What it is; empty if it was not reached.
        problem: Why it was not.
    """

    access: str
    asked: bool = False
    machine: str = ""
    problem: Problem | None = None
    facts: Facts | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Diagnosis:
    """A target, as it stands on this machine.

    Attributes:
        name: Of the target.
        file: That describes it.
        description: The target's own.
        toolkits: One for each runtime.
        device: Where it runs.
        problem: The file cannot be read as a target.
    """

    name: str
    file: str
    description: str = ""
    toolkits: tuple[Toolkit, ...] = ()
    device: Reached = Reached("none")
    problem: Problem | None = None

    @property
    def depth(self) -> Depth | None:
        """How far all of its runtimes go."""
        depths = [toolkit.depth for toolkit in self.toolkits]
        known = [depth for depth in depths if depth is not None]
        return min(known, key=DEPTHS.index) if known and len(known) == len(depths) else None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that keeps it from doing what it says; empty if nothing does."""
        own = [problem for problem in (self.problem, self.device.problem) if problem]
        return tuple(dict.fromkeys([*own, *(problem for toolkit in self.toolkits for problem in toolkit.problems)]))


def examine(
    files: Mapping[str, Path],
    *,
    ask: bool = True,
    limit_s: float = LIMIT_S,
    connect: Callable[[Device], Connection] = device.connect,
) -> list[Diagnosis]:
    """Every target, in the order in which they are given.

    Args:
        files: By name.
        ask: Whether devices are asked. If not, they are taken to be there.
        limit_s: For how long they are waited for, all together.
        connect: Reaches a device.
    """
    found: dict[str, Target | Problem] = {}
    for name, file in files.items():
        try:
            found[name] = config.load(file, Target)
        except EdgeoptError as error:
            found[name] = Problem(str(error))
    profiles = [one for one in found.values() if isinstance(one, Target)]
    devices = {one.device.access: one.device for one in profiles if not one.device.access.none}
    reached = _ask_all(devices, limit_s, connect) if ask else {}
    return [
        Diagnosis(name, str(files[name]), problem=one)
        if isinstance(one, Problem)
        else _diagnose(one, files[name], reached.get(one.device.access, Reached(str(one.device.access))))
        for name, one in found.items()
    ]


def _diagnose(profile: Target, file: Path, reached: Reached) -> Diagnosis:
    if reached.facts:
        contradiction = _contradiction(profile, reached.facts)
        reached = Reached(reached.access, True, reached.machine, contradiction, reached.facts)
    toolkits = tuple(_toolkit(runtime, profile, reached) for runtime in profile.runtime)
    return Diagnosis(profile.name, str(file), profile.description, toolkits, reached)


def _toolkit(runtime: str, profile: Target, reached: Reached) -> Toolkit:
    try:
        backend: Backend = registry.find("backends", runtime)
    except registry.UnknownPlugin as error:
        why = not_available(runtime)
        problem = Problem(f"{runtime} is not available: {why}") if why else Problem(str(error))
        return Toolkit(runtime, "", None, (problem,))
    installed = backend.probe()
    if not installed.installed:
        problem = Problem(f"{runtime} needs {', '.join(installed.missing)}", installed.fix)
        return Toolkit(runtime, installed.version, None, (problem,))
    if (converter := _converter(backend)) is not None:
        return Toolkit(runtime, installed.version, None, (converter,))
    try:
        backend.options(profile)
    except EdgeoptError as error:
        return Toolkit(runtime, installed.version, None, (Problem(error.what, error.fix),))
    depth = backend.depth(profile)
    if depth is None:
        problem = Problem(f"{runtime} does nothing without its device", "say in the target how it is reached")
        return Toolkit(runtime, installed.version, None, (problem,))
    if depth == "measure" and reached.problem:
        return Toolkit(runtime, installed.version, backend.without_device)
    if depth == "measure" and reached.facts and runtime in reached.facts.missing:
        why = reached.facts.missing[runtime]
        last = (why.strip() or "it does not say why").splitlines()[-1]
        problem = Problem(f"{runtime} does not load on the device: {last}", _there(backend, why))
        return Toolkit(runtime, installed.version, backend.without_device, (problem,))
    return Toolkit(runtime, installed.version, depth)


def _converter(backend: Backend) -> Problem | None:
    """What is missing of the way to what it compiles, which starts at PyTorch where it does not read ONNX."""
    if any(kind.startswith("onnx") for kind in backend.consumes):
        return None
    name: str = registry.find("stages", "convert").environment
    state = tools.status(name).state
    if state == "installed":
        return None
    return Problem(
        f"{backend.name} needs the tool environment {name}, which is {state}", f"edgeopt tools install {name}"
    )


def _there(backend: Backend, why: str) -> str:
    """The line that installs a runtime on a device, if pip has it."""
    return f"on the device: python3 -m pip install {backend.tools[-1]}" if "No module named" in why else ""


def _contradiction(profile: Target, facts: Facts) -> Problem | None:
    """Where the device is not what the target says."""
    said, machine = profile.device, facts.machine
    if "vnni" in said.features and not _VNNI & set(machine.flags):
        return Problem("the target says vnni, the device has none", "take `vnni` out of device.features")
    if said.arch and said.arch.startswith("sm_") and machine.gpu and said.arch not in machine.gpu:
        return Problem(f"the target says {said.arch}, the device is {machine.gpu}", "mend device.arch")
    if said.power_mode and said.power_mode != machine.power_mode:
        what = f"the target says power mode {said.power_mode}, the device is in {machine.power_mode or 'none it names'}"
        return Problem(what, "on the device: sudo nvpmodel -m NUMBER; `nvpmodel -p --verbose` lists the modes")
    return None


def _ask_all(
    devices: Mapping[Access, Device], limit_s: float, connect: Callable[[Device], Connection]
) -> dict[Access, Reached]:
    """All devices at the same time. One that does not answer in time is left to itself."""
    answers: dict[Access, Reached] = {}

    def ask(one: Device) -> None:
        answers[one.access] = _ask(one, limit_s, connect)

    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in devices.values()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {access: answers.get(access) or _late(access, limit_s) for access in devices}


def facts(one: Device, connect: Callable[[Device], Connection] = device.connect, limit_s: float = LIMIT_S) -> Facts:
    """What a device says of itself.

    Raises:
        EdgeoptError: It is not reached, or its Python lacks what the agent needs.
    """
    try:
        with connect(one) as connection, connection.start(limit_s=limit_s) as agent:
            return agent.probe(limit_s=limit_s)
    except StageError as error:
        if absent := _ABSENT.search(error.what):
            python = one.access.python or "python3"
            what, fix = f"its Python has no {absent[1]}", f"on the device: {python} -m pip install {absent[1]}"
            raise StageError(what, where=str(one.access), fix=fix) from error
        raise


def _ask(one: Device, limit_s: float, connect: Callable[[Device], Connection]) -> Reached:
    access = str(one.access)
    try:
        found = facts(one, connect, limit_s)
    except EdgeoptError as error:
        return Reached(access, True, problem=Problem(f"{error.where or access}: {error.what}", error.fix))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:  # this is a thread: nobody else tells
        return Reached(access, True, problem=Problem(f"{access}: asking it failed: {type(error).__name__} {error}"))
    return Reached(access, True, str(found.machine), facts=found)


def _late(access: Access, limit_s: float) -> Reached:
    by_hand = f"try `ssh {access.ssh}`" if access.ssh else "see `adb devices`" if access.adb else ""
    problem = Problem(f"{access}: no answer within {limit_s:g} s", f"is it on? {by_hand}".strip())
    return Reached(str(access), True, problem=problem)
