"""The datasets of the field, from tiny folders made here in the layouts that people have."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from adaptkit.features.samplers import sample
from adaptkit.runs import plugins
from adaptkit.runs.survey import check_dataset

IDS = {"n01440764": "tench", "n03773504": "missile", "n04008634": "missile", "n04355933": "sunglasses"}
CLASSNAMES = "".join(f"{folder} {name}\n" for folder, name in IDS.items())


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """``$ADAPTKIT_DATA``, empty, and a home of the test's own."""
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def read(name):
    scheme, _, place = name.partition(":")
    return plugins.pick("datasets", scheme)(place)


def entry(name):
    return plugins.table("datasets")[name].entry


def write(root, files):
    """Text files, by path; what is no text is an image's path."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def images(root, paths):
    write(root, {path: path for path in paths})


def textures(root, folder="dtd/images"):
    """Two textures in the layout of DTD: three, two and two images of each."""
    split = {
        part: [
            [f"{name}/{name}_{part}{i}.jpg", c, name]
            for c, name in enumerate(("banded", "polka-dotted"))
            for i in range(n)
        ]
        for part, n in (("train", 3), ("val", 2), ("test", 2))
    }
    write(root, {"dtd/split_zhou_DescribableTextures.json": json.dumps(split)})
    images(root / folder, [path for part in split.values() for path, _, _ in part])
    return split


def imagenet(root):
    """Four classes of ImageNet, two of one name, with three training images and a test image each."""
    write(root, {"imagenet/classnames.txt": CLASSNAMES})
    images(root / "imagenet/images/train", [f"{c}/{c}_{i}.JPEG" for c in IDS for i in (2, 10, 1)])
    images(root / "imagenet/images/val", [f"{c}/ILSVRC2012_val_{i}.JPEG" for i, c in enumerate(IDS)])
    write(root, {"imagenet/images/train/n01440764/notes.txt": "no image"})


def variants(root):
    """ImageNet's four variants, with class lists in some of the folders."""
    images(
        root / "imagenetv2/imagenetv2-matched-frequency-format-val", [f"{c}/{i}.jpeg" for c in range(4) for i in (0, 1)]
    )
    images(root / "imagenet-sketch/images", [f"{c}/sketch_0.JPEG" for c in IDS])
    images(root / "imagenet-adversarial/imagenet-a", ["README.txt", "n04008634/0_a.jpg", "n01440764/0_b.jpg"])
    images(root / "imagenet-rendition/imagenet-r", ["README.txt", "n03773504/art_0.jpg", "n04355933/toy_0.jpg"])
    write(root, {"imagenet-rendition/classnames.txt": CLASSNAMES})


def names(source):
    return [path.rpartition("/")[2] for path in source.paths]


def test_a_split_file_says_paths_labels_and_names(data):
    split = textures(data)
    splits = read("dtd")
    assert splits.name == "dtd" and splits.classnames == ("banded", "polka-dotted")
    assert splits.templates == ("{} texture.",), "the template of the papers"
    for part in ("train", "val", "test"):
        source = getattr(splits, part)
        assert source.paths == [str(data / "dtd/images" / path) for path, _, _ in split[part]], "in the file's order"
        assert list(source.labels) == [label for _, label, _ in split[part]]


def test_an_image_is_keyed_by_its_bytes_and_decoded(data):
    textures(data)
    path = data / "dtd/images/banded/banded_train0.jpg"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    train = read("dtd").train
    assert train.image(0).size == (6, 4)
    assert train.key(0) == hashlib.sha256(path.read_bytes()).hexdigest(), "a changed file is another image"
    with pytest.raises(ValueError, match=r"an image must be readable; got .*banded_train1.jpg"):
        train.image(1)
    path.unlink()
    with pytest.raises(ValueError, match=r"images of dtd train must all be there; got no .*banded_train0.jpg"):
        train.key(0)


