"""Looking at data: planted copies, re-encoded pictures and swapped labels are found; labels of test are left alone."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

import adaptkit as ak
from adaptkit.cli import main
from adaptkit.features.sources import Drawn
from adaptkit.io.files import digest
from adaptkit.report.looking.labels import doubtful, folds_of, out_of_fold
from adaptkit.report.looking.look import look_at
from adaptkit.report.looking.near import Likeness, linked, near_pairs
from adaptkit.runs.loading import pick_dataset


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))


def drawing(seed, size=64):
    """A smooth picture unlike any other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """Two classes in train and test, of 6 and 4 different pictures each."""
    root = tmp_path / "photos"
    for p, (part, count) in enumerate((("train", 6), ("test", 4))):
        for c, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                drawing(100 * p + 10 * c + i).save(root / part / name / f"{i}.png")
    return root


def look(root, **how):
    return ak.look(f"folder:{root}", backbone="toy:0", **how)


def places(groups):
    return [sorted(alike.places) for alike in groups]


def test_nothing_is_found_where_nothing_is(photos):
    found = look(photos)
    assert (found.copies, found.near, found.unread) == ((), (), ()), "different pictures are no copies"
    assert found.sizes == {"train": 12, "test": 8} and found.counts == {"train": [6, 6]}, "counts are those there"
    assert found.groups() == list(range(20)), "and every picture is a group of its own"


def test_copies_are_found_by_pixels_within_parts_across_parts_and_under_two_labels(photos):
    shutil.copy(photos / "train/cat/0.png", photos / "test/cat/9.png")
    Image.open(photos / "train/cat/1.png").save(photos / "train/dog/9.bmp")  # other bytes, the same pixels
    found = look(photos)
    names = {frozenset(map(found.where, alike.places)): alike for alike in found.copies}
    across = names[frozenset({"train: train/cat/0.png", "test: test/cat/9.png"})]
    within = names[frozenset({"train: train/cat/1.png", "train: train/dog/9.bmp"})]
    assert len(names) == 2, "two pictures are there twice"
    assert across.parts == {"train", "test"} and within.labels == (0, 1), "parts and labels are told"
    assert across.labels == (0,), "of a picture of test, the label is not read"
    group = found.groups("train")
    assert len(set(group)) == 12, "the two copies in train are one group, and the one in test plays no part"
    assert len(set(found.groups("train", "test"))) == 20, "asked for both parts, it does"


@pytest.mark.parametrize(
    "change",
    [
        lambda picture, file: picture.save(file.with_suffix(".jpg"), quality=85),
        lambda picture, file: picture.resize((56, 56), Image.Resampling.BICUBIC).save(file),
        lambda picture, file: ImageEnhance.Brightness(picture).enhance(0.95).save(file),
    ],
    ids=["re-encoded", "resized", "darkened"],
)
def test_a_changed_copy_is_found_across_parts(photos, change):
    for i in range(3):
        change(drawing(i), photos / f"test/cat/copy-{i}.png")
    found = look(photos)
    assert not found.copies, "they have other pixels"
    assert len(found.near) == 3, f"all three changed copies must be found; got {found.near}"
    assert all(alike.parts == {"train", "test"} for alike in found.near), "each with what it is a copy of"
    assert found.threshold < 1 and all(alike.cosine >= found.threshold for alike in found.near), "over the threshold"


class Counted(Drawn):
    """The digits, with every reading of a label counted."""

    def __init__(self, name, pixels, labels):
        self.name, self.pixels, self.own, self.reads = name, pixels, labels, 0

    def __len__(self):
        return len(self.pixels)

    @property
    def labels(self):
        self.reads += 1
        return self.own

    def key(self, i):
        return digest(self.pixels[i].tobytes())

    def image(self, i):
        return Image.fromarray(self.pixels[i])


