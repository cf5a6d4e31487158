"""People's own pictures: what is read, what is left out by name, and datasets that are only answered."""

import io
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from adaptkit_plugins.datasets import hub, own_images
from PIL import Image

import adaptkit as ak
from adaptkit.cli import main
from adaptkit.io.pictures import SUFFIXES

BAD = pytest.mark.fault("a picture that cannot be read", "left out by name and counted, as if it were not there")
STRAY = pytest.mark.fault("a file among pictures", "read if it is a picture, else counted by its suffix and named")
PARTS = pytest.mark.fault("parts of a dataset by other names, or missing", "understood, or refused in one line")
DOMAIN = pytest.mark.fault("a domain of one's own", "answered among the classes that it shares by name, or refused")
SPLIT = pytest.mark.fault("a split file of one's own", "read, or refused in one line with what to write")
LABELS = pytest.mark.fault("labels of several classes or of another type", "recognised, or refused in one line")
PILLOW = {".avif": "AVIF", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".jpe": "JPEG", ".jfif": "JPEG"}
DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "no bytes": lambda data: b"",
    "a web page": lambda data: b"<html><body>404</body></html>",
    "zeros": lambda data: bytes(len(data)),
    "a drawing": lambda data: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "another format": lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(seed, hue=0, size=(32, 32)):
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    noise[..., hue % 3] += 120
    return Image.fromarray(noise.astype(np.uint8))


