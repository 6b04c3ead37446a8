"""The engine: runs a plan's steps through the store. The only loop over steps.

``execute()`` runs or reuses every step, then measures the candidates of each target together on its device, lets
:func:`edgeopt.verdict.select` choose, judges the gates, and returns the record. It formats no text and knows no stage.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from edgeopt import data, events, metrics, provenance, registry, tools, verdict, waivers
from edgeopt.access import Agent, Connection
from edgeopt.artifact import Action, Artifact, Store, digest_of, first_difference
from edgeopt.contest import Contest, Evaluated
from edgeopt.data import Split
from edgeopt.device import connect as reach
from edgeopt.errors import ConfigError, EdgeoptError, StageError, StoreError
from edgeopt.events import Sink
from edgeopt.measure import Measurement
from edgeopt.plan import Candidate, Plan, Step, TargetPlan, asks_device, environments_of, tools_of
from edgeopt.publish import Samples
from edgeopt.record import (
    SCHEMA,
    LedgerRecord,
    RecipeRecord,
    RunRecord,
    StageRecord,
    TargetRecord,
)
from edgeopt.stage import Stage, StageContext
from edgeopt.target import Access, Device

#: The way to a device.
Connect = Callable[[Device], Connection]


@dataclass(frozen=True)
class Execution:
    """What a run leaves: its record, the shipped artefact of each target, and the raw latency samples."""

    record: RunRecord
    shipped: Mapping[str, Artifact]
    samples: Samples


def execute(
    plan: Plan,
    store: Store,
    sink: Sink,
    *,
    reuse: bool = True,
    keep_going: bool = False,
    connect: Connect = reach,
    today: date | None = None,
) -> Execution:
    """Run a plan.

    Args:
        plan: What to do.
        store: Where artefacts are kept.
        sink: Hears what happens.
        reuse: Whether finished actions of the store are reused.
        keep_going: After a failure, go on with the steps and targets that do not need what failed.
        connect: The way to a device.
        today: On which waivers must hold; by default that of UTC.

    Raises:
        EdgeoptError: A step failed, unless ``keep_going``; a tool is missing; the data are wrong.
    """
    started = time.time()
    if not keep_going:
        provenance.require(plan.tools)
        for environment in plan.environments:
            tools.python(environment)
    sink(
        events.RunStarted(
            time=started,
            recipe=plan.recipe.name,
            targets=tuple(plan.targets),
            steps=tuple((step.id, step.stage) for step in plan.steps)
            + tuple((f"measure:{name}", "measure") for name in plan.targets),
            needs={name: (*plan.steps_of(name), f"measure:{name}") for name in plan.targets},
        )
    )
    raw = data.raw_spec(plan.recipe.input, plan.recipe.preprocess)
    splits = data.open_splits(plan.recipe.data, raw, plan.root)
    _check_metrics(plan, splits)
    run = _Run(plan, store, sink, splits, reuse, keep_going, connect, today or datetime.now(UTC).date())
    with run.devices():
        run.greet()
        with run.agents():
            for step in plan.steps:
                run.step(step)
        for name, target in plan.targets.items():
            run.target(name, target)
    return run.finish(started)


def _check_metrics(plan: Plan, splits: Mapping[str, Split]) -> None:
    """See before hours of work that the metrics can be made and that the data have what they need.

    Raises:
        ConfigError: A column is missing, or samples of some kind, or a gate points the wrong way for a user's own
            metric.
    """
    opened = [metrics.load(spec, plan.root) for spec in plan.recipe.metrics]
    gated = {gate.metric for target in plan.targets.values() for gate in target.gates}
    for metric in opened:
        with metrics.blamed(metric, plan.root):
            metrics.check_split(metric, splits["select"], fitting=bool(metric.fitted_on))
            metrics.check_split(metric, splits["select"])
            metrics.check_split(metric, splits["evaluate"])
            for name in splits["evaluate"].sets():
                if f"{metric.label}[{name}]" in gated:
                    metrics.check_split(metric, splits["evaluate"], name)
    better = {metric.label: metric.better for metric in opened}
    for target in plan.targets.values():
        for gate in target.selection_gates:
            if why := verdict.bound_problem(gate, better[gate.metric]):
                raise ConfigError(why, where=f"gates.{gate.metric}")


@dataclass
class _Run:
    """State of one execution."""

    plan: Plan
    store: Store
    sink: Sink
    splits: Mapping[str, Split]
    reuse: bool
    keep_going: bool
    connect: Connect
    today: date
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)
    targets: dict[str, TargetRecord] = field(default_factory=dict)
    shipped: dict[str, Artifact] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)
    _connections: dict[Device, Connection] = field(default_factory=dict)
    _agents: dict[Device, Agent] = field(default_factory=dict)
    _used: set[Device] = field(default_factory=set)

    # Steps

    def step(self, step: Step) -> None:
        """Run or reuse one step."""
        broken = [source for source in step.inputs.values() if source in self.failed]
        try:
            if broken:
                raise StageError(f"not run, because {broken[0]} failed")
            self._step(step)
        except EdgeoptError as error:
            self.failed[step.id] = str(error)
            self._emit(events.StepFailed, step=step.id, error=error.what.splitlines()[0])
            if not self.keep_going:
                error.where = error.where or step.id
                raise
            self.stages.append(StageRecord(step.id, step.stage, "", False, 0.0, "", str(error), target=step.target))

    def _step(self, step: Step) -> None:
        fields = self._key_fields(step)
        key = digest_of(fields)
        slot = f"{self.plan.path.resolve()}|{step.id}"

        def waiting() -> None:
            self._emit(events.NoteTaken, step=step.id, note="another run is doing this step; waiting for it")

        with self.store.lock(key, waiting):
            found = self.store.action(key) if self.reuse else None
            if found:
                action, artifact = found
                why = "nothing that it depends on has changed"
                self._emit(events.StepCached, step=step.id)
            else:
                why = self._why(slot, fields)
                self._emit(events.StepStarted, step=step.id, why=why)
                self._used.clear()
                action, artifact = self._work(step, key, fields)
                self._spare()
                self._emit(events.StepFinished, step=step.id, seconds=action.seconds, summary=action.summary)
        for note in action.notes:
            self._emit(events.NoteTaken, step=step.id, note=note)
        self.store.remember(slot, key)
        self.artifacts[step.id] = artifact
        self.stages.append(
            StageRecord(
                id=step.id,
                stage=step.stage,
                key=key,
                cached=found is not None,
                seconds=action.seconds,
                output=artifact.digest,
                why=why,
                summary=action.summary,
                notes=action.notes,
                target=step.target,
            )
        )

    def _key_fields(self, step: Step) -> dict[str, Any]:
        """Everything that the output can depend on."""
        stage: Stage[Any] = registry.find("stages", step.stage)
        return {
            "stage": step.stage,
            "version": stage.version,
            "params": step.params.model_dump(mode="json"),
            "inputs": {role: self.artifacts[source].digest for role, source in step.inputs.items()},
            "data": {name: self.splits[name].digest for name in step.data},
            "seed": self.plan.recipe.seed,
            "tools": {
                **provenance.tool_versions(tools_of(step)),
                **{f"environment {name}": tools.digest(name) for name in environments_of(step)},
            },
            "device": self._fingerprint(step, step.device) if step.device else None,
        }

    def _why(self, slot: str, fields: Mapping[str, Any]) -> str:
        if not self.reuse:
            return "the store is not used"
        before = self.store.last_fields(slot)
        if before is None:
            return "not done before"
        return first_difference(before, fields) or "its stored output is missing or damaged"

    def _work(self, step: Step, key: str, fields: Mapping[str, Any]) -> tuple[Action, Artifact]:
        stage: Stage[Any] = registry.find("stages", step.stage)
        began = time.monotonic()

        def progress(done: float, total: float, unit: str, note: str, seconds_left: float | None) -> None:
            self._emit(
                events.StepProgress,
                step=step.id,
                done=done,
                total=total,
                unit=unit,
                note=note,
                seconds_left=seconds_left,
            )

        provenance.require(tools_of(step))
        with self.store.scratch() as out:
            context = StageContext(
                out=out,
                root=self.plan.root,
                seed=self.plan.recipe.seed,
                data={name: self.splits[name] for name in step.data},
                progress=progress,
                agent=lambda: self._agent(step.device or Device()),
                host=self._host,
            )
            inputs = {role: self.artifacts[source] for role, source in step.inputs.items()}
            try:
                output = stage.run(inputs, step.params, context)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    fix = "free some disk space (`edgeopt cache gc`); finished steps are kept"
                    raise StoreError(f"the disk is full: {error.strerror}", where=str(out.parent), fix=fix) from error
                raise
            artifact = self.store.put(output.kind, out, output.meta)
        action = Action(
            key=key,
            fields=fields,
            output=artifact.digest,
            seconds=time.monotonic() - began,
            summary=output.summary,
            notes=output.notes,
            created=time.time(),
        )
        self.store.record(action)
        return action, artifact

    # Devices

    @contextlib.contextmanager
    def devices(self) -> Iterator[None]:
        """Leave nothing on the devices."""
        try:
            yield
        finally:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def greet(self) -> None:
        """See before hours of work that the devices answer, unless the run may go on without them.

        Raises:
            StageError: One does not.
        """
        away = {planned.target.device for planned in self.plan.targets.values()}
        for device in () if self.keep_going else sorted(away, key=lambda device: str(device.access)):
            if not device.access.none and device.access != Access():
                self._connection(device).facts()

    def _connection(self, device: Device) -> Connection:
        if device not in self._connections:
            self._connections[device] = self.connect(device)
        return self._connections[device]

    def _fingerprint(self, step: Step, device: Device) -> dict[str, Any]:
        """What of a device decides which kernels run there: its processors, and the runtime that it has."""
        facts, runtime = _this_machine(), {}
        if device.access != Access() or asks_device(step):
            told = self._connection(device).facts()
            name = getattr(step.params, "runtime", "")
            facts, runtime = asdict(told.machine), {"runtime": told.runtimes.get(name, "")}
        gpu = {"gpu": facts["gpu"]} if facts["gpu"] else {}
        return {"cpu": facts["cpu"], "flags": list(facts["flags"]), **gpu, **runtime, **device.model_dump(mode="json")}

    @contextlib.contextmanager
    def agents(self) -> Iterator[None]:
        """Stop the agents that the steps started; measuring uses fresh ones."""
        try:
            yield
        finally:
            for agent in self._agents.values():
                agent.stop()
            self._agents.clear()

    def _agent(self, device: Device) -> Agent:
        if device not in self._agents or self._agents[device].stopped:
            self._agents[device] = self._connection(device).start()
        self._used.add(device)
        return self._agents[device]

    def _spare(self) -> None:
        """Stop the agents in other Pythons that the last step did without: a toolkit holds hundreds of MB."""
        for device in [one for one in self._agents if one.access.python and not one.access.remote]:
            if device not in self._used:
                self._agents.pop(device).stop()

    def _host(self, environment: str) -> Agent:
        """An agent on this machine; in an isolated tool environment if one is named."""
        access = Access(python=str(tools.python(environment))) if environment else Access()
        return self._agent(Device(access=access))

    # Targets

    def target(self, name: str, planned: TargetPlan) -> None:
        """Measure the candidates of a target, choose, and judge."""
        step_id = f"measure:{name}"
        try:
            broken = [
                step
                for candidate in planned.candidates
                for step in (candidate.select, candidate.evaluate, candidate.parity)
                if step in self.failed
            ]
            if broken:
                raise StageError(f"not measured, because {broken[0]} failed")
            began = time.monotonic()
            self._emit(events.StepStarted, step=step_id, why="latency is never reused")
            self._contest(name, planned, step_id)
            self._emit(events.StepFinished, step=step_id, seconds=time.monotonic() - began)
        except EdgeoptError as error:
            self.failed[step_id] = str(error)
            self._emit(events.StepFailed, step=step_id, error=error.what.splitlines()[0])
            if not self.keep_going:
                error.where = error.where or step_id
                raise
            self.targets[name] = TargetRecord("", "", (), (), error=str(error))

    def _contest(self, name: str, planned: TargetPlan, step_id: str) -> None:
        contest = Contest(
            plan=planned,
            private=self.plan.recipe.data.private,
            seed=self.plan.recipe.seed,
            splits=self.splits,
            evaluated={candidate.id: self._evaluated(candidate) for candidate in planned.candidates},
            connect=lambda: self._connection(planned.target.device).start(),
            noise=self.store.root / "noise",
            progress=lambda done, total, note: self._emit(
                events.StepProgress,
                step=step_id,
                done=done,
                total=total,
                unit="s",
                note=note,
                seconds_left=total - done,
            ),
        )
        with self._alone(planned.target.device, step_id):
            record, self.samples[name] = contest.run()
        record = waivers.apply(self.plan.waivers, name, record, self.today)
        for candidate in record.candidates:
            for m in candidate.measurements:
                if m.metric in verdict.DEVICE_METRICS:
                    self._emit(
                        events.Measured,
                        step=step_id,
                        candidate=candidate.id,
                        metric=m.metric,
                        value=m.value,
                        interval=m.interval,
                        unit=m.unit,
                        method=m.method,
                    )
        self._emit(events.Shipped, target=name, candidate=record.shipped, reason=record.reason)
        for judged in record.verdicts:
            self._emit(events.GateDecided, target=name, gate=judged.gate, outcome=judged.outcome, why=judged.why)
        self.targets[name] = record
        winner = next(c for c in planned.candidates if c.id == record.shipped)
        self.shipped[name] = self.artifacts[winner.compiled]

    def _alone(self, device: Device, step_id: str) -> contextlib.AbstractContextManager[None]:
        """No other run times anything on the device meanwhile."""
        if device.access.none:
            return contextlib.nullcontext()
        return self._connection(device).exclusive(lambda note: self._emit(events.NoteTaken, step=step_id, note=note))

    def _evaluated(self, candidate: Candidate) -> Evaluated:
        return Evaluated(
            compiled=self.artifacts[candidate.compiled],
            select=self.artifacts[candidate.select],
            evaluate=self.artifacts[candidate.evaluate],
            parity=self.artifacts[candidate.parity] if candidate.parity else None,
        )

    # The end

    def finish(self, started: float) -> Execution:
        verdicts = [judged for target in self.targets.values() for judged in target.verdicts]
        settled = waivers.settle(self.plan.waivers, self.targets, self.today)
        outcome, code = verdict.outcome_of(verdicts, bool(self.failed), settled)
        machine = _this_machine()
        record = RunRecord(
            schema=SCHEMA,
            outcome=outcome,
            exit_code=int(code),
            started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
            seconds=time.time() - started,
            recipe=RecipeRecord(
                name=self.plan.recipe.name,
                path=str(self.plan.path),
                digest=self.plan.digest,
                overrides=self.plan.overrides,
                values=self.plan.recipe.model_dump(mode="json", exclude_none=True),
            ),
            targets=self.targets,
            ledger=tuple(self._ledger()),
            stages=tuple(self.stages),
            provenance={
                **provenance.collect(self.plan.root, (*self.plan.tools, "numpy", "scipy"), machine),
                "data": {name: split.digest for name, split in self.splits.items()},
                "metrics": dict(self.plan.metric_sources),
            },
            waivers=settled,
        )
        self._emit(events.RunFinished, outcome=outcome, exit_code=int(code), seconds=record.seconds)
        return Execution(record, self.shipped, self.samples)

    def _ledger(self) -> Iterator[LedgerRecord]:
        for point in self.plan.ledger:
            scores = self.artifacts.get(point.step)
            for name, raw in (scores.meta["metrics"] if scores else {}).items():
                m = Measurement.from_json(raw)
                if m.value is not None and not name.endswith(" drop"):
                    yield LedgerRecord(
                        point.stage,
                        name,
                        m.value,
                        m.interval,
                        point.target,
                        point.runtime,
                        point.candidate,
                        m.unit,
                        m.better,
                        m.method,
                    )

    def _emit(self, event: type[events.Event], **fields: Any) -> None:
        self.sink(event(time=time.time(), **fields))


def _this_machine() -> dict[str, Any]:
    from edgeopt.agent import machine

    return machine.facts()
