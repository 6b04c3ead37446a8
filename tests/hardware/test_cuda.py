"""Training on an NVIDIA GPU: the same recipe step, on the machine that has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeopt import checkpoint, data
from edgeopt.recipe import DataSpec, InputSpec, Preprocess, RawSpec, SplitSpec
from edgeopt.reference import source_digest
from edgeopt.stages.distill import Distill, DistillParams
from edgeopt.stages.load import Load, LoadParams
from edgeopt.stages.prune import Prune, PruneParams
from tests.compression import artifact, context

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"
RAW = RawSpec(shape=(32, 32, 1), dtype="uint8")
pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]


def test_distilling_on_a_gpu_recovers_the_pruned_network_and_repeats(tmp_path: Path) -> None:
    spec = DataSpec(**{name: SplitSpec(loader=f"data:{name}") for name in data.SPLITS})
    splits = data.open_splits(spec, RAW, DIGITS)
    weights = DIGITS / "weights.safetensors"
    params = LoadParams(
        factory="model:digits_resnet",
        args={},
        weights=str(weights),
        weights_digest="",
        source_digest=source_digest("model:digits_resnet", DIGITS),
        input=InputSpec(shape=(1, 32, 32)),
        preprocess=Preprocess(raw=RAW, scale=255.0, mean=(0.5,), std=(0.5,)),
    )

    def run(stage, inputs, params):  # type: ignore[no-untyped-def]
        ctx = context(tmp_path, root=DIGITS, data=splits)
        return artifact(stage.run(inputs, params, ctx), ctx)

    trained = run(Load(), {}, params)
    pruned = run(Prune(), {"model": trained}, PruneParams(macs_ratio=0.5, channel_multiple=8))
    distil = DistillParams(epochs=4, device="cuda", metric="top1")
    first, second = (run(Distill(), {"model": pruned, "teacher": trained}, distil) for _ in range(2))
    assert first.files["weights.safetensors"] == second.files["weights.safetensors"]
    model = checkpoint.load(first, DIGITS)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    outputs = model(torch.from_numpy(data.to_input(splits["evaluate"].samples, checkpoint.preprocess_of(first))))
    assert (outputs.argmax(1).numpy() == splits["evaluate"].labels).mean() > 0.97