class Pixels:
    """In place of a cache: a picture's own pixels, so that what is tested is what is done with features."""

    def images(self, source, need, index):
        grey = [np.asarray(source.open(int(i))[1].convert("L").resize((8, 8))) for i in index]
        return ak.unit(torch.from_numpy(np.stack(grey)).flatten(1).float())


def digits(count, wrong=()):
    held = load_digits()
    pixels, labels = (held.images * 15.9).astype(np.uint8), held.target.tolist()
    for i in wrong:
        labels[i] = (labels[i] + 1 + i % 9) % 10
    train = Counted("digits train", pixels[:count], labels[:count])
    test = Counted("digits test", pixels[count : count + 50], labels[count : count + 50])
    return ak.Splits("digits", tuple("0123456789"), train=train, test=test)


def test_swapped_labels_are_found_and_few_others_are_listed():
    wrong = {*range(7, 500, 20)}  # 5 % of the labels
    found = look_at(digits(500, wrong), Pixels())
    listed = [i for (part, i) in (doubt.place for doubt in found.doubts)]
    right = len(wrong.intersection(listed))
    assert found.judged == 500, "every label is held against the others"
    assert right >= 0.6 * len(wrong), f"most swapped labels must be found; got {right} of {len(wrong)}"
    assert right >= 0.75 * len(listed), f"most of those listed must be swapped; got {right} of {len(listed)}"
    margins = [doubt.margin for doubt in found.doubts]
    assert margins == sorted(margins, reverse=True), "the likeliest errors come first"


def test_labels_are_not_judged_by_features_that_tell_nothing_of_them():
    splits = digits(100)
    splits.train.own = [i // 10 for i in range(100)]
    found = look_at(splits, Pixels())
    assert not found.judged and not found.doubts, "what a classifier cannot learn, it cannot doubt"
    assert "labels are not judged" in "\n".join(found.notes), "and that is said"


def test_labels_of_test_are_read_only_where_that_is_asked():
    splits = digits(100)
    found = look_at(splits, Pixels())
    joined = splits.test.reads
    splits.test.own = [9] * 50
    again = look_at(splits, Pixels())
    assert replace(again, names={}) == replace(found, names={}), "other labels of test must change nothing"
    assert "labels of test were not read" in "\n".join(found.lines()), "and the reader is told"
    assert look_at(splits, Pixels(), with_test=True).counts["test"][9] == 50, "asked for, they are read"
    assert splits.test.reads > joined, "as can be seen"


def test_pairs_are_those_of_all_products_whatever_the_blocks(monkeypatch):
    x = ak.unit(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)))
    want = [(i, j) for i, j in ((x @ x.T) >= 0.8).triu(1).nonzero().tolist()]
    for room in (1, 77, 2**20):
        monkeypatch.setattr("adaptkit.report.looking.near.ROOM", room)
        assert [pair[:2] for pair in near_pairs(x, x, Likeness(0.8, 0.8))] == want, f"blocks of {room} products"


def test_linked_rows_hang_together_through_others():
    assert linked(6, [(4, 5), (0, 5), (2, 3)]) == [0, 1, 2, 2, 0, 0], "each row tells the first of its group"


def test_folds_keep_groups_together_and_share_out_every_class():
    labels, groups = [0] * 10 + [1] * 10, [0, 0, *range(2, 20)]
    folds = folds_of(labels, groups)
    assert folds[0] == folds[1], "copies must be in one fold"
    for c in (0, 1):
        assert len(set(folds[10 * c : 10 * c + 10].tolist())) == 5, "each class must be in every fold"


def test_probabilities_are_of_a_model_that_never_saw_the_image():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 300, generator=generator)  # labels of noise can be learned by heart, and not foretold
    labels = torch.arange(40) % 2
    p = out_of_fold(x, labels, 2, folds_of(labels.tolist(), list(range(40))))
    assert p.sum(1) == pytest.approx(torch.ones(40).tolist()), "rows are probabilities"
    assert float(p[torch.arange(40), labels].mean()) < 0.65, "a model that saw its own image would be sure of it"


