"""Anomaly detection: datasets with masks, maps from a recipe to the page, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import Task, adapt, cli, load_classifier, method, read_results
from adaptkit.features.datasets import targets_of
from adaptkit.methods.evaluation.maps import image_scores, map_of
from adaptkit.methods.states import size_of
from adaptkit.runs.loading import pick_dataset
from adaptkit.testing.kinds import toy_of
from adaptkit.towers.preprocess import Preprocess


def picture(path, size=(40, 30), hole=None):
    """A grey picture, or a mask with a hole of 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.full((size[1], size[0]), 0 if hole else 100 + len(path.name), dtype=np.uint8)
    if hole:
        sheet[hole] = (hole == np.s_[:10, :20] and 255) or 2
    Image.fromarray(sheet).save(path)


@pytest.fixture
def bottle(tmp_path):
    """MVTec AD's layout, of one object."""
    root = tmp_path / "mvtec" / "bottle"
    for name in ("000.png", "001.png"):
        picture(root / "train" / "good" / name)
    picture(root / "test" / "good" / "000.png")
    picture(root / "test" / "broken ä" / "000.png")
    picture(root / "ground_truth" / "broken ä" / "000_mask.png", hole=np.s_[:10, :20])
    return root


@pytest.fixture
def candle(tmp_path):
    """VisA's layout, of one object and a line of another."""
    root = tmp_path / "visa"
    rows = [("train", "normal", "Normal/0.jpg", ""), ("test", "normal", "Normal/1.jpg", "")]
    rows += [("test", "anomaly", "Anomaly/0.jpg", "candle/Data/Masks/Anomaly/0.png")]
    lines = ["object,split,label,image,mask"]
    for split, label, image, mask in rows:
        picture(root / "candle" / "Data" / "Images" / image)
        lines.append(f"candle,{split},{label},candle/Data/Images/{image},{mask}")
    lines.append("pcb1,train,normal,pcb1/Data/Images/Normal/0.jpg,")
    picture(root / "candle" / "Data" / "Masks" / "Anomaly" / "0.png", hole=np.s_[20:30, :])
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines))
    return root / "candle"


def test_the_field_s_folders_are_read_with_their_masks(bottle, candle):
    for name, top in ((f"mvtec:{bottle}", True), (f"visa:{candle}", False)):
        splits = pick_dataset(name)
        assert splits.kind == "maps" and splits.classnames == (name.rpartition("/")[2],), "an object is the class"
        assert not targets_of(splits.train).any(), "training images are normal"
        masks = targets_of(splits.test)
        assert masks.shape[1:] == (256, 256), "masks are squares"
        assert sorted(masks.flatten(1).any(1).tolist()) == [False, True], "one of two test images is anomalous"
        hole = masks[masks.flatten(1).any(1)][0].bool()
        share = hole[:86, :128] if top else hole[170:]
        assert share.float().mean() > 0.98 and hole.sum() == share.sum(), "holes must stand where they were drawn"
        key, image = splits.test.open(0)
        assert image.size == (40, 40) and key == splits.test.key(0), "pictures are squashed as masks are"


@pytest.mark.parametrize(
    ("scheme", "change", "words"),
    [
        ("mvtec", "..", "must name the folder of one object, with train/good; got .* objects are bottle"),
        ("mvtec", "nothing", "must name the folder of one object"),
        ("visa", "", "must name the folder of one object, with Data/Images"),
        ("mvtec", "mask", "an anomalous image must have a mask; got none of"),
        ("mvtec", "test", "must have images to learn from and to be judged by; got 2 and 0"),
    ],
)
def test_folders_that_are_none_are_refused_in_a_line(scheme, change, words, bottle):
    import shutil

    if change == "mask":
        next((bottle / "ground_truth").rglob("*.png")).unlink()
    elif change == "test":
        shutil.rmtree(bottle / "test")
    place = bottle / change if change in ("..", "nothing") else bottle
    with pytest.raises(ValueError, match=words) as caught:
        pick_dataset(f"{scheme}:{place}")
    assert "\n" not in str(caught.value), "one line"


def test_a_table_that_leads_outside_or_lacks_a_column_is_refused(candle):
    table = candle.parent / "split_csv" / "1cls.csv"
    text = table.read_text()
    table.write_text(text.replace("candle/Data/Images/Normal/1.jpg", "../../x.jpg"))
    with pytest.raises(ValueError, match="must name files beside it"):
        pick_dataset(f"visa:{candle}")
    table.write_text(text.replace("label", "told"))
    with pytest.raises(ValueError, match="must say object, split, label, image and mask"):
        pick_dataset(f"visa:{candle}")


@pytest.mark.parametrize("name", ["fabric", "wood", "tile", "button"])
def test_defects_are_drawn_where_masks_say_and_the_same_each_time(name):
    one, again, other = (pick_dataset(f"defects:{place}") for place in (name, name, f"{name}/3"))
    assert one.test.key(3) == again.test.key(3) != other.test.key(3), "a number draws others"
    assert np.array_equal(one.test.image(3), again.test.image(3)), "images are functions of their keys"
    masks = targets_of(one.test)
    assert masks.flatten(1).any(1).tolist() == [False, True] * 40, "every second image has a defect"
    assert float(masks[1::2].float().mean()) < 0.2, "defects are small"
    whole, mask = one.test.drawn(1)
    assert whole.shape == (96, 96, 3) and np.array_equal(mask, masks[1].bool().numpy()), "the mask is what is drawn"
    with pytest.raises(ValueError, match="defects: must be one of fabric, wood, tile, button; got 'glass'"):
        pick_dataset("defects:glass")
    with pytest.raises(ValueError, match="must be followed by a whole number; got 'x'"):
        pick_dataset("defects:wood/x")