@pytest.mark.parametrize("place", ["data/dtd", "data"])
def test_a_place_is_the_dataset_or_the_folder_it_lies_in(data, place, monkeypatch):
    textures(data)
    monkeypatch.delenv("ADAPTKIT_DATA")
    assert len(read(f"dtd:{data.parent / place}").test) == 4


def test_folders_may_have_the_names_of_other_code_bases(data):
    textures(data)
    (data / "dtd").rename(data / "DTD")
    assert len(read("dtd").train) == 6, "CLIP-LoRA calls it DTD"


def test_aircraft_are_labelled_by_the_lines_of_variants(data):
    lists = {"train": "1 707-320\n2 F/A-18\n", "val": "3 A300B4\n", "test": "4 F/A-18\n5 A300B4\n"}
    write(data / "fgvc_aircraft", {"variants.txt": "707-320\nA300B4\nF/A-18\n"})
    write(data / "fgvc_aircraft", {f"images_variant_{part}.txt": text for part, text in lists.items()})
    images(data / "fgvc_aircraft/images", [f"{i}.jpg" for i in range(1, 6)])
    splits = read("fgvc_aircraft")
    assert splits.classnames == ("707-320", "A300B4", "F/A-18")
    found = {part: list(zip(names(s), s.labels, strict=True)) for part in lists if (s := getattr(splits, part))}
    assert found == {"train": [("1.jpg", 0), ("2.jpg", 2)], "val": [("3.jpg", 1)], "test": [("4.jpg", 2), ("5.jpg", 1)]}
    write(data / "fgvc_aircraft", {"images_variant_val.txt": "3 A300\n"})
    with pytest.raises(ValueError, match=r"must have only classes of variants.txt; got 'A300'"):
        read("fgvc_aircraft")


def test_imagenet_keeps_two_classes_of_one_name_apart(data):
    imagenet(data)
    splits = read("imagenet")
    assert splits.classnames == ("tench", "missile", "missile", "sunglasses")
    assert list(splits.train.labels) == [c for c in range(4) for _ in range(3)]
    assert names(splits.train)[:3] == ["n01440764_1.JPEG", "n01440764_10.JPEG", "n01440764_2.JPEG"], "sorted by name"
    assert splits.val is None and list(splits.test.labels) == [0, 1, 2, 3], "its validation images are the test images"
    assert splits.domains == {}, "no variant lies beside it"


def test_variants_are_domains_of_imagenet_labelled_by_wordnet_id(data):
    imagenet(data)
    variants(data)
    domains = read("imagenet").domains
    assert {name: (list(s.labels), s.classes) for name, s in domains.items()} == {
        "imagenet-v2": ([0, 0, 1, 1, 2, 2, 3, 3], None),
        "imagenet-sketch": ([0, 1, 2, 3], None),
        "imagenet-a": ([0, 2], (0, 2)),
        "imagenet-r": ([1, 3], (1, 3)),
    }, "the second missile must not become the first"


def test_variants_by_themselves_have_the_classes_they_have(data):
    imagenet(data)
    variants(data)
    a, r = read("imagenet-a"), read("imagenet-r")
    assert (a.classnames, list(a.test.labels)) == (("tench", "missile"), [0, 1]), "names from imagenet's list"
    assert (r.classnames, list(r.test.labels)) == (("missile", "sunglasses"), [0, 1])
    assert len(a.train) == 0 and a.val is None, "for tests only"
    assert sample("coop", a.train.labels, None, 4, 1) == ([], None), "nothing to draw from, and no error"


def test_v2_folders_are_numbers_not_text(data):
    write(data / "imagenetv2", {"classnames.txt": "".join(f"n{i:08d} class {i}\n" for i in range(12))})
    images(data / "imagenetv2/imagenetv2-matched-frequency-format-val", [f"{c}/{c}.jpeg" for c in range(12)])
    assert names(read("imagenet-v2").test) == [f"{c}.jpeg" for c in range(12)], "2 comes before 10"


