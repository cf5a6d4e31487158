"""Who chooses what is learned from: named samplers, long tails, and index files that others wrote."""

import json
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from adaptkit.features.items import Images
from adaptkit.features.samplers import SAMPLERS, sample
from adaptkit.features.split_files import export
from adaptkit.runs import plugins


@dataclass
class Source:
    """Stands for a dataset of files."""

    name: str
    paths: list
    labels: list


def images(source):
    return Images(SimpleNamespace(source=source), torch.arange(len(source.labels)), torch.tensor(source.labels))


def dataset(part="train", n=20):
    """Images of three classes in the layout of Caltech-101, where file names repeat from class to class."""
    names = [f"{c}/{part}_{i:04d}.jpg" for c in ("face", "cup", "chair") for i in range(n)]
    return Source(
        f"caltech {part}", [f"/data/caltech-101/101_ObjectCategories/{f}" for f in names], [2] * n + [0] * n + [1] * n
    )


TRAIN, VAL = dataset(), dataset("val", 6)
TASK = SimpleNamespace(classnames=("cup", "chair", "face"))


def choose(name, train=TRAIN, val=VAL, *, shots=4, seed=1, **options):
    """Row numbers of a support and of its validation images."""
    task = SimpleNamespace(classnames=TASK.classnames)
    few = None if val is None else images(val)
    return [
        None if chosen is None else chosen.index.tolist()
        for chosen in plugins.pick("supports", name)(task, images(train), few, shots=shots, seed=seed, **options)
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_few_shot_draws_as_the_named_sampler(sampler):
    assert choose("few-shot", sampler=sampler) == [*sample(sampler, TRAIN.labels, VAL.labels, 4, 1)]


def test_few_shot_draws_as_coop_where_nothing_is_said():
    assert choose("few-shot") == [*sample("coop", TRAIN.labels, VAL.labels, 4, 1)]


def test_few_shot_takes_training_images_for_validation_where_the_release_does():
    task, train = TASK, images(TRAIN)
    support, val = plugins.pick("supports", "few-shot")(task, train, None, shots=4, seed=1, sampler="lp++")
    assert val.rows is train.rows and Counter(val.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert not {*val.index.tolist()} & {*support.index.tolist()}, "others than those of the support"
    assert choose("few-shot", val=None)[0] == choose("few-shot")[0], "Dassl's own draws must stay as they are"


def test_few_shot_holds_back_training_images_where_a_dataset_has_none_for_validation():
    support, val = plugins.pick("supports", "few-shot")(TASK, images(TRAIN), None, shots=16, seed=1)
    assert not {*val.index.tolist()} & {*support.index.tolist()}, "others than those of the support"
    held = Counter(val.labels.tolist())
    assert held == {0: 4, 1: 4, 2: 4}, "four of each class must be held back"
    assert choose("few-shot", val=None, shots=20) == [choose("few-shot", shots=20)[0], None], "nothing may be left"


@pytest.mark.parametrize("sampler", ["dassl", 1, None, ["coop"]])
def test_few_shot_names_the_samplers_there_are(sampler):
    with pytest.raises(ValueError, match="sampler must be one of coop, val-first, tip, gda"):
        choose("few-shot", sampler=sampler)


def counts(rows, labels=TRAIN.labels):
    return [Counter(labels[row] for row in rows)[c] for c in range(3)]


@pytest.mark.parametrize(
    ("ratio", "shots", "want"),
    [(1, 16, [16, 16, 16]), (4, 16, [16, 8, 4]), (16, 16, [16, 4, 1]), (100.0, 16, [16, 1, 1]), (2, 30, [20, 20, 15])],
)
def test_a_long_tail_keeps_fewer_of_each_class_by_label(ratio, shots, want):
    assert counts(choose("long-tailed", shots=shots, ratio=ratio)[0]) == want


def test_a_longer_tail_only_takes_images_away():
    full, half, tail = (choose("long-tailed", shots=16, ratio=ratio) for ratio in (1, 4, 16))
    assert set(tail[0]) < set(half[0]) < set(full[0])
    assert full == choose("few-shot", shots=16) == [*sample("coop", TRAIN.labels, VAL.labels, 16, 1)]
    assert tail[1] == half[1] == full[1] and counts(tail[1], VAL.labels) == [4, 4, 4], "validation images stay balanced"
    assert choose("long-tailed", val=None)[1] is None
    assert choose("long-tailed", seed=2) != choose("long-tailed"), "the seed chooses which"


@pytest.mark.parametrize("ratio", [0.5, 0, -1, float("nan"), float("inf"), True, "100"])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio must be a number from 1; got"):
        choose("long-tailed", ratio=ratio)


ROWS, VAL_ROWS = [3, 25, 24, 59], [5, 0]


def lines(rows, source, keys, strip, prefix):
    return [
        {keys[0]: prefix + source.paths[row].removeprefix(strip), keys[1]: source.labels[row], keys[2]: "name"}
        for row in rows
    ]


def cross_modal(folder):
    """Cross-modal adaptation's file: paths from its working folder, rows of its own split."""
    keys = "impath", "label", "classname"
    parts = {
        part: {"data": lines(rows, source, keys, "/data/", "./data/"), "indices": rows}
        for part, rows, source in (("train", ROWS, TRAIN), ("val", VAL_ROWS, VAL))
    }
    (folder / "shot_4-seed_1.json").write_text(json.dumps(parts))
    return "shot_{shots}-seed_{seed}.json"


def two_stage(folder):
    """2SFS' files: paths from the folder of all datasets, a line each."""
    for part, rows, source in (("train", ROWS, TRAIN), ("val", VAL_ROWS, VAL)):
        items = lines(rows, source, ("_impath", "_label", "_classname"), "/data/", "")
        text = "".join(json.dumps({**item, "_domain": 0}) + "\n" for item in items)
        (folder / f"shot_4-seed_1_{part}.jsonl").write_text(text)
    return "shot_{shots}-seed_{seed}_train.jsonl"


def plain(folder):
    """A list of paths from the folder of images, by hand."""
    strip = "/data/caltech-101/101_ObjectCategories/"
    parts = {"train": [TRAIN.paths[r].removeprefix(strip) for r in ROWS], "val": [VAL.paths[r] for r in VAL_ROWS]}
    (folder / "plain.json").write_text(json.dumps(parts))
    return "plain.json"


@pytest.mark.parametrize("write", [cross_modal, two_stage, plain])
def test_index_files_of_others_are_read(tmp_path, write):
    assert choose("indices", path=f"{tmp_path}/{write(tmp_path)}") == [ROWS, VAL_ROWS], "in the order of the file"


def test_an_export_is_read_back(tmp_path):
    items = [[f"{c}/train_{i:04d}.jpg", 0, "x"] for c in ("face", "cup", "chair") for i in range(20)]
    labelled = [[path, label, "x"] for (path, *_), label in zip(items, TRAIN.labels, strict=True)]
    val = [["/".join(p.split("/")[-2:]), label, "x"] for p, label in zip(VAL.paths, VAL.labels, strict=True)]
    (tmp_path / "split.json").write_text(json.dumps({"train": labelled, "val": val}))
    export(tmp_path / "split.json", tmp_path / "export.json", 4, 1)
    path = f"{tmp_path}/export.json"
    assert choose("indices", path=path) == choose("few-shot"), "the same images, wherever they were drawn"
    with pytest.raises(ValueError, match=r"seed must be 1, as in .*; got 2"):
        choose("indices", path=path, seed=2)
    with pytest.raises(ValueError, match=r"shots must be 4, as in .*; got 8"):
        choose("indices", path=path, shots=8)
    changed = json.loads((tmp_path / "export.json").read_text())
    changed["train"][0] = changed["train"][1]
    (tmp_path / "export.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"train of .* must have sha256 .*; got another: it was changed"):
        choose("indices", path=path)


def test_labels_of_another_order_of_classes_are_understood(tmp_path):
    train = Source(TRAIN.name, TRAIN.paths, [(label + 1) % 3 for label in TRAIN.labels])
    assert choose("indices", train, path=f"{tmp_path}/{cross_modal(tmp_path)}")[0] == ROWS, (
        "one to one, if not the same"
    )


def test_labels_that_disagree_are_refused(tmp_path):
    train = Source(TRAIN.name, TRAIN.paths, [0] * len(TRAIN.labels))
    with pytest.raises(ValueError, match="must stand one to one for those of caltech train"):
        choose("indices", train, path=f"{tmp_path}/{cross_modal(tmp_path)}")


def test_validation_images_may_be_training_images_where_there_are_no_others(tmp_path):
    (tmp_path / "i.json").write_text(json.dumps({"train": [TRAIN.paths[3]], "val": [TRAIN.paths[7]]}))
    assert choose("indices", val=None, path=f"{tmp_path}/i.json") == [[3], [7]], (
        "as ImageNet's, of which others cut a part"
    )
    (tmp_path / "i.json").write_text(json.dumps({"train": [TRAIN.paths[3]]}))
    assert choose("indices", path=f"{tmp_path}/i.json") == [[3], None], "there may be none at all"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON, or lines of JSON"),
        ("[]", "must list images in train"),
        ('{"train": []}', "must list images in train"),
        ('{"train": {"indices": [1]}}', "must list images in train"),
        ('{"train": [["face/1.jpg", 2]]}', "must name each image by a path"),
        ('{"train": {"data": [{"impath": "face/1.jpg"}]}}', "must name each image by a path"),
        ('{"train": ["face/train_9999.jpg"]}', "'face/train_9999.jpg' in .* must be one image of caltech train; got 0"),
        ('{"train": ["train_0003.jpg"]}', "must be one image of caltech train; got 3 of that name"),
        ('{"train": ["dog/train_0003.jpg"]}', "must be one image of caltech train; got 0"),
        ('{"train": [""]}', "must be one image of caltech train; got 0"),
    ],
)
def test_a_file_that_fits_nothing_is_one_line(tmp_path, content, message):
    (tmp_path / "i.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        choose("indices", path=f"{tmp_path}/i.json")
    assert "\n" not in str(caught.value)


def test_indices_need_a_file_and_a_dataset_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"indices must be a file that can be read; got .*: No such file"):
        choose("indices", path=f"{tmp_path}/none.json")
    with pytest.raises(ValueError, match="path must name a file of indices; got 3"):
        choose("indices", path=3)
    path = f"{tmp_path}/{plain(tmp_path)}"
    toy = SimpleNamespace(name="toy", labels=[0])
    with pytest.raises(ValueError, match="support 'indices' must have a dataset of files; got toy"):
        choose("indices", toy, path=path)
