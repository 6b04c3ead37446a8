"""Importance of the channels of each group: the weights arranged for a criterion, and what it says of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeopt.data import Split, check_classes
from edgeopt.errors import ConfigError, StageError
from edgeopt.pruning import Criterion, GroupWeights, LayerSlice, Role
from edgeopt.recipe import Preprocess
from edgeopt.stage import Progress
from edgeopt.surgery import Side, is_matrix_layer, is_parameter, parameter_dim, rows
from edgeopt.surgery.coupling import Group

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = npt.NDArray[np.float64]
GRADIENT_BATCH = 32


def scores(
    criterion: Criterion,
    model: nn.Module,
    groups: Sequence[Group],
    seed: int,
    gradients: Mapping[str, Tensor] | None = None,
) -> list[Floats]:
    """Importance (units,) for each group, not negative and not all zero.

    Raises:
        StageError: The criterion gives something else.
    """
    found = []
    for group in groups:
        score = np.asarray(criterion.score(weights_of(model, group, gradients), seed), dtype=np.float64)
        if score.shape != (len(group.units),) or not np.isfinite(score).all() or (score < 0).any():
            raise StageError(
                f"criterion {criterion.name!r} gave {group.name} scores of shape {score.shape}; "
                f"{len(group.units)} finite numbers that are not negative were wanted",
                where="prune",
            )
        found.append(score if score.any() else np.ones_like(score))
    return found


def weights_of(model: nn.Module, group: Group, gradients: Mapping[str, Tensor] | None = None) -> GroupWeights:
    """The weights of a group, one row per unit.

    Args:
        model: The network.
        group: One of its groups.
        gradients: Of the loss, by name of the parameter.
    """
    held: dict[tuple[str, Side], list[list[int]]] = {}
    for name, side in sorted({(name, side) for name, side, _ in group.units[0]}):
        held[name, side] = [sorted(index for n, s, index in unit if (n, s) == (name, side)) for unit in group.units]
    slices = []
    for (name, side), indices in sorted(held.items(), key=lambda item: item[0] != (group.name, "out")):
        parameter = name if is_parameter(model, name) else f"{name}.weight"
        if is_parameter(model, parameter):  # a norm may have none
            weight = _arrange(model, name, side, model.get_parameter(parameter), indices)
            gradient = None if gradients is None else _arrange(model, name, side, gradients[parameter], indices)
            slices.append(LayerSlice(name, _role(model, name, side), weight, gradient))
    return GroupWeights(group.name, len(group.units), tuple(slices))


def gradients(
    model: nn.Module, train: Split, preprocess: Preprocess | None, *, batches: int, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """Mean gradient of the task loss over some random training batches, by name of the parameter.

    Args:
        model: In eval mode; it is not changed.
        train: Labelled samples.
        preprocess: From a sample to the input of the network.
        batches: Of :data:`GRADIENT_BATCH` samples.
        seed: Of the choice of samples.
        progress: Told of each batch.

    Raises:
        ConfigError: There are no labels, or they do not fit the outputs.
    """
    import torch

    from edgeopt.training import deterministic, task_loss, to_labels, to_samples

    if train.labels is None:
        raise ConfigError("this criterion learns from labels, and the split has none", where=f"data.{train.name}")
    labels = to_labels(train.labels)
    copied = copy.deepcopy(model).eval().requires_grad_(True)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    chosen = torch.split(order[: GRADIENT_BATCH * batches], GRADIENT_BATCH)
    with deterministic(seed), torch.enable_grad():
        for number, indices in enumerate(chosen, 1):
            outputs = copied(to_samples(train, indices.numpy(), preprocess))
            check_classes(train, outputs.shape[1])
            loss = task_loss(outputs, labels[indices], train.name)
            torch.autograd.backward(loss / len(chosen))
            progress(number, len(chosen), "batches", "gradients", None)
    named = copied.named_parameters(remove_duplicate=False)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}


def _arrange(model: nn.Module, name: str, side: Side, tensor: Tensor, indices: list[list[int]]) -> Floats:
    """(units, values) of a weight or gradient."""
    if is_parameter(model, name):
        table = tensor.movedim(parameter_dim(tensor.shape), 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]
    else:
        table = rows(model.get_submodule(name), side, tensor)
    picked: Floats = table.detach().double().cpu().numpy()[np.array(indices)]
    return picked.reshape(len(indices), -1)


def _role(model: nn.Module, name: str, side: Side) -> Role:
    from torch import nn

    if is_parameter(model, name):
        return "other"
    layer = model.get_submodule(name)
    if is_matrix_layer(layer):
        return side
    norms = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm
    return "norm" if isinstance(layer, norms) else "other"