def test_a_folder_that_is_no_class_of_imagenet_is_named(data):
    imagenet(data)
    images(data / "imagenet-adversarial/imagenet-a", ["n99999999/0.jpg"])
    with pytest.raises(
        ValueError, match=r"'imagenet-a' must have folders named by ids of classnames.txt; got 'n99999999'"
    ):
        read("imagenet-a")


def long_tails(root, name, lists):
    write(root, {f"{name}_{part}.txt": text for part, text in zip(("train", "val", "test"), lists, strict=True)})
    images(root / "images", [line.rpartition(" ")[0] for text in lists for line in text.splitlines()])


def test_imagenet_lt_takes_names_by_wordnet_id(data):
    imagenet(data)
    train = "train/n04008634/a.JPEG 1\ntrain/n03773504/b.JPEG 0\ntrain/n04008634/c.JPEG 1\n"
    lists = train, "train/n04008634/d.JPEG 1\n", "val/ILSVRC2012_val_1.JPEG 0\n"
    long_tails(data / "imagenet-lt", "ImageNet_LT", lists)
    splits = read("imagenet-lt")
    assert splits.classnames == ("missile", "missile")
    assert [list(s.labels) for s in (splits.train, splits.val, splits.test)] == [[1, 0, 1], [1], [0]]
    assert splits.train.paths[0] == str(data / "imagenet-lt/images/train/n04008634/a.JPEG")


def test_imagenet_lt_may_lie_beside_imagenet(data):
    imagenet(data)
    one = "train/n03773504/n03773504_1.JPEG 0\n"
    write(data / "imagenet-lt", {f"ImageNet_LT_{part}.txt": one for part in ("train", "val", "test")})
    assert read("imagenet-lt").train.key(0), "the image is imagenet's own"


@pytest.mark.parametrize(
    ("train", "classnames"),
    [
        ("train/airfield/1.jpg 0\ntrain/arena-hockey/2.jpg 1\n", ("airfield", "arena-hockey")),
        ("data_256/a/airfield/1.jpg 0\ndata_256/a/arena/hockey/2.jpg 1\n", ("airfield", "arena-hockey")),
    ],
)
def test_places_lt_is_named_by_its_folders(data, train, classnames):
    long_tails(data / "places-lt", "Places_LT", (train, train, "val_256/Places365_val_1.jpg 1\n"))
    splits = read("places-lt")
    assert splits.classnames == classnames and list(splits.test.labels) == [1]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("train/airfield/1.jpg 0\ntrain/arena/2.jpg 2\n", "labels from 0 on in its lists"),
        ("train/airfield/1.jpg 0\ntrain/arena/2.jpg 0\n", "each with one folder"),
        ("train/airfield/1.jpg\n", "two values on each line of Places_LT_train.txt; got 'train/airfield/1.jpg'"),
        ("train/airfield/1.jpg x\n", "labels behind the paths in Places_LT_train.txt; got 'x'"),
        ("../../etc/passwd 0\n", "must have a path inside the folder of images; got '../../etc/passwd'"),
    ],
)
def test_a_wrong_list_is_one_line(data, train, message):
    write(data / "places-lt", {f"Places_LT_{part}.txt": train for part in ("train", "val", "test")})
    with pytest.raises(ValueError, match=message) as caught:
        read("places-lt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.jpg", "banded/../../outside.jpg"])
def test_paths_that_lead_out_of_the_dataset_are_refused(data, path):
    split = textures(data)
    split["test"][0][0] = path
    write(data, {"dtd/split_zhou_DescribableTextures.json": json.dumps(split), "dtd/outside.jpg": ""})
    with pytest.raises(ValueError, match="item 0 of test must have a path inside the folder of images") as caught:
        read("dtd")
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize("change", [["banded/x.jpg", 5, "dotted"], ["banded/x.jpg", 0, "dotted"]])
def test_labels_count_from_zero_and_have_one_name_each(data, change):
    split = textures(data)
    split["train"].append(change)
    write(data, {"dtd/split_zhou_DescribableTextures.json": json.dumps(split)})
    with pytest.raises(ValueError, match="must have labels from 0 on in its split file, each with one class name"):
        read("dtd")


