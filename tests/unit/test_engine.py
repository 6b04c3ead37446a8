"""The engine over stages made for the test: what enters the key, what is reused, what a failure leaves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt import device, engine, events, provenance, registry
from edgeopt.artifact import Artifact, Store, digest_of
from edgeopt.data import Split
from edgeopt.errors import StageError, StoreError
from edgeopt.plan import Plan, Step, TargetPlan
from edgeopt.recipe import Recipe
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.target import Device, Target


class EchoParams(Params):
    text: str = "a"


@dataclass
class Echo:
    """Writes its parameters and inputs into a file."""

    name: str = "echo"
    version: int = 1
    tools: tuple[str, ...] = ()
    on_device: bool = False
    environment: str = ""
    ran: list[str] = field(default_factory=list)
    error: Exception | None = None
    Params = EchoParams
    accepts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    produces: frozenset[str] = frozenset({"echo"})
    in_recipe: bool = True

    def bind(self, params: EchoParams, target: Target) -> EchoParams:
        return params

    def data(self, params: EchoParams) -> tuple[str, ...]:
        return ("train",)

    def run(self, inputs: Mapping[str, Artifact], params: EchoParams, ctx: StageContext) -> StageOutput:
        self.ran.append(params.text)
        (ctx.out / "text").write_text(params.text[:1])
        if self.error:
            raise self.error
        return StageOutput("echo", {"inputs": {role: a.digest for role, a in inputs.items()}}, "echoed", ("a note",))


def write_data(folder: Path, train_pixel: int = 1) -> None:
    for number, name in enumerate(("train", "calibrate", "select", "evaluate")):
        samples = np.full((2, 3), 10 * number, np.float32)
        samples[1] += 1
        if name == "train":
            samples[0, 0] = train_pixel / 100
        np.savez(folder / f"{name}.npz", samples=samples, labels=np.arange(2))


def make_plan(folder: Path, *steps: Step, seed: int = 0, path: str = "recipe.yaml") -> Plan:
    data = {name: {"path": f"{name}.npz"} for name in ("train", "calibrate", "select", "evaluate")}
    recipe = Recipe.model_validate_json(
        json.dumps(
            {
                "recipe": 1,
                "name": "r",
                "model": {"factory": "m:f", "weights": "w"},
                "input": {"shape": [3]},
                "data": data,
                "metrics": ["top1"],
                "seed": seed,
                "targets": ["t"],
            }
        )
    )
    return Plan(recipe, folder / path, (), "0" * 64, steps, {}, ())


def step(
    name: str = "one", text: str = "a", stage: str = "echo", data: tuple[str, ...] = ("train",), **inputs: str
) -> Step:
    return Step(name, stage, EchoParams(text=text), inputs, data, None)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    stage = Echo()
    plugins: dict[str, Mapping[str, Any]] = {"stages": {"echo": stage}, "metrics": registry.builtin("metrics")}
    monkeypatch.setattr(registry, "builtin", lambda kind: plugins.get(kind, {}))
    return stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def run(folder: Path, plan: Plan, **options: Any) -> tuple[engine.Execution, list[events.Event]]:
    heard: list[events.Event] = []
    return engine.execute(plan, Store(folder / "store"), heard.append, **options), heard


def test_an_unchanged_step_is_reused_and_its_notes_are_told_again(folder: Path, echo: Echo) -> None:
    plan = make_plan(folder, step())
    first, _ = run(folder, plan)
    second, heard = run(folder, plan)
    assert echo.ran == ["a"]
    assert [stage.cached for stage in second.record.stages] == [True]
    assert second.record.stages[0].output == first.record.stages[0].output
    assert [event.note for event in heard if isinstance(event, events.NoteTaken)] == ["a note"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("params", "params.text: a -> b"),
        ("seed", "seed: 0 -> 1"),
        ("version", "version: 1 -> 2"),
        ("data", "data.train: "),
        ("tool", "tools.numpy: "),
    ],
)
def test_every_declared_input_runs_it_again_and_is_named(
    folder: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch, change: str, why: str
) -> None:
    echo.tools = ("numpy",)
    plan = make_plan(folder, step())
    run(folder, plan)
    match change:
        case "params":
            plan = make_plan(folder, step(text="b"))
        case "seed":
            plan = make_plan(folder, step(), seed=1)
        case "version":
            echo.version = 2
        case "data":
            write_data(folder, train_pixel=2)
        case "tool":
            monkeypatch.setattr(provenance, "tool_versions", lambda names: dict.fromkeys(names, "9"))
    again, _ = run(folder, plan)
    assert len(echo.ran) == 2
    assert again.record.stages[0].why.startswith(why)


def test_nothing_else_runs_it_again(folder: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, make_plan(folder, step()))
    other = np.load(folder / "evaluate.npz")
    np.savez(folder / "evaluate.npz", samples=other["samples"] + 7, labels=other["labels"])
    monkeypatch.chdir("/")
    monkeypatch.setenv("EDGEOPT_SOMETHING", "else")
    plan = make_plan(folder, replace(step("renamed"), target=None), path="other.yaml")
    again, _ = run(folder, plan)
    assert echo.ran == ["a"]
    assert again.record.stages[0].cached


#: What the output of a step can depend on, and what it cannot.
RELEVANT = ("text", "seed", "version", "input", "train", "tool", "flags")
IRRELEVANT = ("other_split", "step_id", "recipe_file", "recipe_name", "gate")
worlds = st.fixed_dictionaries(dict.fromkeys((*RELEVANT, *IRRELEVANT), st.integers(0, 2)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=worlds, second=worlds, shared=st.sets(st.sampled_from(RELEVANT)))
def test_the_key_changes_with_every_declared_input_and_with_nothing_else(
    tmp_path: Path,
    echo: Echo,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, int],
    second: dict[str, int],
    shared: set[str],
) -> None:
    second = {name: first[name] if name in shared else value for name, value in second.items()}
    keys = [key_in(world, tmp_path, echo, monkeypatch) for world in (first, second)]
    same = all(first[name] == second[name] for name in RELEVANT)
    assert (keys[0] == keys[1]) == same


def key_in(world: dict[str, int], folder: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of one step in a world."""
    from edgeopt.agent import machine

    target = Target.model_validate_json('{"target": 1, "name": "t", "runtime": "r"}')
    echo.version, echo.tools, echo.on_device = world["version"], ("tool",), True
    monkeypatch.setattr(provenance, "tool_versions", lambda names: dict.fromkeys(names, str(world["tool"])))
    facts = {"cpu": "c", "flags": [str(world["flags"])], "cores": world["gate"], "gpu": ""}
    monkeypatch.setattr(machine, "facts", lambda: facts)
    planned = replace(step(f"s{world['step_id']}", str(world["text"]), model="before"), target="t", device=Device())
    made = make_plan(folder, planned, seed=world["seed"], path=f"{world['recipe_file']}.yaml")
    recipe = made.recipe.model_copy(update={"name": f"r{world['recipe_name']}"})
    made = replace(made, recipe=recipe, targets={"t": TargetPlan(target, folder / str(world["gate"]), (), (), ())})
    nothing = np.zeros(0)
    splits = {name: Split(name, nothing, None, str(world[key])) for name, key in SPLIT_OF.items()}
    run = engine._Run(made, None, lambda event: None, splits, True, False, device.connect, date(2026, 1, 1))  # type: ignore[arg-type]
    run.artifacts["before"] = Artifact("echo", str(world["input"]), folder, {}, {})
    return digest_of(run._key_fields(planned))


