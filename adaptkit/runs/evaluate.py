"""One cell: adapt a method to a task, answer the test images, and compare with the labels, which nothing else sees."""

from __future__ import annotations

import copy
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from adaptkit import __version__
from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images
from adaptkit.io.files import digest
from adaptkit.methods.adapt import adapt, predict, retarget, trainable
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.runs import metrics, streams
from adaptkit.runs.evaluation_sets import EvaluationSet, among_classes, requested
from adaptkit.runs.results import Result
from adaptkit.towers import threads


def evaluate(
    adapting: Method,
    task: Task,
    tests: Images | Sequence[EvaluationSet],
    *,
    seed: int = 0,
    trainer: Mapping[str, object] | None = None,
    bins: tuple[int, int] | None = None,
    keep: Callable[[str, Tensor], object] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Result:
    """One cell: adapt, predict, and compare with the labels, which nothing else sees.

    Args:
        adapting: as constructed; it is left so.
        task: what it may learn from.
        tests: test sets, the task's own first; or its labelled test images, which a stream meets shuffled.
        seed: of training and of the stream's order.
        trainer: options for Lightning's Trainer.
        bins: numbers of labelled images that part few-shot from medium-shot from many-shot classes; see `Setting`.
        keep: given each test set's name and answers.
        where: further fields of the `Result`.
    """
    if isinstance(tests, Images):
        tests = [EvaluationSet("", tests, streams.order("shuffled", tests.index.tolist()))]
    torch.manual_seed(seed)
    with threads.sized(len(tests[0].images) * task.backbone.dim * len(task.classnames)):
        return _evaluate(copy.deepcopy(adapting), task, tests, seed, trainer, bins, keep, dict(where or {}))


def _evaluate(
    adapted: Method,
    task: Task,
    tests: Sequence[EvaluationSet],
    seed: int,
    trainer: Mapping[str, object] | None,
    bins: tuple[int, int] | None,
    keep: Callable[[str, Tensor], object] | None,
    where: dict[str, Any],
) -> Result:
    clock, named = Clock(tests[0].images), repr(adapted)
    adapt(adapted, task, trainer=trainer)
    seconds, parameters = {"fit": clock.lap()}, trainable(adapted)
    answers, tests = {}, requested(tests, adapted.output)
    for tested in tests:
        answers[tested.name] = answer(adapted if tested.task is None else retarget(adapted, tested.task), tested, seed)
        seconds.setdefault("predict", clock.lap())  # of the task's own test images
    record: dict[str, Any] = {"method": named, "seed": seed, "metrics": {}, "classes": {}, "right": {}}
    for tested in tests:
        if keep:
            keep(tested.name, answers[tested.name])
        score(adapted, tested, answers[tested.name], task, bins, record)
    if adapted.output == "score":
        record["metrics"] |= detect(tests, answers)
    return Result(
        **{**record, **where},
        parameters=parameters,
        seconds={**seconds, "extract": extraction_cost(adapted, task, tests)},
        memory=peak_memory(),
        support=support_digest(task.support),
        options=repr(adapted),
        versions=versions(),
    )


def answer(adapted: Method, tested: EvaluationSet, seed: int) -> Tensor:
    """Predictions in the order of the set's images; a stream meets them in the set's own order."""
    if adapted.scope != "stream":
        return predict(adapted, tested.images).cpu()
    order = torch.from_numpy(tested.order(seed))
    return predict(adapted, tested.images[order]).cpu()[order.argsort()]


def score(
    adapted: Method,
    tested: EvaluationSet,
    answers: Tensor,
    task: Task,
    bins: tuple[int, int] | None,
    record: dict[str, Any],
) -> None:
    """Compare the answers to a set with the labels, into a result's record."""
    classes = len(tested.classnames or task.classnames)
    want = (len(tested.images),) if adapted.output == "score" else (len(tested.images), classes)
    if tuple(answers.shape) != want:
        raise ValueError(f"{adapted} must answer in the shape {want}; got {tuple(answers.shape)}")
    if not answers.isfinite().all():
        raise ValueError(
            f"{adapted} must answer with finite numbers; got {int((~answers.isfinite()).sum())} that are not"
        )
    if adapted.output == "score" or tested.images.labels is None:
        return
    names, prefix = tested.classnames or task.classnames, f"{tested.name}/" if tested.name else ""
    logits, labels = among_classes(answers, tested.images.labels.cpu(), tested.among)
    right = logits.argmax(-1) == labels
    shares = metrics.per_class(right, labels, logits.shape[1])
    found = {prefix + k: v for k, v in metrics.classification(logits, labels).items()}
    for name, rows in tested.parts.items():
        found |= {f"{name}/{k}": v for k, v in metrics.classification(logits[rows], labels[rows]).items()}
    if bins and not tested.task and tested.among is None:
        counts = task.support.labels.bincount(minlength=len(names)).tolist()  # type: ignore[union-attr]
        found |= {prefix + k: v for k, v in metrics.by_support(shares, counts, bins).items()}
    record["metrics"] |= found
    among = range(len(names)) if tested.among is None else tested.among
    record["classes"][tested.name] = [(names[c], share) for c, share in zip(among, shares, strict=True)]
    record["right"][tested.name] = "".join("01"[r] for r in right.tolist())


def detect(tests: Sequence[EvaluationSet], scores: Mapping[str, Tensor]) -> dict[str, float]:
    """How well scores tell the task's test images from those outside: set by set, and the mean over near and far."""
    found: dict[str, float] = {}
    for kind in ("near", "far"):
        sets = [metrics.detection(scores[tests[0].name], scores[e.name]) for e in tests if e.outside == kind]
        names = [e.name for e in tests if e.outside == kind]
        for metric in sets[0] if sets else ():
            found[f"{kind}/{metric}"] = sum(values[metric] for values in sets) / len(sets)
            found |= {f"{name}/{metric}": values[metric] for name, values in zip(names, sets, strict=True)}
    return found


def support_digest(support: Images) -> str:
    """Digest of the labelled images' content and labels, in order; "" for images that exist as arrays only."""
    if not isinstance(support.rows, CachedRows) or support.labels is None:
        return ""
    rows = zip(support.index.tolist(), support.labels.tolist(), strict=True)
    return digest("\n".join(f"{support.rows.source.key(i)} {y}" for i, y in rows).encode())


def peak_memory() -> float:
    """Most memory that this process has held so far, MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


@cache
def versions() -> dict[str, str]:
    """Of what makes the numbers."""
    packages = ("torch", "transformers", "scikit-learn", "torchmetrics", "numpy", "scipy")
    return {"adaptkit": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


@dataclass
class Clock:
    """Seconds between laps, without those that the cache spent extracting."""

    images: Images
    started: float = field(default_factory=time.perf_counter)
    extracted: float = 0.0

    def __post_init__(self) -> None:
        self.extracted = self._extracting()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now, extracting = time.perf_counter(), self._extracting()
        took = now - self.started - (extracting - self.extracted)
        self.started, self.extracted = now, extracting
        return took

    def _extracting(self) -> float:
        return self.images.rows.cache.seconds if isinstance(self.images.rows, CachedRows) else 0.0


def extraction_cost(adapted: Method, task: Task, tests: Sequence[EvaluationSet]) -> float:
    """Seconds that computing the features a method reads took, whenever that was and whoever asked first.

    Test images are those of the task's own test set.
    """
    val = task.val if adapted.grid() else None
    reads = [
        (task.support, adapted.all_needs(of_support=True)),
        (val, adapted.all_needs()),
        (tests[0].images, adapted.all_needs()),
    ]
    return sum(
        images.rows.cache.cost(images.rows.source, need, len(images))
        for images, needs in reads
        if images is not None and isinstance(images.rows, CachedRows)
        for need in set(needs)
    )
