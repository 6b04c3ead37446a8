"""``load``: from the user's factory and weights file to a checked torch artefact."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import checkpoint
from edgeopt.artifact import Artifact
from edgeopt.errors import ConfigError, StageError
from edgeopt.recipe import InputSpec, Preprocess, Reference
from edgeopt.reference import source_digest, user_frame
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.surgery import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeopt.target import Target

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_SHOWN = 10


class LoadParams(Params):
    """What is loaded.

    Attributes:
        factory: ``module:callable`` that returns the network.
        args: Keyword arguments of the factory.
        weights: Weights file, absolute or relative to the recipe.
        weights_digest: sha256 of that file when the plan was made.
        source_digest: Of the factory's source when the plan was made.
        input: Input of the network.
        preprocess: From a raw sample to that input.
    """

    factory: Reference
    args: dict[str, Any]
    weights: str
    weights_digest: str
    source_digest: str
    input: InputSpec
    preprocess: Preprocess | None = None


class Load:
    """Builds the network, fills it strictly, and shows that it runs."""

    name = "load"
    version = 1
    Params = LoadParams
    accepts: Mapping[str, frozenset[str]] = {}
    produces = frozenset({"torch"})
    tools = ("torch", "safetensors")
    in_recipe = False
    on_device = False
    environment = ""

    def bind(self, params: LoadParams, target: Target) -> LoadParams:
        """Nothing of the target matters here."""
        return params

    def data(self, params: LoadParams) -> tuple[str, ...]:
        """Reads no data."""
        return ()

    def run(self, inputs: Mapping[str, Artifact], params: LoadParams, ctx: StageContext) -> StageOutput:
        """Write the torch artefact.

        Raises:
            ConfigError: The factory, the weights file or the input shape is wrong.
            StageError: A file has changed since the plan was made.
        """
        if source_digest(params.factory, ctx.root) != params.source_digest:
            raise StageError("the model's source changed during the run", where=params.factory, fix="start it again")
        model = checkpoint.build(params.factory, params.args, ctx.root)
        path = ctx.root / params.weights
        fill(model, unwrap(read_weights(path, params.weights_digest), model), path)
        check_forward(model, params.input, ctx.root)
        facts = {
            "factory": params.factory,
            "args": params.args,
            "source_digest": params.source_digest,
            "input": params.input.model_dump(mode="json"),
            "preprocess": None if params.preprocess is None else params.preprocess.model_dump(mode="json"),
        }
        meta = checkpoint.save(model, Plan({}), facts, ctx.out)
        summary = f"{meta['params'] / 1e3:,.1f} k parameters, {meta['macs'] / 1e6:,.2f} M MACs"
        return StageOutput("torch", meta, summary)


def read_weights(path: Path, digest: str = "") -> Mapping[str, Any]:
    """What a weights file holds. No code in it is run.

    Args:
        path: ``.safetensors``, ``.pt``, ``.pth`` or ``.ckpt``.
        digest: sha256 that the file must have, if given.

    Raises:
        ConfigError: The file is missing, empty, damaged, of another kind, or a pickle that needs code.
        StageError: The file has another digest.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the weights cannot be read: {error.strerror}", where=where, fix="correct model.weights in the recipe"
        ) from error
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise StageError("the weights file changed during the run", where=where, fix="start it again")
    if not content:
        raise ConfigError("the weights file is empty", where=where)
    if path.suffix == ".safetensors":
        try:
            tensors: Mapping[str, Any] = load(content)
            return tensors
        except (SafetensorError, ValueError, KeyError) as error:
            raise ConfigError(
                f"not a readable safetensors file: {error}", where=where, fix="copy or save the file again"
            ) from error
    if path.suffix not in (".pt", ".pth", ".ckpt"):
        raise ConfigError(
            f"unknown kind of weights file {path.suffix!r}", where=where, fix="use .safetensors, .pt, .pth or .ckpt"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it then refuses
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if _needs_code(str(error), content):
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise ConfigError(
                f"reading this file would run code{f' ({wanted[1]})' if wanted else ''}; it was not read",
                where=where,
                fix=_resave(path),
            ) from error
        raise ConfigError(
            "not a readable PyTorch file: it is damaged, cut short or of another kind",
            where=where,
            fix="copy or save the file again",
        ) from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"holds a {type(loaded).__name__}, not a state dict", where=where, fix=_resave(path))
    return loaded


