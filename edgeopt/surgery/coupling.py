"""Which channels of a network can only go together.

Torch-Pruning (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning") traces the network and proposes groups of
coupled channels. Here its groups become plain data.
"""

from __future__ import annotations

import copy
import fnmatch
import itertools
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.errors import ConfigError, StageError
from edgeopt.reference import user_frame
from edgeopt.registry import hint
from edgeopt.surgery import (
    Kept,
    Plan,
    Side,
    Uncuttable,
    channels,
    is_depthwise,
    is_matrix_layer,
    is_parameter,
    parameter_dim,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

#: One channel of the network: layer or bare parameter, side, number.
Channel = tuple[str, Side, int]

_IS_OUTPUT = "makes the network's output"


@dataclass(frozen=True)
class Group:
    """Channels that are equal in kind: each unit of them can go or stay, independently of the other units.

    Attributes:
        name: The layer that makes the channels.
        layers: All layers with weights whose outputs they are.
        units: Everything that goes when one unit goes. Every unit holds equally many channels of each layer.
    """

    name: str
    layers: tuple[str, ...]
    units: tuple[frozenset[Channel], ...]

    def count(self, layer: str, side: Side) -> int:
        """How many channels of one side of a layer each unit holds."""
        return sum(1 for name, where, _ in self.units[0] if (name, where) == (layer, side))

    @property
    def width(self) -> int:
        """Channels per unit of the layer that makes them."""
        return self.count(self.name, "out")

    @property
    def makers(self) -> frozenset[str]:
        """Everything whose outputs these channels are, norms and bare parameters too."""
        return frozenset(name for name, side, _ in self.units[0] if side == "out")

    @staticmethod
    def channels(units: Iterable[frozenset[Channel]]) -> frozenset[Channel]:
        """All channels of some units."""
        return frozenset(itertools.chain.from_iterable(units))


@dataclass(frozen=True)
class Protected:
    """Layers whose outputs stay whole.

    Attributes:
        layers: Their names.
        reason: Why.
        expected: Whether the user wants or expects it so.
    """

    layers: tuple[str, ...]
    reason: str
    expected: bool = False


def plan_of(model: nn.Module, removed: Iterable[Channel]) -> Plan:
    """The plan that keeps every channel of ``model`` but these."""
    gone: dict[tuple[str, Side], set[int]] = defaultdict(set)
    for name, side, index in removed:
        gone[name, side].add(index)
    layers: dict[str, Kept] = {}
    for (name, side), indices in gone.items():
        total = _size(model, name, side)
        stay = tuple(index for index in range(total) if index not in indices)
        kept = layers.get(name, Kept())
        layers[name] = replace(kept, out=stay) if side == "out" else replace(kept, into=stay)
    return Plan(layers)


def matching(model: nn.Module, patterns: Sequence[str]) -> frozenset[str]:
    """Names of the modules that the patterns match, and of everything inside them.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    owner_of = {name: name.rpartition(".")[0] for name, _ in model.named_parameters()}
    chosen: set[str] = set()
    for pattern in patterns:
        found = set(fnmatch.filter(modules, pattern))
        for name in fnmatch.filter(owner_of, pattern):  # "head.*" also means a head that is a single layer
            owner = owner_of[name]
            found.add(owner if owner and not list(modules[owner].children()) else name)
        if not found:
            raise ConfigError(
                f"keep: {pattern!r} matches no layer of the model{hint(pattern, modules)}",
                where="prune",
                fix="use the names that model.named_modules() gives; * stands for anything",
            )
        chosen |= found
        chosen |= {name for name in [*modules, *owner_of] if any(name.startswith(f"{top}.") for top in found)}
    return frozenset(chosen)


def _size(model: nn.Module, name: str, side: Side) -> int:
    if is_parameter(model, name):
        shape = model.get_parameter(name).shape
        return int(shape[parameter_dim(shape)])
    return channels(model.get_submodule(name), side)


def propose(model: nn.Module, example: Tensor, root: Path) -> tuple[list[Group], list[Protected]]:
    """The groups that Torch-Pruning finds in a copy of the model, each channel in one group at most.

    They are not to be trusted yet: see :mod:`edgeopt.surgery.trial`.

    Args:
        model: Any network from one tensor to one tensor. It is not changed.
        example: float32 (N, ...).
        root: Folder of the user's code, to point at a line of it.

    Raises:
        StageError: The network cannot be traced.
    """
    import torch
    import torch_pruning

    copied = copy.deepcopy(model).eval().requires_grad_(True)
    tied = _tied(copied)
    graph = torch_pruning.DependencyGraph()
    groups: list[Group] = []
    protected: list[Protected] = []
    covered: set[Channel] = set()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(copied, (example,), forward_fn=lambda net, inputs: net(*inputs), verbose=False)
        except Exception as error:
            raise StageError(
                f"the network cannot be traced for pruning: {type(error).__name__}: {error}",
                where=user_frame(error, root) or "prune",
                fix="leave out the prune step, or write this part of the model with plain layers",
            ) from error
        for name, layer in copied.named_modules():
            if layer not in graph.module2node or not is_matrix_layer(layer):
                continue
            free = [index for index in range(channels(layer, "out")) if (name, "out", index) not in covered]
            if not free:
                continue
            try:
                parts = _split(copied, name, _coupled(graph, layer, free, tied))
            except Uncuttable as error:
                protected.append(Protected((name,), str(error), expected=str(error) == _IS_OUTPUT))
                continue
            for group in parts:
                everything = group.channels(group.units)
                if everything & covered or len(group.units) < 2:
                    reason = "its channels cannot go one by one" if len(group.units) < 2 else "shares channels"
                    protected.append(Protected(group.layers, reason))
                else:
                    covered |= everything
                    groups.append(group)
    return groups, protected


def _tied(model: nn.Module) -> frozenset[str]:
    """Names of the modules that share a parameter with another module."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)].append(name)
    return frozenset(name for names in owners.values() if len(names) > 1 for name in names)


def _coupled(graph: Any, layer: nn.Module, indices: list[int], tied: frozenset[str]) -> dict[int, set[Channel]]:
    """For each of the layer's output channels all that must go with it, as Torch-Pruning sees it."""
    from torch_pruning.ops import OPTYPE

    pruner = graph.get_pruner_of_module(layer)
    try:
        items = list(graph.get_pruning_group(layer, pruner.prune_out_channels, indices))
    except (
        IndexError,
        AssertionError,
        RuntimeError,
        AttributeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ) as error:
        raise Uncuttable(f"Torch-Pruning cannot follow its channels ({type(error).__name__}: {error})") from error
    coupled: dict[int, set[Channel]] = {index: set() for index in indices}
    for item in items:
        node = item.dep.target
        module = node.module
        is_output = node.type == OPTYPE.OUTPUT or not node.outputs
        side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if is_output and (side == "out" or not is_matrix_layer(module)):
            raise Uncuttable(_IS_OUTPUT)
        if node.type == OPTYPE.PARAMETER:
            name = graph._param_to_name[module]
            size = int(module.shape[parameter_dim(module.shape)])
        elif module in graph._module2name and not (node.type == OPTYPE.PRELU and module.num_parameters == 1):
            name = graph._module2name[module]
            side = side if is_matrix_layer(module) and not is_depthwise(module) else "out"
            size = channels(module, side)
            if name in tied:
                raise Uncuttable(f"{name} shares its weights with another layer")
        else:
            continue
        for index, root_index in zip(item.idxs, item.root_idxs, strict=True):
            if root_index not in coupled or not 0 <= index < size:
                raise Uncuttable(f"Torch-Pruning couples it to channel {index} of {name}, which has {size}")
            coupled[root_index].add((name, side, index))
    return coupled


def _split(model: nn.Module, name: str, coupled: Mapping[int, set[Channel]]) -> list[Group]:
    """Join what can only go together into units, and sort the units by kind."""
    leader = {index: index for index in coupled}

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    first: dict[tuple[str, Side, int], int] = {}
    for index, held in coupled.items():
        for channel in held:
            other = first.setdefault(_slot(model, channel), index)
            leader[find(index)] = find(other)
    units: dict[int, set[Channel]] = defaultdict(set)
    for index, held in coupled.items():
        units[find(index)] |= held
    kinds: dict[frozenset[tuple[tuple[str, Side], int]], list[frozenset[Channel]]] = defaultdict(list)
    for unit in units.values():
        kinds[frozenset(Counter((layer, side) for layer, side, _ in unit).items())].append(frozenset(unit))
    groups = []
    for alike in kinds.values():
        makers = sorted({layer for layer, side, _ in alike[0] if side == "out"})
        layers = [layer for layer in makers if layer == name or _is_matrix(model, layer)]
        groups.append(Group(name, tuple(layers), tuple(alike)))
    return groups


def _slot(model: nn.Module, channel: Channel) -> Channel:
    """The same for channels that a grouped layer forces to go together: one from each of its groups."""
    name, side, index = channel
    if is_parameter(model, name):
        return channel
    layer = model.get_submodule(name)
    groups = int(getattr(layer, "num_groups", getattr(layer, "groups", 1)))
    if groups == 1 or (is_matrix_layer(layer) and is_depthwise(layer)):
        return channel
    return name, side, index % (channels(layer, side) // groups)


def _is_matrix(model: nn.Module, name: str) -> bool:
    return not is_parameter(model, name) and is_matrix_layer(model.get_submodule(name))
