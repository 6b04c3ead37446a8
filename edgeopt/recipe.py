"""The recipe: what to make. Product intent, written by a person in YAML, validated into frozen models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

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
        loader: ``module:callable``.
        path: ``.npz`` with ``samples`` and, but for calibration, ``labels``; relative to the recipe.
        samples: Use only that many, spread evenly over the split.
    """

    loader: Reference | None = None
    path: str | None = None
    samples: Size | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.loader is None) == (self.path is None):
            raise ValueError("give either a loader or a path")
        return self


class DataSpec(Frozen):
    """Four disjoint splits.

    Attributes:
        train: What fine-tuning learns from.
        calibrate: What INT8 ranges are taken from.
        select: What every decision inside the tool looks at.
        evaluate: What the gates and the report look at, and nothing else.
    """

    train: SplitSpec
    calibrate: SplitSpec
    select: SplitSpec
    evaluate: SplitSpec


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
    metrics: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(unlike)]
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
