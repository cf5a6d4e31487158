"""Which images a cell learned from: how many of each class, and each by a name that holds on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images
from adaptkit.io.files import canonical

SUPPORTS = "supports"  # beside the records: one file for each support, as many cells share one


def images_per_class(support: Images, classes: int) -> list[int]:
    """How many labelled images there are of each class, ``classes`` numbers."""
    labels = support.labels
    if labels is None or labels.is_floating_point() or labels.dim() > 2:
        return []
    if labels.dim() == 2:  # an image may be of several classes
        return (labels > 0).sum(0).tolist()
    return labels.bincount(minlength=classes).tolist()


def support_file(support: Images, name: str, kept: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The file that says which images a support has, once: their places, digests and labels, in order.

    Args:
        support: labelled images.
        name: its digest, as records have it; "" for images that exist as arrays only, which are not written.
        kept: whether a file, by its path from the folder of the records, is there already; it is not made again.
    """
    path = f"{SUPPORTS}/{name}.json"
    if not name or not isinstance(support.rows, CachedRows) or support.labels is None or kept(path):
        return
    source = support.rows.source
    where = getattr(source, "where", int)  # a path that is relative to the dataset, or else the image's number
    said = support.labels if support.labels.dim() < 3 else support.labels.flatten(1).any(1).long()
    rows = [[where(i), source.key(i), y] for i, y in zip(support.index.tolist(), said.tolist(), strict=True)]
    yield path, canonical({"source": source.name, "fields": ["image", "digest", "label"], "images": rows})
