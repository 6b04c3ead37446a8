"""Cutting a network down to the channels that stay.

A plan says for each layer which of its output and input channels stay. It is plain data: replaying it on a freshly
built network gives the pruned shapes, without the tool that found it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgeopt.artifact import digest_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Side = Literal["out", "in"]


class Uncuttable(ValueError):
    """This layer cannot be cut to these channels; the message says why."""


@dataclass(frozen=True)
class Kept:
    """Channels of one layer that stay, ascending; ``None`` where all stay.

    Attributes:
        out: Output channels. For a bare ``nn.Parameter``, indices of its last dimension that is longer than 1.
        into: Input channels.
    """

    out: tuple[int, ...] | None = None
    into: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """Channels that stay, by name of the layer or bare parameter. Layers that are not named stay whole."""

    layers: Mapping[str, Kept]

    def as_json(self) -> dict[str, dict[str, list[int] | None]]:
        """``{layer: {"out": [...] | null, "in": [...] | null}}``."""
        return {
            name: {
                "out": None if kept.out is None else list(kept.out),
                "in": None if kept.into is None else list(kept.into),
            }
            for name, kept in sorted(self.layers.items())
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, Sequence[int] | None]]) -> Plan:
        """The reverse of :meth:`as_json`."""

        def indices(channels: Sequence[int] | None) -> tuple[int, ...] | None:
            return None if channels is None else tuple(int(index) for index in channels)

        return cls({name: Kept(indices(kept["out"]), indices(kept["in"])) for name, kept in value.items()})

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return digest_of(self.as_json())

    def then(self, later: Plan) -> Plan:
        """One plan for this one followed by ``later``, whose indices count the channels that this one leaves."""

        def chain(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
            if first is None or second is None:
                return second if first is None else first
            return tuple(first[index] for index in second)

        names = dict.fromkeys([*self.layers, *later.layers])
        none = Kept()
        pairs = {name: (self.layers.get(name, none), later.layers.get(name, none)) for name in names}
        return Plan({name: Kept(chain(a.out, b.out), chain(a.into, b.into)) for name, (a, b) in pairs.items()})


def cut(model: nn.Module, plan: Plan) -> None:
    """Remove every channel that ``plan`` does not keep, in place.

    Raises:
        Uncuttable: A layer is missing, of a kind that cannot be cut, or would be left with unequal groups.
    """
    for name, kept in plan.layers.items():
        try:
            if is_parameter(model, name):
                _cut_parameter(model, name, kept)
            else:
                _cut_layer(model.get_submodule(name), kept)
        except (AttributeError, IndexError) as error:
            raise Uncuttable(f"{name}: {error}") from error
        except Uncuttable as error:
            raise Uncuttable(f"{name}: {error}") from error


def silence(model: nn.Module, plan: Plan) -> None:
    """Make ``model`` compute what :func:`cut` would leave of it, without changing a shape.

    The weights that read a removed channel become zero. A cut network that computes something else was cut wrongly.
    """
    import torch

    with torch.no_grad():
        for name, kept in plan.layers.items():
            if kept.into is None or is_parameter(model, name):
                continue
            layer = model.get_submodule(name)
            if not is_matrix_layer(layer) or is_depthwise(layer):
                continue
            weight: Any = layer.weight
            groups = int(getattr(layer, "groups", 1))
            inputs = channels(layer, "in")
            removed = sorted(set(range(inputs)) - set(kept.into))
            if not removed:
                continue
            if getattr(layer, "transposed", False):
                weight[removed] = 0
                continue
            rows, per_group = weight.shape[0] // groups, inputs // groups
            for index in removed:
                group = index // per_group
                weight[group * rows : (group + 1) * rows, index % per_group] = 0


def channels(layer: nn.Module, side: Side) -> int:
    """Channels on one side of a layer; of a channelwise layer the same on both.

    Raises:
        Uncuttable: The layer is of a kind that cannot be cut.
    """
    from torch import nn

    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels if side == "out" else layer.in_channels
    match layer:
        case nn.Linear():
            return layer.out_features if side == "out" else layer.in_features
        case nn.modules.batchnorm._NormBase():
            return layer.num_features
        case nn.GroupNorm():
            return layer.num_channels
        case nn.LayerNorm() if len(layer.normalized_shape) == 1:
            return int(layer.normalized_shape[0])
        case nn.PReLU() if layer.num_parameters > 1:
            return layer.num_parameters
    raise Uncuttable(f"a {type(layer).__name__} cannot be resized")


def is_matrix_layer(layer: nn.Module) -> bool:
    """Whether the layer is a convolution or fully connected, so that it has MACs."""
    from torch import nn

    return isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether every channel of a convolution has its own single filter."""
    groups = int(getattr(layer, "groups", 1))
    return groups > 1 and groups == channels(layer, "in") == channels(layer, "out")


def is_parameter(model: nn.Module, name: str) -> bool:
    """Whether ``name`` is that of a parameter, not of a module."""
    from torch import nn

    path, _, leaf = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return False
    return isinstance(owner._parameters.get(leaf), nn.Parameter)


