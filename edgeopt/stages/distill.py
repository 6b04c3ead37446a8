"""``distill``: fine-tunes a network to answer as its teacher does, and to be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeopt import checkpoint, metrics
from edgeopt.artifact import Artifact
from edgeopt.data import IDENTITY, Array, Split, check_classes
from edgeopt.errors import ConfigError, StageError
from edgeopt.metrics import Metric
from edgeopt.recipe import MetricSpec, as_metric
from edgeopt.stage import Params, StageContext, StageOutput
from edgeopt.training import Judge, Objective, Schedule, fine_tune, predict, task_loss, to_labels

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeopt.target import Target

Task = Literal["classification", "regression", "embedding"]


class DistillParams(Params):
    """How to fine-tune.

    Attributes:
        epochs: Passes over the training split, at most.
        temperature: Softens the answers of teacher and student, so that the wrong classes count too.
        alpha: Weight of the teacher; the labels have the rest.
        lr: Highest learning rate, of AdamW.
        batch: Samples per step.
        patience: Stop after so many epochs without a better one; 0 never stops early.
        task: ``auto`` is classification where the labels are whole numbers, regression where they are others, and
            embedding where there are none but identities. An embedder learns from the teacher alone, and only the
            direction of its outputs.
        device: Where to train.
        threads: CPU threads. The order of sums depends on it, so it is part of the result.
        metric: Chooses the best epoch on ``select``; left out, the first of the recipe.
        metric_source: Digest of the code behind the metric; the plan fills it in.
    """

    epochs: Annotated[int, Field(ge=1)] = 12
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    lr: Annotated[float, Field(gt=0)] = 2e-3
    batch: Annotated[int, Field(ge=2)] = 50
    patience: Annotated[int, Field(ge=0)] = 0
    task: Literal["auto", "classification", "regression", "embedding"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    metric: Annotated[MetricSpec | None, BeforeValidator(as_metric)] = None
    metric_source: str = ""


class Distill:
    """Knowledge distillation (Hinton et al. 2015) from the trained float network."""

    name = "distill"
    version = 1
    Params = DistillParams
    accepts: Mapping[str, frozenset[str]] = {"model": frozenset({"torch"}), "teacher": frozenset({"torch"})}
    produces = frozenset({"torch"})
    tools = ("torch",)
    in_recipe = True
    on_device = False
    environment = ""

    def bind(self, params: DistillParams, target: Target) -> DistillParams:
        """Nothing of the target matters here."""
        return params

    def data(self, params: DistillParams) -> tuple[str, ...]:
        """Learns from one split, and chooses the best epoch on another."""
        return ("train", "select")

    def run(self, inputs: Mapping[str, Artifact], params: DistillParams, ctx: StageContext) -> StageOutput:
        """Write the best epoch of the fine-tuned network; that may be the network as it came.

        Raises:
            ConfigError: The labels are missing or do not fit the outputs.
            StageError: Student and teacher do not fit together, or the training fails.
        """
        source = inputs["model"]
        train, select = ctx.data["train"], ctx.data["select"]
        preprocess = checkpoint.preprocess_of(source)
        student = checkpoint.load(source, ctx.root)
        teacher = checkpoint.load(inputs["teacher"], ctx.root)
        answers = predict(teacher, train, checkpoint.preprocess_of(inputs["teacher"]), threads=params.threads)
        example = checkpoint.example(source.meta["input"]["shape"])
        if student(example).shape[1:] != answers.shape[1:]:
            raise StageError("the student's outputs differ in shape from the teacher's", where="distill")
        task = _task(params, train)
        if task == "classification":
            for split in (train, select):
                check_classes(split, answers.shape[1])
        if task == "embedding" and (answers.ndim != 2 or answers.shape[1] < 2):
            raise ConfigError(
                f"embeddings are (N, D), the network's outputs are {list(answers.shape)}", where="steps.distill.task"
            )
        assert params.metric is not None  # the plan fills it in
        metric = metrics.load(params.metric, ctx.root)
        if metric.labels == metrics.BASELINE:
            raise ConfigError(
                f"{metric.label} compares with the float baseline, so that no epoch can be chosen by it",
                where="distill",
                fix="name another one: `distill: {metric: ...}`",
            )
        with metrics.blamed(metric, ctx.root):
            metrics.check_split(metric, select, fitting=bool(metric.fitted_on))
            wanted = None
            if task == "embedding":
                wanted = predict(teacher, select, checkpoint.preprocess_of(inputs["teacher"]), threads=params.threads)
            judge = _judge(metric, select, ctx.root, wanted)
        history = fine_tune(
            student,
            train,
            select,
            preprocess=preprocess,
            objective=_objective(params, task, answers, train),
            judge=judge,
            better=metric.better,
            metric=metric.label,
            schedule=Schedule(params.epochs, params.batch, params.lr, params.patience),
            seed=ctx.seed,
            progress=ctx.progress,
            device=params.device,
            threads=params.threads,
        )
        meta = checkpoint.save(student, checkpoint.plan(source), source.meta, ctx.out)
        best, first, last = history.best, history.epochs[0], history.epochs[-1]
        notes = []
        if best.number == 0:
            notes.append(f"no epoch had a better {metric.label} on select than the network as it came, which is kept")
        if last.number < params.epochs:
            notes.append(f"stopped after epoch {last.number} of {params.epochs}: none was better for {params.patience}")
        frozen = sum(parameter.numel() for parameter in student.parameters() if not parameter.requires_grad)
        if frozen:
            notes.append(f"{frozen} parameters that the factory froze were not trained")
        summary = (
            f"{metric.label} on select {first.score:.4f} -> {best.score:.4f}, "
            f"best epoch {best.number} of {last.number}, loss {last.loss:.4f}"
        )
        return StageOutput("torch", meta, summary, tuple(notes))


def _task(params: DistillParams, train: Split) -> Task:
    """What the labels are for.

    Raises:
        ConfigError: There are none, but they are to be learned from.
    """
    if params.task == "embedding" or (params.task == "auto" and train.labels is None and IDENTITY in train.columns):
        return "embedding"
    if train.labels is None:
        if params.alpha < 1 or params.task == "auto":
            raise ConfigError(
                "the split has no labels",
                where="data.train",
                fix="return labels from the loader, or set alpha: 1.0 and the task to learn from the teacher alone",
            )
        return params.task
    whole = train.labels.dtype.kind in "iu"
    if params.task == "auto":
        return "classification" if whole else "regression"
    if params.task == "classification" and not whole:
        raise ConfigError(
            f"classification needs class numbers, the labels are {train.labels.dtype}", where="data.train"
        )
    return params.task


def _objective(params: DistillParams, task: Task, answers: Array, train: Split) -> Objective:
    """``alpha`` of the distance to the teacher and the rest of the distance to the labels.

    For classification the first is ``T² KL(teacher / T || student / T)``: the T² keeps its gradients at the size of the
    cross-entropy's whatever T is (Hinton et al. 2015, section 2). For regression both are mean squared errors. An
    embedder has no labels, and the distance is 1 - cosine.
    """
    import torch
    from torch.nn import functional

    soft = params.temperature
    wanted = torch.from_numpy(answers).to(params.device)
    labels = None if train.labels is None else to_labels(train.labels).to(params.device)
    if task == "regression" and labels is not None:
        labels = labels.float()

    def objective(model: nn.Module, inputs: Tensor, rows: Tensor) -> Tensor:
        outputs: Tensor = model(inputs)
        if task == "embedding":
            return 1 - functional.cosine_similarity(outputs, wanted[rows], dim=1).mean()
        if task == "classification":
            divergence = functional.kl_div(
                functional.log_softmax(outputs / soft, dim=1),
                functional.log_softmax(wanted[rows] / soft, dim=1),
                reduction="none",
                log_target=True,
            )
            teaching = soft**2 * divergence.sum(dim=1).mean()
        else:
            teaching = functional.mse_loss(outputs, wanted[rows])
        if params.alpha == 1 or labels is None:
            return teaching
        return params.alpha * teaching + (1 - params.alpha) * task_loss(outputs, labels[rows], train.name)

    return objective


def _judge(metric: Metric, select: Split, root: Path, embeddings: Array | None) -> Judge:
    """The metric, and the task's loss, so that of two epochs with an equal score the surer one is kept.

    The loss is that to the labels or, for an embedder, to the teacher's ``embeddings`` (N, D).
    """
    import torch
    from torch.nn import functional

    truth = metric.truth(select.truth())

    def judge(outputs: Array) -> tuple[float, float]:
        with metrics.blamed(metric, root):
            score = float(metric.fit(outputs, truth).compute(outputs, truth))
        if embeddings is not None:
            cosines = functional.cosine_similarity(torch.from_numpy(outputs), torch.from_numpy(embeddings), dim=1)
            return score, 1 - float(cosines.mean())
        if select.labels is None:
            return score, 0.0
        return score, float(task_loss(torch.from_numpy(outputs), to_labels(select.labels), select.name))

    return judge


PLUGINS = (Distill(),)
