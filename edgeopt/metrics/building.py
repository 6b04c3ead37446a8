"""From a recipe's list of metrics to metrics, and what can be known of them without running the user's code."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from edgeopt import reference, registry
from edgeopt.artifact import digest_of, file_digest
from edgeopt.errors import ConfigError
from edgeopt.metrics.metric import Metric, label_problem, unfit
from edgeopt.recipe import MetricSpec


def build(spec: MetricSpec) -> Metric | None:
    """The built-in or installed metric of a recipe with its parameters; ``None`` for one that the user wrote.

    Raises:
        registry.UnknownPlugin: There is none of that name.
        ValueError: A parameter is unknown or wrong, and the message starts with its name; or the metric is unfit, or
            cannot be called so.
    """
    if spec.factory is not None:
        why = label_problem(spec.name)
        made = None
    else:
        made = _with_parameters(spec)
        why = unfit(made)
    if why:
        raise ValueError(f"{spec.name}: {why}")
    return made


def _with_parameters(spec: MetricSpec) -> Metric:
    import pydantic

    plain: Any = registry.find("metrics", spec.name)
    if not spec.args:
        return cast(Metric, plain)
    if not dataclasses.is_dataclass(plain):
        raise ValueError(f"{next(iter(spec.args))}: {spec.name} has no parameters")
    known = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain) if field.init}
    for name in spec.args:
        if name not in known:
            raise ValueError(f"{name}: {spec.name} has no such parameter{registry.hint(name, known)}")
    try:
        made: Metric = pydantic.TypeAdapter[Any](type(plain)).validate_python({**known, **spec.args})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0] if first['loc'] else spec.name}: {first['msg']}") from error
    return made


def label(spec: MetricSpec) -> str:
    """What the metric of a recipe is called, found without running the user's code."""
    built = build(spec)
    return spec.name if built is None else built.label


def source(spec: MetricSpec, root: Path) -> str:
    """What tells one version of the code behind a number from another, found without running the user's code.

    Raises:
        ConfigError: The user's module cannot be found or parsed.
    """
    return digest_of([_source(), foreign_source(spec, root)])


def foreign_source(spec: MetricSpec, root: Path) -> str:
    """Digest of the user's code, or release of an installed plug-in; empty for what is built in.

    Raises:
        ConfigError: The user's module cannot be found or parsed.
    """
    return reference.source_digest(spec.factory, root) if spec.factory else registry.release("metrics", spec.name)


@functools.cache
def _source() -> str:
    """Digest of the modules of edgeopt that compute the numbers."""
    package = Path(__file__).parents[1]
    files = sorted(file for part in ("metrics", "verification", "statistics") for file in (package / part).glob("*.py"))
    return digest_of({file.relative_to(package).as_posix(): file_digest(file) for file in files})


def with_companions(specs: Sequence[MetricSpec]) -> tuple[MetricSpec, ...]:
    """The metrics of a recipe, and after them those that they bring along; what cannot be built brings none."""
    known: dict[str, MetricSpec] = {}
    brought: list[MetricSpec] = []
    for spec in specs:
        with contextlib.suppress(registry.UnknownPlugin, ValueError):
            built = build(spec)
            known[spec.name if built is None else built.label] = spec
            brought += built.companions if built else ()
    for spec in brought:
        known.setdefault(label(spec), spec)
    return (*specs, *(spec for spec in known.values() if spec not in specs))


def clash(spec: MetricSpec, listed: Sequence[MetricSpec]) -> str:
    """Why a metric, or one that it brings along, cannot be taken beside the ``listed`` ones; empty if it can.

    Raises:
        registry.UnknownPlugin, ValueError: As :func:`build`.
    """
    built = build(spec)
    for brought in map(build, built.companions if built else ()):
        assert brought is not None
        for other in listed:
            with contextlib.suppress(registry.UnknownPlugin, ValueError):
                if label(other) != brought.label:
                    continue
                taken = build(other)
                if taken is None:
                    return f"{label(spec)} brings {brought.label} along, which is the name of a metric of your own"
                unlike = [name for name, value in brought.comparison.items() if taken.comparison.get(name) != value]
                if unlike:
                    return (
                        f"{label(spec)} brings {brought.label} along, which is also taken with another "
                        f"{' and '.join(unlike)}: give all that compare at this point the same "
                        f"{', '.join(brought.comparison)}"
                    )
    return ""


def guards(specs: Sequence[MetricSpec]) -> tuple[str, ...]:
    """Labels of metrics of the recipe, one of which has to be gated if it compresses; empty if none has to.

    A metric whose own threshold comes from elsewhere is asked only if no other one says where the product works.
    """
    built = [made for spec in specs if (made := _buildable(spec))]
    asked = [metric for metric in built if metric.guards and not metric.fitted_on] or built
    wanted = dict.fromkeys(label for metric in asked for label in metric.guards)
    return tuple(metric.label for metric in built if metric.label in wanted) or tuple(wanted)


def _buildable(spec: MetricSpec) -> Metric | None:
    try:
        return build(spec)
    except (registry.UnknownPlugin, ValueError):  # a problem by itself
        return None


def load(spec: MetricSpec, root: Path) -> Metric:
    """The metric of a recipe; a user's own is imported from beside it.

    Raises:
        ConfigError: The user's class cannot be made, or is no metric.
    """
    built = build(spec)
    if built is not None:
        return built
    assert spec.factory is not None
    make = reference.resolve(spec.factory, root)
    try:
        made = make(**spec.args)
    except Exception as error:
        place = reference.user_frame(error, root) or "metrics"
        raise ConfigError(f"{spec.factory} raised {type(error).__name__}: {error}", where=place) from error
    if not isinstance(made, Metric):
        raise ConfigError(
            f"{spec.factory} gives a {type(made).__name__}, not a metric",
            where="metrics",
            fix="derive the class from edgeopt.metrics.Metric",
        )
    if why := unfit(made):
        raise ConfigError(f"{spec.factory}: {why}", where="metrics")
    if made.label != spec.name:
        raise ConfigError(
            f"the recipe calls {spec.factory} {spec.name!r}, it calls itself {made.label!r}",
            where="metrics",
            fix=f"write {{factory: {spec.factory!r}, name: {made.label!r}}} in the recipe",
        )
    return made