def photos(root, classes=("cat", "dog", "owl"), n=8, start=0, suffix=".png"):
    """A folder of pictures for each class, each of its own colour."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture(start + 100 * c + i, c).save(root / name / f"{i}{suffix}", format=PILLOW.get(suffix))
    return root


def run(tmp_path, *words, code=0):
    """The few-shot recipe by zero-shot and GDA on the toy backbone; what is said, and the records by method."""
    out = tmp_path / "out"
    asked = ["--set", "backbone=toy:0", "--set", "methods=[zero-shot, gda]", "--shots", "2", "--seeds", "1", "--quiet"]
    assert main(["run", "few_shot", *asked, *words, "--out", str(out)]) == code, f"exit code {code}: {words}"
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json")) if path.name != "recipe.json"]
    return {record["method"]: record for record in records}


def files(splits):
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {n: sorted(str(p.relative_to(p.parents[1])) for p in s.paths) for n, s in parts.items() if s is not None}


def counts(splits):
    return [0 if part is None else len(part) for part in (splits.train, splits.val, splits.test)]


def refusal(load, place, **how):
    with pytest.raises(ValueError) as caught:
        load(str(place), **how)
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


# pictures that cannot be read


@BAD
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_picture_is_as_if_it_were_not_there(tmp_path, damage):
    root = photos(tmp_path / "photos")
    bad = root / "cat" / "3.png"
    whole = bad.read_bytes()
    bad.unlink()
    without = files(own_images.folder(str(root)))
    bad.write_bytes(DAMAGES[damage](whole))
    for time in ("first", "second"):  # the second time sound pictures are remembered
        splits = own_images.folder(str(root))
        assert files(splits) == without, f"the {time} time the others must be parted as they were without it"
        assert len(splits.left_out) == 1 and str(bad) in splits.left_out[0], f"it must be named; got {splits.left_out}"


@BAD
@pytest.mark.parametrize("scheme", ["folder", "csv", "split"])
def test_a_run_leaves_a_bad_picture_out_and_counts_it(tmp_path, scheme, capsys):
    root = photos(tmp_path / "photos")
    place = {"folder": root, "csv": listed(root), "split": split_of(root)}[scheme]
    (root / "cat" / "1.png").write_bytes(b"no picture")
    said = []
    for _ in range(2):
        records = run(tmp_path, "--set", f"dataset={scheme}:{place}")
        assert {r["images_left_out"] for r in records.values()} == {1}, "the record has the count"
        assert records["gda"]["images_per_class"] == [2, 2, 2], "every class has its shots, of good pictures"
        said.append([line for line in capsys.readouterr().out.splitlines() if "left out 1 of 24 images" in line])
    assert said[0] == said[1] and len(said[0]) == 1 and "1.png" in said[0][0], f"each run must name it; got {said}"


@BAD
def test_pictures_of_which_none_can_be_read_are_refused_by_class(tmp_path):
    root = photos(tmp_path / "photos", n=3)
    for file in (root / "dog").iterdir():
        file.write_bytes(b"")
    message = refusal(own_images.folder, root)
    assert "'dog'" in message and "none of 3" in message and "0.png" in message, message


@BAD
@pytest.mark.parametrize("home", ["lost", "damaged", "read-only"])
def test_what_is_remembered_of_sound_pictures_only_saves_time(tmp_path, own_home, home):
    root = photos(tmp_path / "photos")
    (root / "owl" / "0.png").write_bytes(b"no picture")
    first = own_images.folder(str(root))
    if home == "lost":
        shutil.rmtree(own_home)
    else:
        (own_home / "sound").write_bytes((own_home / "sound").read_bytes()[:-3])
    if home == "read-only":
        (own_home / "sound").unlink()
        (own_home / "sound").mkdir()
    again = own_images.folder(str(root))
    assert files(again) == files(first) and again.left_out == first.left_out, "the answer must be the same"


@BAD
def test_a_notebook_is_warned_of_a_bad_picture(tmp_path):
    root = photos(tmp_path / "photos")
    (root / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"left out 1 of 24 images, which cannot be read: .*0\.png"):
        task, test = ak.load(f"folder:{root}", backbone="toy:0", shots=2)
    assert task.support.labels.bincount().tolist() == [2, 2, 2] and len(test) > 0, "and goes on without it"


@BAD
def test_predict_names_bad_pictures_and_answers_the_others(tmp_path, capsys):
    asked = ["--set", "dataset=toy", "--set", "backbone=toy:0", "--method", "gda", "--shots", "1", "--seed", "1"]
    assert main(["export", "few_shot", *asked, "--out", str(tmp_path / "model"), "--quiet"]) == 0
    folder = photos(tmp_path / "new", ("a",), n=2)
    (folder / "a" / "bad.jpg").write_bytes(b"no picture")
    (folder / "a" / "good.jfif").write_bytes((folder / "a" / "0.png").read_bytes())
    for name in ("notes.txt", "x.svg", "y.svg", ".hidden.png", "Thumbs.db"):
        (folder / name).write_text("x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "0.png").write_text("x")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "model"), str(folder)]) == 1, "some could not be read"
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4, f"a head and three answers; got {said.out}"
    assert "bad.jpg" in said.err and "2 .svg, 1 .txt" in said.err and "hidden" not in said.err, said.err


# files that are none, and all that are


@STRAY
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read_by_every_door(tmp_path, suffix):
    from adaptkit.saving.pictures import find_pictures

    root = photos(tmp_path / "photos", ("cat", "dog"), n=3)
    format = PILLOW.get(suffix) or next(f for s, f in Image.registered_extensions().items() if s == suffix)
    picture(7).save(root / "cat" / f"other{suffix.upper()}", format=format)
    splits = own_images.folder(str(root))
    assert sum(counts(splits)) == 7 and not splits.notes, "folder: reads it"
    assert sum(counts(own_images.csv_file(str(listed(root))))) == 7, "csv: reads it"
    assert sum(counts(own_images.split_file(str(split_of(root))))) == 7, "split: reads it"
    assert len(find_pictures([root])[0]) == 7, "predict reads it"


@STRAY
def test_other_files_are_counted_by_suffix_and_litter_is_passed_over(tmp_path):
    root = photos(tmp_path / "photos", ("cat", "dog"), n=3)
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/notes.txt", "readme", ".DS_Store", "cat/Thumbs.db", "cat/._0.png"):
        (root / name).write_text("x")
    photos(root / "__MACOSX", ("cat",), n=1)
    photos(root / "cat", ("more",), n=2)
    picture(1).save(root / "top.png")
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "cat" / "folder.png").mkdir()
    splits = own_images.folder(str(root))
    assert splits.classnames == ("cat", "dog") and sum(counts(splits)) == 6, "only pictures of classes are read"
    kinds, deeper, no_files = splits.notes
    assert "read 6 of 14 files" in kinds and "2 .heic, 1 .txt, 1 without a suffix" in kinds, kinds
    assert "3 .png" in deeper and "more" in deeper and "1 .png" in no_files and "gone.png" in no_files, splits.notes


# parts


@PARTS
@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "valid", "Validation"])
def test_parts_are_understood_by_other_names(tmp_path, train, test):
    photos(tmp_path / "photos" / train, n=2), photos(tmp_path / "photos" / test, n=1, start=50)
    assert counts(own_images.folder(str(tmp_path / "photos"))) == [6, 0, 3], "train, and what it is tested on"


@PARTS
def test_one_part_under_two_names_is_refused(tmp_path):
    for part in ("train", "Training", "test"):
        photos(tmp_path / "photos" / part, n=1)
    assert "one folder for train; got Training and train" in refusal(own_images.folder, tmp_path / "photos")


@PARTS
@pytest.mark.parametrize("scheme", ["folder", "csv", "split"])
def test_what_is_only_answered_needs_no_training_images(tmp_path, scheme):
    load = {"folder": own_images.folder, "csv": own_images.csv_file, "split": own_images.split_file}[scheme]
    root = photos(tmp_path / "photos" / "test", n=1)
    place = {"folder": root.parent, "csv": listed(root, "test"), "split": split_of(root, judged=range(99))}[scheme]
    assert counts(load(str(place), answered=True)) == [0, 0, 3], "all of them are test"
    assert "none for train" in refusal(load, place), "there is nothing to learn from"


@PARTS
def test_pictures_of_one_content_in_train_and_test_are_told(tmp_path):
    photos(tmp_path / "photos" / "train", n=3), photos(tmp_path / "photos" / "test", n=2)
    (note,) = own_images.folder(str(tmp_path / "photos")).notes
    assert note == "6 images are in train and in test", note


# domains


@DOMAIN
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("owl", "dog", "cat"), ""),
        (("Cat", "DOG", "Owl"), ""),
        (("cat", "owl"), "has no image of 1 of the 3 classes of folder:"),
        (("cat", "dog", "fox", "owl"), "left out 2 images of classes that folder:"),
    ],
)
def test_a_named_domain_is_answered_among_ones_own_classes(tmp_path, names, said, capsys):
    root = photos(tmp_path / "photos")
    colour = {"cat": 0, "dog": 1, "owl": 2}
    for name in names:
        for i in range(2):
            file = tmp_path / "sketches" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(900 + i, colour.get(name.lower(), 0)).save(file)
    sets = f"domains={{sketch: 'folder:{tmp_path / 'sketches'}'}}"
    records = run(tmp_path, "--set", f"dataset=folder:{root}", "--set", sets)
    for record in records.values():
        assert record["metrics"]["sketch/accuracy"] >= 0, "every method is measured on it"
        shown = len([name for name in names if name.lower() in colour])
        assert len(record["right"]["sketch"]) == 2 * shown, "on every picture of a class that is learned"
    assert records["gda"]["metrics"]["sketch/accuracy"] == 1, "colours tell the classes, whatever their order"
    assert said in capsys.readouterr().out, "what differs is said"


@DOMAIN
def test_a_listed_dataset_with_the_same_classes_is_a_domain_and_one_with_others_is_not(tmp_path):
    root = photos(tmp_path / "photos", n=6)
    same, other = photos(tmp_path / "same", n=1, start=50), photos(tmp_path / "other", ("x", "y"), n=1, start=70)
    dataset = ("--set", f"dataset=folder:{root}", "--set")
    records = run(tmp_path, *dataset, f"domains=['folder:{same}']")
    assert records["gda"]["metrics"][f"folder:{same}/accuracy"] == 1, "its classes are learned ones"
    shutil.rmtree(tmp_path / "out")
    records = run(tmp_path, *dataset, f"domains=['folder:{other}']", "--set", "methods=[zero-shot]")
    assert len(records["zero-shot"]["right"][f"folder:{other}"]) == 2, "one image a class is enough to be answered"


@DOMAIN
@pytest.mark.parametrize("name", ["new", "near", "a/b", "''"])
def test_a_domains_name_is_no_other_sets(tmp_path, name, capsys):
    place = f"domains={{{name}: 'folder:{tmp_path}'}}"
    run(tmp_path, "--set", "dataset=toy", "--set", place, code=2)
    assert "a name in domains must be text without a slash" in capsys.readouterr().err


@DOMAIN
def test_a_domain_that_shares_no_class_is_refused(tmp_path, capsys):
    root, other = photos(tmp_path / "photos"), photos(tmp_path / "other", ("x", "y"))
    run(tmp_path, "--set", f"dataset=folder:{root}", "--set", f"domains={{sketch: 'folder:{other}'}}", code=2)
    assert "must have its classes; got folder:" in (said := capsys.readouterr().err) and "'x', 'y'" in said, said


@DOMAIN
@pytest.mark.parametrize("key", ["domains", "near", "far"])
def test_a_recipes_own_domain_does_not_come_along_with_another_dataset(tmp_path, key, capsys):
    root = photos(tmp_path / "photos")
    (tmp_path / "base.yaml").write_text(
        f"dataset: toy\nbackbone: toy:0\n{key}: [noisy]\nmethods: [zero-shot]\nshots: [1]\nseeds: [1]\n"
    )
    (tmp_path / "mine.yaml").write_text(f"extends: base.yaml\ndataset: folder:{root}\n")
    for asked in (["mine.yaml"], ["base.yaml", "--set", f"dataset=folder:{root}"]):
        asked[0] = str(tmp_path / asked[0])
        assert main(["run", *asked, "--quiet", "--out", str(tmp_path / "out")]) == 0, "it runs without it"
        assert "left out: 'noisy', of another dataset than folder:" in capsys.readouterr().out, "and says so"
    assert main(["run", str(tmp_path / "mine.yaml"), "--set", f"{key}=[nosy]", "--quiet"]) == 2, (
        "what one writes counts"
    )
    assert "'nosy'" in capsys.readouterr().err, "and errors speak of it"


def csv_of(root, files):
    rows = "".join(f"{file},{file.parent.name},test\n" for file in files)
    (root / "own.csv").write_text(f"path,label,split\n{rows}")
    return f"csv:{root / 'own.csv'}"


def copied(root, to):
    shutil.copytree(root, to)
    return f"folder:{to}"


SEEN = {
    "the same folder": lambda tmp, root: f"folder:{root}",
    "a copy": lambda tmp, root: copied(root, tmp / "copy"),
    "a csv file": lambda tmp, root: csv_of(tmp, sorted(root.rglob("*.png"))),
    "a split file": lambda tmp, root: f"split:{split_of(root, judged=range(99))}",
}


@DOMAIN
@pytest.mark.parametrize("key", ["domains", "near", "far"])
@pytest.mark.parametrize("kind", SEEN)
def test_what_is_learned_from_is_left_out_of_a_domain(tmp_path, kind, key, capsys):
    root = photos(tmp_path / "photos", ("cat", "dog", "owl"))
    place = SEEN[kind](tmp_path, root)
    methods = "[zero-shot]" if key == "domains" else "[mcm]"
    asked = (f"dataset=folder:{root}", f"{key}={{sketch: '{place}'}}", f"methods={methods}")
    records = run(tmp_path, *(word for change in asked for word in ("--set", change)))
    said = capsys.readouterr().out
    assert "sketch: left out 15 of 24 images, which are among those to learn from" in said, said
    if key == "domains":
        assert [len(record["right"]["sketch"]) for record in records.values()] == [9], "the others are answered"


@DOMAIN
def test_what_is_learned_from_is_left_out_of_a_domain_with_more_classes(tmp_path, capsys):
    root = photos(tmp_path / "photos", ("cat", "dog"))
    more = photos(tmp_path / "more" / "test", ("fox", "hen"), start=500).parent
    copied(root / "cat", more / "test" / "cat"), copied(root / "dog", more / "test" / "dog")
    asked = (f"dataset=folder:{root}", f"domains=['folder:{more}']", "methods=[zero-shot]")
    records = run(tmp_path, *(word for change in asked for word in ("--set", change)))
    said = capsys.readouterr().out
    assert f"folder:{more}: left out 10 of 32 images, which are among those to learn from" in said, said
    assert len(records["zero-shot"]["right"][f"folder:{more}"]) == 22, "the others are answered"


@DOMAIN
def test_a_domain_of_nothing_but_what_is_learned_from_is_refused(tmp_path, capsys):
    root = photos(tmp_path / "photos/train", ("cat", "dog")).parent
    photos(root / "test", ("cat", "dog"), start=50)
    sets = f"domains={{sketch: 'folder:{root / 'train'}'}}"
    run(tmp_path, "--set", f"dataset=folder:{root}", "--set", sets, code=2)
    said = capsys.readouterr().err
    assert "sketch must have images that folder:" in said and "got 16, all of which" in said, said


@DOMAIN
@pytest.mark.parametrize(
    ("own", "names", "which"),
    [
        (("cat", "dog", "owl"), ("cat", "fox"), "{{sketch: '{}'}}"),
        (("cat", "dog", "owl"), ("owl",), "['{}']"),
        (("cat", "dog", "owl", "pig"), ("cat", "owl"), "{{sketch: '{}'}}"),
        (("cat", "dog", "owl", "pig"), ("owl", "pig"), "{{sketch: '{}'}}"),
    ],
)
def test_a_domain_of_fewer_than_two_classes_is_refused_at_once(tmp_path, own, names, which, capsys):
    root, other = photos(tmp_path / "photos", own), photos(tmp_path / "other", names, start=50)
    half = ["--set", "classes=base", "--set", "methods=[zero-shot]"] if len(own) == 4 else []
    sets = f"domains={which.format(f'folder:{other}')}"
    home = tmp_path / "home"
    run(tmp_path, "--set", f"dataset=folder:{root}", "--set", sets, *half, "--home", str(home), code=2)
    said = capsys.readouterr().err
    assert "a domain must have images of 2 of the classes that are learned; got folder:" in said, said
    assert said.count("\n") == 1 and not [*home.rglob("*.safetensors")], "in one line, before anything is computed"


@DOMAIN
def test_a_class_is_found_however_unicode_composes_its_name(tmp_path):
    root = photos(tmp_path / "photos", ("caf\u00e9", "dog"))
    other = photos(tmp_path / "other", ("cafe\u0301", "dog"), n=2, start=50)
    records = run(tmp_path, "--set", f"dataset=folder:{root}", "--set", f"domains={{sketch: 'folder:{other}'}}")
    assert records["gda"]["metrics"]["sketch/accuracy"] == 1, "both are one class"


# split files


def split_of(root, judged=range(6, 99), **changes):
    """A split file in a folder of pictures: five of each class to learn from, one to choose by, others to judge by."""
    rows = {"train": [], "val": [], "test": []}
    for c, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        for i, file in enumerate(sorted(folder.iterdir())):
            part = "test" if i in judged else "train" if i < 5 else "val"
            rows[part].append([f"{folder.name}/{file.name}", c, folder.name])
    file = root / "split.json"
    file.write_text(json.dumps({**rows, **changes}))
    return file


@SPLIT
@pytest.mark.parametrize("key", ["train", "val", "test"])
def test_a_split_file_that_gives_a_part_twice_is_refused(tmp_path, key):
    file = split_of(photos(tmp_path / "photos"))
    file.write_text(file.read_text().replace("{", f'{{"{key}": [], ', 1))
    said = refusal(own_images.split_file, file)
    assert f"keys must differ; got {key!r} twice" in said, said


@SPLIT
@pytest.mark.parametrize("val", [{"val": []}, {"val": None}, {}], ids=["empty", "null", "full"])
def test_a_split_file_is_read_and_val_is_parted_off_where_there_is_none(tmp_path, val):
    root = photos(tmp_path / "photos")
    file = split_of(root, **val)
    if val.get("val", ()) is None:
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "val"}))
    splits = own_images.split_file(str(file))
    assert splits.classnames == ("cat", "dog", "owl"), "names by label"
    assert counts(splits) == ([15, 3, 6] if not val else [12, 3, 6]), "a fifth of each class of train is val"
    assert bool(splits.parted) == bool(val), "what was parted here is named"
    record = run(tmp_path, "--set", f"dataset=split:{file}")["gda"]
    assert record["protocol"].get("parted", "") == splits.parted, "in the protocol, too"


@SPLIT
@pytest.mark.parametrize("folder", ["images", "jpg", "2750"])
def test_paths_start_in_a_folder_beside_the_file_or_in_the_one_that_is_named(tmp_path, folder):
    root = photos(tmp_path / "data" / folder)
    file = split_of(root).rename(tmp_path / "data" / "split_zhou_Mine.json")
    assert counts(own_images.split_file(str(file))) == [15, 3, 6], "the folder is found"
    file = file.rename(tmp_path / "elsewhere.json")
    assert f"split:{file}#FOLDER" in refusal(own_images.split_file, file), "or asked for"
    assert counts(own_images.split_file(f"{file}#{root}")) == [15, 3, 6], "and read"


ROW = ["cat/0.png", 0, "cat"]


@SPLIT
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": [["cat/0.png", 1, "cat"], ["dog/0.png", 2, "dog"]], "val": [], "test": []}, "labels from 0 on"),
        ({"train": [ROW, ["dog/0.png", 2, "dog"]], "val": [], "test": []}, "without 1"),
        ({"train": [ROW, ["dog/0.png", 10**15, "dog"]], "val": [], "test": []}, "without 1"),
        ({"train": [ROW, ["cat/1.png", 0, "kitten"]], "val": [], "test": []}, "one name for each label"),
        ({"train": [ROW, ROW], "val": [], "test": []}, "each image once"),
        ({"train": [ROW, ["cat/99.png", 0, "cat"]], "val": [], "test": []}, "got 1 of 2 that are not in"),
        ({"train": [["../x.png", 0, "cat"]]}, "inside the folder"),
        ({"train": [["/etc/passwd", 0, "cat"]]}, "inside the folder"),
        ({"train": [["cat/0.png", "cat"]]}, "[path, label, class name]"),
        ({"train": [], "val": []}, "none for train"),
        ({"train": {}, "val": [], "test": []}, "must hold lists"),
    ],
)
def test_a_wrong_split_file_is_refused(tmp_path, changes, said):
    file = split_of(photos(tmp_path / "photos"), **changes)
    message = refusal(own_images.split_file, file)
    assert said in message and (str(file) in message), message


@SPLIT
def test_other_doors_name_the_one_for_split_files(tmp_path):
    file = split_of(photos(tmp_path / "photos"))
    for load in (own_images.csv_file, own_images.folder):
        assert f"split:{file}" in refusal(load, file), "which door a split file goes through"
    assert f"folder:{tmp_path}" in refusal(own_images.csv_file, tmp_path), "and a folder"


# labels


def listed(root, split=""):
    """A csv file of a folder's pictures."""
    rows = [f"{p.relative_to(root)},{p.parent.name}{split and ','}{split}" for p in sorted(root.glob("*/*"))]
    file = root / "list.csv"
    file.write_text("\n".join([f"path,label{split and ',split'}", *rows]) + "\n")
    return file


