"""Score: thresholds from select, drops, evaluation sets, the worst of them, and networks that give NaN."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import artifact, flip
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import ConfigError
from edgeopt.measure import Measurement
from edgeopt.recipe import MetricSpec
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.score import Score, ScoreParams
from edgeopt.statistics import proportion_interval
from edgeopt.verdict import Gate, decide

COUNT = 300


def classes(seed: int, right: float, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of which a share is right, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    said = np.where(random.random(count) < right, labels, (labels + 1) % 4)
    return np.eye(4, dtype=np.float32)[said], labels


def faces(seed: int, shift: float = 0.0, count: int = COUNT, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Attack scores (N, 1), and the attack column: prints are easy, replays are hard."""
    random = np.random.default_rng(seed)
    attack = np.array(["", "print", "replay"])[np.arange(count) % 3]
    level = np.array([0.0, 1.0, 0.7])[np.arange(count) % 3]
    return (level + noise * random.standard_normal(count) + shift)[:, None].astype(np.float32), attack


def split(name: str, labels: np.ndarray | None = None, **columns: np.ndarray) -> Split:
    count = len(labels if labels is not None else next(iter(columns.values())))
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Split(name, np.zeros((count, 2), np.uint8), labels, digest, columns)


class Bench:
    """Runs the stage on planted outputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def outputs(
        self, role: str, values: np.ndarray, broken: str = "", *, method: str = "measured", not_run: str = ""
    ) -> Artifact:
        root = self.folder / role
        root.mkdir(exist_ok=True)
        np.save(root / "outputs.npy", values)
        meta = {
            "broken": broken,
            "method": method,
            "how": "x86 simulator" * (method == "simulated"),
            "not_run": not_run,
        }
        return Artifact("outputs", role, root, {"outputs.npy": ""}, meta)

    def run(
        self, metrics: list[MetricSpec], select: Split, evaluate: Split, /, **roles: Artifact
    ) -> tuple[dict[str, Measurement], Artifact, StageOutput]:
        out = self.folder / f"out{len(list(self.folder.iterdir()))}"
        out.mkdir()
        context = StageContext(
            out=out,
            root=self.folder,
            seed=7,
            data={"select": select, "evaluate": evaluate},
            progress=lambda *progress: None,
            agent=lambda: pytest.fail("needs no device"),
            host=lambda environment: pytest.fail("needs no agent"),
        )
        params = ScoreParams(metrics=tuple(metrics), split="evaluate")
        done = Score().run(roles, params, context)
        found = {name: Measurement.from_json(raw) for name, raw in done.meta["metrics"].items()}
        files = {path.name: "" for path in out.iterdir()}
        return found, Artifact("scores", "", out, files, done.meta), done


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spec(name: str, **args: Any) -> MetricSpec:
    return MetricSpec(name=name, args=args)


def test_values_and_drops_of_plain_metrics(bench):
    (own, labels), (base, _) = classes(1, 0.8), classes(2, 0.95)
    known = split("evaluate", labels)
    found, _, done = bench.run(
        [spec("top1"), spec("log_loss")],
        known,
        known,
        outputs=bench.outputs("outputs", own),
        baseline=bench.outputs("baseline", base),
    )
    assert list(found) == ["top1", "top1 drop", "log_loss", "log_loss drop"]
    right, was = (own.argmax(1) == labels).mean(), (base.argmax(1) == labels).mean()
    assert found["top1"].value == right
    assert found["top1"].interval == proportion_interval(int(right * COUNT), COUNT).interval
    assert found["top1 drop"].value == pytest.approx(was - right)
    assert (found["top1 drop"].better, found["log_loss"].better) == ("lower", "lower")
    assert done.summary.startswith("top1 0.8")
    assert done.kind == "scores"


def test_the_baseline_itself_has_not_dropped_whatever_the_number_of_samples(bench):
    own, labels = classes(1, 0.8, count=8)
    known, baseline = split("evaluate", labels), bench.outputs("baseline", own)
    found, _, _ = bench.run([spec("top1"), spec("log_loss")], known, known, outputs=baseline, baseline=baseline)
    for name in ("top1 drop", "log_loss drop"):
        assert (found[name].value, found[name].interval, found[name].better) == (0.0, (0.0, 0.0), "lower")


def test_without_a_baseline_there_are_no_drops(bench):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    found, _, _ = bench.run([spec("top1")], known, known, outputs=bench.outputs("outputs", own))
    assert list(found) == ["top1"]


def test_a_threshold_is_fixed_on_select_and_applied_to_evaluate(bench):
    (own, attack), (picked, picked_attack) = faces(1, shift=0.2), faces(2)
    found, _, _ = bench.run(
        [spec("bpcer", at_apcer=0.1)],
        split("select", attack=picked_attack),
        split("evaluate", attack=attack),
        outputs=bench.outputs("outputs", own),
        select=bench.outputs("select", picked),
    )
    m = found["bpcer@apcer=0.1"]
    threshold = float(m.why.split("threshold ")[1].split()[0])
    assert np.quantile(picked[picked_attack == "replay"], 0.08) < threshold
    assert threshold < np.quantile(picked[picked_attack == "replay"], 0.12)
    assert m.value == (own[attack == ""] >= threshold).mean()


@pytest.mark.parametrize(("whose", "lost"), [("own", False), ("baseline", True)])
def test_a_drop_at_the_own_threshold_and_at_the_one_that_production_keeps(bench, whose, lost):
    """The same network at another level of scores."""
    (base, attack), (picked, picked_attack) = faces(1), faces(2)
    found, _, _ = bench.run(
        [spec("bpcer", threshold_of=whose)],
        split("select", attack=picked_attack),
        split("evaluate", attack=attack),
        outputs=bench.outputs("outputs", base + 0.3),
        select=bench.outputs("select", picked + 0.3),
        baseline=bench.outputs("baseline", base),
        baseline_select=bench.outputs("baseline_select", picked),
    )
    name = "bpcer@baseline" if whose == "baseline" else "bpcer"
    drop = found[f"{name} drop"]
    if lost:
        assert drop.interval[0] > 0.05
        assert "of the float baseline" in found[name].why
    else:
        assert drop.value == pytest.approx(0, abs=1e-6)


def sets_of(bench: Bench, better: str) -> tuple[dict[str, Measurement], np.ndarray, np.ndarray]:
    """A metric on two sets; on ``night`` it is worse. The model is right more often on ``night`` than the baseline."""
    (day, day_labels), (night, night_labels) = classes(1, 0.95), classes(2, 0.7)
    (base_day, _), (base_night, _) = classes(3, 0.99), classes(4, 0.6)
    own, base = np.concatenate([day, night]), np.concatenate([base_day, base_night])
    labels = np.concatenate([day_labels, night_labels])
    evaluate = split("evaluate", labels, set=np.repeat(["day", "night"], COUNT))
    roles = {"outputs": bench.outputs("outputs", own), "baseline": bench.outputs("baseline", base)}
    found, _, _ = bench.run(
        [spec("top1" if better == "higher" else "log_loss")], split("select", day_labels), evaluate, **roles
    )
    return found, own, labels


@pytest.mark.parametrize(("better", "name"), [("higher", "top1"), ("lower", "log_loss")])
def test_each_set_and_the_worst(bench, better, name):
    found, own, labels = sets_of(bench, better)
    of = [f"{name}[day]", f"{name}[night]", f"{name}[worst]"]
    assert list(found) == [*of, *(f"{one} drop" for one in of)]
    worst = found[f"{name}[worst]"]
    assert worst.value == found[f"{name}[night]"].value
    assert worst.why == "on night"
    assert worst.n == COUNT
    dropped = found[f"{name}[worst] drop"]
    assert dropped.value == found[f"{name}[day] drop"].value
    assert dropped.value > 0 > found[f"{name}[night] drop"].value, "a damaged model may look better on one set"
    assert dropped.better == "lower"
    if name == "top1":
        assert found["top1[night]"].value == (own.argmax(1) == labels)[COUNT:].mean()


def test_the_bounds_of_the_worst_set(bench):
    """Far: the worst of the far bounds. Near: the worst of the near bounds, each with half the error."""
    found, own, labels = sets_of(bench, "higher")
    hits = [(own.argmax(1) == labels)[rows].sum() for rows in (slice(COUNT), slice(COUNT, None))]
    low = min(proportion_interval(int(count), COUNT).interval[0] for count in hits)
    high = min(proportion_interval(int(count), COUNT, 0.975).interval[1] for count in hits)
    assert found["top1[worst]"].interval == (low, high)


def test_the_worst_of_many_equal_sets_is_seldom_called_worse_than_all_are(bench):
    """With the near bound of a single set at 95 %, ten sets would be wrong in a fifth of all cases."""
    wrong, rounds, sets, rate = 0, 40, 10, 0.9
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        labels = np.zeros(sets * 100, np.int64)
        own = np.eye(4, dtype=np.float32)[(random.random(len(labels)) > rate).astype(int)]
        evaluate = split("evaluate", labels, set=np.repeat([f"s{i}" for i in range(sets)], 100))
        found, _, _ = bench.run([spec("top1")], evaluate, evaluate, outputs=bench.outputs("outputs", own))
        high = found["top1[worst]"].interval[1]
        wrong += high < rate
    assert wrong <= 3


def test_a_set_that_cannot_support_the_number_leaves_the_worst_unknown(bench):
    own, attack = faces(1)
    names = np.where(attack == "", "office", "lab")
    found, _, _ = bench.run(
        [spec("bpcer", threshold=0.5)],
        split("select", attack=attack),
        split("evaluate", attack=attack, set=names),
        outputs=bench.outputs("outputs", own),
        baseline=bench.outputs("baseline", own),
    )
    assert found["bpcer@0.5[office]"].value is not None
    for name in ("bpcer@0.5[lab]", "bpcer@0.5[worst]", "bpcer@0.5[lab] drop", "bpcer@0.5[worst] drop"):
        assert found[name].value is None
        assert "no sample is a bona fide presentation" in found[name].why
        assert not found[name].broken
    assert found["bpcer@0.5[worst]"].why.startswith("lab: ")


@pytest.mark.parametrize("role", ["outputs", "select"])
def test_a_network_that_gives_nan_is_broken_and_never_ranked(bench, role):
    (own, attack), (picked, picked_attack) = faces(1), faces(2)
    values = {"outputs": own, "select": picked, "baseline": own, "baseline_select": picked}
    values[role] = np.full_like(values[role], np.nan)
    made = {
        name: bench.outputs(name, array, "the onnx-qdq gives NaN, first in layer conv" if name == role else "")
        for name, array in values.items()
    }
    found, scores, _ = bench.run(
        [spec("acer"), spec("bpcer", threshold=0.5)],
        split("select", attack=picked_attack),
        split("evaluate", attack=attack, set=np.where(np.arange(COUNT) % 2, "a", "b")),
        **made,
    )
    for name in ("acer[a]", "acer[b]", "acer[worst]", "acer[a] drop", "acer[worst] drop"):
        assert (found[name].value, found[name].broken) == (None, True)
        assert "first in layer conv" in found[name].why
    fixed = found["bpcer@0.5[a]"]
    assert fixed.broken == (role == "outputs"), "a given threshold needs nothing of select"
    assert (scores.files == {}) == (role == "outputs"), "what it decides is not known"


@pytest.mark.parametrize("role", ["baseline", "baseline_select"])
def test_a_broken_baseline_leaves_no_drop(bench, role):
    (own, attack), (picked, picked_attack) = faces(1), faces(2)
    values = {"outputs": own, "select": picked, "baseline": own, "baseline_select": picked}
    values[role] = np.full_like(values[role], np.inf)
    made = {name: bench.outputs(name, array, "NaN" if name == role else "") for name, array in values.items()}
    sides = split("select", attack=picked_attack), split("evaluate", attack=attack)
    found, _, _ = bench.run([spec("acer"), spec("acer", threshold_of="baseline")], *sides, **made)
    assert found["acer"].value is not None
    for name in ("acer drop", "acer@baseline", "acer@baseline drop"):
        assert found[name].value is None
        assert "the float baseline is broken: NaN" in found[name].why
        assert not found[name].broken


def test_decisions_and_which_are_right(bench):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    _, scores, _ = bench.run([spec("log_loss"), spec("top1")], known, known, outputs=bench.outputs("outputs", own))
    np.testing.assert_array_equal(np.load(scores.path("decisions.npy")), own.argmax(1))
    np.testing.assert_array_equal(np.load(scores.path("right.npy")), own.argmax(1) == labels)


def test_decisions_of_an_attack_detector(bench):
    own, attack = faces(1)
    known = split("evaluate", attack=attack)
    _, scores, _ = bench.run([spec("bpcer", threshold=0.5)], known, known, outputs=bench.outputs("outputs", own))
    decided, right = np.load(scores.path("decisions.npy")), np.load(scores.path("right.npy"))
    assert set(decided.tolist()) == {"attack", "bonafide"}
    np.testing.assert_array_equal(right, (decided == "attack") == (attack != ""))
    _, other, _ = bench.run([spec("bpcer", threshold=0.5)], known, known, outputs=bench.outputs("outputs", own + 0.05))
    flipped = flip.flips(scores, other, known, private=False)
    assert flipped
    assert all(one.before == "bonafide" and one.after == "attack" for one in flipped)
    assert {one.right for one in flipped} <= {"before", "after"}


def test_a_regression_decides_nothing(bench):
    targets = np.random.default_rng(0).standard_normal((COUNT, 2))
    known = split("evaluate", targets)
    _, scores, _ = bench.run([spec("mae")], known, known, outputs=bench.outputs("outputs", targets.astype(np.float32)))
    assert scores.files == {}
    assert flip.flips(scores, scores, known, private=False) == ()


@pytest.mark.parametrize(("metric", "why"), [("top5", "top5: needs at least 6 outputs"), ("mae", "mae: needs as many")])
def test_outputs_that_do_not_fit_a_metric(bench, metric, why):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    with pytest.raises(ConfigError, match=why):
        bench.run([spec(metric)], known, known, outputs=bench.outputs("outputs", own))


USER = """\
from dataclasses import dataclass

