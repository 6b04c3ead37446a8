"""What edgeopt itself costs: CPU time of a cold `edgeopt compile` over that of one plain script with its library calls.

The script is ``plain_digits.py``, whose docstring says what is the same and what is not. Both get the same two targets,
the same threads and the same timed seconds: the targets allow one look at the latencies, since whether there is a
second one depends on the noise of the moment. Children are included. Runs alternate, in random order after the first
round, in which the script needs the widths that edgeopt found. The claims are on the ratios of medians; an interval is
that of the median of the rounds' ratios, and needs six rounds.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.commands import FINISHED, Spent, compile_command, record, say, spend
from benchmarks.frame import ROOT, Claim, Options, Result, Row, main
from edgeopt import config
from edgeopt.statistics import percentile_interval
from edgeopt.target import Target, locate

_TARGETS = ("cpu-openvino", "cpu-onnxruntime")
_SECONDS = 2.0
_EPOCHS = 12
#: How the names of edgeopt's steps and of the script's parts begin.
_PHASES = ("load", "prune", "distill", "export", "quantize", "compile", "evaluate", "measure")
#: Two accuracies on 599 images that are nearer than this differ by at most two images.
_SAME = 2.5 / 599


def overhead(options: Options) -> Result:
    """Rounds of one cold run each."""
    with TemporaryDirectory(prefix="edgeopt-overhead-") as temporary:
        folder = Path(temporary)
        overrides = {"targets": json.dumps(_one_look(options.data, folder)), "steps.distill.epochs": _EPOCHS}
        sets = [argument for key, value in overrides.items() for argument in ("--set", f"{key}={value}")]
        script = [sys.executable, str(ROOT / "benchmarks" / "plain_digits.py"), str(options.data)]
        length = ["--epochs", str(_EPOCHS), "--seconds", str(_SECONDS)]

        def edgeopt(number: int) -> Spent:
            place = folder / f"edgeopt-{number}"
            return spend(compile_command(options.data, place, *sets), allowed=FINISHED)

        def plain(number: int) -> Spent:
            widths = ["--widths", json.dumps(_widths(folder / "edgeopt-0"))]
            return spend([*script, str(folder / f"plain-{number}"), *length, *widths])

        first: list[Spent] = []
        second: list[Spent] = []
        for number in range(1 if options.quick else 7):
            say(f"overhead: round {number + 1}")
            runs = [partial(edgeopt, number), partial(plain, number)]
            for index in (0, 1) if number == 0 else random.sample((0, 1), 2):
                (first, second)[index].append(runs[index]())
        differing = _differing_points(folder / "edgeopt-0", folder / "plain-0")
    rows = [
        _row("all", [s.cpu_s for s in first], [s.cpu_s for s in second]),
        _row("all but measuring", *([s.without("measure").cpu_s for s in series] for series in (first, second))),
        *(_row(phase, *([s.of(phase).cpu_s for s in series] for series in (first, second))) for phase in _PHASES),
        _row("between these", *([s.without("").cpu_s for s in series] for series in (first, second))),
    ]
    claims = [
        Claim("CPU time of a cold `edgeopt compile` over that of the plain script", _ratio(rows[0]), 1.10),
        Claim("the same, without measuring latency and memory", _ratio(rows[1]), 1.10),
        Claim("points of the ledger at which the two differ by more than two images", differing, 0),
    ]
    return Result(claims, rows)


def _one_look(recipe: Path, folder: Path) -> list[str]:
    """Files of the targets, changed so that the latencies are looked at once."""
    files = []
    for name in _TARGETS:
        target = config.load(locate(name, recipe), Target).model_dump(mode="json")
        target["measure"] |= {"min_seconds": _SECONDS, "max_seconds": _SECONDS}
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(target), encoding="utf-8")  # JSON is YAML
        files.append(str(file))
    return files


def _widths(edgeopt: Path) -> dict[str, int]:
    """Output channels of the convolutions after edgeopt's pruning, as the weights have them."""
    from safetensors import safe_open

    digest = next(stage["output"] for stage in record(edgeopt)["stages"] if stage["stage"] == "prune")
    with safe_open(edgeopt / "cache" / "objects" / digest[:2] / digest / "weights.safetensors", "numpy") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  not a mapping
    return {
        name.removesuffix(".weight"): shape[0] for name, shape in shapes.items() if len(shape) == 4 and shape[1] > 1
    }


def _row(what: str, edgeopt: Sequence[float], plain: Sequence[float]) -> Row:
    ratios = [a / b for a, b in zip(edgeopt, plain, strict=True) if b]
    low, high = percentile_interval(ratios, 0.5).interval if ratios else (None, None)
    return {
        "cpu_s_of": what,
        "rounds": len(edgeopt),
        "edgeopt": median(edgeopt),
        "plain": median(plain),
        "ratio": median(edgeopt) / median(plain) if median(plain) else None,
        "ratio_low": low,
        "ratio_high": high,
    }


def _ratio(row: Row) -> float | None:
    value = row["ratio"]
    return value if isinstance(value, float) else None


def _differing_points(edgeopt: Path, plain: Path) -> int:
    """Evidence that both did the same work."""
    scores = json.loads((plain / "results.json").read_bytes())["scores"]
    differing = 0
    for point in record(edgeopt)["ledger"]:
        if point["stage"] == "pruned":  # cut and not yet trained: near chance
            continue
        name = point["candidate"] or " ".join(filter(None, (point["stage"], point["runtime"])))
        differing += abs(point["value"] - scores[f"{name} evaluate"]) > _SAME
    return differing


if __name__ == "__main__":
    main("overhead", __doc__ or "", overhead)