@LABELS
@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("path,labels\ncat/0.png,cat|dog\ncat/1.png,cat\ndog/0.png,dog;cat\ndog/1.png,dog\n", ("cat", "dog")),
        ("path,cat,dog\ncat/0.png,1,1\ncat/1.png,1,0\ndog/0.png,0,1\ndog/1.png,0,0\n", ("cat", "dog")),
        ("path,split,b,a\ncat/0.png,train,1,1\ncat/1.png,test,1,0\n", ("b", "a")),
    ],
)
def test_a_csv_file_of_several_labels_an_image_asks_for_them(tmp_path, text, classes, capsys):
    root = photos(tmp_path / "photos", ("cat", "dog"), n=2)
    (root / "list.csv").write_text(text)
    splits = own_images.csv_file(str(root / "list.csv"))
    assert splits.kind == "multi-label" and splits.classnames == classes, "several labels are what is asked for"
    rows = sorted([*splits.train.targets, *splits.test.targets])
    assert all({*row} <= {0, 1} and len(row) == 2 for row in rows) and [1, 1] in rows, f"zeros and ones; got {rows}"
    run(tmp_path, "--set", f"dataset=csv:{root / 'list.csv'}", code=2)
    assert "methods must answer multi-label, as the dataset asks" in capsys.readouterr().err, "what answers one is told"


