"""The metrics against scikit-learn and torchmetrics, where these define them, and what they cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.frame import Claim, Options, Result, Row, main
from edgeopt.metrics import Metric
from edgeopt.metrics.classification import F1, Precision, Recall, TopK
from edgeopt.metrics.presentation_attack import Acer, Apcer, Bpcer
from edgeopt.metrics.probability import CalibrationError, LogLoss
from edgeopt.metrics.ranking import RocAuc
from edgeopt.metrics.regression import MeanAbsoluteError, RootMeanSquaredError, RSquared

CLASSES = 10
SETTINGS = {"confidence": 0.95, "seed": 0}

Array = npt.NDArray[Any]
Theirs = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Case:
    """A metric, and the same number from elsewhere; ``None`` where a library does not define it.

    ``rounded``: torchmetrics computes this one in float32, whatever it is given.
    """

    metric: Metric
    sklearn: Theirs | None
    torchmetrics: Theirs | None
    task: str = "classes"
    rounded: bool = False


def metrics(options: Options) -> Result:
    """Values on many small random data sets, cost on a large one."""
    draws, large = (20, 20_000) if options.quick else (200, 100_000)
    rows: list[Row] = []
    worst = {"scikit-learn": 0.0, "torchmetrics": 0.0, "torchmetrics in float32": 0.0}
    seconds = 0.0
    for case in cases():
        compared = agreement(case, draws)
        for library, difference in compared.items():
            name = f"{library} in float32" if case.rounded and library == "torchmetrics" else library
            worst[name] = max(worst[name], difference or 0.0)
        cost = price(case, large)
        seconds += sum(cost[name] for name in ("value_s", "interval_s", "drop_s"))
        rows.append({"metric": case.metric.label, **{f"from_{name}": d for name, d in compared.items()}, **cost})
    claims = [
        Claim(
            f"largest difference from {name} in {draws} draws, relative above 1",
            value,
            2.4e-7 if name.endswith("float32") else 1e-9,
        )
        for name, value in worst.items()
    ]
    claims.append(Claim(f"seconds of all {len(rows)} metrics with interval and drop, {large:,} samples", seconds, 60))
    return Result(claims, rows)


def cases() -> list[Case]:
    """Every metric."""
    import sklearn.metrics as sk
    import torchmetrics.functional as tm

    many: dict[str, Any] = {"task": "multiclass", "num_classes": CLASSES}

    def torch_of(function: Callable[..., Any], **settings: Any) -> Theirs:
        return lambda outputs, labels: float(function(*tensors(outputs, labels), **settings))

    def said(function: Callable[..., Any], **settings: Any) -> Theirs:
        return lambda outputs, labels: float(function(labels, outputs.argmax(axis=1), **settings))

    def pair(function: Callable[..., Any]) -> Theirs:
        return lambda outputs, labels: float(function(labels, outputs))

    def probabilities(function: Callable[..., Any], **settings: Any) -> Theirs:
        return lambda outputs, labels: float(function(labels, softmax(outputs), **settings))

    def ece(outputs: Array, labels: Array) -> float:
        given, wanted = tensors(softmax(outputs), labels)
        return float(tm.calibration_error(given, wanted, n_bins=15, norm="l1", **many))

    def cross_entropy(outputs: Array, labels: Array) -> float:
        import torch

        return float(torch.nn.functional.cross_entropy(*tensors(outputs, labels)))

    def scores(function: Callable[..., Any]) -> Theirs:
        return lambda outputs, labels: float(function(labels, outputs[:, 0]))

    def error_of(kind: str) -> Theirs:
        """APCER of one type is 1 - recall of its attacks, BPCER that of the bona fide."""

        def rate(outputs: Array, labels: Array) -> float:
            rows = labels == kind
            return 1 - float(sk.accuracy_score(np.full(rows.sum(), bool(kind)), outputs[rows, 0] >= 0.5))

        return rate

    def worst_type(outputs: Array, labels: Array) -> float:
        return max(error_of(kind)(outputs, labels) for kind in ("print", "replay"))

    macro: dict[str, Any] = {"average": "macro"}
    bare: dict[str, Any] = {**macro, "zero_division": 0}
    return [
        Case(TopK(1), said(sk.accuracy_score), torch_of(tm.accuracy, average="micro", **many), rounded=True),
        Case(
            TopK(5),
            lambda outputs, labels: float(sk.top_k_accuracy_score(labels, outputs, k=5, labels=range(CLASSES))),
            torch_of(tm.accuracy, average="micro", top_k=5, **many),
            rounded=True,
        ),
        Case(Recall(), said(sk.balanced_accuracy_score), torch_of(tm.recall, **macro, **many), rounded=True),
        Case(Precision(), said(sk.precision_score, **bare), torch_of(tm.precision, **macro, **many), rounded=True),
        Case(F1(), said(sk.f1_score, **bare), torch_of(tm.f1_score, **macro, **many), rounded=True),
        Case(
            F1(positive=3),
            said(sk.f1_score, labels=[3], **bare),
            lambda outputs, labels: float(tm.f1_score(*tensors(outputs, labels), average=None, **many)[3]),
            rounded=True,
        ),
        Case(LogLoss(), probabilities(sk.log_loss, labels=range(CLASSES)), cross_entropy),
        Case(CalibrationError(), None, ece, rounded=True),
        Case(
            RocAuc(),
            probabilities(sk.roc_auc_score, multi_class="ovr", **macro),
            lambda outputs, labels: float(tm.auroc(*tensors(softmax(outputs), labels), **macro, **many)),
            rounded=True,
        ),
        Case(
            RocAuc(),
            scores(sk.roc_auc_score),
            lambda outputs, labels: float(tm.auroc(*tensors((outputs[:, 0] + 8) / 16, labels), task="binary")),
            "two classes",
            rounded=True,
        ),
        Case(MeanAbsoluteError(), pair(sk.mean_absolute_error), torch_of(tm.mean_absolute_error), "targets"),
        Case(
            RootMeanSquaredError(),
            pair(sk.root_mean_squared_error),
            torch_of(tm.mean_squared_error, squared=False),
            "targets",
        ),
        Case(RSquared(), pair(sk.r2_score), torch_of(tm.r2_score), "targets"),
        Case(Apcer(threshold=0.5, attack="print"), error_of("print"), None, "faces"),
        Case(Apcer(threshold=0.5), worst_type, None, "faces"),
        Case(Bpcer(threshold=0.5), error_of(""), None, "faces"),
        Case(
            Acer(threshold=0.5),
            lambda outputs, labels: (worst_type(outputs, labels) + error_of("")(outputs, labels)) / 2,
            None,
            "faces",
        ),
    ]


def draw(task: str, seed: int, count: int) -> tuple[Array, Array]:
    """Outputs in float64 and labels; every class is there."""
    random = np.random.default_rng(seed)
    if task == "targets":
        targets = random.standard_normal((count, 1)) * 3 + 1
        return targets + random.standard_normal((count, 1)), targets
    if task == "faces":
        kinds = np.array(["", "print", "replay"])[np.arange(count) % 3]
        return (random.random((count, 1)) + (kinds != "")[:, None]) / 2 + 0.1 * random.standard_normal(
            (count, 1)
        ), kinds
    if task == "two classes":
        labels = np.arange(count) % 2
        return np.round(random.standard_normal((count, 1)) + labels[:, None], 2), labels
    labels = random.permutation(np.arange(count) % CLASSES)
    outputs = random.standard_normal((count, CLASSES)) * 2
    outputs[np.arange(count), labels] += 2
    return outputs, labels


def softmax(outputs: Array) -> Array:
    """(N, K) by the definition."""
    odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def tensors(outputs: Array, labels: Array) -> tuple[Any, Any]:
    """Both for torch."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(outputs)), torch.from_numpy(np.ascontiguousarray(labels))


