"""Answers to a test set and what they are worth, counted as they come: of most only a few numbers an item are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.methods.evaluation.classification import by_support
from adaptkit.methods.evaluation.condensed import Condensed
from adaptkit.methods.evaluation.detection import detection
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.method import Method
from adaptkit.methods.predicting import Answered, in_one, predict, predict_batches
from adaptkit.methods.task import Task
from adaptkit.runs.costs import Clock
from adaptkit.runs.evaluation_sets import EvaluationSet, among_classes

Keep = Callable[[str, Tensor], object]


@dataclass(frozen=True)
class Answers:
    """To a test set, in the order of its images.

    Attributes:
        items: what metrics are made of; ``None`` without targets, and of scores that tell images from others outside.
        whole: all answers, where somebody wants to have them.
        met: the place of each image in the order in which a stream met them, from 0.
    """

    items: Condensed | None
    whole: Tensor | None
    met: Tensor | None = None

    def kept(self, kind: str) -> dict[str, Tensor]:
        """What is kept of the answers, a row for each image; see `Evaluation.kept_of`."""
        if self.items is not None:
            found = evaluation(kind).kept_of(self.items)
        else:
            found = {} if self.whole is None or self.whole.dim() != 1 else {"score": self.whole.float()}
        return {**found, "met": self.met} if found and self.met is not None else found


def answer(adapted: Method, task: Task, tested: EvaluationSet, seed: int, clock: Clock, *, whole: bool) -> Answers:
    """Predictions in the order of the set's images; a stream meets them in the set's own order.

    Args:
        adapted: is asked.
        task: it adapted to.
        tested: what about.
        seed: of a stream's order.
        clock: of asking, which is paused while answers are judged.
        whole: whether all answers are to be had at the end.
    """
    images, order = tested.images, None
    if adapted.scope == "stream":
        order = torch.from_numpy(tested.order(seed))
        images = images[order]
    outside = task.kind == "classification" and adapted.output == "score"
    targets = None if outside or images.targets is None else images.targets.cpu()
    kind, items = evaluation(task.kind), list[Condensed]()

    def seen() -> Iterator[Answered]:
        for rows, answers in batches(adapted, images):
            given = answers.cpu()
            with clock.paused():
                check_shape(adapted, task, tested, given, rows.stop - rows.start)
                if targets is not None:
                    items.append(kind.condense(*among_classes(given, targets[rows], tested.among)))
            yield rows, given

    blocks, all_answers = seen(), None
    if whole or outside:
        all_answers = in_one(blocks, len(images))
    for _ in blocks:
        pass  # they were counted
    told = Condensed.joined(items) if items else None
    if order is None:
        return Answers(told, all_answers)
    back = order.argsort()
    return Answers(None if told is None else told[back], None if all_answers is None else all_answers[back], back)


def batches(adapted: Method, images: Images) -> Iterator[Answered]:
    """Answers batch by batch; all in one where each depends on all images, and where there are none."""
    if adapted.scope == "set" or not len(images):
        yield slice(0, len(images)), predict(adapted, images)
    else:
        yield from predict_batches(adapted, images)


def check_shape(adapted: Method, task: Task, tested: EvaluationSet, given: Tensor, count: int) -> None:
    """Answers about classes have a column for each, scores have none.

    Raises:
        ValueError: when they have another shape.
    """
    if task.kind == "classification":
        width = len(tested.classnames or task.classnames)
        want = (count,) if adapted.output == "score" else (count, width)
        if tuple(given.shape) != want:
            raise ValueError(f"{adapted} must answer in the shape {want}; got {tuple(given.shape)}")


@dataclass(frozen=True)
class SetScores:
    """What the answers to one test set are worth.

    Attributes:
        metrics: by name, that of the set before a slash.
        classes: see `Result`.
        right: see `Result`.
    """

    metrics: Mapping[str, float]
    classes: Sequence[tuple[str, float | None]]
    right: str | Sequence[float]


def judge(
    adapted: Method,
    task: Task,
    tests: Sequence[EvaluationSet],
    answers: Mapping[str, Answers],
    bins: tuple[int, int] | None,
    keep: Keep | None,
) -> dict[str, Any]:
    """What the answers to all sets are worth; the fields of a `Result`."""
    found = dict[str, SetScores]()
    for tested in tests:
        given = answers[tested.name]
        if keep and given.whole is not None:
            keep(tested.name, given.whole)
        if given.items is not None:
            found[tested.name] = score_set(tested, given.items, task, bins)
    metrics = {name: value for each in found.values() for name, value in each.metrics.items()}
    if task.kind == "classification" and adapted.output == "score":
        metrics |= detect(tests, {name: given.whole for name, given in answers.items() if given.whole is not None})
    classes = {name: each.classes for name, each in found.items() if each.classes}
    return {"metrics": metrics, "classes": classes, "right": {name: each.right for name, each in found.items()}}


def score_set(tested: EvaluationSet, items: Condensed, task: Task, bins: tuple[int, int] | None) -> SetScores:
    """What the answers to a set are worth."""
    kind = evaluation(task.kind)
    names, prefix = (tested.task or task).labelnames, f"{tested.name}/" if tested.name else ""
    found = {prefix + k: v for k, v in kind.metrics_of(items).items()}
    for name, rows in tested.parts.items():
        found |= {f"{name}/{k}": v for k, v in kind.metrics_of(items[rows]).items()}
    right, shares = kind.told_of(items)
    if bins and not tested.task and tested.among is None:
        counts = task.support.labels.bincount(minlength=len(names)).tolist()  # type: ignore[union-attr]
        found |= {prefix + k: v for k, v in by_support(shares, counts, bins).items()}
    among = range(len(names)) if tested.among is None else tested.among
    told = "".join("01"[r] for r in right.tolist()) if right.dtype == torch.bool else right.tolist()
    return SetScores(found, [(names[c], share) for c, share in zip(among, shares, strict=False)], told)


def detect(tests: Sequence[EvaluationSet], scores: Mapping[str, Tensor]) -> dict[str, float]:
    """How well scores tell the task's test images from those outside: set by set, and the mean over near and far."""
    found: dict[str, float] = {}
    for kind in ("near", "far"):
        sets = [detection(scores[tests[0].name], scores[e.name]) for e in tests if e.outside == kind]
        names = [e.name for e in tests if e.outside == kind]
        for metric in sets[0] if sets else ():
            found[f"{kind}/{metric}"] = sum(values[metric] for values in sets) / len(sets)
            found |= {f"{name}/{metric}": values[metric] for name, values in zip(names, sets, strict=True)}
    return found