@LABELS
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\ncat/0.png,cat|dog\ncat/1.png,cat\ndog/0.png,dog\n", "call the column labels"),
        ("path,label\ncat/0.png,cat;dog\ncat/1.png,cat\ndog/0.png,dog\n", "call the column labels"),
        ("path,label\ncat/0.png,cat\ncat/0.png,dog\n", "write labels: a|b"),
        ("path,cat,dog\ncat/0.png,1,2\n", "0 or 1 in each column of a class; got '2' for 'dog'"),
        ("path,cat,cat\ncat/0.png,1,0\n", "got 'cat' twice"),
        ("path,label,labels\ncat/0.png,cat,cat\n", "got both"),
    ],
)
def test_what_may_be_several_labels_is_refused(tmp_path, text, said):
    root = photos(tmp_path / "photos", ("cat", "dog"), n=2)
    (root / "list.csv").write_text(text)
    assert said in refusal(own_images.csv_file, root / "list.csv")


class Feature:
    """What stands for a feature of `datasets`, told by its attributes."""

    def __init__(self, **about):
        self.__dict__ |= about


class ClassLabel(Feature):
    pass


class Table(dict):
    """Columns by name, as far as a table of `datasets` is asked for them."""

    features = property(lambda self: self.kinds)

    def __len__(self):
        return len(next(iter(self.values())))

    def cast_column(self, *how):
        return self


