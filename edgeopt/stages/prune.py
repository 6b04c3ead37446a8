"""``prune``: removes whole channels until the network has a given share of its MACs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from edgeopt import checkpoint, registry
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.pruning import Criterion
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.surgery import Plan, channels, cut, importance, is_depthwise
from edgeopt.surgery.coupling import Channel, Group, Protected, plan_of
from edgeopt.surgery.importance import Floats
from edgeopt.surgery.trial import Trial, find_groups
from edgeopt.surgery.widths import Ints, MacCount, levels, search, worth

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeopt.target import Target

#: Relative distance from the MACs asked for that counts as reached.
TOLERANCE = 0.03
_SHOWN = 6


class PruneParams(Params):
    """How much to remove, and by what measure.

    Attributes:
        criterion: Importance of a channel: a file of ``edgeopt/pruning``.
        macs_ratio: Share of the MACs that stays.
        keep: Patterns over layer names (``head``, ``blocks.0.*``): the outputs of these layers stay whole.
        channel_multiple: Widths become multiples of this; left out, what the target's kernels like.
        gradient_batches: Batches of 32 training samples, for criteria that need gradients.
    """

    criterion: str = "l2_group"
    macs_ratio: Annotated[float, Field(gt=0, lt=1)]
    keep: tuple[str, ...] = ()
    channel_multiple: Annotated[int, Field(ge=1)] | None = None
    gradient_batches: Annotated[int, Field(ge=1)] = 8


class Prune:
    """Searches the widths, cuts the network, and shows that it was cut rightly."""

    name = "prune"
    version = 1
    Params = PruneParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"})}
    produces = frozenset({"torch"})
    tools = ("torch", "torch-pruning")
    in_recipe = True
    on_device = False
    environment = ""

    def bind(self, params: PruneParams, target: Target) -> PruneParams:
        """Take the channel multiple from the target, unless the recipe gives one."""
        if params.channel_multiple is not None:
            return params
        return params.model_copy(update={"channel_multiple": target.limits.channel_multiple})

    def data(self, params: PruneParams) -> tuple[str, ...]:
        """The training split, for criteria that need gradients."""
        return ("train",) if registry.find("criteria", params.criterion).needs_gradients else ()

    def run(self, inputs: Mapping[str, Artifact], params: PruneParams, ctx: StageContext) -> StageOutput:
        """Write the pruned network.

        Raises:
            ConfigError: A pattern of ``keep`` matches nothing.
            StageError: The ratio cannot be reached, or the network cannot be traced.
        """
        source = inputs["model"]
        model = checkpoint.load(source, ctx.root)
        shape = source.meta["input"]["shape"]
        example = checkpoint.example(shape)
        multiple = params.channel_multiple or 1
        layer_macs = checkpoint.layer_macs(model, shape)
        before = sum(layer_macs.values())
        target = params.macs_ratio * before

        groups, protected = find_groups(model, example, keep=params.keep, root=ctx.root)
        criterion: Criterion = registry.find("criteria", params.criterion)
        gradients = None
        if criterion.needs_gradients:
            gradients = importance.gradients(
                model,
                ctx.data["train"],
                checkpoint.preprocess_of(source),
                batches=params.gradient_batches,
                seed=ctx.seed,
                progress=ctx.progress,
            )
        scores = importance.scores(criterion, model, groups, ctx.seed, gradients)
        trial = Trial(model, example, ctx.root)
        while True:
            kept = _search(mac_count(model, layer_macs, groups), groups, scores, target, multiple)
            removed = [_least(group, score, units) for group, score, units in zip(groups, scores, kept, strict=True)]
            usable, failed = trial.sieve(groups, removed)
            if not failed:
                break
            protected += failed
            scores = [score for group, score in zip(groups, scores, strict=True) if group in usable]
            groups = usable
        plan = plan_of(model, frozenset().union(*removed))
        widths = _widths(model, plan, groups)
        cut(model, plan)
        after = checkpoint.macs(model, shape)
        ratio = after / before if before else 1.0
        if ratio > params.macs_ratio * (1 + TOLERANCE):
            raise _unreachable(params, multiple, ratio, protected)

        meta = checkpoint.save(model, checkpoint.plan(source).then(plan), source.meta, ctx.out)
        _check_reload(model, example, ctx)
        notes = _notes(params, ratio, multiple, groups, kept, protected)
        summary = (
            f"MACs {before / 1e6:,.2f} M -> {after / 1e6:,.2f} M ({ratio:.3f} of {params.macs_ratio:g} asked), "
            f"params {source.meta['params'] / 1e3:,.1f} k -> {meta['params'] / 1e3:,.1f} k; widths {widths}"
        )
        return StageOutput("torch", {**meta, "macs_ratio": ratio}, summary, notes)


def mac_count(model: nn.Module, layer_macs: Mapping[str, int], groups: Sequence[Group]) -> MacCount:
    """MACs of ``model`` as a function of what its groups keep."""
    layers = {name: model.get_submodule(name) for name in layer_macs}
    sizes = {name: (layer_macs[name], channels(layer, "out"), channels(layer, "in")) for name, layer in layers.items()}
    return MacCount.of(sizes, frozenset(name for name, layer in layers.items() if is_depthwise(layer)), groups)


def _search(count: MacCount, groups: Sequence[Group], scores: Sequence[Floats], target: float, multiple: int) -> Ints:
    """Units to keep of each group; unaligned widths only where the target cannot be met without them."""
    if not groups:
        return np.zeros(0, dtype=np.int64)
    allowed = [levels(group, multiple, whole=False) for group in groups]
    if count([numbers[-1] for numbers in allowed]) < target * (1 - TOLERANCE):
        allowed = [levels(group, multiple, whole=True) for group in groups]
    values = [worth(*each) for each in zip(groups, scores, allowed, strict=True)]
    return search(count, allowed, values, target, TOLERANCE)


def _least(group: Group, score: Floats, kept: int) -> frozenset[Channel]:
    """The channels of all but the ``kept`` most important units."""
    order = np.argsort(-score, kind="stable")
    return group.channels(group.units[index] for index in order[kept:])


def _check_reload(model: nn.Module, example: Tensor, ctx: StageContext) -> None:
    import torch

    with torch.no_grad():
        difference = float((checkpoint.read(ctx.out, ctx.root)(example) - model(example)).abs().max())
    if not difference <= 1e-6:
        raise StageError(
            f"the pruned network, written and read again, differs by {difference:.3g}",
            where="prune",
            fix="the model has state outside of its parameters and buffers; register it with register_buffer",
        )


def _widths(model: nn.Module, plan: Plan, groups: Sequence[Group]) -> str:
    changed = []
    for group in groups:
        kept = plan.layers.get(group.name)
        if kept is not None and kept.out is not None:
            changed.append(f"{group.name} {channels(model.get_submodule(group.name), 'out')}->{len(kept.out)}")
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return ", ".join(changed[:_SHOWN]) + more


def _notes(
    params: PruneParams,
    ratio: float,
    multiple: int,
    groups: Sequence[Group],
    kept: Ints,
    protected: Sequence[Protected],
) -> tuple[str, ...]:
    notes = []
    if ratio < params.macs_ratio * (1 - TOLERANCE):
        notes.append(
            f"macs_ratio {params.macs_ratio:g} cannot be met with widths in multiples of {multiple}: "
            f"the nearest below is {ratio:.3f}"
        )
    odd = [group.name for group, units in zip(groups, kept, strict=True) if units * group.width % multiple]
    if odd:
        notes.append(f"widths that are not multiples of {multiple}: {_names(odd)}")
    notes += _protections([entry for entry in protected if not entry.expected])
    return tuple(notes)


def _protections(protected: Sequence[Protected]) -> list[str]:
    """One line per reason."""
    reasons: dict[str, list[str]] = {}
    for entry in protected:
        reasons.setdefault(entry.reason, []).extend(entry.layers)
    return [f"kept whole: {_names(layers)}: {reason}" for reason, layers in reasons.items()]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _unreachable(params: PruneParams, multiple: int, ratio: float, protected: Sequence[Protected]) -> StageError:
    listed = "".join(f"\n    {line}" for line in _protections(protected))
    can = (
        f"ask for macs_ratio {math.ceil(ratio * 100) / 100:.2f} or more" if ratio < 0.99 else "leave out the prune step"
    )
    if not all(entry.expected for entry in protected):
        can += ", or mend what keeps those layers whole (for fixed sizes, write view(x.shape[0], -1) or flatten(1))"
    return StageError(
        f"macs_ratio {params.macs_ratio:g} cannot be reached: with widths in multiples of {multiple}, and at least "
        f"an eighth of each, the smallest is {ratio:.3f}{listed}",
        where="prune",
        fix=can,
    )


PLUGINS = (Prune(),)
