"""Torch to LiteRT, in the isolated tool environment ``litert-torch``: its converter brings jax and two gigabytes more.

The network comes as a program that ``torch.export`` wrote, so that the user's code is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from . import report

#: What the client calls the program, and what it gets.
PROGRAM, MODEL = "program.pt2", "model.tflite"
#: Before the name of a module in the names that the converter gives.
MODULE = "module:"


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.tflite``: float32, with the batch of the program's example, images in the order (H, W, C) inside.

    Returns:
        ``{"versions": {distribution: version}}``.

    Raises:
        AgentError: Operators that cannot be expressed, each with the modules that use it, or whatever else it is that
            the converter does not do.
    """
    from importlib.metadata import version

    import litert_torch
    import torch

    torch.set_num_threads(1)
    _name_modules_in_full()
    report("loading the program")
    program = torch.export.load(files[PROGRAM])
    arguments, _ = program.example_inputs
    module = torch.export.unflatten(program)
    report("converting")
    try:
        litert_torch.convert(module.eval(), tuple(arguments)).export(str(out / MODEL))
    except Exception as error:  # the converter raises whatever its many layers raise
        if unknown := _unknown(program):
            raise AgentError("LiteRT has no " + "; ".join(unknown)) from error
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise AgentError(f"the converter failed: {type(error).__name__}: {first}") from error
    return {"versions": {name: version(name) for name in ("litert-torch", "litert-converter", "torch")}}


def _name_modules_in_full() -> None:
    """Have the converter name an operation after its module, ``module:network.body.0;``.

    By itself it writes the last part of each module's name only, and loses those of lists of modules.
    """
    from litert_torch.backend.debuginfo import _build

    def innermost(node: Any) -> str:
        stack = list(node.meta["nn_module_stack"].values())
        return f"{MODULE}{stack[-1][0] if stack else ''};"

    _build._get_hierarchy = innermost


def _unknown(program: Any) -> list[str]:
    """The operators that the converter has no rule for, and who uses them: ``aten.foo.default (in head, neck)``."""
    from litert_torch import fx_infra
    from litert_torch.backend import lowerings

    for table in (fx_infra.decomp.pre_convert_decomp(), fx_infra.decomp.pre_lower_decomp()):
        program = fx_infra.safe_run_decompositions(program, table, can_skip=False)
    users: dict[str, dict[str, None]] = {}
    for node in program.graph.nodes:
        is_operator = node.op == "call_function" and hasattr(node.target, "overloadpacket")
        if is_operator and lowerings.lookup(node.target) is None:
            stack = list(node.meta.get("nn_module_stack", {}).values())
            name = stack[-1][0].removeprefix("network").removeprefix(".") if stack else ""
            users.setdefault(str(node.target), {})[name or "the network itself"] = None
    return [f"{operator} (in {', '.join(names)})" for operator, names in users.items()]
