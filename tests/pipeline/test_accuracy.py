"""Metrics from the recipe to the record: a user's own, presentation attacks on several sets, networks that give NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt import record
from edgeopt.cli import app
from edgeopt.plan import plan
from tests import tiny

CLI = CliRunner()

DICE = """\
from dataclasses import dataclass

from edgeopt.metrics import Metric


@dataclass(frozen=True)
class Dice(Metric):
    \"\"\"Of one class, twice the right answers by all that are of the class or are said to be.\"\"\"

    positive: int = 0
    name = "dice"

    def compute(self, outputs, labels):
        said = outputs.argmax(axis=1) == self.positive
        true = labels == self.positive
        return 2 * (said & true).sum() / (said.sum() + true.sum())
"""


def run(command: str, folder: Path, *options: str) -> tuple[int, str]:
    """Run edgeopt in this process; returns exit code and all output. A traceback fails the test."""
    where = ["--out", str(folder / "out"), "--cache", str(folder / "cache")] if command == "compile" else []
    result = CLI.invoke(app, [command, str(folder), *where, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "internal error" not in result.output, result.output
    return result.exit_code, " ".join(result.output.split())


def recipe(folder: Path, metrics: str, gates: str, steps: str = "[]") -> Path:
    """A tiny recipe for one target with other metrics and gates."""
    tiny.write(folder)
    text = (folder / "recipe.yaml").read_text()
    text = text[: text.index("metrics:")] + f"metrics: {metrics}\nsteps: {steps}\ngates: {gates}\n"
    (folder / "recipe.yaml").write_text(f"{text}targets: [tiny-onnxruntime]\n")
    return folder


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def with_dice(folder: Path, gates: str = "{dice: {min: 0.9, max_drop: 0.05}}", source: str = DICE) -> Path:
    recipe(folder, '[top1, {factory: "mymetrics:Dice", args: {positive: 2}}]', gates)
    (folder / "mymetrics.py").write_text(source)
    return folder


# A user's own metric


def test_a_users_own_metric_is_measured_gated_and_scored_again_when_it_changes(tmp_path: Path) -> None:
    folder = with_dice(tmp_path)
    code, output = run("compile", folder)
    assert code == 0, output
    run_record = record.load(folder / "out")
    target = run_record.targets["tiny-onnxruntime"]
    measured = target.candidate(target.shipped).measurement("dice")
    assert measured is not None
    assert 0.9 < measured.value <= 1
    assert [v.gate for v in target.verdicts] == ["dice min", "dice max_drop"]
    assert {"top1", "dice"} <= {entry.metric for entry in run_record.ledger}

    edit(folder / "mymetrics.py", "return 2 *", "return 1 *")
    code, output = run("compile", folder)
    assert code == 1, output
    again = record.load(folder / "out")
    assert {stage.stage for stage in again.stages if not stage.cached} == {"score", "parity"}
    assert {stage.stage for stage in again.stages if stage.cached} >= {"load", "export", "compile", "evaluate"}
    target = again.targets["tiny-onnxruntime"]
    assert target.candidate(target.shipped).measurement("dice").value == pytest.approx(measured.value / 2)
    assert [v.outcome for v in target.verdicts] == ["fail", "pass"]
    assert run_record.provenance["metrics"].keys() == {"dice"}
    assert run_record.provenance["metrics"] != again.provenance["metrics"]


def test_the_record_tells_the_code_that_was_planned_with_and_not_what_was_edited_meanwhile(tmp_path: Path) -> None:
    editing = DICE.replace(
        "        said =", '        with open(__file__, "a") as file:\n            file.write("#")\n        said ='
    )
    folder = with_dice(tmp_path, "{dice: {min: 0.9}}", source=editing)
    planned = plan(folder).metric_sources
    code, output = run("compile", folder)
    assert code == 0, output
    assert (folder / "mymetrics.py").read_text() != editing
    assert record.load(folder / "out").provenance["metrics"] == planned


def test_check_and_the_plan_run_none_of_its_code(tmp_path: Path) -> None:
    folder = with_dice(tmp_path, source=f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n{DICE}")
    code, output = run("check", folder)
    assert code == 0, output
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("gates", "old", "new", "message"),
    [
        ("{dice: {max: 0.5}}", "", "", "dice is better when higher"),
        ("{dice: {min: 0.5}}", 'name = "dice"', 'name = "dice"\n    better = "lower"', "dice is better when lower"),
        ("{dice: {min: 0.5}}", 'name = "dice"', 'name = "sorensen"', "name: 'sorensen'"),
        ("{dice: {min: 0.5}}", "(Metric)", "", "gives a Dice, not a metric"),
        ("{dice: {min: 0.5}}", "positive: int", "negative: int", "unexpected keyword argument 'positive'"),
        ("{dice: {min: 0.5}}", "from edgeopt.metrics import Metric", "1 / 0", "mymetrics.py:3: "),
        ("{dice: {min: 0.5}}", "labels == self", "labels.real.unreal == self", "mymetrics.py:15: dice raised Attr"),
        ("{dice: {min: 0.5}}", 'name = "dice"', 'name = "dice"\n    labels = "masks"', "dice needs 'masks' of every"),
    ],
)
def test_what_is_wrong_with_it_is_told(tmp_path: Path, gates: str, old: str, new: str, message: str) -> None:
    folder = with_dice(tmp_path, gates, DICE.replace(old, new) if old else DICE)
    code, output = run("compile", folder)
    assert code == 2, output
    assert message in output
    assert not (folder / "out").exists()
    if "raised Attr" not in message:
        assert "load: started" not in output, "seen before any work"


def test_a_metric_that_is_not_there_is_told_by_check(tmp_path: Path) -> None:
    folder = with_dice(tmp_path)
    edit(folder / "recipe.yaml", "mymetrics:Dice", "mymetrics:Dise")
    code, output = run("check", folder)
    assert code == 2
    assert "recipe.yaml:" in output
    assert "mymetrics.py defines no 'Dise' (did you mean 'Dice'?)" in output


# Presentation attacks

PAD = """\
from data import _split
import numpy as np


