"""From the names of a setting's parts to tasks and test images, and several methods side by side on one task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from adaptkit import plugins
from adaptkit.backbone import Backbone
from adaptkit.cache import CachedRows, FeatureCache
from adaptkit.home import home as default_home
from adaptkit.images import Images, Source
from adaptkit.measure import measure
from adaptkit.options import Spec, arguments, method
from adaptkit.table import Table
from adaptkit.setting import Setting
from adaptkit.store import Store
from adaptkit.task import Splits, Task


class Bench:
    """A setting with its dataset, towers and cache open: it makes the tasks of every cell."""

    def __init__(self, setting: Setting, *, home: Path | None = None, progress: bool = False) -> None:
        self.setting = setting
        self.splits = pick_dataset(setting.dataset)
        self.device = pick_device(setting.device)
        self.backbone = pick_backbone(setting.backbone).to(self.device)
        write, options = arguments("prompts", setting.prompts)
        self.sentences = tuple(tuple(s) for s in write(self.splits.classnames, self.splits, **options))
        self.choose, self.support_options = arguments("supports", setting.support)
        self.cache = FeatureCache(
            self.backbone,
            Store((home or default_home()) / "features"),
            hook=plugins.manager().hook,
            load=pick_backbone,
            dtype=setting.dtype,
            precision=setting.precision,
            batch_size=setting.batch_size,
            progress=progress,
        )

    def images(self, source: Source) -> Images:
        """All images of a source, labelled."""
        labels = torch.tensor(list(source.labels), dtype=torch.long)
        return Images(CachedRows(self.cache, source), torch.arange(len(source)), labels, device=self.device)

    def test(self, domain: str = "") -> Images:
        """The labelled test images, or those of a further domain."""
        if domain and domain not in self.splits.domains:
            raise ValueError(plugins.must_be(f"a domain of {self.splits.name}", self.splits.domains, domain))
        return self.images(self.splits.domains[domain] if domain else self.splits.test)

    def task(self, shots: int, seed: int) -> Task:
        """What a method may learn from in one cell."""
        splits, select = self.splits, self.setting.select
        train = self.images(splits.train)
        val = None if splits.val is None else self.images(splits.val)
        task = Task(
            self.backbone, splits.classnames, self.sentences, self.cache.sentences, train[:0], None, train.blind()
        )
        support, few_val = self.choose(task, train, val, shots=shots, seed=seed, **self.support_options)
        if {"few-val": few_val, "full-val": val}.get(select, support) is None:
            raise ValueError(f"select must be 'none' where there are no validation images; got {select!r}")
        chosen = {"none": None, "few-val": few_val, "full-val": val, "oracle": self.test()}[select]
        return Task(
            self.backbone, splits.classnames, self.sentences, self.cache.sentences, support, chosen, train.blind()
        )


def load(
    dataset: str,
    *,
    backbone: str = "hf:openai/clip-vit-base-patch16",
    shots: int = 16,
    seed: int = 1,
    home: Path | None = None,
    **setting: Any,  # noqa: ANN401 (the fields of Setting)
) -> tuple[Task, Images]:
    """A task and its labelled test images, from the names of its parts.

    Args:
        dataset: e.g. ``"openmoji"`` or ``"folder:my_photos"``.
        backbone: e.g. ``"packaged:lite0-minilm"``.
        shots: labelled images per class.
        seed: which of them.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        setting: further fields of `Setting`.
    """
    bench = Bench(Setting(dataset=dataset, backbone=backbone, **setting), home=home)
    return bench.task(shots, seed), bench.test()


def compare(
    task: Task,
    test: Images,
    methods: Iterable[Spec],
    *,
    seed: int = 0,
    trainer: Mapping[str, object] | None = None,
) -> Table:
    """Adapt each method to the task, choose its hyperparameters on ``task.val``, and measure it on the test images."""
    return Table([measure(method(spec), task, test, seed=seed, trainer=trainer) for spec in methods])


def pick_dataset(name: str) -> Splits:
    """A dataset by name, with a place after a colon where it takes one."""
    scheme, _, place = name.partition(":")
    return plugins.pick("datasets", scheme)(place)


def pick_backbone(name: str) -> Backbone:
    """A backbone by scheme and name."""
    scheme, _, rest = name.partition(":")
    return plugins.pick("backbones", scheme)(rest)


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" takes the first of cuda, mps and cpu that is there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(n for n, ok in there.items() if ok))
    if not there.get(name):
        raise ValueError(f"device must be one of auto, {', '.join(n for n, ok in there.items() if ok)}; got {name!r}")
    return torch.device(name)
