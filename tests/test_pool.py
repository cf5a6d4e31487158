"""Images to learn from without labels that are not the training images, and the methods and data for which they are."""

from dataclasses import replace

import pytest
from adaptkit_plugins.datasets import openmoji

from adaptkit import adapt, method, predict
from adaptkit.runs.protocol import splits_digest
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing.toy import ToyImages, toy_splits


@pytest.fixture
def noisy():
    """The toy dataset with a pool of noisier images."""
    return replace(toy_splits(), pool=ToyImages("unlabelled", 35, noise=0.4))


def test_a_dataset_may_have_unlabelled_images_of_its_own(noisy, tmp_path):
    setting = Setting(dataset="toy", backbone="toy:0")
    task = Workspace(setting, home=tmp_path, splits=noisy).task(2, 1)
    assert len(task.pool) == 35 and task.pool.labels is None, "the pool is the dataset's, without labels"
    assert task.pool.rows.source.name == "unlabelled" and len(task.support) == 10, "the support is the training images'"
    plain = Workspace(setting, home=tmp_path).task(2, 1)
    assert plain.pool.rows.source.name == "train", "without, it is the training images"
    assert splits_digest(noisy) != splits_digest(toy_splits()), "a protocol tells them apart"
    half = Workspace(replace(setting, classes="base"), home=tmp_path, splits=noisy).task(2, 1)
    assert len(half.pool) == 21, "of three classes in five"
    parts = Workspace(replace(setting, sequence=2), home=tmp_path, splits=noisy).tasks(2, 1)
    assert [len(part.pool) for part in parts] == [21, 14], "each task of a sequence has its own"


def test_ad_clip_learns_from_the_pool_and_keeps_none_of_it(noisy, tmp_path):
    task = Workspace(Setting(dataset="toy", backbone="toy:0"), home=tmp_path, splits=noisy).task(2, 1)
    made = adapt(method("ad-clip", schedule={"steps": 2, "warmup": 0}), task)
    assert made.target is None, "what it learned from is no part of it"
    assert predict(made, task.support).shape == (10, 5), "and it answers without a source image"
    with pytest.raises(ValueError, match="pool must have unlabelled images of the target domain for ad-clip; got none"):
        adapt(method("ad-clip"), replace(task, pool=None))


def test_a_teacher_of_prompt_kd_must_have_tokens(toy):
    with pytest.raises(ValueError, match=r"prompt-kd.base must have tokens in both towers, e.g. ivlp; got GDA"):
        adapt(method("prompt-kd", base="gda"), toy[0])


def test_tai_dpt_reads_labels_off_the_captions_of_a_file(toy, tmp_path):
    task, queries = replace(toy[0], support=toy[0].support[:0], val=None, kind="multi-label"), toy[1]
    (tmp_path / "captions.txt").write_text("A cat and a dog.\n\nNothing here.\nOwls; one OWL!\ncatalogue", "utf-8")
    told = {"file": str(tmp_path / "captions.txt"), "n": 4, "schedule": {"steps": 2, "warmup": 0}}
    made = adapt(method("tai-dpt", **told), task)
    assert made.labels.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], "whole words, in either case; the rest is left"
    assert predict(made, queries).shape == (60, 5), "each class is ranked"
    (tmp_path / "captions.txt").write_text("Nothing.")
    with pytest.raises(ValueError, match=r"a caption must name a class; got 1 in .*, none of which does"):
        adapt(method("tai-dpt", **told), task)


def drawings(name, count):
    return openmoji.Drawings(name, tuple(f"<svg>{i}</svg>" for i in range(count)), tuple(i % 3 for i in range(count)))


def test_a_sheet_shows_its_own_drawing_first_and_has_the_labels_of_all_it_shows():
    pytest.importorskip("resvg_py")
    source = openmoji.Sheets("sheets", drawings("few", 30), 3)
    shown = [source.shown(i) for i in range(30)]
    assert all(len(four) == 4 and four[0] == i for i, four in enumerate(shown)), "four, its own the first"
    for four, target in zip(shown, source.targets, strict=True):
        assert [c for c in range(3) if target[c]] == sorted({j % 3 for j in four}), "the classes that are on it"
    assert len({source.key(i) for i in range(30)}) == 30, "each is another image"
    assert {sum(target) for target in source.targets} == {1, 2, 3}, "of one class, two or three"


def test_lines_are_the_pool_and_the_test_images_of_the_adaptation_of_domains():
    coloured = {split: drawings(split, 6) for split in ("train", "val", "test")}
    splits = openmoji.line(coloured)
    assert splits.train is coloured["train"] and splits.domains["colour"] is coloured["test"], "labels are of colours"
    assert splits.pool.labels == coloured["train"].labels, "and lines are of the same drawings"
    assert (splits.pool.name, splits.test.name) == ("openmoji line train", "openmoji line"), "no test drawing is there"
