"""From the names of a setting's parts to tasks and evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch

from adaptkit.features.cache import CachedRows
from adaptkit.features.datasets import Joined, Splits
from adaptkit.features.items import Images, Source
from adaptkit.io.errors import must_be
from adaptkit.methods.task import Task
from adaptkit.runs import plugins, streams
from adaptkit.runs.build import arguments
from adaptkit.runs.evaluation_sets import EvaluationSet, restrict
from adaptkit.runs.loading import open_cache, pick_backbone, pick_dataset, pick_device
from adaptkit.runs.setting import Setting


class Workspace:
    """A setting with its dataset, towers and cache open: it makes the task and the evaluation sets of every cell."""

    def __init__(self, setting: Setting, *, home: Path | None = None, progress: bool = False) -> None:
        self.setting = setting
        self.splits = pick_dataset(setting.dataset)
        self.device = pick_device(setting.device)
        self.backbone = pick_backbone(setting.backbone).to(self.device)
        self.sentences = self.write(self.splits)
        self.choose, self.support_options = arguments("supports", setting.support)
        self.cache = open_cache(self.backbone, setting, home=home, progress=progress)
        count = len(self.splits.classnames)
        first = count if setting.classes == "all" else (count + 1) // 2
        self.learned, self.new = range(first), range(first, count)

    def write(self, splits: Splits) -> tuple[tuple[str, ...], ...]:
        """The sentences of each class of a dataset."""
        function, options = arguments("prompts", self.setting.prompts)
        return tuple(tuple(s) for s in function(splits.classnames, splits, **options))

    def images(self, source: Source, classes: range | None = None) -> Images:
        """All images of a source, or those of some classes, labelled from 0 on."""
        labels = torch.tensor(list(source.labels), dtype=torch.long)
        images = Images(CachedRows(self.cache, source), torch.arange(len(source)), labels, device=self.device)
        return images if classes is None else restrict(images, classes)

    def test(self) -> Images:
        """The labelled test images of the classes that are learned."""
        return self.images(self.splits.test, self.learned)

    def task(self, shots: int, seed: int) -> Task:
        """What a method may learn from in one cell."""
        splits, select = self.splits, self.setting.select
        train = self.images(splits.train)
        val = None if splits.val is None else self.images(splits.val)
        task = self.about(range(len(splits.classnames)), train[:0], pool=train.blind())
        support, few_val = self.choose(task, train, val, shots=shots, seed=seed, **self.support_options)
        if {"few-val": few_val, "full-val": val}.get(select, support) is None:
            raise ValueError(f"select must be 'none' where there are no validation images; got {select!r}")
        chosen = {"none": None, "few-val": few_val, "full-val": val, "oracle": self.images(splits.test)}[select]
        of = self.learned  # the support was drawn from all classes: that of the base classes is a part of it
        return self.about(of, restrict(support, of), chosen and restrict(chosen, of), restrict(train, of).blind())

    def about(self, classes: range, support: Images, val: Images | None = None, pool: Images | None = None) -> Task:
        """A task on some of the classes."""
        some = slice(classes.start, classes.stop)
        names, sentences = self.splits.classnames[some], self.sentences[some]
        return Task(self.backbone, names, sentences, self.cache.sentences, support, val, pool)

    def evaluation_sets(self) -> list[EvaluationSet]:
        """Every test set, the task's own first."""
        asked, own = self.setting, self.splits.domains
        sets = {"": self.splits.test} | {name: own[name] for name in asked.domains if name in own}
        named = streams.named(asked.stream)[0]
        out = []
        if named in streams.JOINED:
            if len(sets) < 2 or len(sets) <= len(asked.domains):
                raise ValueError(
                    f"domains must be those of {self.splits.name} in a {named} stream; got {asked.domains}"
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
        out += [self.elsewhere(name) for name in asked.domains if name not in own]
        for kind in ("near", "far"):
            out += [self.outside(name, kind) for name in getattr(asked, kind)]
        return out

    def evaluation_set(self, name: str, source: Source, classes: range | None = None, **more: Any) -> EvaluationSet:  # noqa: ANN401 (fields of EvaluationSet)
        """One source as a test set."""
        images = self.images(source, classes)
        occur = getattr(source, "classes", None)  # a domain may have some of the classes only
        among = None if occur is None else [c for c in occur if classes is None or c in classes]
        return EvaluationSet(name, images, self.order(images), among=among, **more)

    def elsewhere(self, name: str) -> EvaluationSet:
        """The test images of another dataset, with its own classes."""
        splits = self.other(name)
        train = self.images(splits.train)
        parts = (splits.classnames, self.write(splits), self.cache.sentences, train[:0])
        task = Task(self.backbone, *parts, pool=train.blind())
        return self.evaluation_set(name, splits.test, task=task)

    def outside(self, name: str, kind: Literal["near", "far"]) -> EvaluationSet:
        """Images of none of the classes."""
        if name == "new":
            return self.evaluation_set(name, self.splits.test, self.new, outside=kind)
        if name in self.splits.domains:
            return self.evaluation_set(name, self.splits.domains[name], outside=kind)
        return self.evaluation_set(name, self.other(name).test, outside=kind)

    def other(self, name: str) -> Splits:
        """Another dataset, by name."""
        if name.partition(":")[0] not in plugins.table("datasets"):
            known = [*self.splits.domains, *plugins.table("datasets")]
            raise ValueError(must_be(f"a domain of {self.splits.name}, or a dataset,", known, name))
        return pick_dataset(name)

    def order(self, images: Images, parts: Sequence[int] = ()) -> streams.Order:
        """How the setting's stream meets some images."""
        return streams.order(self.setting.stream, images.labels.tolist(), parts)  # type: ignore[union-attr]
