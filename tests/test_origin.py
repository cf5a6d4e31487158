"""A saved classifier finds its towers again, or says where they lay and how to name them."""

import json
import shutil

import pytest
import torch

from adaptkit import adapt, cli, load_classifier, method, predict, save_classifier
from adaptkit.runs.loading import pick_backbone
from adaptkit.saving.config import sealed
from adaptkit.testing import CLASSES, ToyImages
from tests.checkpoints import edit, edit_tower, make_clip

moved = pytest.mark.fault("a classifier whose backbone lies elsewhere", "says where it lay, and takes another name")


def reseal(folder, **changes):
    """Change keys of a saved classifier's config, as who can write it anew; ``None`` removes one."""
    said = json.loads((folder / "config.json").read_text()) | changes
    said = sealed({key: value for key, value in said.items() if value is not None})
    (folder / "config.json").write_text(json.dumps(said))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The folder in which a classifier was made, with its backbone under a relative name, and ten photos."""
    (tmp_path / "lab" / "photos").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "lab")
    make_clip(tmp_path / "lab" / "checkpoints" / "mine")
    for i in range(4):
        ToyImages("test", 10).image(i).save(tmp_path / "lab" / "photos" / f"{i}.png")
    words = ["--set", "dataset=toy", "--set", "methods=[zero-shot]", "--shots", "1", "--quiet", "--out", "saved"]
    assert cli.main(["export", "toy", "--method", "zero-shot", "--backbone", "hf:checkpoints/mine", *words]) == 0
    return tmp_path / "lab"


def answers(capsys, *words):
    """Exit code, labels and complaints of ``predict``."""
    capsys.readouterr()
    code = cli.main(["predict", *map(str, words)])
    return code, *capsys.readouterr()


@moved
@pytest.mark.parametrize("how", ["elsewhere", "moved", "absolute and moved"])
def test_a_backbone_that_is_not_found_is_said_with_where_it_lay(lab, capsys, monkeypatch, how):
    assert json.loads((lab / "saved" / "config.json").read_text())["backbone"] == "hf:checkpoints/mine"
    code, want, error = answers(capsys, "saved", "photos")
    assert (code, error) == (0, ""), f"where it was made it answers; got {error}"
    place = lab / "checkpoints" / "mine"
    if how == "absolute and moved":
        config = json.loads((lab / "saved" / "config.json").read_text())
        name = f"hf:{place}"
        towers = {name: config["towers"].pop("hf:checkpoints/mine"), **config["towers"]}
        reseal(lab / "saved", backbone=name, towers=towers, lay={name: str(place)})
    monkeypatch.chdir(lab.parent / "elsewhere" if how == "elsewhere" else lab)
    there = place if how == "elsewhere" else place.rename(lab.parent / "new")
    code, out, error = answers(capsys, lab / "saved", lab / "photos")
    assert (code, out) == (2, "") and error.count("\n") == 1, f"one line; got {error}"
    assert str(place) in error and "--backbone" in error, f"it must say where it lay, and what to do; got {error}"
    code, out, error = answers(capsys, lab / "saved", lab / "photos", "--backbone", f"hf:{there}")
    assert (code, error) == (0, ""), f"the same towers under another name must be taken; got {error}"
    labels = [[row.split(",")[1:] for row in text.split()] for text in (out, want)]
    assert labels[0] == labels[1], "and answer alike"


@moved
@pytest.mark.parametrize("what", ["weights", "tokenizer", "preprocessing"])
def test_other_towers_are_refused_under_any_name(lab, capsys, what):
    other = shutil.copytree(lab / "checkpoints" / "mine", lab.parent / "other")
    if what == "weights":
        edit_tower(other, "vision", hidden_act="gelu")
        edit_tower(other, "text", hidden_act="gelu")
    elif what == "tokenizer":
        edit(other / "tokenizer_config.json", do_lower_case=True)
        spec = json.loads((other / "tokenizer.json").read_text())
        (other / "tokenizer.json").write_text(json.dumps({**spec, "normalizer": None}))
        edit(other / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    else:
        edit(other / "preprocessor_config.json", resample=2)
    code, out, error = answers(capsys, "saved", "photos", "--backbone", f"hf:{other}")
    assert (code, out) == (2, "") and "as adapted" in error, f"another backbone must not answer; got {error}"
    assert str(other) in error, f"and must be named; got {error}"


@moved
@pytest.mark.parametrize("name", ["hf:no/such/folder/at/all", "nothing:x", "toy:1"])
def test_a_name_that_leads_nowhere_or_to_others_is_one_line(lab, capsys, name):
    code, out, error = answers(capsys, "saved", "photos", "--backbone", name)
    assert (code, out) == (2, "") and error.startswith("adaptkit: error:"), f"one error; got {error}"


def test_the_same_in_python(lab, monkeypatch):
    monkeypatch.chdir(lab.parent / "elsewhere")
    with pytest.raises(ValueError, match=r"which lay in .*mine' when this was saved.*backbone='hf:FOLDER'"):
        load_classifier(lab / "saved")
    classifier = load_classifier(lab / "saved", backbone=f"hf:{lab / 'checkpoints' / 'mine'}")
    assert classifier.classnames == CLASSES and classifier([lab / "photos" / "0.png"]).shape == (1, len(CLASSES))


def test_a_classifier_of_before_there_was_a_place_is_read(lab, monkeypatch):
    reseal(lab / "saved", lay=None)
    assert load_classifier(lab / "saved").classnames == CLASSES, "it is loaded as before"
    monkeypatch.chdir(lab.parent / "elsewhere")
    with pytest.raises(ValueError, match="--backbone"):
        load_classifier(lab / "saved")


def test_features_take_no_backbone(tmp_path):
    from adaptkit import Task

    x = torch.eye(4).repeat(2, 1)
    task = Task.from_arrays(support=(x, torch.arange(8) % 4), text=torch.eye(4))
    made = adapt(method("gda", alpha=1.0), task)
    save_classifier(tmp_path / "saved", made, task)
    assert torch.equal(load_classifier(tmp_path / "saved")(x), predict(made, x)), "features are answered"
    with pytest.raises(ValueError, match="backbone must be ''"):
        load_classifier(tmp_path / "saved", backbone="toy:0")


def test_a_name_that_leads_to_no_folder_has_no_place(small_toy, tmp_path):
    task, _ = small_toy
    save_classifier(tmp_path / "saved", adapt(method("zero-shot"), task), task, backbone="toy:0")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["lay"] == {}, "a toy lies nowhere"


@pytest.fixture
def small_toy(toy):
    assert pick_backbone("toy:0").fingerprint == toy[0].backbone.fingerprint, "the toy must be the one of the name"
    return toy
