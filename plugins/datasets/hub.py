"""Labelled images as the `datasets` package reads them, from the hub or a folder.

``hf-dataset:uoft-cs/cifar100#fine_label`` is an id; ``hf-dataset:data/cifar100`` a folder of parquet files, of images
with a metadata.csv, of tar files as WebDataset writes them, or whatever else `datasets` knows. ``#`` picks one of
several columns of labels, ``#json.label`` a field in one. Labels are a `ClassLabel`, whose names are the classes', or
text, or whole numbers; a column of lists is of images with several classes. There must be a split train and a split
test, or validation in its place, or one split alone, which is split here as `folder:` is; of a dataset that is only
answered, one of test, validation and train is enough. Other splits, and those without labels, are not read.

Deviations: orientation in EXIF is not applied, as in the papers' loaders. Of an animation, the first frame is read.
"""

from pathlib import Path

from adaptkit import hookimpl
from adaptkit.features.arranging import Found, arrange
from adaptkit.features.sources import open_bytes
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest
from adaptkit.io.hub import host_answers, is_id, nearest
from adaptkit.io.paths import expanded

SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
NAMED = ("label", "labels", "cls", "class", "classes", "category", "target")  # columns that are labels by their name
OWN = ("__key__", "__url__")  # of WebDataset


class Rows:
    """Images in columns of encoded files, or of paths to them: of each row, the first column that has one."""

    def __init__(self, name, cells, labels=(), targets=None):
        self.name, self.cells, self.labels, self.targets = name, cells, labels, targets

    def __len__(self):
        return len(self.cells)

    def bytes(self, i):
        what, columns, row = self.cells[i]
        cell = next((cell for column in columns if (cell := column[row])), None)
        if cell is None:
            raise ValueError(f"an image must be readable; got {what}: it is empty")
        return cell["bytes"] or Path(cell["path"]).read_bytes()

    def key(self, i):
        return digest(self.bytes(i))

    def open(self, i):
        return open_bytes(self.bytes(i), self.cells[i][0])

    def image(self, i):
        return self.open(i)[1]

    def some(self, rows, name="", labels=(), targets=None):
        return Rows(name or self.name, [self.cells[i] for i in rows], labels, targets)


def hub(place, answered=False):
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "hf-dataset: must have the package datasets installed; pip install 'adaptkit-vlm[hub]'"
        ) from None
    place, _, wanted = place.partition("#")
    tables = fetch(datasets, place)
    features = next(iter(tables.values())).features
    images = image_columns(datasets, features, place)
    label, feature = label_column(datasets, features, place, wanted)
    cells, classes, parts = [], [], []
    for part, split, table in labelled(tables, label, place, answered):
        columns = [table.cast_column(name, datasets.Image(decode=False))[name] for name in images]
        cells += [(f"row {row} of hf-dataset:{place} {split}", columns, row) for row in range(len(table))]
        classes += values(table, label)
        parts += [part] * len(table)
    several = inner(feature) is not None
    names = getattr(inner(feature) if several else feature, "names", None)
    if several:
        classes = [tuple(each) for each in classes]
    notes = ()
    if not names and any(isinstance(c, int) for each in classes for c in (each if several else [each])):
        notes = (f"its classes are numbers, of which prompts know no name; choose a column of names: {place}#COLUMN",)
    source = f"https://huggingface.co/datasets/{place}" if not expanded(place).is_dir() else "your own images"
    found = Found(f"hf-dataset:{place}", Rows(f"hf-dataset:{place}", cells), classes, parts, several, notes)
    return arrange(found, names=names or (), answered=answered, alike=False, source=source)


def labelled(tables, label, place, answered):
    """The splits that are read, each with the part that it is."""
    if len(tables) == 1:
        split, table = next(iter(tables.items()))
        if has_labels(table, label):
            return [("", split, table)]
    found = {}
    for part, names in SPLITS.items():
        split = next((name for name in names if name in tables), None)
        if split and has_labels(tables[split], label):  # a test set may keep its labels back
            found[part] = part, split, tables[split]
    if not (({"train"} <= found.keys() and {"val", "test"} & found.keys()) or (answered and found)):
        raise ValueError(f"{place!r} must have labelled splits train, and test or validation; got {', '.join(tables)}")
    return list(found.values())


def has_labels(table, label):
    every = values(table, label)
    return bool(every) and all(c is not None and c != "" and c != -1 for c in every)


def values(table, label):
    """The labels of a table's rows, perhaps those in a field of a column."""
    column, _, inside = label.partition(".")
    cells = list(table[column])
    return [(cell or {}).get(inside) for cell in cells] if inside else cells


def image_columns(datasets, features, place):
    """The column of images; of tar files there is one for each suffix."""
    names = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(names) != 1 and not (names and OWN[0] in features):
        columns = ", ".join(names) or f"none in {', '.join(features)}"
        raise ValueError(f"{place!r} must have one column of images (Image); got {columns}")
    return names


def label_column(datasets, features, place, wanted):
    """The name and the kind of the one column of labels, or of the one wanted."""
    flat = {}
    for name, feature in features.items():
        inside = feature if isinstance(feature, dict) else {}
        flat |= {f"{name}.{key}": each for key, each in inside.items()} or {name: feature}
    named = {n: f for n, f in flat.items() if isinstance(inner(f) or f, datasets.ClassLabel)}
    plain = {n: f for n, f in flat.items() if n not in OWN and is_plain(inner(f) or f)}
    known = {n: f for n, f in plain.items() if n.rpartition(".")[2] in NAMED}
    if wanted:
        if wanted not in named | plain:
            raise ValueError(must_be(f"what follows '#' in hf-dataset:{place}", named | plain, wanted))
        return wanted, flat[wanted]
    choices = named or (known if len(known) == 1 else plain)
    if len(choices) != 1:
        hint = f"; choose, as in hf-dataset:{place}#{next(iter(choices))}" if choices else ""
        columns = ", ".join(choices) or f"none in {', '.join(features)}"
        raise ValueError(f"{place!r} must have one column of labels (ClassLabel, text or numbers); got {columns}{hint}")
    return next(iter(choices.items()))


def inner(feature):
    """What a column of lists has in its lists, ``None`` of another column."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def is_plain(feature):
    return str(getattr(feature, "dtype", "")).removeprefix("large_").startswith(("string", "int", "uint"))


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
