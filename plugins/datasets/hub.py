"""Labelled images as the `datasets` package reads them, from the hub or a folder.

``hf-dataset:uoft-cs/cifar100#fine_label`` is an id; ``hf-dataset:data/cifar100`` a folder of parquet files, or whatever
else `datasets` knows. ``#`` picks one of several columns of labels; the names are the column's own. There must be a
split train and a split test, or validation in its place; others, and splits without labels, are not read.

Deviations: orientation in EXIF is not applied, as in the papers' loaders. Of an animation, the first frame is read.
"""

from pathlib import Path

from adaptkit import Splits, hookimpl
from adaptkit.features.sources import open_bytes
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest
from adaptkit.io.hub import host_answers, is_id, nearest
from adaptkit.io.paths import expanded

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


class Rows:
    """Images in a column of encoded files, or of paths to them."""

    def __init__(self, name, column, labels):
        self.name, self.column, self.labels = name, column, labels

    def __len__(self):
        return len(self.labels)

    def bytes(self, i):
        cell = self.column[i]
        return cell["bytes"] or Path(cell["path"]).read_bytes()

    def key(self, i):
        return digest(self.bytes(i))

    def open(self, i):
        return open_bytes(self.bytes(i), f"row {i} of {self.name}")

    def image(self, i):
        return self.open(i)[1]


def hub(place):
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "hf-dataset: must have the package datasets installed; pip install 'adaptkit-vlm[hub]'"
        ) from None
    place, _, wanted = place.partition("#")
    tables = fetch(datasets, place)
    features = next(iter(tables.values())).features
    image = only(features, datasets.Image, "images", place, "")
    label = only(features, datasets.ClassLabel, "labels", place, wanted)
    parts = {}
    for split, names in SPLITS.items():
        table = next((tables[name] for name in names if name in tables), None)
        labels = [] if table is None else list(table[label])
        if labels and all(c is not None and c >= 0 for c in labels):  # a test set may keep its labels back
            column = table.cast_column(image, datasets.Image(decode=False))[image]
            parts[split] = Rows(f"hf-dataset:{place} {split}", column, labels)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    if not {"train", "test"} <= parts.keys():
        raise ValueError(f"{place!r} must have labelled splits train, and test or validation; got {', '.join(tables)}")
    source = f"https://huggingface.co/datasets/{place}" if not expanded(place).is_dir() else "your own images"
    return Splits(f"hf-dataset:{place}", tuple(features[label].names), **parts, source=source)


def only(features, kind, what, place, wanted):
    """The one column of a kind, or the one wanted."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if wanted and wanted not in names:
        raise ValueError(must_be(f"what follows '#' in hf-dataset:{place}", names, wanted))
    if not wanted and len(names) != 1:
        hint = f"; choose, as in hf-dataset:{place}#{names[0]}" if names and what == "labels" else ""
        columns = ", ".join(names) or f"none in {', '.join(features)}"
        raise ValueError(f"{place!r} must have one column of {what} ({kind.__name__}); got {columns}{hint}")
    return wanted or names[0]


def fetch(datasets, place):
    """The tables of a dataset, by split."""
    from huggingface_hub import constants

    path, before = expanded(place), datasets.config.HF_HUB_OFFLINE
    local = bool(place) and path.is_dir()
    got = f"got {place!r}{nearest(path, Path.is_dir)}"
    if not local and (path.exists() or not is_id(place)):
        raise ValueError(f"hf-dataset: must name a folder or an id of the hub; {got}")
    offline = before or not (local or host_answers(constants.ENDPOINT))
    try:
        datasets.config.HF_HUB_OFFLINE = offline  # or it would try for minutes
        return datasets.load_dataset(str(path) if local else place)
    except Exception as cause:  # of many kinds, and long
        if local or not offline:
            raise ValueError(f"{place!r} must be a dataset that loads: {' '.join(str(cause).split())}") from None
        short = place.split("/")[-1]
        raise ValueError(
            f"hf-dataset: must name a folder, or be in {str(datasets.config.HF_DATASETS_CACHE)!r} while HF_HUB_OFFLINE "
            f"is set or {constants.ENDPOINT} does not answer; {got}\nwhere there is network: hf download --repo-type "
            f"dataset {place} --local-dir {short}; bring that folder and write hf-dataset:{short}"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@hookimpl
def datasets():
    return {"hf-dataset": hub}
