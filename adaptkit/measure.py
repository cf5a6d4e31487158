"""One cell: adapt a method to a task, answer the test images, and compare with the labels, which nothing else sees."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adaptkit import threads
from adaptkit.cache import CachedRows
from adaptkit.contract import Method
from adaptkit.images import Images
from adaptkit.metrics import classification
from adaptkit.results import Result
from adaptkit.run import adapt, predict, trainable
from adaptkit.task import Task


def measure(
    adapting: Method,
    task: Task,
    test: Images,
    *,
    seed: int = 0,
    domains: Mapping[str, Images] | None = None,
    trainer: Mapping[str, object] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Result:
    """One cell: adapt, predict, and compare with the labels, which nothing else sees.

    Args:
        adapting: as constructed; it is left so.
        task: what it may learn from.
        test: labelled images; a stream meets them shuffled by `seed`.
        seed: of training and of the stream's order.
        domains: further test images; their metrics are named ``"line/accuracy"``.
        trainer: options for Lightning's Trainer.
        where: further fields of the `Result`.
    """
    torch.manual_seed(seed)
    with threads.sized(len(test) * task.backbone.dim * len(task.classnames)):
        return _measure(copy.deepcopy(adapting), task, test, seed, domains or {}, trainer, dict(where or {}))


def _measure(
    adapted: Method,
    task: Task,
    test: Images,
    seed: int,
    domains: Mapping[str, Images],
    trainer: Mapping[str, object] | None,
    where: dict[str, Any],
) -> Result:
    clock, asked = Clock(test), repr(adapted)
    adapt(adapted, task, trainer=trainer)
    fit, parameters = clock.lap(), trainable(adapted)
    answers = answer(adapted, test, seed)
    seconds = {"extract": extraction_cost(adapted, task, test), "fit": fit, "predict": clock.lap()}
    metrics = judge(adapted, answers, test)
    for name, images in domains.items():
        metrics |= {f"{name}/{k}": v for k, v in judge(adapted, answer(adapted, images, seed), images).items()}
    record = {"method": asked, "seed": seed, "metrics": metrics, "parameters": parameters, "seconds": seconds}
    return Result(**{**record, "options": repr(adapted), **where})


def answer(adapted: Method, images: Images, seed: int) -> Tensor:
    """Predictions in the order of `images`; a stream meets them in an order drawn from `seed`."""
    if adapted.scope != "stream":
        return predict(adapted, images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return predict(adapted, images[order])[order.argsort().to(images.device)]


def judge(adapted: Method, answers: Tensor, images: Images) -> dict[str, float]:
    """Metrics of answers against the labels; a score has none without images from elsewhere."""
    if adapted.output == "score" or images.labels is None:
        return {}
    logits, labels = answers.cpu(), images.labels.cpu()
    if not logits.isfinite().all():
        raise ValueError(
            f"{adapted} must answer with finite numbers; got {int((~logits.isfinite()).sum())} that are not"
        )
    classes = getattr(getattr(images.rows, "source", None), "classes", None)
    if classes is not None:  # a domain with some of the classes is judged among these
        logits, labels = logits[:, list(classes)], torch.tensor([list(classes).index(y) for y in labels.tolist()])
    return classification(logits, labels)


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


def extraction_cost(adapted: Method, task: Task, test: Images) -> float:
    """Seconds that computing the features a method reads took, whenever that was and whoever asked first."""
    val = task.val if adapted.grid() else None
    reads = [
        (task.support, adapted.all_needs(of_support=True)),
        (val, adapted.all_needs()),
        (test, adapted.all_needs()),
    ]
    return sum(
        images.rows.cache.cost(images.rows.source, need, len(images))
        for images, needs in reads
        if images is not None and isinstance(images.rows, CachedRows)
        for need in set(needs)
    )