def tables(monkeypatch, kinds, **splits):
    """Let `datasets` load these columns; pictures are told by their numbers."""

    def encoded(i):
        data = io.BytesIO()
        picture(i).save(data, "PNG")
        return {"bytes": data.getvalue(), "path": None}

    image = type("Image", (Feature,), {})
    made = {}
    for k, (split, columns) in enumerate(splits.items()):
        count = len(next(iter(columns.values())))
        made[split] = Table(image=[encoded(100 * k + i) for i in range(count)], **columns)
        made[split].kinds = {"image": image(), **kinds}
    fake = SimpleNamespace(Image=image, ClassLabel=ClassLabel)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(hub, "fetch", lambda datasets, place: made)


STRING, NUMBER = Feature(dtype="string"), Feature(dtype="int64")


@LABELS
@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        (STRING, ["dog", "cat"] * 5, ("cat", "dog")),
        (Feature(dtype="large_string"), ["dog", "cat"] * 5, ("cat", "dog")),
        (NUMBER, [10, 3] * 5, ("3", "10")),
        (ClassLabel(names=["b", "a"]), [0, 1] * 5, ("b", "a")),
        ({"label": STRING, "width": Feature(dtype="float64")}, [{"label": c} for c in "uv" * 5], ("u", "v")),
    ],
    ids=["text", "large text", "numbers", "class labels", "a field of json"],
)
def test_hub_labels_of_any_type_and_a_split_alone_are_read(monkeypatch, kind, labels, classes):
    tables(monkeypatch, {"label": kind}, train={"label": labels})
    splits = hub.hub("data")
    assert splits.classnames == classes and counts(splits) == [6, 2, 2], "a split alone is parted by content"
    assert splits.parted, "which is named in the protocol"
    assert counts(hub.hub("data", answered=True)) == [0, 0, 10], "of what is only answered all are test"
    assert bool(splits.notes) == (kind is NUMBER), "prompts know no name of a number, which is said"