def parameter_dim(shape: Sequence[int]) -> int:
    """Dimension of a bare parameter that counts channels: the last that is longer than 1."""
    return max((dim for dim, size in enumerate(shape) if size > 1), default=-1)


def rows(layer: nn.Module, side: Side, weight: Tensor) -> Tensor:
    """``weight``, or its gradient, as one row per channel: (channels, values)."""
    if not is_matrix_layer(layer) or is_depthwise(layer):
        return weight.reshape(weight.shape[0], -1)
    groups = int(getattr(layer, "groups", 1))
    # (groups, rows of one group, columns of one group, kernel): in front the side that dimension 0 counts
    blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    front: Side = "in" if getattr(layer, "transposed", False) else "out"
    if side != front:
        blocks = blocks.transpose(1, 2)
    return blocks.reshape(blocks.shape[0] * blocks.shape[1], -1)


def _cut_layer(layer: nn.Module, kept: Kept) -> None:
    from torch import nn

    sides: tuple[tuple[Side, tuple[int, ...] | None], ...] = (("out", kept.out), ("in", kept.into))
    for side, indices in sides:
        if indices is not None and not (indices and min(indices) >= 0 and max(indices) < channels(layer, side)):
            raise Uncuttable(
                f"{len(indices)} {side} channels are kept of {channels(layer, side)}, or they do not exist"
            )
    if getattr(layer, "weight", None) is not None and layer._parameters.get("weight") is None:
        raise Uncuttable("its weight is computed from other tensors")
    both = kept.out if kept.out is not None else kept.into
    if both is None:
        return
    match layer:
        case nn.modules.conv._ConvNd():
            _cut_conv(layer, kept)
        case nn.Linear():
            if kept.out is not None:
                _select(layer, ("weight", "bias"), 0, kept.out)
                layer.out_features = len(kept.out)
            if kept.into is not None:
                _select(layer, ("weight",), 1, kept.into)
                layer.in_features = len(kept.into)
        case nn.modules.batchnorm._NormBase():
            _select(layer, ("weight", "bias", "running_mean", "running_var"), 0, both)
            layer.num_features = len(both)
        case nn.GroupNorm():
            _equal_groups(both, layer.num_groups, layer.num_channels)
            _select(layer, ("weight", "bias"), 0, both)
            layer.num_channels = len(both)
        case nn.LayerNorm():
            _select(layer, ("weight", "bias"), 0, both)
            layer.normalized_shape = (len(both),)
        case nn.PReLU():
            _select(layer, ("weight",), 0, both)
            layer.num_parameters = len(both)


def _cut_conv(conv: nn.modules.conv._ConvNd, kept: Kept) -> None:
    import torch

    if is_depthwise(conv):
        both = kept.out if kept.out is not None else kept.into
        if both is None:
            return
        _select(conv, ("weight", "bias"), 0, both)
        conv.in_channels = conv.out_channels = conv.groups = len(both)
        return
    out = kept.out if kept.out is not None else tuple(range(conv.out_channels))
    into = kept.into if kept.into is not None else tuple(range(conv.in_channels))
    first, second = (into, out) if conv.transposed else (out, into)
    sizes = (conv.in_channels, conv.out_channels) if conv.transposed else (conv.out_channels, conv.in_channels)
    front = _equal_groups(first, conv.groups, sizes[0])
    back = _equal_groups(second, conv.groups, sizes[1])
    weight = conv.weight.detach()
    blocks = weight.reshape(conv.groups, -1, *weight.shape[1:])
    device = weight.device
    chosen = [
        block.index_select(0, torch.tensor(a, device=device)).index_select(1, torch.tensor(b, device=device))
        for block, a, b in zip(blocks, front, back, strict=True)
    ]
    conv.weight = torch.nn.Parameter(torch.cat(chosen).contiguous(), requires_grad=conv.weight.requires_grad)
    if kept.out is not None:
        _select(conv, ("bias",), 0, out)
    conv.out_channels, conv.in_channels = len(out), len(into)


def _equal_groups(indices: Sequence[int], groups: int, total: int) -> list[list[int]]:
    """Split ``indices`` of ``total`` channels by group, counted within the group."""
    size = total // groups
    split = [[index - group * size for index in indices if index // size == group] for group in range(groups)]
    if len({len(part) for part in split}) != 1 or not split[0] or indices[-1] >= total:
        raise Uncuttable(f"{len(indices)} channels do not leave {groups} equal groups of {total}")
    return split


def _select(layer: nn.Module, names: Iterable[str], dim: int, indices: Sequence[int]) -> None:
    """Keep only ``indices`` of some of the layer's own tensors, along ``dim``."""
    import torch

    for name in names:
        old = getattr(layer, name, None)
        if old is None:
            continue
        new = old.detach().index_select(dim, torch.tensor(indices, device=old.device)).contiguous()
        is_trained = isinstance(old, torch.nn.Parameter)
        setattr(layer, name, torch.nn.Parameter(new, requires_grad=old.requires_grad) if is_trained else new)


def _cut_parameter(model: nn.Module, name: str, kept: Kept) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if kept.out is not None:
        _select(owner, (leaf,), parameter_dim(getattr(owner, leaf).shape), kept.out)