SMALL = {"dataset": "toy-defects", "backbone": "toy:0", "shots": [2], "seeds": [1], "select": "none"}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs ``adaptkit run`` on a recipe."""
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))

    def go(**keys):
        path = tmp_path / "asked.yaml"
        path.write_text(json.dumps({**SMALL, **keys}))
        return cli.main(["run", str(path), "--out", str(tmp_path / "out"), "--quiet"])

    return go


def test_a_recipe_of_maps_is_run_and_shown_by_its_own_metrics(asked, tmp_path, capsys):
    names = ["win-clip", "win-clip-plus", "mu-sc", {"anomaly-clip": {"n": 4, "schedule": {"epochs": 1}}}]
    assert asked(methods=names) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "pixel_auroc" in shown and "image_auroc" in shown, f"the table must be of maps; got {shown}"
    records = {record.method.partition("(")[0]: record for record in read_results(tmp_path / "out")}
    for name in ("win-clip-plus", "mu-sc"):
        assert records[name].metrics["pixel_auroc"] > 0.7, f"holes must be seen; {name} {records[name].metrics}"
    assert len(records) == 4, "each method must have its record"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"methods": ["gda"]},
            "methods must answer maps, .* got 'gda', which answers classification",
        ),
        (
            {"dataset": "toy", "methods": ["win-clip"]},
            "answer classification, .* got 'win-clip', which answers maps",
        ),
        ({"methods": ["mcm"]}, "near or far must name images of other things"),
        ({"methods": ["mu-sc"], "sequence": 2}, "sequence must be left out"),
        ({"methods": ["mu-sc"], "near": ["new"]}, "classes must be 'base'"),
        ({"methods": [{"trans-clip": {"base": "win-clip"}}], "dataset": "toy"}, "must answer classification"),
    ],
    ids=str,
)
def test_maps_and_classes_are_not_mixed(keys, words, asked, tmp_path, capsys):
    import re

    assert asked(**keys) != 0, "it must be refused"
    said = capsys.readouterr().err
    assert re.search(words, said), f"{words} must be said; got {said}"
    assert not [*(tmp_path / "home").rglob("*.safetensors")], "nothing must be computed before"


def test_an_exported_method_writes_a_map_and_a_score_for_each_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    recipe, model = tmp_path / "asked.yaml", tmp_path / "model"
    recipe.write_text(json.dumps({**SMALL, "methods": ["win-clip-plus"]}))
    assert cli.main(["export", str(recipe), "--method", "win-clip-plus", "--out", str(model), "--quiet"]) == 0
    assert "a map, higher for anomalous pixels" in (model / "README.md").read_text(), "the card must say what it gives"
    test = pick_dataset("toy-defects").test
    for i in (0, 2):
        test.image(i).save(tmp_path / f"{i} ä.png")
    pictures = [str(tmp_path / f"{i} ä.png") for i in (0, 2)]
    capsys.readouterr()
    assert cli.main(["predict", str(model), *pictures, "--maps", str(tmp_path / "maps")]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "path,score" and len(rows) == 2, "a score for each"
    files = sorted((tmp_path / "maps").iterdir())
    assert [file.name for file in files] == ["00001-0 ä.png", "00002-2 ä.png"], "and a map"
    answers = map_of(load_classifier(model)(pictures))
    low, high = json.loads((model / "config.json").read_text())["map_range"]
    for file, want in zip(files, answers, strict=True):
        shown = torch.from_numpy(np.array(Image.open(file))).float() / 255
        assert (shown - (want - low) / (high - low)).abs().max() < 0.01, "grey from the least to the largest number"
    assert cli.main(["predict", str(model), *pictures, "--top", "2"]) == 2, "one score has no second"
    assert "--top must be left out where a picture is answered by one score; got 2" in capsys.readouterr().err, (
        "so it says"
    )


def test_who_learns_says_what_it_lacks():
    task, _ = toy_of("toy-defects")
    anomalous = task.support.targets.flatten(1).any(1)
    for name, rows, words in (
        ("win-clip-plus", anomalous, "support must have a normal image; got 8 anomalous ones"),
        ("anomaly-clip", ~anomalous, "support must have anomalous images with their masks; got none"),
    ):
        from dataclasses import replace

        with pytest.raises(ValueError, match=words):
            adapt(method(name), replace(task, support=task.support[rows]))


def test_a_tower_that_crops_pictures_is_refused():
    task = Task.from_arrays((torch.eye(3), range(3)), torch.eye(3))
    task.backbone.preprocess = Preprocess(size=224, edge=256, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValueError, match="must see whole pictures to answer with maps; got one that crops 224 of 256"):
        size_of(task)


def test_few_images_are_scored_by_each_other_and_one_alone_by_nothing():
    task, queries = toy_of("toy-defects")
    made = adapt(method("mu-sc"), task)
    from adaptkit import predict

    for count in (1, 2, 3):
        answers = predict(made, queries[:count])
        assert answers.isfinite().all() and len(answers) == count, f"{count} images must be answered in numbers"
    twice = predict(made, queries[torch.tensor([1, 1, 0])])
    assert torch.equal(map_of(twice)[0], map_of(twice)[1]), "images that are one must be answered alike"
    assert float(image_scores(twice).max()) <= 1.0, "scores are between 0 and 1"