def test_missing_data_is_one_line_that_names_the_folder_and_the_command(data, monkeypatch):
    cases = {"dtd": f"must lie in '{data / 'dtd'}'; got no such folder; see adaptkit data check dtd"}
    (data / "eurosat").mkdir()
    cases["eurosat"] = (
        f"must lie in '{data / 'eurosat'}'; got no split_zhou_EuroSAT.json there; see adaptkit data check"
    )
    images(data / "oxford_pets/images", ["a.jpg"])
    cases["oxford_pets"] = f"must have split_zhou_OxfordPets.json in '{data / 'oxford_pets'}'; got none"
    textures(data, folder="elsewhere")
    cases["dtd:" + str(data)] = f"must have its images in '{data / 'dtd/images'}'; got no banded/banded_train0.jpg"
    del cases["dtd"]
    cases["ucf101:" + str(data / "none")] = f"must lie in '{data / 'none'}'; got no such folder"
    for name, message in cases.items():
        with pytest.raises(ValueError) as caught:
            read(name)
        assert message in str(caught.value), name
        assert "\n" not in str(caught.value), "one line"
    monkeypatch.delenv("ADAPTKIT_DATA")
    with pytest.raises(
        ValueError, match=r"must lie in \$ADAPTKIT_DATA/dtd, or be written dtd:PATH; got no ADAPTKIT_DATA"
    ):
        read("dtd")


def test_a_class_without_a_folder_is_named(data):
    imagenet(data)
    for path in (data / "imagenet/images/val/n04355933").iterdir():
        path.unlink()
    (data / "imagenet/images/val/n04355933").rmdir()
    with pytest.raises(ValueError, match="must have a folder val/n04355933 in"):
        read("imagenet")


