"""The digits recipe as one plain script: the library calls of `edgeopt compile`, without edgeopt. For ``overhead``.

The same: data and splits, weights, library versions, one thread; pruning to the same widths by torch-pruning; loss,
optimizer, schedule, batches, epochs and choice of the best epoch of distillation; two exports with the preprocessing
folded in, checked against torch; quantization by NNCF and ONNX Runtime with the same options; six saved models;
accuracy at the same points, sample by sample; and latency of three candidates and a copy of the float one, interleaved,
in as many fresh processes, for the same seconds.

Not the same, always to edgeopt's disadvantage: all but timing runs in this one process, where edgeopt runs models
in fresh agents; there is no peak memory, no layer map, no interval, no check that the files hold what was asked for, no
hashing, no store and no report; and it is given the widths that edgeopt searches.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as edgeopt does: nothing calls home
warnings.simplefilter("ignore")

import plain_runtimes as runtimes  # noqa: E402  (a script: what lies beside it can be imported)

BATCH, LEARNING_RATE, TEMPERATURE, ALPHA, SEED = 50, 2e-3, 4.0, 0.9, 7


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Two lines on stderr around a part, like those of edgeopt around a step."""
    print(f"{name}: started", file=sys.stderr, flush=True)
    yield
    print(f"{name}: done", file=sys.stderr, flush=True)


def main() -> None:
    """Run everything; the results go to ``OUT/results.json``."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/plain_digits.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("recipe", type=Path, help="the folder recipes/digits")
    parser.add_argument("out", type=Path, help="folder for the models")
    parser.add_argument("--widths", type=json.loads, default={}, help="output channels that stay, by layer, as JSON")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds per candidate")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(given.recipe))
    with phase("load"):
        import data
        import torch
        from model import digits_resnet
        from safetensors.torch import load_file

        torch.set_num_threads(1)
        splits = {name: getattr(data, name)() for name in ("train", "calibrate", "select", "evaluate")}
        trained = digits_resnet(width=32)
        trained.load_state_dict(load_file(given.recipe / "weights.safetensors"))
        trained.eval()
    scores = {}

    def note(point: str, run: runtimes.Run, split: str = "evaluate", batch: int = 1) -> None:
        with phase("evaluate"):
            scores[f"{point} {split}"] = runtimes.accuracy(run, *splits[split], batch)

    note("trained", torch_run(trained), batch=64)
    with phase("prune"):
        student, macs = prune(trained, given.widths)
    note("pruned", torch_run(student), batch=64)
    with phase("distill"):
        distill(student, trained, splits, given.epochs)
    note("distilled", torch_run(student), batch=64)
    with phase("export"):
        exported = {
            name: runtimes.export(model, given.out / f"{name}.onnx")
            for name, model in (("float", trained), ("float-pruned", student))
        }
    note("exported", runtimes.open_onnxruntime(exported["float-pruned"], optimised=False))

    timed = {}
    for runtime, suffix in (("openvino", ".xml"), ("onnxruntime", ".onnx")):
        quantize, compile_, open_ = (getattr(runtimes, f"{verb}_{runtime}") for verb in ("quantize", "compile", "open"))
        with phase("quantize"):
            quantized = quantize(exported["float-pruned"], splits["calibrate"][0], given.out)
        note(f"quantized {runtime}", open_(quantized) if runtime == "openvino" else open_(quantized, optimised=False))
        compiled = {}
        for candidate, file in {**exported, "int8-pruned": quantized}.items():
            with phase("compile"):
                compiled[candidate] = compile_(file, given.out / f"{runtime}-{candidate}{suffix}")
            for split in ("evaluate", "select"):
                note(f"{runtime}-{candidate}", open_(compiled[candidate]), split)
        with phase("measure"):
            files = {**compiled, "again": compiled["float"]}
            timed[runtime] = runtimes.latency(runtime, files, splits["evaluate"][0][:64], given.seconds)
    results = {"macs": macs, "scores": scores, "p50_ms": timed}
    (given.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def tensors(samples: Any) -> Any:
    """uint8 (N, H, W, 1) to float32 (N, 1, H, W) in -1..1."""
    import torch

    return (torch.from_numpy(samples).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def torch_run(model: Any) -> runtimes.Run:
    import torch

    def run(samples: Any) -> Any:
        with torch.inference_mode():
            return model.eval()(tensors(samples)).numpy()

    return run


def prune(trained: Any, widths: Mapping[str, int]) -> tuple[Any, dict[str, float]]:
    """The network cut to ``widths``, and the MACs before and after."""
    import torch
    import torch_pruning as tp

    student, example = copy.deepcopy(trained), torch.zeros(1, 1, 32, 32)
    before, _ = tp.utils.count_ops_and_params(student, example)
    layers = {student.get_submodule(name): width for name, width in widths.items()}
    tp.pruner.BasePruner(
        student,
        example,
        tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.0,
        pruning_ratio_dict={layer: 1 - width / layer.out_channels for layer, width in layers.items()},
        ignored_layers=[student.head],
    ).step()
    after, _ = tp.utils.count_ops_and_params(student, example)
    return student.eval(), {"trained": before, "pruned": after}


def distill(student: Any, teacher: Any, splits: Mapping[str, Any], epochs: int) -> None:
    """Train ``student`` in place, to its best epoch on ``select``."""
    import torch
    from torch.nn import functional

    images, labels = tensors(splits["train"][0]), torch.from_numpy(splits["train"][1])
    judged = tensors(splits["select"][0]), torch.from_numpy(splits["select"][1])
    with torch.no_grad():
        wanted = functional.log_softmax(torch.cat([teacher(part) for part in images.split(256)]) / TEMPERATURE, dim=1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    groups = [
        {"params": [p for p in student.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in student.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    steps = epochs * (len(images) // BATCH)
    rising = max(1, round(0.05 * steps))
    best, state, step = judge(student, *judged), copy.deepcopy(student.state_dict()), 0
    for _ in range(epochs):
        student.train()
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            falling = 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * ((step + 1) / rising if step < rising else falling)
            outputs = student(images[rows])
            divergence = functional.kl_div(
                functional.log_softmax(outputs / TEMPERATURE, dim=1),
                wanted[rows],
                reduction="batchmean",
                log_target=True,
            )
            loss = ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * functional.cross_entropy(outputs, labels[rows])
            loss.item()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            step += 1
        if (score := judge(student, *judged)) > best:
            best, state = score, copy.deepcopy(student.state_dict())
    torch.use_deterministic_algorithms(False)
    student.load_state_dict(state)
    student.eval()


def judge(model: Any, images: Any, labels: Any) -> tuple[float, float]:
    """Top-1, then the negative loss."""
    import torch

    with torch.no_grad():
        outputs = torch.cat([model.eval()(part) for part in images.split(256)])
    loss = torch.nn.functional.cross_entropy(outputs, labels).item()
    return (outputs.argmax(1) == labels).float().mean().item(), -loss


if __name__ == "__main__":
    main()
