"""Nets for the matrix of targets, trained on the data of the digits recipe so that their accuracy means something.

    python -m benchmarks.small_nets resnet_20 --out FOLDER

writes its weights. Training takes two to three minutes on one core.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import ENVIRONMENT, say
from benchmarks.frame import DIGITS, ROOT

#: Name -> the callable and its arguments, in tests/nets.py; all take (N, 1, 32, 32) and give 10 logits.
NETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "mobilenet_v2": ("MobileNetV2", {"classes": 10, "channels": 1}),
    "resnet_20": ("ResNet20", {"width": 16, "option": "conv", "classes": 10, "channels": 1}),
}
EPOCHS = 12
_WEIGHTS = "weights.safetensors"
#: Simulators of NPUs take up to a quarter of a second for one.
_SAMPLES = {"select": 150, "evaluate": 300}


def recipe(net: str, folder: Path, targets: Sequence[Path]) -> Path:
    """A recipe of one net for some target files; ``digits`` is the network of that recipe.

    Args:
        net: ``digits``, or one of :data:`NETS`.
        folder: It is written there; weights that are there already are kept.
        targets: Files of targets.
    """
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    document = yaml.safe_load((DIGITS / "recipe.yaml").read_text(encoding="utf-8"))
    shutil.copy(DIGITS / "data.py", folder / "data.py")
    if net == "digits":
        for name in ("model.py", _WEIGHTS):
            shutil.copy(DIGITS / name, folder / name)
    else:
        shutil.copy(ROOT / "tests" / "nets.py", folder / "model.py")
        factory, arguments = NETS[net]
        document["model"] |= {"factory": f"model:{factory}", "args": dict(arguments)}
        if not (folder / _WEIGHTS).exists():
            _train_apart(net, folder)
    document |= {"name": net, "steps": [{"quantize": {"scheme": "int8"}}], "gates": {"top1": {"max_drop": 0.05}}}
    document["targets"] = [str(file) for file in targets]
    calibration = DIGITS / document["data"]["calibrate"]["path"]
    document["data"]["calibrate"]["path"] = str(calibration.resolve())
    for split, count in _SAMPLES.items():
        document["data"][split]["samples"] = count
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def _train_apart(net: str, folder: Path) -> None:
    """In a process of its own, whose threads and random numbers are its own."""
    import os

    say(f"targets: training {net}, two to three minutes")
    command = [sys.executable, "-m", "benchmarks.small_nets", net, "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, check=True, stdout=subprocess.DEVNULL)


def train(net: str, folder: Path) -> None:
    """Write the weights, with the recipe's own training loop."""
    import torch
    from safetensors.torch import save_file

    from tests import nets

    sys.path.insert(0, str(DIGITS))
    import train as digits

    torch.set_num_threads(1)
    torch.manual_seed(digits.SEED)
    factory, arguments = NETS[net]
    model = getattr(nets, factory)(**arguments)
    best = digits.train(model, epochs=EPOCHS)
    model.load_state_dict(best)
    say(f"evaluate top-1 {digits.accuracy(model, *digits.tensors(digits.data.evaluate())):.4f}")
    partial = folder / f"{_WEIGHTS}.part"
    save_file({name: value.contiguous() for name, value in best.items()}, partial)
    partial.replace(folder / _WEIGHTS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_nets", description=__doc__)
    parser.add_argument("net", choices=sorted(NETS))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    train(given.net, given.out)


if __name__ == "__main__":
    main()
