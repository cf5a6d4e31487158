"""Images to learn from without labels that are not the training images, and the methods and data for which they are."""

from dataclasses import replace

import pytest
from adaptkit_plugins.datasets import openmoji

from adaptkit import Method, OverBase, Pooled, ZeroShot, adapt, method, predict
from adaptkit.features.cache import CachedRows
from adaptkit.methods.unlabelled import pool_reads
from adaptkit.runs.costs import extraction_cost
from adaptkit.runs.protocol import cells, splits_digest
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.setting import Setting
from adaptkit.runs.wanted import wanted
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
    with pytest.raises(ValueError, match="pool must have unlabelled images for ad-clip to learn from; got none"):
        adapt(method("ad-clip"), replace(task, pool=None))


class Centred(ZeroShot):
    """Embeddings less the mean of the pool, read under a name of its own."""

    def pool_needs(self):
        return {"seen": Pooled()}

    def fit(self, task):
        super().fit(task)
        self.register_buffer("mean", task.require_pool("centred").seen.mean(0))

    def forward(self, batch):
        return self.zero_shot(batch.x - self.mean)


class Silent(Centred):
    pool_needs = Method.pool_needs


def test_what_is_read_of_the_pool_is_said_by_the_method_and_by_those_below_it(noisy, tmp_path):
    workspace = Workspace(Setting(dataset="toy", backbone="toy:0"), home=tmp_path, splits=noisy)
    task, tests = workspace.task(2, 1), workspace.evaluation_sets()
    over = method("mcm", base=Centred())
    assert (pool_reads(over), pool_reads(ZeroShot())) == ([Pooled()], []), "as a base reads, or nothing"
    assert isinstance(task.pool.rows, CachedRows) and OverBase().pool_needs() == {}, "no method reads it unasked"
    for source in (task.support, tests[0].images):
        source.bind({"x": Pooled()}).fill()
    costs = [extraction_cost(made, task, tests) for made in (adapt(over, task), adapt(method("mcm"), task))]
    assert costs[0] > costs[1], "and it costs what the pool's embeddings cost"
    with pytest.raises(AttributeError, match=r"declared needs, \[\]; got 'seen'"):
        adapt(Silent(), task)
    with pytest.raises(ValueError, match="pool must have unlabelled images for centred to learn from; got none"):
        adapt(Centred(), replace(task, pool=None))


def test_what_is_read_of_the_pool_is_computed_before_the_first_cell(tmp_path):
    asked = {"dataset": "toy", "backbone": "toy:0", "methods": ["zlap-inductive", "zero-shot"]}
    recipe = Recipe(name="mine", folder=tmp_path, shots=[1], seeds=[1], **asked)
    workspace = Workspace(recipe.setting(), home=tmp_path)
    tests = workspace.evaluation_sets()
    wants = {cell.label: [len(index) for _, _, index in wanted(workspace, [cell], tests)] for cell in cells(recipe)}
    found = [len(workspace.pool()) in wants[label] for label in ("zlap-inductive", "zero-shot")]
    assert found == [True, False], f"and only for who learns from it; got {wants}"


def test_a_teacher_of_prompt_kd_must_have_tokens(toy):
    with pytest.raises(ValueError, match=r"prompt-kd.base must have tokens in both towers, e.g. ivlp; got GDA"):
        adapt(method("prompt-kd", base="gda"), toy[0])


@pytest.mark.parametrize(("count", "batch"), [(1, 8), (9, 8), (4, 1)])
def test_a_batch_of_one_image_teaches_prompt_kd_nothing_and_is_refused(count, batch, toy):
    task = replace(toy[0], pool=toy[0].support[:count].blind())
    words = rf"prompt-kd must learn from batches of two images or more; got {count} in the pool and batches of {batch}"
    with pytest.raises(ValueError, match=words):
        adapt(method("prompt-kd", schedule={"epochs": 1, "batch_size": batch}), task)


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