def _needs_code(message: str, content: bytes) -> bool:
    """Whether PyTorch refused a file because of what it asks for, not because it is damaged."""
    is_bare_pickle = content[:1] == b"\x80"
    return any(sign in message for sign in ("GLOBAL", "Unsupported class", "TorchScript")) or (
        is_bare_pickle and "Unsupported operand" in message
    )


def _resave(path: Path) -> str:
    return (
        "where you trust the file, save its tensors as safetensors:\n"
        "    from safetensors.torch import save_file\n"
        f"    save_file({{k: v.clone().contiguous() for k, v in model.state_dict().items()}}, "
        f'"{path.stem}.safetensors")'
    )


def unwrap(content: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The state dict in what a training script saved: out of its wrapper, without ``module.`` and the like.

    A prefix that the model's own names have too stays.
    """
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            content = inner
            break
    state = dict(content)
    wanted = list(model.state_dict())
    while state:
        prefix = next((p for p in _PREFIXES if all(str(key).startswith(p) for key in state)), None)
        if prefix is None or all(name.startswith(prefix) for name in wanted):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fill(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load ``state`` strictly.

    Raises:
        ConfigError: A tensor is missing, left over, of another shape, or not finite.
    """
    import torch

    wanted: dict[str, Tensor] = model.state_dict()
    given = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    others = [str(name) for name in state if str(name) not in given]
    problems = _listed("missing", [name for name in wanted if name not in given])
    problems += _listed("unexpected", [*(name for name in given if name not in wanted), *others])
    problems += _listed(
        "of another shape",
        [
            f"{name} {list(given[name].shape)} (the model has {list(tensor.shape)})"
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ],
    )
    if problems:
        raise ConfigError(
            "the weights do not fit the model:\n" + "\n".join(f"    {line}" for line in problems),
            where=str(path),
            fix=_prefix_hint(wanted, given) or "check model.args, or whether the weights belong to this model",
        )
    broken = [
        name for name, value in given.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        lines = "\n".join(f"    {line}" for line in _listed("NaN or infinite", broken))
        raise ConfigError(
            f"the weights are not finite:\n{lines}", where=str(path), fix="take an earlier checkpoint of the training"
        )
    model.load_state_dict(given)


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"]


def _prefix_hint(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Which common prefix on one side would make the names equal; empty if none would."""
    for these, those, text in (
        (given, wanted, "the weights' names start with {!r}, the model's do not: remove it from the file"),
        (wanted, given, "the model's names start with {!r}, the weights' do not: add it in the file"),
    ):
        first = next(iter(these), "")
        for end in [index + 1 for index, letter in enumerate(first) if letter == "."]:
            prefix = first[:end]
            if {name.removeprefix(prefix) for name in these} == set(those) and all(n.startswith(prefix) for n in these):
                return text.format(prefix)
    return ""


def check_forward(model: nn.Module, spec: InputSpec, root: Path) -> None:
    """Show that the network takes the recipe's input, and gives one tensor with the batch in front.

    Raises:
        ConfigError: It does not.
    """
    import torch

    batch = 2
    shown = f"input.shape {list(spec.shape)}"
    fix = "correct input.shape in the recipe, or the model"
    try:
        with torch.no_grad():
            output = model(checkpoint.example(spec.shape, batch))
    except Exception as error:
        raise ConfigError(
            f"the model fails on {shown}: {type(error).__name__}: {error}",
            where=user_frame(error, root) or "input.shape",
            fix=fix,
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            f"the model returns a {type(output).__name__}; edgeopt takes models that return one tensor",
            where="model.factory",
            fix="wrap it in a module that returns the tensor which the product uses",
        )
    if output.ndim < 2 or output.shape[0] != batch:
        raise ConfigError(
            f"for a batch of {batch} the model returns {list(output.shape)}; the batch must come first: (N, ...)",
            where="model.factory",
            fix=fix,
        )


PLUGINS = (Load(),)
