"""A target file for a device, from what its agent says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml

from edgeopt.access import Facts
from edgeopt.errors import StageError
from edgeopt.printable import clean
from edgeopt.target import Access

#: Runtimes that an agent can time, the better one first where a device has several of a kind.
_OF_A_CPU = ("openvino", "onnxruntime", "litert")
_OF_AN_ACCELERATOR = {"tensorrt": "gpu", "qnn": "npu"}
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_ARCH = re.compile(r"\((sm_[0-9]+)\)")
_RAIL = re.compile(r"[A-Za-z0-9_]+")


def draft(name: str, access: Access, facts: Facts) -> str:
    """YAML, with what has to be checked by a person said in comments.

    Args:
        name: Of the target.
        access: How the device was reached.
        facts: Of its agent.

    Raises:
        StageError: The device has no runtime that could be timed.
    """
    accelerators = [runtime for runtime in _OF_AN_ACCELERATOR if runtime in facts.runtimes and _has(runtime, facts)]
    runtimes = accelerators[:1] or [runtime for runtime in _OF_A_CPU if runtime in facts.runtimes]
    if not runtimes:
        why = "; ".join(f"{runtime}: {reason}" for runtime, reason in facts.missing.items())
        fix = "on the device: python3 -m pip install numpy onnxruntime"
        raise StageError(f"the device has no runtime that edgeopt can time ({why})", where=str(access), fix=fix)
    kind = _OF_AN_ACCELERATOR.get(runtimes[0], "cpu")
    return "\n".join(_lines(name, access, facts, runtimes, kind)) + "\n"


def _lines(name: str, access: Access, facts: Facts, runtimes: list[str], kind: str) -> Iterator[str]:
    machine = facts.machine
    what = machine.gpu if kind == "gpu" else machine.cpu
    versions = (f"{runtime} {version.partition('-')[0]}" for runtime, version in facts.runtimes.items())
    yield f"# {clean(str(machine))}"
    yield f"# Found there: {clean(', '.join(versions))}."
    yield "target: 1"
    yield f"name: {name}"
    yield f"description: {_quoted(f'{what}, {access}')}"
    yield f"runtime: {runtimes[0] if len(runtimes) == 1 else '[' + ', '.join(runtimes) + ']'}"
    yield "device:"
    yield f"  kind: {kind}"
    yield f"  access: {_access(access)}"
    if kind == "gpu" and (arch := _ARCH.search(machine.gpu)):
        yield f"  arch: {arch[1]}"
    if kind == "npu":
        yield "  arch: v75   # CHECK: the version of the HTP, or the chip, like SM8650"
    if kind == "cpu" and _VNNI & set(machine.flags):
        yield "  features: [vnni]   # 8-bit dot products that cannot saturate: INT8 weights use their full range"
    if machine.power_mode:
        yield f"  power_mode: {_quoted(machine.power_mode)}   # it is measured only in this mode"
    if machine.rails:
        yield from _rails(machine.rails)
    yield f"precision: [{'int8, fp16' if kind != 'cpu' else 'int8'}]"
    yield f"limits: {{channel_multiple: {8 if kind == 'cpu' else 32}}}   # pruned widths that the kernels like"
    yield "measure: {percentile: 99, min_seconds: 2, min_runs: 500, max_seconds: 10, batch: 1, threads: 1}"


def _has(runtime: str, facts: Facts) -> bool:
    """Whether the device has what the runtime is for: the library of QNN is on hosts without an HTP too."""
    if runtime == "tensorrt":
        return bool(facts.machine.gpu)
    return "x86_64" not in facts.machine.system


def _access(access: Access) -> str:
    given = access.model_dump(exclude_defaults=True)
    return json.dumps(given, ensure_ascii=False) if given else "local"


def _rails(rails: tuple[str, ...]) -> Iterator[str]:
    if "VDD_IN" in rails:
        yield "  rails: [VDD_IN]   # the whole module"
        return
    if known := [rail for rail in rails if _RAIL.fullmatch(rail)]:
        yield f"  rails: [{', '.join(map(_quoted, known))}]   # CHECK: keep those that add up to the device's power"
    if len(known) < len(rails):
        yield f"  # CHECK: {len(rails) - len(known)} more power rails have names that cannot be those of rails"


def _quoted(text: str) -> str:
    """Text of the device as a YAML value on one line."""
    value: str = yaml.safe_dump(clean(text), default_style='"', allow_unicode=True, width=10**6)
    return value.strip()