def _faces(seed, count=1600, far=0):
    samples, labels = _split(seed, count)
    kind = np.array(["print", "replay"])[np.arange(count) // 4 % 2]
    return samples, None, {"attack": np.where(labels == 3, kind, "")}


def select():
    return _faces(3)


def indoor():
    return _faces(4)


def outdoor():
    return _faces(5)
"""
METRICS = "[acer, {apcer: {attack: print}}, {bpcer: {at_apcer: 0.05, threshold_of: baseline}}]"
GATES = "{acer: {max: 0.05}, 'apcer:print[outdoor]': {max: 0.1}, 'bpcer@apcer=0.05@baseline[worst]': {max_drop: 0.05}}"


def faces(
    folder: Path, metrics: str = METRICS, gates: str = GATES, steps: str = "[{quantize: {scheme: int8}}]"
) -> Path:
    recipe(folder, metrics, gates, steps)
    (folder / "pad.py").write_text(PAD)
    edit(folder / "recipe.yaml", "select:    {loader: data:select}", "select: {loader: pad:select}")
    sets = "evaluate: {sets: {indoor: {loader: pad:indoor}, outdoor: {loader: pad:outdoor}}}"
    edit(folder / "recipe.yaml", "evaluate:  {loader: data:evaluate}", sets)
    return folder


def test_presentation_attacks_on_two_sets(tmp_path: Path) -> None:
    folder = faces(tmp_path)
    code, output = run("compile", folder)
    assert code == 0, output
    target = record.load(folder / "out").targets["tiny-onnxruntime"]
    assert [v.gate for v in target.verdicts] == [
        "acer[indoor] max",
        "acer[outdoor] max",
        "apcer:print[outdoor] max",
        "bpcer@apcer=0.05@baseline[worst] max_drop",
    ]
    assert {v.outcome for v in target.verdicts} == {"pass"}
    for candidate in target.candidates:
        assert "fixed on select" in candidate.measurement("acer[indoor]").why
        assert candidate.measurement("acer[worst]").why.startswith("on ")
        assert "of the float baseline" in candidate.measurement("bpcer@apcer=0.05@baseline[indoor]").why
        assert "print" in candidate.measurement("apcer:print[indoor]").why
        assert {m.metric for m in candidate.selection} >= {"acer", "apcer:print", "acer drop"}


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("labels == 3", "labels == 7", ["data.select", "acer cannot be measured: no sample is an attack"]),
        ("labels == 3", "labels >= 0", ["data.select", "no sample is a bona fide presentation"]),
        ('"print", "replay"', '"mask", "replay"', ["no sample is an attack of type 'print' (there are: mask, replay)"]),
        ('"print", "replay"', '"live", "print"', ["is 'live' an attack type?"]),
        ('"attack": np', '"atack": np', ["needs 'attack' of every sample; there are: atack"]),
        ("_faces(seed, count=1600", "_faces(seed, count=160", ["a threshold at 0.05 needs 60 attacks of type 'print'"]),
        ('{"attack": np.where(labels == 3, kind, "")}', '{"attack": labels}', ["as text, got int64"]),
        (
            "return _faces(5)",
            'samples, none, columns = _faces(5)\n    return samples, none, {"attack": np.full(1600, "replay")}',
            ["data.evaluate.sets.outdoor", "acer cannot be measured: no sample is a bona fide presentation"],
        ),
    ],
)
def test_attack_data_that_cannot_support_the_gates(tmp_path: Path, old: str, new: str, messages: list[str]) -> None:
    folder = faces(tmp_path)
    edit(folder / "pad.py", old, new)
    code, output = run("compile", folder)
    assert code == 2, output
    for message in messages:
        assert message in output
    assert "load: started" not in output, "seen before any work"


def test_a_single_attack_type_is_the_worst_one_and_the_report_says_so(tmp_path: Path) -> None:
    folder = faces(tmp_path, "[apcer]", "{apcer: {max: 0.05}}", "[]")
    edit(folder / "pad.py", '"print", "replay"', '"print", "print"')
    code, output = run("compile", folder)
    assert code == 0, output
    target = record.load(folder / "out").targets["tiny-onnxruntime"]
    why = target.candidate(target.shipped).measurement("apcer[indoor]").why
    assert "the only attack type is print" in why


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pad:outdoor", "pad:outdor", "pad.py defines no 'outdor' (did you mean 'outdoor'?)"),
        ("outdoor: {", "worst: {", "no set can be called 'worst'"),
        ("attack: print", "atack: print", "apcer has no such parameter (did you mean 'attack'?)"),
        ("at_apcer: 0.05", "at_apcer: 5", "less than 1"),
        ("'apcer:print[outdoor]'", "'apcer:mask[outdoor]'", "no gate on 'apcer:mask[outdoor]'"),
        ("acer: {max: 0.05}", "acer: {min: 0.05}", "better when lower"),
    ],
)
def test_mistakes_that_check_tells(tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = faces(tmp_path)
    edit(folder / "recipe.yaml", old, new)
    code, output = run("check", folder)
    assert code == 2, output
    assert message in output
    assert "recipe.yaml:" in output


# Networks that give NaN

#: Where the light falls, by its energy, whatever the exposure. INT8 ranges come from bright samples: of dim ones the
#: energy rounds to 0, and 0/0 is NaN.
SHARES = """\
import torch
from torch import nn


class Shares(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.Conv2d(1, 4, 4, 4, bias=False)

    def forward(self, x):
        energy = torch.flatten(self.pool(x * x).mean(1), 1)
        return 10 * energy / energy.sum(1, keepdim=True)


def build():
    return Shares()
"""
LIGHT = """\
import numpy as np


def _split(seed, count, light):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    samples = random.integers(0, 3, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(samples, labels):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += light
    return samples, labels.astype(np.int64)


def train():
    return _split(1, 64, 250)


def calibrate():
    return _split(2, 64, 250)


def select():
    return _split(3, 200, 4)


def evaluate():
    return _split(4, 200, 4)
"""


def lights(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    recipe(folder, "[top1]", "{top1: {min: 0.9, max_drop: 0.05}}", "[{quantize: {scheme: int8}}]")
    for old, new in (("{width: 16}", "{}"), ("mean: [0.5]", "mean: [0]"), ("std: [0.5]", "std: [1]")):
        edit(folder / "recipe.yaml", old, new)
    (folder / "model.py").write_text(SHARES)
    (folder / "data.py").write_text(LIGHT)
    save_file({"pool.weight": torch.ones(4, 1, 4, 4) / 16}, folder / "weights.safetensors")
    return folder


def test_an_int8_candidate_that_gives_nan_is_out_and_its_layer_is_named(tmp_path: Path) -> None:
    folder = lights(tmp_path)
    code, output = run("compile", folder)
    assert code == 0, output
    done = record.load(folder / "out")
    target = done.targets["tiny-onnxruntime"]
    assert target.shipped == "onnxruntime-float"
    quantized = target.candidate("onnxruntime-int8")
    assert "gives NaN or infinity on 200 of 200 samples, first in layer" in quantized.rejected
    assert "/Div" in quantized.rejected
    for measured in (quantized.measurement("top1"), *quantized.selection):
        assert (measured.value, measured.broken) == (None, True)
    assert not [entry for entry in done.ledger if entry.candidate == "onnxruntime-int8"]
    assert target.flip_count == 0


def test_a_trained_network_that_gives_nan_is_an_error_with_its_layer(tmp_path: Path) -> None:
    folder = lights(tmp_path)
    edit(folder / "model.py", "self.pool(x * x)", "self.pool(torch.sqrt(x - 0.5))")
    code, output = run("compile", folder)
    assert code == 3, output
    assert "the network gives NaN or infinity on 200 of 200 samples, first in layer pool" in output
    assert not (folder / "out").exists()


def test_one_sample_that_gives_nan_is_enough(tmp_path: Path) -> None:
    """It is black, so that the network divides 0 by 0."""
    folder = lights(tmp_path)
    edit(folder / "recipe.yaml", "[{quantize: {scheme: int8}}]", "[]")
    edit(folder / "data.py", "return _split(4, 200, 4)", "s, y = _split(4, 200, 4)\n    s[7] = 0\n    return s, y")
    code, output = run("compile", folder)
    assert code == 3, output
    assert "on 1 of 200 samples" in output