def test_check_is_content_with_what_is_as_it_should_be(data, monkeypatch):
    textures(data)
    file = data / "dtd/split_zhou_DescribableTextures.json"
    monkeypatch.setitem(entry("dtd"), "classes", 2)
    monkeypatch.setitem(entry("dtd"), "counts", {"train": 6, "val": 4, "test": None})
    monkeypatch.setitem(entry("dtd"), "digests", {file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"})
    lines, fine = check_dataset("dtd")
    assert fine, lines
    assert lines == [
        "dataset dtd",
        f"present    folder {data / 'dtd'}",
        f"present    {file}",
        "present    2 classes",
        "present    6 train images",
        "present    4 val images",
        "present    4 test images, where no number is known",
    ]


def test_check_names_what_differs_and_what_is_missing(data):
    textures(data)
    (data / "dtd/images/banded/banded_val1.jpg").unlink()
    lines, fine = check_dataset(f"dtd:{data}")
    text = "\n".join(lines)
    assert not fine
    assert "different  " in text and "must have sha256:f26ebeccd2b5" in text, "another split file"
    assert "different  classes must be 47; got 2" in text and "different  train images must be 2,820; got 6" in text
    assert f"missing    1 of 4 val images, the first {data / 'dtd/images/banded/banded_val1.jpg'}" in text
    assert "to do      Describable Textures: https://www.robots.ox.ac.uk/~vgg/data/dtd/" in text, "where to get it"


def test_check_knows_a_file_by_gits_digest(data, monkeypatch):
    write(data / "food-101", {"split_zhou_Food101.json": json.dumps({"train": [["a/1.jpg", 0, "a"]]})})
    images(data / "food-101/images", ["a/1.jpg"])
    assert any("must have git:39557040" in line for line in check_dataset("food101")[0])
    size = (data / "food-101/split_zhou_Food101.json").stat().st_size
    blob = hashlib.sha1(b"blob %d\0" % size + (data / "food-101/split_zhou_Food101.json").read_bytes()).hexdigest()
    monkeypatch.setitem(entry("food101"), "digests", {"split_zhou_Food101.json": f"git:{blob}"})
    assert f"present    {data / 'food-101/split_zhou_Food101.json'}" in check_dataset("food101")[0]


def test_check_of_what_is_not_there_says_where_to_get_it(data):
    lines, fine = check_dataset("places-lt")
    assert (
        not fine
        and lines[1] == f"missing    dataset 'places-lt' must lie in '{data / 'places-lt'}'; got no such folder"
    )
    assert "OpenLongTailRecognition" in lines[2] and "licence" in lines[2]


def test_check_lists_each_missing_file(data):
    write(data / "fgvc_aircraft", {"variants.txt": "707-320\n"})
    missing = [line for line in check_dataset("fgvc_aircraft")[0] if line.startswith("missing")]
    assert missing[:3] == [
        f"missing    {data / 'fgvc_aircraft' / f'images_variant_{part}.txt'}" for part in ("train", "val", "test")
    ]


def test_check_lists_the_domains_of_imagenet(data):
    imagenet(data)
    variants(data)
    (data / "imagenet-sketch").rename(data / "gone")
    lines = check_dataset("imagenet")[0]
    assert f"present    domain imagenet-a: {data / 'imagenet-adversarial'}" in lines
    assert "optional   domain imagenet-sketch: not there" in lines


def test_check_of_a_recipe_looks_at_its_dataset_and_domains(data, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("dataset: toy\nbackbone: toy:0\nmethods: [zero-shot]\n")
    found = "5 classes", "train: 100 images", "val: 40 images", "test: 60 images", "noisy: 45 images"
    assert check_dataset(str(recipe)) == (["dataset toy", *(f"present    {what}" for what in found)], True)
    recipe.write_text("dataset: toy\nbackbone: toy:0\nmethods: [zero-shot]\ndomains: [line]\n")
    lines, fine = check_dataset(str(recipe))
    assert not fine and lines[-1] == "missing    domain 'line' of the recipe; toy has noisy"
    recipe.write_text("dataset: toy\nbackbone: toy:0\nmethods: [zero-shot]\ndomains: [noisy, digits]\nfar: [dtd]\n")
    lines, fine = check_dataset(str(recipe))
    assert not fine and "dataset digits" in lines and "dataset dtd" in lines, "other datasets must be looked at, too"
    recipe.write_text(f"dataset: folder:{tmp_path / 'none'}\nbackbone: toy:0\nmethods: [zero-shot]\n")
    assert not check_dataset(str(recipe))[1], "a folder that is not there"
    assert check_dataset("toy")[1], "a name will do"


def test_check_of_an_unknown_name_is_one_line():
    with pytest.raises(ValueError, match=r"a dataset or a recipe must be one of .*; got 'dtdd'; did you mean 'dtd'"):
        check_dataset("dtdd")


def test_the_table_is_whole_and_states_nothing_unchecked():
    fields = {name: thing for name, thing in plugins.table("datasets").items() if hasattr(thing, "entry")}
    assert len(fields) == 17, "eleven of CoOp, four variants of ImageNet, two with a long tail"
    for name, field in fields.items():
        entry = field.entry
        assert all(template.count("{}") == 1 for template in entry["templates"]), name
        assert entry["licence"] and entry["where"].count("http"), name
        assert set(entry["digests"]) <= {*entry["files"]}, name
        assert set(entry.get("domains", ())) <= {*fields}, name
    unchecked = (
        "fgvc_aircraft",
        "imagenet-v2",
        "imagenet-sketch",
        "imagenet-a",
        "imagenet-r",
        "imagenet-lt",
        "places-lt",
    )
    for name in unchecked:
        assert set(fields[name].entry["counts"].values()) == {None}, f"nobody has checked the numbers of {name}"
