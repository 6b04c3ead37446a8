"""The recipe: what to make. Product intent, written by a person in YAML, validated into frozen models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", examples=["model:build"])]
Size = Annotated[int, Field(ge=1)]


def unlike(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values, of which none may be there twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is listed twice")
    return values


class Frozen(BaseModel):
    """Immutable, strict, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Limit(Frozen):
    """A threshold on one metric.

    Attributes:
        max: The value itself may not be above.
        min: The value itself may not be below.
        max_drop: How much worse than the float baseline it may be, in the metric's unit, whichever way is worse.
        max_ratio: Largest allowed ratio to the float baseline.
    """

    max: float | None = None
    min: float | None = None
    max_drop: Annotated[float, Field(ge=0)] | None = None
    max_ratio: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for value in (self.max, self.min, self.max_drop, self.max_ratio)):
            raise ValueError("a gate needs at least one of max, min, max_drop, max_ratio")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no value can pass")
        return self


Gates = Mapping[str, Limit]


class ModelSpec(Frozen):
    """The trained model.

    Attributes:
        factory: ``module:callable`` that returns the ``torch.nn.Module``; beside the recipe, or installed.
        args: Keyword arguments of the factory.
        weights: ``.safetensors``, or ``.pt``/``.pth``/``.ckpt`` read with ``weights_only=True``; beside the recipe.
    """

    factory: Reference
    args: dict[str, Any] = Field(default_factory=dict)
    weights: str


class InputSpec(Frozen):
    """The input of the network itself, without the batch: an image has shape (C, H, W)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "input"
    shape: Annotated[tuple[Size, ...], Field(min_length=1)]
    dtype: Literal["float32"] = "float32"


class RawSpec(Frozen):
    """What the device feeds: a sample as the sensor gives it, an image as (H, W, C)."""

    shape: Annotated[tuple[Size, ...], Field(min_length=1)]
    dtype: Literal["uint8", "int8", "int16", "float32"]


class Preprocess(Frozen):
    """From a raw sample to the network's input: ``(raw / scale - mean) / std``, and (H, W, C) to (C, H, W).

    Folded into every shipped artefact.

    Attributes:
        mean: One value, or one per channel.
        std: One value, or one per channel.
    """

    raw: RawSpec
    scale: Annotated[float, Field(gt=0)] = 1.0
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0,)
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)


class SplitSpec(Frozen):
    """One split of the data: a ``loader`` that returns ``(samples, labels)``, or an ``.npz`` that has them.

    Attributes:
        loader: ``module:callable``; it returns ``(samples, labels)``, or a third part, a mapping of further columns
            such as ``identity`` or ``attack``.
        path: ``.npz`` with ``samples`` and, but for calibration, ``labels``; every other array with a row for each
            sample is a column. Relative to the recipe.
        samples: Use only that many, spread evenly over the split.
        sets: Of ``evaluate`` only: several evaluation sets by name. Each is judged by itself.
    """

    loader: Reference | None = None
    path: str | None = None
    samples: Size | None = None
    sets: Annotated[Mapping[Name, SplitSpec], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.loader, self.path, self.sets)) != 1:
            raise ValueError("give either a loader or a path; evaluate may have sets instead")
        if self.sets is not None and any(inner.sets is not None for inner in self.sets.values()):
            raise ValueError("a set cannot have sets")
        if self.sets is not None and self.samples is not None:
            raise ValueError("give `samples` within each set")
        if self.sets is not None and "worst" in self.sets:
            raise ValueError("no set can be called 'worst', which stands for the worst of them")
        return self


class DataSpec(Frozen):
    """Four disjoint splits.

    Attributes:
        train: What fine-tuning learns from.
        calibrate: What INT8 ranges are taken from.
        select: What every decision inside the tool looks at.
        evaluate: What the gates and the report look at, and nothing else.
        private: No sample may appear in a report.
    """

    train: SplitSpec
    calibrate: SplitSpec
    select: SplitSpec
    evaluate: SplitSpec
    private: bool = False

    @model_validator(mode="after")
    def _only_evaluation_sets(self) -> Self:
        for name in ("train", "calibrate", "select"):
            if getattr(self, name).sets is not None:
                raise ValueError(f"{name} cannot have sets; only evaluate can")
        return self


class MetricSpec(Frozen):
    """An accuracy metric: ``top1``, ``{tar: {far: 0.001}}``, or the user's own ``{factory: "mymetrics:Dice"}``.

    Attributes:
        name: Of a built-in or installed metric. Of the user's own what it calls itself; left out, the name of the
            callable in lower case.
        factory: ``module:callable`` that returns an ``edgeopt.metrics.Metric``; beside the recipe, or installed.
        args: Its parameters.
    """

    name: str
    factory: Reference | None = None
    args: dict[str, Any] = Field(default_factory=dict)


_Parameters = dict[str, dict[str, Any] | None]


def as_metric(value: Any) -> Any:
    """What the short forms of a metric stand for."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        return value
    if isinstance(factory := value.get("factory"), str):
        return {"name": factory.rpartition(":")[2].rpartition(".")[2].lower(), **value}
    if len(value) == 1 and isinstance(args := next(iter(value.values())), dict | None):
        return {"name": next(iter(value)), "args": args or {}}
    return value


def _as_mapping(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class TargetSpec(Frozen):
    """A target of this recipe: a hardware profile, by name or as a file, and the product's gates for it."""

    name: str
    gates: Gates = Field(default_factory=dict)


class Recipe(Frozen):
    """What to make: model, data, steps and product thresholds."""

    recipe: Literal[1]
    name: Name
    model: ModelSpec
    input: InputSpec
    preprocess: Preprocess | None = None
    data: DataSpec
    metrics: Annotated[
        tuple[
            Annotated[MetricSpec, BeforeValidator(as_metric, json_schema_input_type=str | MetricSpec | _Parameters)],
            ...,
        ],
        Field(min_length=1),
    ]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: tuple[dict[str, dict[str, Any]], ...] = ()
    gates: Gates = Field(default_factory=dict)
    targets: Annotated[
        tuple[Annotated[TargetSpec, BeforeValidator(_as_mapping, json_schema_input_type=str | TargetSpec)], ...],
        Field(min_length=1),
    ]

    @field_validator("steps", mode="before")
    @classmethod
    def _parameters_may_be_left_out(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        steps = ({item: None} if isinstance(item, str) else item for item in value)
        return tuple(
            {key: {} if params is None else params for key, params in step.items()} if isinstance(step, dict) else step
            for step in steps
        )

    @field_validator("steps")
    @classmethod
    def _one_stage_per_step(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for number, step in enumerate(value, 1):
            if len(step) != 1:
                raise ValueError(f"step {number} names {len(step)} stages; each step is one `- stage: {{parameters}}`")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.preprocess is not None:
            raw, net = self.preprocess.raw.shape, self.input.shape
            is_image = len(raw) == 3
            expected = (raw[-1], *raw[:-1]) if is_image else raw
            if net != expected:
                why = f"a raw image is (H, W, C) and gives {list(expected)}" if is_image else "they should be equal"
                raise ValueError(f"preprocess.raw.shape {list(raw)} does not lead to input.shape {list(net)}: {why}")
            for name in ("mean", "std"):
                count = len(getattr(self.preprocess, name))
                if count not in (1, net[0]):
                    raise ValueError(f"preprocess.{name} has {count} values; give 1 or {net[0]}, one per channel")
        return self