def test_confident_learning_is_that_of_the_equations():
    p = torch.rand(60, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double).pow(3)
    p, labels = p / p.sum(1, keepdim=True), torch.arange(60) % 4
    level = [float(p[labels == j, j].mean()) for j in range(4)]
    want = set()
    for i, row in enumerate(p.tolist()):
        counted = [j for j in range(4) if row[j] >= level[j]]
        best = max(counted, key=row.__getitem__, default=None)
        if best is not None and row[best] > row[labels[i]]:
            want.add((i, best))
    assert want and {(row, likely) for row, likely, _ in doubtful(p, labels)} == want, "the slow loop finds the same"


@pytest.mark.parametrize("suffix", ["csv", "html"])
def test_the_command_says_what_it_found_and_writes_it_down(photos, tmp_path, capsys, suffix):
    shutil.copy(photos / "train/cat/0.png", photos / "test/dog/<b>.png")
    Image.open(photos / "train/cat/2.png").convert("L").save(photos / "train/cat/grey.tif")
    (photos / "train/dog/bad.png").write_bytes(b"no picture")
    out = tmp_path / f"look.{suffix}"
    code = main(["data", "look", f"folder:{photos}", "--backbone", "toy:0", "--out", str(out), "--quiet"])
    said = capsys.readouterr().out
    assert code == 0, said
    for part in (
        "2 classes, 22 images",
        "1 TIFF",
        "1 grey",
        "left out",
        "bad.png",
        "1 group of images of the same pixels",
    ):
        assert part in said, f"{part!r} must be said; got {said}"
    text = out.read_text()
    if suffix == "csv":
        rows = [row for row in csv.DictReader(text.splitlines()) if row["what"] == "copy"]
        assert sorted(row["image"] for row in rows) == ["test/dog/<b>.png", "train/cat/0.png"], "a row for each image"
        (bad,) = [row for row in csv.DictReader(text.splitlines()) if row["what"] == "unread"]
        assert bad["image"].endswith("train/dog/bad.png") and "it holds none of" in bad["value"], "unreadable ones, too"
    else:
        assert "&lt;b&gt;.png" in text and "<b>.png" not in text, "names are text"
        assert "data:image/webp;base64," in text and "<script" not in text, "pictures are in it, and nothing runs"


def test_a_class_of_copies_alone_is_looked_at_though_it_cannot_be_split(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("cat", "owl"):
        (tmp_path / name).mkdir()
        for i in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / name / f"{i}.png")
    for i in range(1, 4):
        shutil.copy(tmp_path / "owl" / "0.png", tmp_path / "owl" / f"{i}.png")
    found = ak.look(f"folder:{tmp_path}", backbone="")
    assert found.sizes == {"train": 8} and [len(group.places) for group in found.copies] == [4], "all copies are found"
    assert "no method can learn from this as it is: a class must have two different images" in found.notes[0]
    assert main(["data", "look", f"folder:{tmp_path}", "--backbone", "none", "--out", str(tmp_path / "l.html")]) == 0
    assert "fewer of 'owl'; all images are shown under train" in capsys.readouterr().out, "the command says it, too"


def test_without_a_backbone_or_labels_of_one_class_less_is_told(photos):
    found = ak.look(f"folder:{photos}", backbone="")
    assert found.threshold == 1 and not found.judged, "without features nothing is judged by them"
    assert "nearly" not in "\n".join(found.lines()), "and nothing is said of near-copies"
    toy = look_at(pick_dataset("toy"), None)
    assert sorted(toy.rows()[0] if toy.rows() else ["what"])[-1] == "what", "rows have one form"


@pytest.mark.parametrize("wrong", [["--out", "look.txt"], ["--backbone", "nothing:1"]])
def test_what_cannot_be_is_refused_in_one_line(photos, capsys, wrong):
    assert main(["data", "look", f"folder:{photos}", *wrong]) != 0, "an error is no success"
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "got" in said, f"one line says what must be; got {said}"
