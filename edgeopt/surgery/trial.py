"""Trying groups of channels out before any is cut.

Torch-Pruning has no way to tell a wrong group from a right one: a hard-coded ``view``, a padded shortcut or a channel
shuffle gives groups that crash, or silently connect the wrong channels. So a plan is tried on a copy with random
weights: the network cut by it must compute the same as the whole network whose removed channels are not read. A group
that fails is protected, with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.reference import user_frame
from edgeopt.surgery import Uncuttable, channels, cut, is_matrix_layer, silence
from edgeopt.surgery.coupling import Channel, Group, Protected, matching, plan_of, propose

if TYPE_CHECKING:
    from torch import Tensor, nn


def find_groups(
    model: nn.Module, example: Tensor, *, keep: Sequence[str] = (), root: Path = Path()
) -> tuple[list[Group], list[Protected]]:
    """The groups of ``model`` that can be pruned, and the layers that cannot.

    Args:
        model: Any network from one tensor to one tensor. It is not changed.
        example: float32 (N, ...), N of at least 2.
        keep: Patterns over module names (``fnmatch``): the outputs of these layers and of all inside them stay.
        root: Folder of the user's code, to point at a line of it.

    Raises:
        ConfigError: A pattern of ``keep`` matches nothing.
        StageError: The network cannot be traced.
    """
    kept_names = matching(model, keep)
    groups, protected = propose(model, example, root)
    protected += [
        Protected(group.layers, "named in keep", expected=True) for group in groups if group.makers & kept_names
    ]
    free = [group for group in groups if not group.makers & kept_names]
    usable, failed = Trial(model, example, root).sieve(free, [about_half(group) for group in free])
    return usable, protected + failed


def about_half(group: Group) -> frozenset[Channel]:
    """About half of the group's units, unevenly spread, for trying the group out."""
    chosen = [unit for number, unit in enumerate(group.units) if number * 7 % 10 < 4]
    return group.channels(chosen if len(chosen) < len(group.units) else chosen[:1])


class Trial:
    """Tries plans on copies of a network with random weights, so that no dead weight hides a mistake.

    Args:
        model: The network; it is not changed.
        example: float32 (N, ...).
        root: Folder of the user's code.
    """

    def __init__(self, model: nn.Module, example: Tensor, root: Path) -> None:
        self._model = _randomised(model)
        self._example = example
        self._root = root

    def why_not(self, removed: Iterable[Channel]) -> str:
        """Why these channels cannot be removed; empty if they can."""
        import torch

        pruned, silent = copy.deepcopy(self._model), copy.deepcopy(self._model)
        plan = plan_of(self._model, removed)
        try:
            cut(pruned, plan)
        except Uncuttable as error:
            return str(error)
        silence(silent, plan)
        for network in (pruned, silent):
            _replace_mixing_norms(network)
        with torch.no_grad():
            expected = silent(self._example)
            try:
                actual = pruned(self._example)
            except Exception as error:  # noqa: BLE001 (the user's forward may raise anything; it becomes the reason)
                place = user_frame(error, self._root)
                message = str(error).strip().partition("\n")[0]
                return f"the network fails without them{f' at {place}' if place else ''}: {message}"
        if actual.shape != expected.shape:
            return f"the output becomes {tuple(actual.shape)} instead of {tuple(expected.shape)}"
        spread = float((expected[0] - expected[1]).abs().max())
        allowed = 1e-3 * spread + 1e-6 * float(expected.abs().max())
        if not float((actual - expected).abs().max()) <= allowed:
            return (
                "the network mixes or reorders these channels outside of its layers, and would connect the wrong ones"
            )
        return ""

    def sieve(
        self, groups: Sequence[Group], removed: Sequence[frozenset[Channel]]
    ) -> tuple[list[Group], list[Protected]]:
        """Split ``groups`` into those whose ``removed`` channels can go, all together, and the others."""
        if not self.why_not(frozenset().union(*removed)):
            return list(groups), []
        usable: list[Group] = []
        protected: list[Protected] = []
        gone: frozenset[Channel] = frozenset()
        for group, going in zip(groups, removed, strict=True):
            reason = self.why_not(gone | going)
            if reason:
                protected.append(Protected(group.layers, reason))
            else:
                usable.append(group)
                gone |= going
        return usable, protected


def _randomised(model: nn.Module) -> nn.Module:
    """A copy in eval mode with random weights of a scale that keeps the signal alive."""
    import torch

    copied = copy.deepcopy(model).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in copied.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not tensor.is_floating_point() or (name in module._buffers and not name.startswith("running_")):
                continue
            if name in ("bias", "running_mean"):
                value = 0.1 * torch.randn(tensor.shape, generator=generator)
            elif tensor.ndim > 1 and is_matrix_layer(module):
                value = torch.randn(tensor.shape, generator=generator) * (2 / max(1, tensor[0].numel())) ** 0.5
            else:
                value = 0.5 + torch.rand(tensor.shape, generator=generator)
            tensor.copy_(value)
    return copied


def _replace_mixing_norms(model: nn.Module) -> None:
    """Put a channelwise ``x * weight + bias`` for norms that average over channels.

    Pruning changes their statistics, which fine-tuning mends; whether the channels are wired right shows without them.
    """
    from torch import nn

    class Affine(nn.Module):
        def __init__(self, norm: nn.LayerNorm | nn.GroupNorm) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            shape = (-1,) if isinstance(self.norm, nn.LayerNorm) else (-1, *[1] * (x.ndim - 2))
            if x.shape[x.ndim - 1 if isinstance(self.norm, nn.LayerNorm) else 1] != channels(self.norm, "out"):
                raise ValueError(f"a norm of {channels(self.norm, 'out')} channels meets an input {tuple(x.shape)}")
            if self.norm.weight is not None:
                x = x * self.norm.weight.reshape(shape)
            return x if self.norm.bias is None else x + self.norm.bias.reshape(shape)

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm) or (
                isinstance(child, nn.LayerNorm) and len(child.normalized_shape) == 1
            ):
                setattr(module, name, Affine(child))
