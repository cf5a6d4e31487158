"""What is kept of anomaly maps, and what people see of it: a gallery of the worst and the best."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import adaptkit as ak
from adaptkit.methods.evaluation import small_maps as kept
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.report.heat import heat, heat_picture, mask_picture
from adaptkit.runs.told import Told, hold_rows
from tests.small import Command

SMALL = {"dataset": "toy-defects", "backbone": "toy:0", "shots": [2], "seeds": [1], "select": "none"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run over patterns with holes, its folder and its home."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("maps")
    return ak.run({**SMALL, "methods": ["win-clip-plus", "mu-sc"]}, home=home, out=out), out, home


@pytest.fixture
def command(ran, capsys):
    return Command(ran[2], capsys)


def drawn(count=6, height=40, width=96, seed=0):
    """Maps and masks, every second of which has an anomalous corner."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), int)
    masks[1::2, :9, :5] = 1
    return torch.from_numpy(rng.random(masks.shape) + masks * 0.4), torch.from_numpy(masks)


def test_an_image_s_own_area_is_that_of_scikit_learn():
    maps, masks = drawn()
    kind = evaluation("maps")
    told = kind.kept_of(kind.condense(maps, masks))
    want = [roc_auc_score(m.flatten(), a.flatten()) if m.any() else None for a, m in zip(maps, masks, strict=True)]
    found = [None if np.isnan(v) else v for v in told["pixel_auroc"].tolist()]
    assert found == [None if w is None else pytest.approx(w, abs=1e-6) for w in want], "none where all is normal"
    assert told["anomalous"].tolist() == [False, True] * 3, "masks say which images are anomalous"
    full = kept.own_auroc(maps, torch.ones_like(masks))
    assert full.isnan().all(), "nor where all is anomalous"


def test_maps_are_kept_small_and_no_mark_is_lost(monkeypatch):
    maps, masks = drawn()
    masks[0, 39, 95] = 1
    told = kept.small_maps(maps, masks)
    assert told["map"].shape == (6, 27, 64) and told["mask"].shape == (6, 27, 8), "the longer side is 64"
    assert np.unpackbits(told["mask"].numpy(), axis=-1)[0, -1, -1] == 1, "one pixel marks its cell"
    assert kept.small_maps(maps * 0 + 3, masks)["map"].max() == 0, "equal numbers are no division by zero"
    monkeypatch.setattr(kept, "MOST_BYTES", 6 * 20**2)
    assert kept.small_maps(maps, masks)["map"].shape == (6, 8, 20), "of more images sides are shorter"
    monkeypatch.setattr(kept, "MOST_BYTES", 6 * 15**2)
    assert kept.small_maps(maps, masks) == {}, "and of too many nothing is kept"


def test_colours_run_from_black_to_yellow_and_leave_an_image_visible():
    ramp = np.arange(256, dtype=np.uint8)[None]
    light = heat(ramp).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) >= -1).all() and light[0, 0] < 5 and light[0, -1] > 230, "lighter for more, in grey as well"
    tall = np.zeros((32, 16), np.uint8)
    assert heat_picture(tall).size == (56, 112), "a map keeps its shape"
    below = heat_picture(tall, Image.new("RGB", (200, 200), "white"))
    assert below.size == (56, 112) and np.asarray(below).min() > 150, "the image shows where the map says little"
    marked = mask_picture(np.packbits(np.eye(9, dtype=np.uint8), axis=-1), 9)
    assert marked.size == (112, 112) and marked.getextrema() == (0, 255), "a mask is black and white"


def test_worst_and_best_are_those_of_the_run(ran, command, tmp_path):
    table, out, _ = ran
    told = table.predictions("win-clip-plus")
    frame = told.frame()
    assert set(frame.label) == {"normal", "anomalous"} and frame.pixel_auroc.notna().sum() == 20, "masks are the labels"
    code, said, _ = command("errors", out, "--method", "win-clip-plus", "--most", 3, "--json")
    plain = json.loads(said)
    assert code == 0 and plain["anomalous"] == 20, said
    worst = [row["pixel_auroc"] for row in plain["errors"]]
    assert worst == sorted(frame.pixel_auroc.dropna())[:3], "the worst come first"
    loud = frame[frame.label == "normal"].score.max()
    assert plain["alarms"][0]["score"] == pytest.approx(loud), "and of normal images the loudest"
    code, said, _ = command("errors", out, "--method", "win-clip-plus", "--most", 3)
    assert "40 images, 20 anomalous" in said and said.count("\n") == 13, f"two short tables; got {said}"
    assert command("errors", out, "--out", tmp_path / "e.csv")[0] == 0, "every image has a line"
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 41, "and the head"
    assert "answered wrong" not in repr(told), "maps are not right or wrong"


def test_a_page_has_maps_and_on_request_the_images_below_them(ran, command, tmp_path):
    _, out, _ = ran
    page = tmp_path / "page.html"
    command("errors", out, "--out", page)
    plain = page.read_text()
    assert plain.count("<figcaption>map<") == 12 and plain.count("<figcaption>mask<") == 8, "of normal ones no mask"
    assert "<figcaption>image<" not in plain, "images come on request alone"
    command("errors", out, "--out", page, "--thumbnails", 6)
    assert page.read_text().count("<figcaption>image<") == 6, "two worst, two best, two loud"
    command("compare", out, "--out", page)
    whole = page.read_text()
    assert whole.count("Anomalous images told worst") == 2, "each method has its gallery"
    assert re.search('data-over="seed 1"', whole), "and says of which seed it is"
    assert "Anomalous images told best" in ran[0].predictions("mu-sc").show_errors(3).html, "notebooks show it, too"


def test_pictures_that_are_gone_leave_the_maps(ran, tmp_path, command):
    page = tmp_path / "page.html"
    code, _, told = command("errors", ran[1], "--out", page, "--thumbnails", 3, "--dataset", "folder:gone")
    assert code == 0, told
    text = page.read_text()
    assert "<figcaption>image<" not in text and "<figcaption>map<" in text, "maps need no dataset"


def test_a_run_of_before_says_what_to_do(ran, monkeypatch):
    told = ran[0].predictions("mu-sc")
    told.columns = {"score": told.columns["score"]}
    assert "run the recipe again" in told.sections(), "a page says so"
    from adaptkit.report.errors.written import answers_text

    with pytest.raises(ValueError, match="must hold how well each image is told; got scores alone of mu-sc"):
        answers_text(told, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": np.zeros((2, 16, 3), np.uint8)},
        {"map": np.zeros((2, 16, 16), np.int32)},
        {"map": np.zeros((2, 16), np.uint8)},
        {"pixel_auroc": np.array([np.inf, 0.5])},
        {"score": np.array([np.nan, 0.5])},
    ],
    ids=["mask", "type", "shape", "infinite", "no score"],
)
def test_maps_of_a_stranger_are_held_to_their_masks(change):
    columns = {
        "score": np.ones(2),
        "pixel_auroc": np.array([np.nan, 0.5]),
        "map": np.zeros((2, 16, 16), np.uint8),
        "mask": np.zeros((2, 16, 2), np.uint8),
    }
    asked = {"images": [0, 1], "labels": None, "digests": []}
    hold_rows(Told("", asked, columns))
    with pytest.raises(ValueError, match="must be"):
        hold_rows(Told("", asked, {**columns, **change}))