import numpy as np

from edgeopt.metrics import Metric, NotMeasurable


@dataclass(frozen=True)
class Dice(Metric):
    positive: int = 1
    name = "dice"

    def compute(self, outputs, labels):
        BODY


class Parity(Metric):
    name = "parity"
    labels = "baseline"

    def compute(self, outputs, labels):
        return float((outputs.argmax(1) == labels.argmax(1)).mean())
"""


def user(bench: Bench, body: str) -> list[MetricSpec]:
    (bench.folder / "mymetrics.py").write_text(USER.replace("BODY", body))
    return [MetricSpec(name="dice", factory="mymetrics:Dice", args={"positive": 2})]


def test_a_users_own_metric(bench):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    listed = user(bench, "return 2 * np.sum((outputs.argmax(1) == self.positive) & (labels == self.positive)) / 99")
    found, _, _ = bench.run(
        listed, known, known, outputs=bench.outputs("outputs", own), baseline=bench.outputs("baseline", own)
    )
    value = 2 * ((own.argmax(1) == 2) & (labels == 2)).sum() / 99
    assert found["dice"].value == value
    assert found["dice"].interval[0] < value < found["dice"].interval[1], "bootstrapped"
    assert found["dice drop"].value == 0


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return labels.nothing", "AttributeError"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("raise ValueError('no such class')", "no such class"),
        ("return np.zeros(3)[7]", "IndexError"),
    ],
)
def test_a_metric_that_raises_is_named_with_its_line(bench, body, what):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    with pytest.raises(ConfigError) as caught:
        bench.run(user(bench, body), known, known, outputs=bench.outputs("outputs", own))
    assert caught.value.where == f"{bench.folder / 'mymetrics.py'}:14"
    assert caught.value.what.startswith("dice")
    assert what in caught.value.what


@pytest.mark.parametrize(
    ("body", "why"), [("return None", "a NoneType, not a number"), ("return labels", "a ndarray, not a number")]
)
def test_a_metric_that_gives_no_number(bench, body, why):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    with pytest.raises(ConfigError, match=f"dice: its value is {why}"):
        bench.run(user(bench, body), known, known, outputs=bench.outputs("outputs", own))


@pytest.mark.parametrize("body", ["return float('nan')", "return np.inf", "raise NotMeasurable('too few')"])
def test_a_metric_that_is_not_defined_here_was_not_measured(bench, body):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    found, _, _ = bench.run(
        user(bench, body), known, known, outputs=bench.outputs("outputs", own), baseline=bench.outputs("baseline", own)
    )
    for name in ("dice", "dice drop"):
        assert found[name].value is None
        assert found[name].why


INTERVAL = """return 0.5

    def interval(self, outputs, labels, **settings):
        return RESULT

    drop_interval = lambda self, outputs, baseline, labels, reference, **settings: RESULT"""


def with_interval(bench: Bench, result: str) -> dict[str, Measurement]:
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    roles = {"outputs": bench.outputs("outputs", own), "baseline": bench.outputs("baseline", own)}
    return bench.run(user(bench, INTERVAL.replace("RESULT", result)), known, known, **roles)[0]


def test_a_metric_that_knows_no_bounds_passes_no_gate(bench):
    found = with_interval(bench, "None")
    for gate in (Gate("dice", "min", 0.1), Gate("dice", "max_drop", 0.1)):
        assert found[gate.measurement].interval == (None, None)
        assert decide(gate, found[gate.measurement]).outcome == "inconclusive"


def test_bounds_may_be_numbers_of_numpy(bench):
    found = with_interval(bench, "(np.float32(0.25), None)")
    assert [found[name].interval for name in ("dice", "dice drop")] == [(0.25, None)] * 2
    assert type(found["dice"].interval[0]) is float


def test_a_bound_that_is_not_finite_leaves_the_number_unknown(bench):
    found = with_interval(bench, "(0.0, float('nan'))")
    for name in ("dice", "dice drop"):
        assert found[name].value is None
        assert found[name].why == "its bound is nan"


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("0.3", "its interval is a float, not two bounds"),
        ("(0.3, 'x')", "its bound is a str, not a number"),
        ("(0.3, 0.2)", "upside down"),
        ("(0.1, 0.2, 0.3)", "dice: "),
    ],
)
def test_an_interval_that_is_none(bench, result, why):
    with pytest.raises(ConfigError, match=why):
        with_interval(bench, result)


def test_parity_with_the_baseline(bench):
    (own, labels), (base, _) = classes(1, 0.8), classes(2, 0.95)
    known = split("evaluate", labels)
    user(bench, "pass")
    parity = [MetricSpec(name="parity", factory="mymetrics:Parity")]
    roles = {"outputs": bench.outputs("outputs", own), "baseline": bench.outputs("baseline", base)}
    found, _, _ = bench.run(parity, known, known, **roles)
    assert list(found) == ["parity"]
    assert found["parity"].value == (own.argmax(1) == base.argmax(1)).mean()
    found, _, _ = bench.run(parity, known, known, outputs=roles["outputs"])
    assert found["parity"].value is None
    assert "float baseline" in found["parity"].why


def test_scores_are_plain_json(bench):
    own, labels = classes(1, 0.8)
    known = split("evaluate", labels)
    _, _, done = bench.run([spec("top1"), spec("ece")], known, known, outputs=bench.outputs("outputs", own))
    assert artifact.canonical(done.meta)


def test_simulated_outputs_make_simulated_numbers(bench: Bench) -> None:
    split = Split("evaluate", np.zeros((40, 1), np.float32), np.arange(40) % 4, "")
    values = np.eye(4, dtype=np.float32)[split.labels]
    own = bench.outputs("outputs", values, method="simulated")
    found, _, _ = bench.run([spec("top1")], split, split, outputs=own, baseline=bench.outputs("baseline", values))
    assert {m.method for m in found.values()} == {"simulated"}
    assert all("x86 simulator" in m.why for m in found.values())


def test_what_did_not_run_was_not_measured(bench: Bench) -> None:
    split = Split("evaluate", np.zeros((40, 1), np.float32), np.arange(40) % 4, "")
    values = np.eye(4, dtype=np.float32)[split.labels]
    own = bench.outputs("outputs", values, not_run="nothing here runs it")
    found, _, _ = bench.run([spec("top1")], split, split, outputs=own, baseline=bench.outputs("baseline", values))
    assert {name: (m.value, m.why, m.broken) for name, m in found.items()} == {
        "top1": (None, "nothing here runs it", False),
        "top1 drop": (None, "nothing here runs it", False),
    }
    lost = bench.outputs("baseline", values, not_run="nothing here runs it")
    found, _, _ = bench.run([spec("top1")], split, split, outputs=bench.outputs("outputs", values), baseline=lost)
    assert found["top1"].value == 1
    assert found["top1 drop"].value is None
    assert "nothing here runs it" in found["top1 drop"].why
