"""What a user wrote: the recipe, its target files and its waivers, read and checked against each other.

Everything that is wrong is reported at once, at ``file:line:col``. None of the user's code runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeopt import config, metrics, reference, registry, verdict, waivers
from edgeopt import target as target_files
from edgeopt.artifact import digest_of
from edgeopt.backends import not_available
from edgeopt.config import Document
from edgeopt.errors import ConfigError, PlanError
from edgeopt.recipe import Gates, Recipe, TargetSpec
from edgeopt.stage import Params, Stage
from edgeopt.target import Target
from edgeopt.waivers import Waiver


@dataclass(frozen=True)
class FoundTarget:
    """A target of the recipe.

    Attributes:
        source: Its file.
        spec: What the recipe says of it.
        gates: The target's own, the recipe's, and the recipe's for this target; on each evaluation set.
    """

    target: Target
    source: Document
    spec: TargetSpec
    gates: tuple[verdict.Gate, ...]


@dataclass(frozen=True)
class Read:
    """A recipe without problems.

    Attributes:
        path: The recipe file.
        digest: sha256 of its canonical content, after overrides.
        steps: Name of the stage and its parameters, in order.
    """

    recipe: Recipe
    path: Path
    digest: str
    steps: tuple[tuple[str, Params], ...]
    targets: Mapping[str, FoundTarget]
    waivers: tuple[Waiver, ...]


def read(recipe: Path, overrides: Sequence[str], only: Sequence[str], waivers_file: Path | None) -> Read:
    """Read and check everything.

    Args:
        recipe: The recipe file, or the folder that holds ``recipe.yaml``.
        overrides: ``a.b=c`` assignments.
        only: Names of the targets to keep; all if empty.
        waivers_file: Instead of the ``waivers.yaml`` beside the recipe.

    Raises:
        ConfigError: With every problem.
    """
    path = recipe / "recipe.yaml" if recipe.is_dir() else recipe
    document = config.parse(path, overrides)
    parsed = document.read(Recipe)
    if parsed:
        parsed = parsed.model_copy(update={"metrics": metrics.with_companions(parsed.metrics)})
    steps = _read_steps(document)
    _check_references(document, path.parent)
    known = _read_targets(document, parsed, path.parent, only) if parsed else {}
    targets = {name: found for name, found in known.items() if not only or name in only}
    waived: tuple[Waiver, ...] = ()
    if parsed:
        _check_names(document, parsed, targets)
        waived = _read_waivers(document, known, waivers.locate(path.parent, waivers_file))
    document.check()
    if parsed is None:
        raise ConfigError("cannot be read", where=str(path))
    return Read(parsed, path, digest_of(document.data), tuple(steps), targets, waived)


def _read_waivers(document: Document, targets: Mapping[str, FoundTarget], file: Path | None) -> tuple[Waiver, ...]:
    """Those of the file, if there is one; what is wrong with them becomes a problem of the recipe."""
    gates = {name: [gate.name for gate in found.gates] for name, found in targets.items()}
    try:
        return waivers.read(file, gates) if file else ()
    except ConfigError as error:
        document.include(error)
        return ()


def _read_steps(document: Document) -> list[tuple[str, Params]]:
    """Validate each step's parameters with the stage that it names, and the order of the steps."""
    steps: list[tuple[str, Params]] = []
    listed = document.data.get("steps") or []
    known = {name: stage for name, stage in registry.builtin("stages").items() if stage.in_recipe}
    quantized = False
    for number, step in enumerate(listed if isinstance(listed, list) else []):
        name = step if isinstance(step, str) else next(iter(step), "") if isinstance(step, dict) else ""
        if not name or (isinstance(step, dict) and len(step) != 1):
            continue
        at = ("steps", number) if isinstance(step, str) else ("steps", number, name)
        if name not in known:
            document.problem(at, f"unknown step {name!r}{registry.hint(name, known)}", key=True)
            continue
        stage: Stage[Any] = known[name]
        if isinstance(step, str):
            document.data["steps"][number] = {name: None}
            at = ("steps", number, name)
        if quantized:
            what = "twice" if name == "quantize" else f"{name!r} after 'quantize'"
            document.problem(
                at, f"{what}: quantize comes last, since the others work on the float torch model", key=True
            )
        quantized = quantized or name == "quantize"
        params = (
            document.read(stage.Params, at) if isinstance(document.data["steps"][number][name], dict | None) else None
        )
        if params is not None:
            steps.append((name, params))
            criterion = getattr(params, "criterion", None)
            if criterion is not None:
                _find(document, "criteria", criterion, (*at, "criterion"))
    return steps


