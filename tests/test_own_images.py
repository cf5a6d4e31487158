"""`folder:`, `csv:` and `hf-dataset:`: what is read, and what every mistake is answered with."""

import os
import socket
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from adaptkit_plugins.datasets import hub, own_images
from PIL import Image

from adaptkit.io.files import digest
from adaptkit.towers.preprocess import Preprocess

PREPROCESS = Preprocess(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))


def draw(file, seed=0, mode="RGB", size=(9, 7)):
    """A small image that differs by its seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *str(file.name).encode()]).integers(
        0, 256, (size[1], size[0], 3), dtype=np.uint8
    )
    Image.fromarray(noise).convert(mode).save(file)
    return file


def photos(root, classes=("cat", "dog"), splits=("",), n=10):
    """``root/split/class/*.png``."""
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(n):
                draw(root / split / name / f"{i}.png", 1000 * s + 100 * c + i)
    return root


def table(root, text):
    """A csv file beside ten drawings of cats and dogs."""
    photos(root, n=5)
    file = root / "photos.csv"
    file.write_text(text)
    return file


def listing(splits):
    """Which file has which label in which split."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {
        split: [(part.paths[i].name, splits.classnames[part.labels[i]]) for i in range(len(part))]
        for split, part in parts.items()
        if part is not None
    }


def refused(load, place, *said):
    """The message of the error, which must be short."""
    with pytest.raises(ValueError) as caught:
        load(str(place))
    message = str(caught.value)
    assert message.count("\n") <= 1, f"an error must be one line or two; got {message!r}"
    for words in said:
        assert str(words) in message, f"{words!r} must be said; got {message!r}"
    return message


# folder


def test_classes_are_folders_in_the_order_of_their_names(tmp_path):
    splits = own_images.folder(str(photos(tmp_path, ("snow_leopard", "Cat", "black-bear"), n=4)))
    assert splits.classnames == ("Cat", "black bear", "snow leopard")
    assert splits.name == f"folder:{tmp_path}"
    for rows in listing(splits).values():
        assert {name for _, name in rows} <= set(splits.classnames)
    assert all(
        part.paths[i].parent.name.lower()[0] == "cbs"[c] for part in [splits.train] for i, c in enumerate(part.labels)
    )


@pytest.mark.parametrize(("n", "sizes"), [(10, (5, 2, 3)), (5, (3, 1, 1)), (3, (2, 0, 1)), (2, (1, 0, 1))])
def test_images_that_are_not_split_are_split_class_by_class(tmp_path, n, sizes):
    splits = own_images.folder(str(photos(tmp_path, n=n)))
    for part, size in zip((splits.train, splits.val, splits.test), sizes, strict=True):
        assert (part is None and size == 0) or np.bincount(part.labels).tolist() == [size, size]
    every = [path for part in (splits.train, splits.val, splits.test) if part for path in part.paths]
    assert len(set(every)) == 2 * n, "every image must be in one split"


def test_the_split_depends_on_content_alone(tmp_path):
    def keys(root):
        splits = own_images.folder(str(root))
        return [{part.key(i) for i in range(len(part))} for part in (splits.train, splits.val, splits.test)]

    first = keys(photos(tmp_path / "a"))
    assert keys(tmp_path / "a") == first, "the split must be the same the next time"
    for i, file in enumerate(sorted(photos(tmp_path / "b").rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed-{i}.png"))
    assert keys(tmp_path / "b") == first, "names must not matter"
    by_hand = sorted(digest(file.read_bytes()) for file in (tmp_path / "a" / "cat").iterdir())
    assert set(by_hand[:5]) <= first[0] and set(by_hand[5:7]) <= first[1] and set(by_hand[7:]) <= first[2]


def test_equal_files_are_never_in_two_splits(tmp_path):
    for file in sorted(photos(tmp_path).rglob("*.png")):
        for copy in range(3):
            file.with_name(f"{file.stem}-{copy}.png").write_bytes(file.read_bytes())
    splits = own_images.folder(str(tmp_path))
    keys = [{part.key(i) for i in range(len(part))} for part in (splits.train, splits.val, splits.test)]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert [len(k) for k in keys] == [10, 4, 6]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("train", "validation", "test"), ["train", "val", "test"]),
        (("train", "test"), ["train", "test"]),
        (("train", "valid"), ["train", "test"]),  # as ImageNet has it
    ],
)
def test_folders_of_splits_are_kept(tmp_path, given, read):
    splits = own_images.folder(str(photos(tmp_path, splits=given, n=2)))
    assert list(listing(splits)) == read
    assert {path.parts[-3] for path in splits.test.paths} == {given[-1]}
    assert splits.train.labels == splits.test.labels == [0, 0, 1, 1]


def test_train_alone_is_split(tmp_path):
    splits = own_images.folder(str(photos(tmp_path, splits=("train",))))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [10, 4, 6]


def test_a_class_may_be_called_train(tmp_path):
    assert own_images.folder(str(photos(tmp_path, ("car", "train", "test")))).classnames == ("car", "test", "train")


def test_other_files_are_no_images(tmp_path):
    photos(tmp_path, n=4)
    for name in ("cat/notes.txt", "cat/._0.png", ".git/x.png", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    splits = own_images.folder(str(tmp_path))
    assert sum(map(len, (splits.train, splits.test))) == 8 and splits.classnames == ("cat", "dog")


def test_a_key_changes_with_the_content_and_only_then(tmp_path):
    splits = own_images.folder(str(photos(tmp_path, splits=("train", "test"), n=2)))
    before = [splits.train.key(i) for i in range(4)]
    assert before[0] == digest(splits.train.paths[0].read_bytes())
    os.utime(splits.train.paths[1])
    draw(splits.train.paths[0], 77)
    after = [splits.train.key(i) for i in range(4)]
    assert after[0] != before[0] and after[1:] == before[1:]
    again = own_images.folder(str(tmp_path))
    assert [again.train.key(i) for i in range(4)] == after


def test_digests_are_remembered_in_the_home(tmp_path):
    root = photos(tmp_path / "photos", splits=("train", "test"), n=2)
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))
    time.sleep(2.1)  # what has just been written is not trusted
    part = own_images.folder(str(root)).train
    keys = [part.key(i) for i in range(4)]
    assert str(part.paths[0]) in (tmp_path / "home" / "digests").read_text()
    assert [own_images.folder(str(root)).train.key(i) for i in range(4)] == keys


@pytest.mark.parametrize(
    ("file", "mode"),
    [
        ("p.png", "P"),
        ("a.png", "RGBA"),
        ("la.png", "LA"),
        ("l.jpg", "L"),
        ("c.jpg", "CMYK"),
        ("1.bmp", "1"),
        ("p.GIF", "P"),
        ("w.webp", "RGB"),
        ("t.tif", "RGB"),
        ("t.tiff", "CMYK"),
        ("j.JPEG", "RGB"),
    ],
)
def test_every_kind_of_image_is_read(tmp_path, file, mode):
    photos(tmp_path, splits=("train", "test"), n=1)
    draw(tmp_path / "train" / "cat" / file, mode=mode)
    part = own_images.folder(str(tmp_path)).train
    image = part.image([path.name for path in part.paths].index(file))
    assert image.size == (9, 7) and PREPROCESS(image).shape == (3, 8, 8)


def test_an_animation_is_its_first_frame(tmp_path):
    photos(tmp_path, splits=("train", "test"), n=1)
    frames = [Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)]
    frames[0].save(tmp_path / "train" / "cat" / "a.gif", save_all=True, append_images=frames[1:])
    part = own_images.folder(str(tmp_path)).train
    assert part.image([path.name for path in part.paths].index("a.gif")).convert("L").getpixel((0, 0)) == 10


def test_orientation_is_left_alone(tmp_path):
    photos(tmp_path, splits=("train", "test"), n=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    Image.new("RGB", (9, 7)).save(tmp_path / "train" / "cat" / "0.jpg", exif=exif)
    assert own_images.folder(str(tmp_path)).train.image(0).size == (9, 7)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "16 bits", "float"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, damage):
    file = photos(tmp_path, splits=("train", "test"), n=1) / "train" / "cat" / "0.png"
    whole = draw(file, size=(90, 70)).read_bytes()
    file.write_bytes({"empty": b"", "cut": whole[:2000], "text": b"not an image"}.get(damage, whole))
    if damage == "16 bits":
        Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(file)
    if damage == "float":
        file.unlink()
        file = file.with_suffix(".tiff")
        Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(file)
    refused(own_images.folder, tmp_path, file, "'cat'", "none of 1")


@pytest.mark.parametrize("ignored", [True, False])
def test_an_image_too_large_is_refused_and_named(tmp_path, monkeypatch, ignored):
    file = photos(tmp_path, splits=("train", "test"), n=1) / "train" / "cat" / "0.png"
    part = own_images.folder(str(tmp_path)).train
    for pixels in (40, 20):  # Pillow warns, Pillow raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if ignored else "error")
            refused(lambda _: part.image(0), "", file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert part.image(0).size == (9, 7)


def test_wrong_folders_are_named(tmp_path):
    photos(tmp_path / "photos", n=2)
    refused(
        own_images.folder, tmp_path / "fotos", "folder:", tmp_path / "fotos", f"did you mean '{tmp_path / 'photos'}'"
    )
    refused(own_images.folder, tmp_path / "photos" / "cat" / "0.png", "folder")
    refused(own_images.folder, tmp_path / "photos" / "cat", "one folder per class")
    refused(own_images.folder, "", "folder")
    (tmp_path / "photos" / "owl").mkdir()
    refused(own_images.folder, tmp_path / "photos", tmp_path / "photos" / "owl", ".png")


def test_wrong_folders_of_splits_are_named(tmp_path):
    photos(tmp_path, splits=("train", "tset"), n=2)
    refused(own_images.folder, tmp_path, "train, val", "'tset'", "did you mean 'test'")
    (tmp_path / "tset").rename(tmp_path / "test")
    (tmp_path / "val").mkdir()
    refused(own_images.folder, tmp_path, tmp_path / "val", "one folder per class")


def test_classes_that_differ_between_splits_are_named(tmp_path):
    photos(tmp_path, splits=("train", "val", "test"), n=2)
    draw(tmp_path / "test" / "owl" / "0.png")
    draw(tmp_path / "train" / "hen" / "0.png")
    refused(own_images.folder, tmp_path, "'hen', 'owl'")


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    draw(photos(tmp_path) / "owl" / "0.png")
    refused(own_images.folder, tmp_path, "'owl'", "two")


# csv

GOOD = "path,label,split\ncat/0.png,a cat,train\ncat/1.png,a cat,test\ndog/0.png,dog,train\ndog/1.png,dog,test\n"


def test_a_csv_file_names_images_labels_and_splits(tmp_path):
    splits = own_images.csv_file(str(table(tmp_path, GOOD + "dog/2.png,dog,valid\n")))
    assert splits.classnames == ("a cat", "dog") and splits.name == f"csv:{tmp_path / 'photos.csv'}"
    assert listing(splits) == {
        "train": [("0.png", "a cat"), ("0.png", "dog")],
        "val": [("2.png", "dog")],
        "test": [("1.png", "a cat"), ("1.png", "dog")],
    }
    assert splits.train.image(0).size == (9, 7)


def test_a_csv_file_without_splits_is_split_like_a_folder(tmp_path):
    rows = [f"{c}/{i}.png, {c}" for c in ("dog", "cat") for i in range(5)]
    file = table(tmp_path, "\n".join(["\ufeffpath,label", *rows]))  # with the mark that spreadsheets write
    ours, theirs = own_images.csv_file(str(file)), own_images.folder(str(tmp_path))
    assert {k: sorted(v) for k, v in listing(ours).items()} == {k: sorted(v) for k, v in listing(theirs).items()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got no label"),
        ("path,label\n", "none below the header"),
        ("path;label\ncat/0.png;cat\n", "path, label, split"),
        ("path,lable\ncat/0.png,cat\n", "did you mean 'label'"),
        ("path,split\ncat/0.png,train\n", "got no label"),
        ("path,label,fold\ncat/0.png,cat,1\n", "'fold'"),
        (GOOD + "cat/2.png,a cat,tets\n", "did you mean 'test'"),
        (GOOD + "cat/2.png,a cat,\n", "line 6"),
        (GOOD + "cat/2.png,a cat\n", "line 6"),
        (GOOD + "cat/2.png,a cat,train,x\n", "line 6"),
        (GOOD + ",a cat,train\n", "line 6"),
        (GOOD + "cat/9.png,a cat,train\n", "did you mean"),
        (GOOD + "cat/0.png,a cat,test\n", "'cat/0.png' again"),
        (GOOD + "cat/../dog/0.png,a cat,test\n", "again"),
        (GOOD + "cat/2.png,owl,train\n", "'owl'"),
        (GOOD + "/etc/passwd,a cat,train\n", "must stay inside"),
        (GOOD + "../x.png,a cat,train\n", "must stay inside"),
        (GOOD + "cat,a cat,train\n", "file"),
        (GOOD.replace("test", "val").replace("train", "test"), "none for train"),
        (GOOD.replace("test", "train") + 'cat/2.png,"a cat,train\n', "must be a csv file"),
    ],
)
def test_every_mistake_in_a_csv_file_is_named(tmp_path, text, said):
    file = table(tmp_path, text)
    message = refused(own_images.csv_file, file, said)
    assert "photos.csv" in message or "none for train" in message


def test_links_out_of_the_csv_files_folder_are_refused(tmp_path):
    file = table(tmp_path / "data", GOOD + "cat/9.png,a cat,train\n")
    (tmp_path / "data" / "cat" / "9.png").symlink_to(draw(tmp_path / "secret.png"))
    refused(own_images.csv_file, file, "line 6", "must stay inside")


def test_wrong_csv_files_are_named(tmp_path):
    file = table(tmp_path, GOOD)
    refused(own_images.csv_file, tmp_path / "photo.csv", "csv:", f"did you mean '{file}'")
    refused(own_images.csv_file, tmp_path, "file")
    file.write_bytes(GOOD.replace("a cat", "café").encode("latin-1"))
    refused(own_images.csv_file, file, "UTF-8")


# hf-dataset


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    refused(hub.hub, "uoft-cs/cifar100", "pip install 'adaptkit-vlm[hub]'")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(tmp_path / "hf"))
    datasets.disable_progress_bars()
    return datasets


def parquet(datasets, root, labels=("label",), **hidden):
    """A folder with one parquet file per split."""
    for split, n in {"train": 6, "validation": 4, "test": 2, "extra": 1}.items():
        files = [str(draw(root / "png" / f"{split}-{i}.png", i)) for i in range(n)]
        columns = {"image": files, **{label: [hidden.get(split, i % 2) for i in range(n)] for label in labels}}
        kinds = {label: datasets.ClassLabel(names=["a cat", "dog"]) for label in labels}
        features = datasets.Features({"image": datasets.Image(), **kinds})
        made = datasets.Dataset.from_dict(columns, features=features)
        made.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return root / "data"


def test_a_folder_of_parquet_files_is_read(datasets, tmp_path):
    splits = hub.hub(str(parquet(datasets, tmp_path)))
    assert splits.classnames == ("a cat", "dog")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [6, 4, 2]
    assert splits.test.labels == [0, 1] and splits.test.image(1).size == (9, 7)
    assert splits.train.key(2) == digest((tmp_path / "png" / "train-2.png").read_bytes())


def test_a_folder_of_images_is_read_by_datasets_too(datasets, tmp_path):
    root = photos(tmp_path / "photos", splits=("train", "test"), n=2)
    theirs, ours = hub.hub(str(root)), own_images.folder(str(root))
    assert theirs.classnames == ours.classnames and theirs.val is None
    assert sorted(map(theirs.train.key, range(4))) == sorted(map(ours.train.key, range(4)))
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    refused(lambda _: [theirs.train.image(i) for i in range(4)], "", "hf-dataset:", "row")


def test_a_test_split_without_labels_gives_way_to_validation(datasets, tmp_path):
    splits = hub.hub(str(parquet(datasets, tmp_path, test=-1)))
    assert len(splits.test) == 4 and splits.val is None
    refused(hub.hub, parquet(datasets, tmp_path / "b", test=-1, validation=-1), "train, and test or validation")


def test_one_of_several_label_columns_is_picked(datasets, tmp_path):
    root = parquet(datasets, tmp_path, labels=("coarse", "fine"))
    refused(hub.hub, root, "coarse, fine", f"hf-dataset:{root}#coarse")
    refused(hub.hub, f"{root}#fin", "coarse, fine", "did you mean 'fine'")
    assert hub.hub(f"{root}#fine").classnames == ("a cat", "dog")
    refused(hub.hub, parquet(datasets, tmp_path / "b", labels=()), "ClassLabel", "none in image")


def test_wrong_places_of_datasets_are_named(datasets, tmp_path):
    (tmp_path / "data").mkdir()
    refused(hub.hub, tmp_path / "dota", "folder", f"did you mean '{tmp_path / 'data'}'")
    refused(hub.hub, tmp_path / "data", tmp_path / "data", "loads")
    refused(hub.hub, "", "folder")


@pytest.mark.parametrize("answer", ["switched off", "refused", "silent", "lost in name resolution"])
def test_a_dataset_that_is_missing_offline_is_said_within_five_seconds(datasets, monkeypatch, answer):
    from huggingface_hub import constants

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answer == "silent":
            server.listen()
        if answer == "lost in name resolution":
            monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(4) or [])
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", answer == "switched off")
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.perf_counter()
        said = (
            "hf download --repo-type dataset tests/none --local-dir none",
            "hf-dataset:none",
            datasets.config.HF_DATASETS_CACHE,
        )
        refused(hub.hub, "tests/none", *said)
        assert time.perf_counter() - began < 5
    assert (answer == "switched off") == datasets.config.HF_HUB_OFFLINE, "the switch must be as it was"


def test_a_dataset_in_the_cache_is_read_without_the_hub(datasets, tmp_path, monkeypatch):
    hub.hub(str(parquet(datasets, tmp_path)))
    (tmp_path / "hf" / "data").rename(tmp_path / "hf" / "tests___data")  # as an id of the hub is kept
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    splits = hub.hub("tests/data")
    assert len(splits.train) == 6 and splits.source == "https://huggingface.co/datasets/tests/data"
