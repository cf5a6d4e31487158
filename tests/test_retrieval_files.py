"""Datasets of retrieval in the files that they are published as, made here."""

import json

import pytest
from PIL import Image

from adaptkit import compare, load, method
from adaptkit.runs.loading import pick_dataset
from adaptkit.testing import CLASSES, ToyImages

SHOWN = ToyImages("on disk", 20)


def draw(path, i):
    path.parent.mkdir(parents=True, exist_ok=True)
    SHOWN.image(i).save(path)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def karpathy(root, file, folder):
    rows = []
    for i, split in enumerate(["train"] * 5 + ["restval"] * 5 + ["val"] * 2 + ["test"] * 8):
        draw(root / (folder or "images") / f"{i}é.png", i)
        said = [{"raw": f" a photo of a {CLASSES[i % 5]}. "}, {"raw": f"a {CLASSES[i % 5]}, {i}."}]
        rows.append(
            {"filename": f"{i}é.png", "split": split, "sentences": said} | ({"filepath": folder} if folder else {})
        )
    write(root / file, {"images": rows})


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [("coco-captions", "dataset_coco.json", "val2014"), ("flickr30k", "dataset_flickr30k.json", "")],
)
def test_karpathy_s_split_is_read(tmp_path, name, file, folder):
    karpathy(tmp_path, file, folder)
    splits = pick_dataset(f"{name}:{tmp_path}")
    assert (len(splits.train), len(splits.test), len(splits.gallery)) == (20, 16, 8), (
        "two texts an image; restval learns"
    )
    assert splits.test.labels[:4] == [0, 0, 1, 1] and splits.classnames[0] == "12é.png", "each finds its own image"
    assert splits.train.open(0)[1]["text"] == "a photo of a cat.", "sentences are as they are, without space around"
    task, test = load(f"{name}:{tmp_path}", backbone="toy:0", shots="all", home=tmp_path / "home")
    found = compare(task, test, [method("zero-shot-retrieval")])[0]
    assert found.metrics["mrr"] > 0.3, f"names must find their patterns; got {found.metrics}"


def test_msr_vtt_is_read_as_folders_of_frames(tmp_path):
    for i in range(8):
        for k in range(1 + i % 3):
            draw(tmp_path / "frames" / f"video{i}" / f"{k:03}.jpg", i)
    said = [{"video_id": f"video{i % 6}", "caption": f"a photo of a {CLASSES[i % 6 % 5]}."} for i in range(12)]
    write(tmp_path / "MSRVTT_data.json", {"videos": [], "sentences": said})
    write(tmp_path / "MSRVTT_train.9k.csv", "video_id\n" + "".join(f"video{i}\n" for i in range(5)))
    rows = "".join(f"ret{i},msr{i},video{i},a photo of a {CLASSES[i % 5]}.\n" for i in (5, 6, 7))
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\n" + rows)
    splits = pick_dataset(f"msrvtt:{tmp_path}")
    assert (len(splits.train), len(splits.test), len(splits.gallery)) == (10, 3, 3), "texts of the videos of each list"
    task, test = load(f"msrvtt:{tmp_path}", backbone="toy:0", shots="all", home=tmp_path / "home")
    found = compare(task, test, [method("clip4clip", head="mean", frames_read=2)])[0]
    assert found.metrics["mrr"] > 0.6, f"patterns must be told apart; got {found.metrics}"
    (tmp_path / "MSRVTT_train.9k.csv").unlink()
    with pytest.raises(ValueError, match=r"msrvtt must have MSRVTT_train\.9k\.csv in its folder"):
        pick_dataset(f"msrvtt:{tmp_path}")


def test_cirr_is_read_with_its_validation_queries_for_a_test(tmp_path):
    for split, start in (("train", 0), ("val", 10)):
        for i in range(start, start + 5):
            draw(tmp_path / "dev" / f"{split}-{i}.png", i)
        files = {f"{split}-{i}": f"./dev/{split}-{i}.png" for i in range(start, start + 5)}
        rows = [
            {"reference": f"{split}-{start + i}", "target_hard": f"{split}-{start + (i + 1) % 5}"}
            | {"caption": f"a photo of a {CLASSES[(i + 1) % 5]}."}
            for i in range(5)
        ]
        write(tmp_path / "cirr" / "image_splits" / f"split.rc2.{split}.json", files)
        write(tmp_path / "cirr" / "captions" / f"cap.rc2.{split}.json", rows)
    splits = pick_dataset(f"cirr:{tmp_path}")
    assert (len(splits.train), len(splits.test), len(splits.gallery)) == (5, 5, 5), "queries and images of each split"
    task, test = load(f"cirr:{tmp_path}", backbone="toy:0", shots="all", home=tmp_path / "home")
    found = compare(task, test, [method("composed-sum", share=1.0)])[0]
    assert found.metrics["mrr"] > 0.5, f"of chance it would be 0.46; got {found.metrics}"


@pytest.mark.parametrize("name", ["coco-captions", "flickr30k", "msrvtt", "cirr"])
def test_a_folder_that_lacks_the_file_is_named(name, tmp_path):
    for asked in (name, f"{name}:{tmp_path}"):
        with pytest.raises(ValueError, match=f"{name} must be written {name}:FOLDER, a folder with "):
            pick_dataset(asked)


def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    rows = [{"filename": "../secret.png", "split": split, "sentences": [{"raw": "x"}]} for split in ("train", "test")]
    write(tmp_path / "data" / "dataset_coco.json", {"images": rows})
    with pytest.raises(ValueError, match="must have a path inside the folder"):
        pick_dataset(f"coco-captions:{tmp_path / 'data'}")