SPLIT_OF = {"train": "train", "evaluate": "other_split"}


def test_an_input_that_changes_without_changing_the_output_stops_there(folder: Path, echo: Echo) -> None:
    """The first step's parameter differs, but what it writes does not: the second step is a hit."""
    run(folder, make_plan(folder, step("one", "ab"), step("two", "b", model="one")))
    again, _ = run(folder, make_plan(folder, step("one", "ac"), step("two", "b", model="one")))
    assert [stage.cached for stage in again.record.stages] == [False, True]


def test_reuse_can_be_turned_off(folder: Path, echo: Echo) -> None:
    plan = make_plan(folder, step())
    run(folder, plan)
    again, _ = run(folder, plan, reuse=False)
    assert len(echo.ran) == 2
    assert again.record.stages[0].why == "the store is not used"


def test_a_failure_stops_the_run_and_leaves_nothing(folder: Path, echo: Echo) -> None:
    echo.error = StageError("broken")
    with pytest.raises(StageError, match="one: broken"):
        run(folder, make_plan(folder, step()))
    store = Store(folder / "store")
    assert store.info()["objects"] == 0
    assert list((folder / "store" / "tmp").iterdir()) == []


def test_keep_going_skips_only_what_needs_the_failed_step(folder: Path, echo: Echo) -> None:
    class Broken(Echo):
        pass

    broken = Broken(name="broken", error=StageError("broken"))
    registry.builtin("stages")["broken"] = broken  # type: ignore[index]
    steps = (step("one", stage="broken"), step("two", model="one"), step("three", "c"))
    done, heard = run(folder, make_plan(folder, *steps), keep_going=True)
    assert [(s.id, s.output != "") for s in done.record.stages] == [("one", False), ("two", False), ("three", True)]
    assert done.record.outcome == "error"
    assert done.record.exit_code == 3
    failed = [event.step for event in heard if isinstance(event, events.StepFailed)]
    assert failed == ["one", "two"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_store_error(folder: Path, echo: Echo, code: int) -> None:
    echo.error = OSError(code, os.strerror(code))
    with pytest.raises(StoreError, match="disk is full"):
        run(folder, make_plan(folder, step()))


def test_the_fingerprint_of_the_device_enters_only_where_it_matters(
    folder: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeopt.agent import machine

    target = Target.model_validate_json('{"target": 1, "name": "t", "runtime": "r"}')
    facts = machine.facts()
    for on_device in (False, True):
        echo.on_device, echo.ran = on_device, []
        plan = make_plan(folder, replace(step(text=str(on_device)), device=Device() if on_device else None))
        plan = replace(plan, targets={"t": TargetPlan(target, folder, (), (), ())})
        for flags in (["avx2"], ["avx2", "avx512_vnni"]):
            monkeypatch.setattr(machine, "facts", lambda flags=flags: {**facts, "flags": flags})
            engine_only(folder, plan)
        assert len(echo.ran) == (2 if on_device else 1)


def test_the_toolkit_of_the_device_is_part_of_what_it_compiles() -> None:
    """A new JetPack on a board is a new key: the old engine would be refused there."""
    from edgeopt.access import Facts, Machine
    from edgeopt.stages.compile import CompileParams

    class Board:
        def __init__(self, version: str, gpu: str) -> None:
            self.told = (version, gpu)

        def facts(self) -> Facts:
            version, gpu = self.told
            return Facts("0", "3", 1, Machine("arm", (), 6, 8192, "Linux", gpu=gpu), {"tensorrt": version}, {})

    def key(board: Board, **params: Any) -> dict[str, Any]:
        device = Device()
        made = object.__new__(engine._Run)
        made._connections = {device: board}  # type: ignore[dict-item]
        return made._fingerprint(replace(step(), params=CompileParams(**{"runtime": "tensorrt", **params})), device)

    old = key(Board("10.3.0 (trtexec)", "Orin (sm_87)"))
    assert old["runtime"] == "10.3.0 (trtexec)"
    assert old != key(Board("10.7.0 (trtexec)", "Orin (sm_87)"))
    assert old != key(Board("10.3.0 (trtexec)", "Thor (sm_110)"))
    assert "runtime" not in key(Board("", ""), at_hand=False)
    assert "runtime" not in key(Board("", ""), runtime="onnxruntime")


def engine_only(folder: Path, plan: Plan) -> None:
    """Run the steps of a plan; its target has no candidates, so measuring it is bound to fail."""
    with pytest.raises((StageError, ValueError, IndexError)):
        run(folder, plan)


def test_a_tool_that_is_missing_is_told_before_any_step(folder: Path, echo: Echo) -> None:
    from edgeopt.errors import MissingBackend

    echo.tools = ("surely-not-installed",)
    with pytest.raises(MissingBackend, match="surely-not-installed"):
        run(folder, make_plan(folder, step()))
    assert echo.ran == []


def test_devices_are_hashable() -> None:
    assert {Device(): 1}[Device()] == 1


class Unreachable:
    """A connection to a device that does not answer."""

    def facts(self) -> None:
        raise StageError("it does not answer", where="ssh board")

    def exclusive(self, waiting: object) -> None:
        self.facts()

    def close(self) -> None: ...


def test_a_device_that_does_not_answer_is_told_before_any_step(folder: Path, echo: Echo) -> None:
    target = Target.model_validate({"target": 1, "name": "t", "runtime": "r", "device": {"access": {"ssh": "board"}}})
    made = replace(make_plan(folder, step()), targets={"t": TargetPlan(target, folder, (), (), ())})
    store = Store(folder / "store")
    with pytest.raises(StageError, match="it does not answer"):
        engine.execute(made, store, lambda event: None, connect=lambda device: Unreachable())  # type: ignore[arg-type,return-value]
    assert echo.ran == []
    engine.execute(
        made,
        store,
        lambda event: None,
        keep_going=True,
        connect=lambda device: Unreachable(),  # type: ignore[arg-type,return-value]
    )
    assert echo.ran == ["a"]


@dataclass
class Kept:
    """A connection whose agents remember that they were stopped."""

    started: list[Kept] = field(default_factory=list)
    stopped: bool = False

    def start(self) -> Kept:
        self.started.append(Kept())
        return self.started[-1]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None: ...


def test_a_tool_environment_is_left_once_a_step_does_without_it(
    folder: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, seen = Kept(), []
    monkeypatch.setattr(engine.tools, "python", lambda name: folder / name)

    def ran(inputs: object, params: EchoParams, ctx: StageContext) -> StageOutput:
        if params.text == "tool":
            ctx.host("rknn")
        seen.append([agent.stopped for agent in connection.started])
        (ctx.out / "text").write_text(params.text)
        return StageOutput("echo", {}, "", ())

    monkeypatch.setattr(echo, "run", ran, raising=False)
    splits = ("train", "select", "evaluate", "train", "calibrate")  # so that no two steps are equal
    texts = ("tool", "tool", "none", "none", "tool")
    steps = [step(f"s{n}", text, data=(split,)) for n, (text, split) in enumerate(zip(texts, splits, strict=True))]
    run(folder, make_plan(folder, *steps), connect=lambda device: connection)
    assert seen == [[False], [False], [False], [True], [True, False]]
    assert [agent.stopped for agent in connection.started] == [True, True]