def _find(document: Document, kind: str, name: str, at: config.Loc) -> Any:
    try:
        return registry.find(kind, name)
    except registry.UnknownPlugin as error:
        document.problem(at, str(error))
        return None


def _check_references(document: Document, root: Path) -> None:
    """The user's modules and files exist; none of their code runs."""
    model = document.data.get("model")
    if isinstance(model, dict):
        factory = model.get("factory")
        if isinstance(factory, str) and ":" in factory and (why := reference.exists(factory, root)):
            document.problem(("model", "factory"), why)
        weights = model.get("weights")
        if isinstance(weights, str) and not (root / weights).is_file():
            near = [path.name for path in root.glob("*") if path.suffix in (".safetensors", ".pt", ".pth", ".ckpt")]
            document.problem(("model", "weights"), f"no such file: {root / weights}{registry.hint(weights, near)}")
    data = document.data.get("data")
    for name, split in data.items() if isinstance(data, dict) else ():
        if not isinstance(split, dict):
            continue
        _check_source(document, split, ("data", name), root)
        sets = split.get("sets")
        for key, one in sets.items() if isinstance(sets, dict) else ():
            if isinstance(one, dict):
                _check_source(document, one, ("data", name, "sets", key), root)
    listed = document.data.get("metrics")
    for number, metric in enumerate(listed if isinstance(listed, list) else []):
        factory = metric.get("factory") if isinstance(metric, dict) else None
        if isinstance(factory, str) and ":" in factory and (why := reference.exists(factory, root)):
            document.problem(("metrics", number, "factory"), why)


def _check_source(document: Document, split: Mapping[str, Any], at: config.Loc, root: Path) -> None:
    loader, path = split.get("loader"), split.get("path")
    if isinstance(loader, str) and ":" in loader and (why := reference.exists(loader, root)):
        document.problem((*at, "loader"), why)
    if isinstance(path, str) and not (root / path).is_file():
        document.problem((*at, "path"), f"no such file: {root / path}")


def _read_targets(document: Document, recipe: Recipe, root: Path, only: Sequence[str]) -> dict[str, FoundTarget]:
    found: dict[str, FoundTarget] = {}
    for number, spec in enumerate(recipe.targets):
        at: config.Loc = ("targets", number)
        try:
            file = target_files.locate(spec.name, root)
        except ConfigError as error:
            document.problem((*at, "name"), error.what)
            continue
        try:
            source = config.parse(file)
            target = source.read(Target)
            source.check()
        except ConfigError as error:
            document.include(error)
            continue
        if target is None:
            continue
        if target.name in found:
            document.problem(at, f"target {target.name!r} is listed twice")
        for what in _runtime_problems(target, source):
            document.include(what)
        gates = _on_sets(
            verdict.gates_of(target.gates, recipe.gates, spec.gates), tuple(recipe.data.evaluate.sets or ())
        )
        found[target.name] = FoundTarget(target, source, spec, gates)
    for name in only:
        if name not in found:
            raise ConfigError(
                f"the recipe has no target {name!r}{registry.hint(name, found)}", where=f"--target {name}"
            )
    return found


def _runtime_problems(target: Target, source: Document) -> Iterator[ConfigError]:
    """The target's runtimes are there, and can do what it asks of them."""

    def problem(at: config.Loc, what: str, fix: str = "") -> ConfigError:
        return ConfigError(f"{what} ({fix})" if fix else what, where=source.where(at))

    try:
        backends = [registry.find("backends", runtime) for runtime in target.runtime]
    except registry.UnknownPlugin as error:
        refused = ((runtime, not_available(runtime)) for runtime in target.runtime)
        why = next((f"{runtime} is not available: {reason}" for runtime, reason in refused if reason), "")
        yield problem(("runtime",), why or str(error))
        return
    for number, precision in enumerate(target.precision):
        if not any(precision in backend.precisions for backend in backends):
            known = sorted({name for backend in backends for name in backend.precisions} - {"float"})
            fix = f"there are: {', '.join(known)}" if known else "leave it empty: precision: []"
            yield problem(("precision", number), f"{' or '.join(target.runtime)} compiles no {precision}", fix)
    for backend in backends:
        if backend.depth(target) is None:
            fix = "say how the device is reached: device: {access: {ssh: HOST}}, or local"
            yield problem(("device", "access"), f"{backend.name} can do nothing without its device", fix)
        try:
            backend.options(target)
        except (ConfigError, PlanError) as error:
            at = ("device", "arch") if "arch" in error.fix + error.what else ("compile",)
            yield problem(at, error.what, error.fix)


