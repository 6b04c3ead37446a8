"""Distillation: it recovers a pruned network, repeats, and refuses labels that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgeopt import checkpoint, registry
from edgeopt.artifact import Artifact
from edgeopt.data import Split
from edgeopt.errors import ConfigError, StageError
from edgeopt.metrics import Metric
from edgeopt.stage import StageOutput
from edgeopt.stages import distill as module
from edgeopt.stages.distill import Distill, DistillParams
from edgeopt.stages.prune import Prune, PruneParams
from edgeopt.training import Schedule, fine_tune, predict, to_labels
from tests.compression import ROOT, artifact, context, network, split


def quadrants(name: str, count: int, seed: int) -> Split:
    """Which quadrant of the image is bright."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    samples = random.normal(0, 0.7, (count, 3, 8, 8)).astype(np.float32)
    for image, label in zip(samples, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.5
    return split(name, samples, labels.astype(np.int64))


DATA = {"train": quadrants("train", 192, 0), "select": quadrants("select", 200, 1)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("teacher")
    source = network("Plain", folder)
    model = checkpoint.load(source, ROOT)
    labels = to_labels(DATA["train"].labels)  # type: ignore[arg-type]
    fine_tune(
        model,
        DATA["train"],
        DATA["select"],
        preprocess=None,
        objective=lambda network, x, rows: nn.functional.cross_entropy(network(x), labels[rows]),
        judge=lambda outputs: (float((outputs.argmax(1) == DATA["select"].labels).mean()), 0.0),
        better="higher",
        schedule=Schedule(8, 32, 0.01),
        seed=0,
        progress=lambda *progress: None,
    )
    return save(model, source, folder)


def save(model: nn.Module, source: Artifact, folder: Path) -> Artifact:
    ctx = context(folder)
    return artifact(StageOutput("torch", checkpoint.save(model, checkpoint.plan(source), source.meta, ctx.out)), ctx)


@pytest.fixture(scope="module")
def student(teacher: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    ctx = context(tmp_path_factory.mktemp("student"))
    return artifact(
        Prune().run({"model": teacher}, PruneParams(criterion="random", macs_ratio=0.15, channel_multiple=2), ctx), ctx
    )


def distill(
    student: Artifact, teacher: Artifact, folder: Path, data: Any = DATA, **params: Any
) -> tuple[Artifact, StageOutput]:
    ctx = context(folder, data=data)
    settings = {"metric": {"name": "top1"}, "epochs": 6, "batch": 32, "lr": 0.01, **params}
    output = Distill().run({"model": student, "teacher": teacher}, DistillParams(**settings), ctx)
    return artifact(output, ctx), output


def top1(found: Artifact) -> float:
    outputs = predict(checkpoint.load(found, ROOT), DATA["select"], None)
    return float((outputs.argmax(1) == DATA["select"].labels).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_it_recovers_what_pruning_lost(alpha: float, student: Artifact, teacher: Artifact, tmp_path: Path) -> None:
    assert top1(student) < top1(teacher) - 0.1
    found, output = distill(student, teacher, tmp_path, alpha=alpha)
    assert top1(found) > top1(teacher) - 0.05
    assert found.meta["macs"] == student.meta["macs"]
    assert checkpoint.plan(found) == checkpoint.plan(student)
    assert f"top1 on select {top1(student):.4f} -> {top1(found):.4f}" in output.summary


def test_two_runs_give_equal_bytes(student: Artifact, teacher: Artifact, tmp_path: Path) -> None:
    first, second = (distill(student, teacher, tmp_path, epochs=2)[0] for _ in range(2))
    assert first.digest == second.digest


def test_the_teacher_alone_needs_no_labels_but_the_metric_does(
    student: Artifact, teacher: Artifact, tmp_path: Path
) -> None:
    unlabelled = {**DATA, "train": replace(DATA["train"], labels=None)}
    found, _ = distill(student, teacher, tmp_path, unlabelled, alpha=1.0, task="classification")
    assert top1(found) > top1(teacher) - 0.1
    for alpha, task in ((0.9, "classification"), (1.0, "auto")):
        with pytest.raises(ConfigError, match="no labels"):
            distill(student, teacher, tmp_path, unlabelled, alpha=alpha, task=task)
    with pytest.raises(ConfigError, match="top1 needs 'labels'"):
        distill(student, teacher, tmp_path, {**DATA, "select": replace(DATA["select"], labels=None)})


@pytest.mark.parametrize("name", ["train", "select"])
def test_labels_outside_the_outputs_are_refused(
    name: str, student: Artifact, teacher: Artifact, tmp_path: Path
) -> None:
    labels = DATA[name].labels.copy()  # type: ignore[union-attr]
    labels[3] = 4
    with pytest.raises(ConfigError, match="label 4 of sample 3 is outside the network's 4 outputs") as caught:
        distill(student, teacher, tmp_path, {**DATA, name: replace(DATA[name], labels=labels)})
    assert caught.value.where == f"data.{name}"


def test_classification_of_values_is_refused(student: Artifact, teacher: Artifact, tmp_path: Path) -> None:
    values = {**DATA, "train": replace(DATA["train"], labels=np.zeros(192, np.float32))}
    with pytest.raises(ConfigError, match="needs class numbers"):
        distill(student, teacher, tmp_path, values, task="classification")


def test_values_are_regressed(
    student: Artifact, teacher: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Error(Metric):
        name = "error"
        better = "lower"

        def compute(self, outputs: Any, labels: Any) -> float:
            return float(np.square(outputs - labels).mean())

    monkeypatch.setattr(registry, "find", lambda kind, name: Error())
    truth = checkpoint.load(teacher, ROOT)
    data = {name: replace(part, labels=predict(truth, part, None)) for name, part in DATA.items()}
    before = float(
        np.square(predict(checkpoint.load(student, ROOT), data["select"], None) - data["select"].labels).mean()
    )
    found, _ = distill(student, teacher, tmp_path, data, alpha=0.5)
    after = float(np.square(predict(checkpoint.load(found, ROOT), data["select"], None) - data["select"].labels).mean())
    assert after < 0.5 * before
    wrong = {**data, "train": replace(data["train"], labels=np.zeros((192, 3), np.float32))}
    with pytest.raises(ConfigError, match="do not fit outputs"):
        distill(student, teacher, tmp_path, wrong)


def test_a_network_that_cannot_get_better_stays_and_that_is_said(teacher: Artifact, tmp_path: Path) -> None:
    found, output = distill(teacher, teacher, tmp_path, epochs=2, lr=1e-9)
    assert top1(found) == top1(teacher)
    assert "best epoch" in output.summary
    worse, note = distill(teacher, teacher, tmp_path, epochs=3, lr=10.0, patience=2)
    assert top1(worse) == top1(teacher)
    assert any("is kept" in line for line in note.notes)
    assert any("stopped after epoch 2 of 3" in line for line in note.notes)


def test_student_and_teacher_must_answer_alike(student: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="differ in shape"):
        distill(student, network("Plain", tmp_path, classes=7), tmp_path)


def test_gradients_of_the_divergence_do_not_fade_with_temperature(teacher: Artifact) -> None:
    answers = predict(checkpoint.load(teacher, ROOT), DATA["train"], None)

    def norm(temperature: float) -> float:
        params = DistillParams(temperature=temperature, alpha=1.0)
        objective = module._objective(params, "classification", answers, DATA["train"])
        logits = torch.zeros(192, 4, requires_grad=True)
        objective(lambda x: logits, torch.zeros(1), torch.arange(192)).backward()  # type: ignore[arg-type, return-value]
        return float(logits.grad.norm())  # type: ignore[union-attr]

    assert norm(20.0) == pytest.approx(norm(40.0), rel=0.1)


def test_an_equal_student_has_no_divergence(teacher: Artifact) -> None:
    answers = predict(checkpoint.load(teacher, ROOT), DATA["train"], None)
    objective = module._objective(DistillParams(alpha=1.0), "classification", answers, DATA["train"])
    loss = objective(lambda x: torch.from_numpy(answers), torch.zeros(1), torch.arange(192))  # type: ignore[arg-type, return-value]
    assert abs(float(loss)) < 1e-5


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"alpha": 1.5}, {"epochs": 0}, {"batch": 1}, {"lr": 0.0}, {"task": "both"}]
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DistillParams(**wrong)


def test_an_embedder_learns_from_its_teacher_alone(student: Artifact, teacher: Artifact, tmp_path: Path) -> None:
    """Without labels but with identities the task is found; equal scores are told apart by the teacher's embeddings."""
    truth = checkpoint.load(teacher, ROOT)
    data = {
        name: replace(part, labels=None, columns={"identity": np.arange(len(part)) // 10})
        for name, part in DATA.items()
    }

    def nearness(found: Artifact) -> float:
        outputs, wanted = (predict(model, data["select"], None) for model in (checkpoint.load(found, ROOT), truth))
        return float(nn.functional.cosine_similarity(torch.from_numpy(outputs), torch.from_numpy(wanted)).mean())

    found, output = distill(student, teacher, tmp_path, data, metric={"name": "eer"})
    assert nearness(found) > nearness(student) + 0.05
    assert "eer on select" in output.summary


def test_embeddings_are_vectors(tmp_path: Path) -> None:
    data = {
        name: replace(part, labels=None, columns={"identity": np.arange(len(part)) // 10})
        for name, part in DATA.items()
    }
    one = network("Plain", tmp_path, classes=1)
    with pytest.raises(ConfigError, match=r"embeddings are \(N, D\)"):
        distill(one, one, tmp_path, data, metric={"name": "eer"})