@LABELS
@pytest.mark.parametrize("inside", [ClassLabel(names=["a", "b", "c"]), STRING, NUMBER])
def test_hub_labels_in_lists_are_several_labels(monkeypatch, inside):
    names = ["a", "b", "c"] if inside is STRING else [0, 1, 2]
    tables(
        monkeypatch, {"labels": Feature(feature=inside)}, train={"labels": [[names[0], names[i % 3]] for i in range(6)]}
    )
    splits = hub.hub("data")
    assert splits.kind == "multi-label" and len(splits.classnames) == 3, "recognised as such"


@LABELS
def test_hub_columns_are_picked_by_name_or_asked_for(monkeypatch):
    columns = {"train": {"breed": ["x", "y"] * 4, "caption": [f"text {i}" for i in range(8)]}}
    tables(monkeypatch, {"breed": STRING, "caption": STRING}, **columns)
    assert "breed, caption; choose, as in hf-dataset:data#breed" in refusal(hub.hub, "data")
    assert "did you mean 'breed'" in refusal(hub.hub, "data#bred")
    assert hub.hub("data#breed").classnames == ("x", "y"), "the one that is named"
    columns = {"train": {"label": ["x", "y"] * 4, "caption": [f"text {i}" for i in range(8)]}}
    tables(monkeypatch, {"label": STRING, "caption": STRING}, **columns)
    assert hub.hub("data").classnames == ("x", "y"), "or the one that is called label"