def _on_sets(gates: Sequence[verdict.Gate], sets: Sequence[str]) -> tuple[verdict.Gate, ...]:
    """The gates of a product with several evaluation sets.

    One on accuracy that names no set holds for every set that has no such gate of its own.
    """
    own = {(gate.metric, gate.bound) for gate in gates}

    def parts(gate: verdict.Gate) -> list[verdict.Gate]:
        if not sets or gate.metric in verdict.OF_THE_ARTIFACT or "[" in gate.metric:
            return [gate]
        named = (replace(gate, metric=f"{gate.metric}[{name}]") for name in sets)
        return [part for part in named if (part.metric, part.bound) not in own]

    return tuple(part for gate in gates for part in parts(gate))


def _check_names(document: Document, recipe: Recipe, targets: Mapping[str, FoundTarget]) -> None:
    """Metrics exist, and every gate is on something that is measured, in a direction that makes sense."""
    accuracy = _accuracy(document, recipe)
    directions: dict[str, metrics.Better | None] = {**accuracy, **verdict.OF_THE_ARTIFACT}

    def check(gates: Gates, at: config.Loc, prefix: str = "") -> None:
        for name, limit in gates.items():
            if name not in directions:
                document.problem((*at, name), f"{prefix}no gate on {name!r}{registry.hint(name, directions)}", key=True)
            elif why := verdict.gate_problem(name, limit, directions[name]):
                document.problem((*at, name), prefix + why, key=True)

    check(recipe.gates, ("gates",))
    for number, spec in enumerate(recipe.targets):
        check(spec.gates, ("targets", number, "gates"))
    for name, found in targets.items():
        check(found.target.gates, ("targets",), f"{found.source.path}: ")
        if recipe.steps and accuracy and not {gate.metric for gate in found.gates} & set(accuracy):
            document.problem(
                ("gates",),
                f"no accuracy gate for target {name!r}: compressing a model without one would ship whatever is "
                f"fastest; add such as `gates: {{{next(iter(accuracy))}: {{max_drop: 0.01}}}}`",
            )
        guards = metrics.guards(recipe.metrics) if recipe.steps else ()
        if guards and not any(_holds_everywhere(guard, recipe, found.gates) for guard in guards):
            everywhere = ", on every evaluation set," if recipe.data.evaluate.sets else ""
            document.problem(
                ("gates",),
                f"no gate on {' or '.join(guards)}{everywhere} for target {name!r}: a compressed model may be as good "
                "as before and yet let more through at the threshold that production keeps; add such as "
                f"`gates: {{{guards[0]}: {{max_drop: 0.001}}}}`",
            )


def _holds_everywhere(metric: str, recipe: Recipe, gates: Sequence[verdict.Gate]) -> bool:
    """Whether there is a gate on the metric on each evaluation set, or on the worst."""
    gated = {gate.metric for gate in gates}
    sets = recipe.data.evaluate.sets or {}
    on_each = {f"{metric}[{one}]" for one in sets}
    return metric in gated or f"{metric}[worst]" in gated or (bool(on_each) and on_each <= gated)


def _accuracy(document: Document, recipe: Recipe) -> dict[str, metrics.Better | None]:
    """What accuracy can be gated: every metric, on each evaluation set and the worst; and which direction is good.

    The direction of a user's own metric is not known before its code runs.
    """
    known: dict[str, metrics.Better | None] = {}
    for number, spec in enumerate(recipe.metrics):
        try:
            built = metrics.build(spec)
        except registry.UnknownPlugin as error:
            document.problem(("metrics", number), str(error))
            continue
        except ValueError as error:
            parameter, _, what = str(error).partition(": ")
            document.problem(("metrics", number, spec.name, parameter), what)
            continue
        name = spec.name if built is None else built.label
        if name in known:
            document.problem(("metrics", number), f"{name!r} is listed twice")
        if number < len(document.data["metrics"]) and (why := metrics.clash(spec, recipe.metrics)):
            document.problem(("metrics", number), why)
        sets = recipe.data.evaluate.sets
        for gated in (name, *(f"{name}[{one}]" for one in (*sets, "worst"))) if sets else (name,):
            known[gated] = built.better if built else None
    return known