def agreement(case: Case, draws: int) -> dict[str, float | None]:
    """Largest difference from each library, relative where the value is above 1."""
    found: dict[str, float | None] = {}
    for name, theirs in (("scikit-learn", case.sklearn), ("torchmetrics", case.torchmetrics)):
        if theirs is None:
            found[name] = None
            continue
        differences = []
        for seed in range(draws):
            outputs, labels = draw(case.task, seed, 200 + 7 * seed)
            expected = theirs(outputs, labels)
            differences.append(abs(case.metric.compute(outputs, labels) - expected) / max(1.0, abs(expected)))
        found[name] = max(differences)
    return found


def price(case: Case, count: int) -> dict[str, float]:
    """Seconds of the value, its interval and that of a drop, and the most memory of the interval, in MiB."""
    (outputs, labels), (noise, _) = draw(case.task, 1, count), draw(case.task, 2, count)
    outputs, worse = outputs.astype(np.float32), (0.9 * outputs + 0.1 * noise).astype(np.float32)
    metric = case.metric
    spent = {}
    for name, work in (
        ("value_s", lambda: metric.compute(outputs, labels)),
        ("interval_s", lambda: metric.interval(outputs, labels, **SETTINGS)),
        ("drop_s", lambda: metric.drop_interval(worse, outputs, labels, metric, **SETTINGS)),
    ):
        began = time.perf_counter()
        work()
        spent[name] = time.perf_counter() - began
    tracemalloc.start()
    metric.compute(outputs, labels)
    spent["value_mib"] = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return spent


if __name__ == "__main__":
    main("metrics", __doc__ or "", metrics)
