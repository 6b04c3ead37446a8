"""The torch artefact: factory reference, pruning plan and weights. Nothing in it is code.

``checkpoint.json`` names the user's factory, its arguments and the channels that stay; ``weights.safetensors`` holds
the tensors. Loading builds the network from the factory, cuts it by the plan and fills it strictly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.artifact import Artifact
from edgeopt.errors import ConfigError, StageError
from edgeopt.recipe import Preprocess
from edgeopt.reference import resolve, source_digest, user_frame
from edgeopt.surgery import Plan, Uncuttable, channels, cut, is_matrix_layer

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1
_DESCRIPTION = "checkpoint.json"
_WEIGHTS = "weights.safetensors"


def build(factory: str, args: Mapping[str, Any], root: Path) -> nn.Module:
    """The network as the user's factory makes it, in eval mode. Its random weights are the same each time.

    Args:
        factory: ``module:callable``.
        args: Keyword arguments of the factory.
        root: Folder of the recipe.

    Raises:
        ConfigError: The factory raises, or returns something else than a ``torch.nn.Module``.
    """
    import torch

    function = resolve(factory, root)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = function(**args)
        except Exception as error:
            given = ", ".join(f"{name}={value!r}" for name, value in args.items())
            raise ConfigError(
                f"{factory}({given}) raised {type(error).__name__}: {error}",
                where=user_frame(error, root) or factory,
                fix="correct model.args in the recipe, or the factory",
            ) from error
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(
            f"the factory returned {_article(type(model).__name__)}, not a torch.nn.Module",
            where=factory,
            fix="return the network itself",
        )
    return model.eval()


def save(model: nn.Module, plan: Plan, meta: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Write ``model`` as a torch artefact. Equal weights give equal bytes.

    Args:
        model: The network that ``plan`` makes out of what the factory builds.
        plan: All pruning since the factory.
        meta: Facts with at least ``factory``, ``args`` and ``input``; those that depend on the weights are replaced.
        out: Folder to write into.

    Returns:
        The meta of the new artefact: ``meta`` with ``params``, ``macs`` and ``plan`` of this model.
    """
    from safetensors.torch import save_file

    # Every tensor gets its own memory, so that tied weights are written under each of their names.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(dict(sorted(tensors.items())), out / _WEIGHTS)
    description = {
        "checkpoint": SCHEMA,
        "factory": meta["factory"],
        "args": meta["args"],
        "plan": plan.as_json(),
    }
    (out / _DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {
        **meta,
        "params": parameters(model),
        "macs": macs(model, meta["input"]["shape"]),
        "plan": plan.digest,
    }


def load(artifact: Artifact, root: Path) -> nn.Module:
    """The network of a torch artefact, on the CPU and in eval mode.

    Args:
        artifact: Of kind ``torch``.
        root: Folder of the recipe.

    Raises:
        StageError: The model's source is not the one that the artefact was made with.
        ConfigError: The factory fails.
    """
    if source_digest(artifact.meta["factory"], root) != artifact.meta["source_digest"]:
        raise StageError(
            "the model's source has changed since this checkpoint was written",
            where=artifact.meta["factory"],
            fix="start the run again",
        )
    return read(artifact.root, root)


def read(folder: Path, root: Path) -> nn.Module:
    """As :func:`load`, of a folder that is not yet an artefact."""
    from safetensors.torch import load_file

    description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    model = build(description["factory"], description["args"], root)
    try:
        cut(model, Plan.from_json(description["plan"]))
        model.load_state_dict(load_file(folder / _WEIGHTS))
    except (Uncuttable, RuntimeError) as error:
        raise StageError(
            f"the checkpoint does not fit the network that the factory builds: {error}",
            where=description["factory"],
            fix="a factory must build the same network each time it is called with the same arguments",
        ) from error
    return model


def plan(artifact: Artifact) -> Plan:
    """All pruning of a torch artefact since the factory."""
    description = json.loads(artifact.path(_DESCRIPTION).read_text(encoding="utf-8"))
    return Plan.from_json(description["plan"])


def preprocess_of(artifact: Artifact) -> Preprocess | None:
    """How raw samples become the input of a torch artefact; ``None`` if it takes them raw."""
    value = artifact.meta["preprocess"]
    return None if value is None else Preprocess.model_validate_json(json.dumps(value))


def parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameter values; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of one sample in all convolutions and fully connected layers.

    Args:
        model: Any network from one float32 tensor.
        shape: Of one sample, (C, H, W).
    """
    return sum(layer_macs(model, shape).values())


def layer_macs(model: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Multiply-accumulates of one sample by layer; a layer that is used twice counts twice.

    An output value costs ``inputs / groups * kernel`` MACs in a convolution and ``inputs`` in a fully connected layer.
    An input value costs ``outputs / groups * kernel`` in a transposed convolution.
    """
    import torch

    names = {module: name for name, module in model.named_modules() if is_matrix_layer(module)}
    counts: dict[str, int] = {}
    batch = 2

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        transposed = bool(getattr(layer, "transposed", False))
        values = inputs[0].numel() if transposed else output.numel()
        other = channels(layer, "out" if transposed else "in") // int(getattr(layer, "groups", 1))
        kernel = 1
        for size in getattr(layer, "kernel_size", ()):
            kernel *= size
        name = names[layer]
        counts[name] = counts.get(name, 0) + values * other * kernel // batch

    hooks = [layer.register_forward_hook(count) for layer in names]
    was_training = model.training
    model.eval()
    try:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        with torch.no_grad():
            model(example(shape, batch).to(device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return counts


def example(shape: Sequence[int], batch: int = 2) -> Any:
    """The same random float32 (batch, *shape) each time."""
    import torch

    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(0))


def _article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