@BAD
def test_a_bad_picture_of_a_hub_dataset_is_left_out(monkeypatch):
    tables(monkeypatch, {"label": STRING}, train={"label": ["x", "y"] * 4})
    hub.fetch(None, "")["train"]["image"][3] = {"bytes": b"no picture", "path": None}
    splits = hub.hub("data")
    assert sum(counts(splits)) == 7 and "row 3 of hf-dataset:data train" in splits.left_out[0], splits.left_out


@pytest.mark.fault("a dataset with nothing to tell apart", "refused before anything is computed")
@pytest.mark.parametrize(("classes", "which"), [(1, "all"), (1, "base"), (2, "base"), (3, "base")])
def test_a_dataset_of_too_few_classes_is_refused(tmp_path, capsys, classes, which):
    root = photos(tmp_path / "photos", ("cat", "dog", "owl")[:classes])
    new = "[new]" if which == "base" else "[]"
    changes = [f"dataset=folder:{root}", f"classes={which}", f"near={new}"]
    words = [word for change in changes for word in ("--set", change)]
    run(tmp_path, *words, "--set", "methods=[zero-shot, tip-adapter]", "--home", str(tmp_path / "home"), code=2)
    said = capsys.readouterr().err
    assert f"must have at least {4 if which == 'base' else 2} classes" in said and f"got {classes}" in said, said
    assert not [*(tmp_path / "home").rglob("*.safetensors")], "nothing must have been computed"
