"""From the names of a setting's parts to tasks and evaluation sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adaptkit.features.cache import CachedRows
from adaptkit.features.datasets import Joined, Splits, targets_of
from adaptkit.features.items import Images, Source
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.task import Task
from adaptkit.runs import streams
from adaptkit.runs.arithmetic import settled
from adaptkit.runs.build import arguments
from adaptkit.runs.dataset_checks import check_kind
from adaptkit.runs.evaluation_sets import EvaluationSet, of_classes, restrict
from adaptkit.runs.loading import open_cache, pick_backbone, pick_dataset, pick_device
from adaptkit.runs.others import Others
from adaptkit.runs.setting import Setting, named_sets


class Workspace:
    """A setting with its dataset, towers and cache open: it makes the task and the evaluation sets of every cell."""

    def __init__(
        self, setting: Setting, *, home: Path | None = None, progress: bool = False, splits: Splits | None = None
    ) -> None:
        self.setting, self.home = setting, home
        self.device = pick_device(setting.device)
        self.splits = splits or pick_dataset(setting.dataset, home)
        check_kind(self.splits, setting)
        self.others = Others(self.splits, home)
        self.backbone = pick_backbone(setting.backbone).to(self.device)
        self.setting = setting = settled(setting, self.backbone, self.splits)
        self.cache = open_cache(self.backbone, setting, home=home, progress=progress)
        self.sentences = self.write(self.splits)
        self.choose, self.support_options = arguments("supports", setting.support)
        count = len(self.splits.classnames)
        first = count if setting.classes == "all" else (count + 1) // 2
        self.learned, self.new = range(first), range(first, count)
        self.groups = groups(count, setting.sequence)

    def write(self, splits: Splits) -> tuple[tuple[str, ...], ...]:
        """The sentences of each class of a dataset, which must differ in what the text tower reads of them."""
        function, options = arguments("prompts", self.setting.prompts)
        sentences = tuple(tuple(s) for s in function(splits.classnames, splits, **options))
        apart = splits.kind == "classification"
        self.cache.hold(sentences if apart else [[s for own in sentences for s in own]])
        return sentences

    def images(self, source: Source, classes: range | None = None) -> Images:
        """All images of a source, or those of some classes, labelled from 0 on; of other kinds all have all classes."""
        targets = targets_of(source)
        images = Images(CachedRows(self.cache, source), torch.arange(len(source)), targets, device=self.device)
        return images if classes is None or self.splits.kind != "classification" else restrict(images, classes)

    def images_of_gallery(self, gallery: Source) -> Images:
        """What a ranking searches; nobody is told what stands where in it."""
        return Images(CachedRows(self.cache, gallery), torch.arange(len(gallery)), device=self.device)

    def test(self) -> Images:
        """The labelled test images of the classes that are learned."""
        return self.images(self.splits.test, self.learned)

    def pool(self) -> Images:
        """The images that are learned from without labels: those of the training set, where there are no others."""
        given = self.splits.pool
        return self.images(self.splits.train if given is None else given)

    def task(self, shots: int, seed: int) -> Task:
        """What a method may learn from in one cell."""
        splits, select = self.splits, self.setting.select
        train, pool = self.images(splits.train), self.pool()
        val = None if splits.val is None else self.images(splits.val)
        task = self.about(range(len(splits.classnames)), train[:0], pool=pool.blind())
        support, few_val = self.draw(task, train, val, shots, seed)
        if {"few-val": few_val, "full-val": val}.get(select, support) is None:
            raise ValueError(f"select must be 'none' where there are no validation images; got {select!r}")
        if splits.gallery is not None:
            return replace(task, support=support, gallery=self.images_of_gallery(splits.gallery))
        chosen = {"none": None, "few-val": few_val, "full-val": val, "oracle": self.images(splits.test)}[select]
        if splits.kind != "classification":
            return replace(task, support=support, val=chosen)
        of = self.learned  # the support was drawn from all classes: that of the base classes is a part of it
        return self.about(of, restrict(support, of), chosen and restrict(chosen, of), restrict(pool, of).blind())

    def draw(
        self, task: Task, train: Images, val: Images | None, shots: int, seed: int
    ) -> tuple[Images, Images | None]:
        """Support and few validation images; who chooses them meets whole numbers for labels, whatever the kind."""
        drawn = [None if images is None else images.label(self.strata(images)) for images in (train, val)]
        support, few = self.choose(task, *drawn, shots=shots, seed=seed, **self.support_options)
        if self.splits.kind == "classification":
            return support, few
        whole = {id(images.rows): images.targets for images in (train, val) if images is not None}

        def restored(some: Images) -> Images:
            if (targets := whole.get(id(some.rows))) is None:
                kind = self.splits.kind
                raise ValueError(f"support must be images of the dataset itself for {kind}; got other ones")
            return some.label(targets[some.index])

        return restored(support), None if few is None else restored(few)

    def strata(self, images: Images) -> Tensor:
        """What stands for labels where so many images of each are drawn, ``(N,)``."""
        return evaluation(self.splits.kind).strata(images.targets)  # type: ignore[arg-type]

    def tasks(self, shots: int, seed: int) -> list[Task]:
        """The tasks of one cell in their order: one, or as many as the setting's sequence has.

        Each has the classes seen so far; the images to learn from are those of its own group, the last of them.
        """
        whole = self.task(shots, seed)
        if len(self.groups) == 1:
            return [whole]
        pool = self.pool()
        return [
            self.about(
                range(group.stop),
                of_classes(whole.support, group),
                whole.val and of_classes(whole.val, group),
                of_classes(pool, group).blind(),
            )
            for group in self.groups
        ]

    def about(self, classes: range, support: Images, val: Images | None = None, pool: Images | None = None) -> Task:
        """A task on some of the classes."""
        some = slice(classes.start, classes.stop)
        splits, sentences = self.splits, self.sentences[some]
        parts = (self.backbone, splits.classnames[some], sentences, self.cache.sentences, support, val, pool)
        return Task(*parts, splits.kind, splits.labelnames[some])

    def asks(self) -> dict[str, Any]:
        """What a protocol says of the kind of task, of a sequence of them, and of parts that nobody gave, if any."""
        kind, count = self.splits.kind, self.setting.sequence
        kinds, sequences = {} if kind == "classification" else {"kind": kind}, {} if count == 1 else {"sequence": count}
        return {**kinds, **sequences, **({"parted": self.splits.parted} if self.splits.parted else {})}

    def steps(self) -> list[list[EvaluationSet]]:
        """The evaluation sets after each task of a sequence; all of them in one step where there is one task.

        After a task the test images of all classes seen so far are answered, and judged group by group as well; those
        of the next group are one more set, among the classes seen by then, for who can answer for them by name.
        """
        if len(self.groups) == 1:
            return [self.evaluation_sets()]
        test, train = self.images(self.splits.test), self.images(self.splits.train)
        parts = [of_classes(test, group) for group in self.groups]
        steps = []
        for k in range(1, len(parts) + 1):
            ends = [0, *accumulate(map(len, parts[:k]))]
            images = test[torch.cat([part.index for part in parts[:k]])]
            named = {f"task-{i + 1}": slice(*ends[i : i + 2]) for i in range(k)}
            steps.append([EvaluationSet("", images, self.order(images), parts=named)])
            if k < len(parts):
                pool = of_classes(train, range(self.groups[k - 1].stop)).blind()
                task = self.about(range(self.groups[k].stop), train[:0], pool=pool)
                steps[-1].append(EvaluationSet(f"task-{k + 1}", parts[k], self.order(parts[k]), task=task))
        return steps

    def evaluation_sets(self) -> list[EvaluationSet]:
        """Every test set, the task's own first."""
        asked, must = self.setting, isinstance(self.setting.domains, Mapping)
        named = named_sets(asked.domains)
        found = {name: self.others.domain(behind, must, self.learned, name) for name, behind in named.items()}
        sets = {"": self.splits.test} | {name: source for name, source in found.items() if source is not None}
        stream = streams.named(asked.stream)[0]
        out = []
        if stream in streams.JOINED:
            if len(sets) < 2 or len(sets) <= len(asked.domains):
                raise ValueError(
                    f"domains must be those of {self.splits.name} in a {stream} stream; got {asked.domains}"
                )
            images = self.images(Joined([*sets.values()]), self.learned)
            sizes = [sum(y in self.learned for y in source.labels) for source in sets.values()]
            ends = [0, *accumulate(sizes)]
            parts = {name or "own": slice(*ends[i : i + 2]) for i, name in enumerate(sets)}
            which = [i for i, size in enumerate(sizes) for _ in range(size)]
            out.append(EvaluationSet("", images, self.order(images, which), parts=parts))
        else:
            out += [self.evaluation_set(name, source, self.learned) for name, source in sets.items()]
        if len(self.new) and "new" not in (*asked.near, *asked.far):
            train = self.images(self.splits.train)
            task = self.about(self.new, train[:0], pool=train.blind())  # no label says which of them are new
            out.append(self.evaluation_set("new", self.splits.test, self.new, task=task))
        out += [self.elsewhere(name) for name, source in found.items() if source is None]
        for kind in ("near", "far"):
            out += [self.outside(name, behind, kind) for name, behind in named_sets(getattr(asked, kind)).items()]
        return out

    def evaluation_set(self, name: str, source: Source, classes: range | None = None, **more: Any) -> EvaluationSet:  # noqa: ANN401 (fields of EvaluationSet)
        """One source as a test set."""
        images = self.images(source, classes)
        occur = (
            getattr(source, "classes", None) if self.splits.kind == "classification" else None
        )  # a domain may have some of the classes only
        among = None if occur is None else [c for c in occur if classes is None or c in classes]
        return EvaluationSet(name, images, self.order(images), among=among, **more)

    def elsewhere(self, name: str) -> EvaluationSet:
        """The test images of another dataset, with its own classes."""
        splits = self.others.elsewhere(name)
        train = self.images(splits.train)
        parts = (splits.classnames, self.write(splits), self.cache.sentences, train[:0])
        pool = train.blind() if len(train) else None
        task = Task(self.backbone, *parts, pool=pool, kind=splits.kind, labelnames=splits.labelnames)
        return self.evaluation_set(name, splits.test, task=task)

    def outside(self, name: str, behind: str, kind: Literal["near", "far"]) -> EvaluationSet:
        """Images of none of the classes."""
        if behind == "new":
            return self.evaluation_set(name, self.splits.test, self.new, outside=kind)
        return self.evaluation_set(name, self.others.outside(behind, name), outside=kind)

    def order(self, images: Images, parts: Sequence[int] = ()) -> streams.Order:
        """How the setting's stream meets some images."""
        return streams.order(self.setting.stream, self.strata(images).tolist(), parts)


def groups(classes: int, count: int) -> list[range]:
    """Classes parted in so many groups in their order, the larger ones first; a first one of two classes or more."""
    if not 1 <= count <= max(1, classes // 2):
        raise ValueError(f"sequence must be from 1 to half the number of classes, {classes}; got {count}")
    ends = [0, *accumulate(classes // count + (i < classes % count) for i in range(count))]
    return [range(*ends[i : i + 2]) for i in range(count)]
