"""The support that SuS-X finds by text: the nearest of the pool, class by class, whatever their labels."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import Task, load
from adaptkit.features.items import Images
from adaptkit.runs import plugins

CHOOSE = plugins.pick("supports", "sus-x")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def task_and_images(n=30, classes=4, dim=6):
    rng = np.random.default_rng(0)
    text, x = rng.standard_normal((classes, dim)), rng.standard_normal((n, dim)).astype(np.float32)
    return Task.from_arrays((np.zeros((0, dim)), np.zeros(0, int)), text), x, unit(x) @ unit(text).T


def pairs(support):
    return list(zip(support.index.tolist(), support.labels.tolist(), strict=True))


def test_each_class_has_the_images_nearest_to_its_text():
    task, x, cosine = task_and_images()
    support, val = CHOOSE(task, Images.from_arrays(x), None, shots=7, seed=1)
    want = [(i, c) for c in range(4) for i in np.argsort(-cosine[:, c])[:7]]
    assert pairs(support) == want, f"rows and labels must be {want}; got {pairs(support)}"
    assert len({i for i, _ in want}) < len(want), "an image may be found twice, or this test is too easy"
    assert val is None, "there are no labels for validation"


def test_sentences_take_turns(tmp_path):
    task, x, _ = task_and_images()
    rng = np.random.default_rng(1)
    texts = {name: [f"{name} {j}" for j in range(12 if c else 2)] for c, name in enumerate(task.classnames)}
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    rows = {sentence: rng.standard_normal(6) for own in texts.values() for sentence in own}
    task = SimpleNamespace(
        classnames=task.classnames,
        text=task.text,
        encode=lambda sentences: torch.tensor(np.stack([rows[s] for s in sentences])).float(),
    )
    support, _ = CHOOSE(task, Images.from_arrays(x), None, shots=5, seed=3, file=str(tmp_path / "texts.json"))
    draw, want = random.Random(3), []
    for c, own in enumerate(texts.values()):
        drawn, given = draw.sample(own, min(10, len(own))), []
        for turn in range(5):
            near = np.argsort(-(unit(x) @ rows[drawn[turn % len(drawn)]]))
            given.append(next(i for i in near if i not in given))
        want += [(i, c) for i in given]
    assert pairs(support) == want, f"rows and labels must be {want}; got {pairs(support)}"


def test_true_labels_change_nothing():
    task, x, _ = task_and_images()
    one, other = (CHOOSE(task, Images.from_arrays(x, np.full(30, y)), None, shots=2, seed=1)[0] for y in (0, 3))
    assert pairs(one) == pairs(other), "the support depends on labels that must not be read"


def test_a_pool_may_be_a_folder_but_not_the_datasets_own(tmp_path):
    for part, classes in (("own", "ab"), ("web", "xyz")):
        for c in classes:
            (tmp_path / part / c).mkdir(parents=True)
            for i in range(4):
                shade = np.random.default_rng(ord(c) + i).integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(shade).save(tmp_path / part / c / f"{i}.png")
    setting = {"backbone": "toy:0", "shots": 12, "select": "none", "home": tmp_path / "home"}
    task, _ = load(f"folder:{tmp_path}/own", support={"sus-x": {"pool": f"{tmp_path}/web"}}, **setting)
    assert len(task.support) == 24, "all twelve images of the folder, in whatever split, for both classes"
    assert set(task.support.index.tolist()) == set(range(12))
    assert task.support.rows.source.name.count(str(tmp_path / "web")) >= 2, "they come from the pool"
    with pytest.raises(ValueError, match="pool must be another folder than the dataset's, which holds its test images"):
        load(f"folder:{tmp_path}/own", support={"sus-x": {"pool": f"{tmp_path}/web/../own"}}, **setting)
    with pytest.raises(ValueError, match="shots must be at most the images of the pool, 12; got 13"):
        load(f"folder:{tmp_path}/own", support={"sus-x": {"pool": f"{tmp_path}/web"}}, **{**setting, "shots": 13})


def test_arrays_have_no_folder():
    task, x, _ = task_and_images()
    with pytest.raises(ValueError, match="pool must be '' where images are arrays; got 'web'"):
        CHOOSE(task, Images.from_arrays(x), None, shots=2, seed=1, pool="web")
