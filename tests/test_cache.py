"""Rows are computed once, found again by everything that determines them, and by nothing less."""

import copy
import re
import time
from dataclasses import dataclass, replace

import pytest
import torch

from adaptkit import Need, Patches, Pooled, adapt, hookimpl, method, predict
from adaptkit.features.cache import FeatureCache
from adaptkit.features.store import DamagedShardWarning, Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing import ToyImages, toy_backbone
from adaptkit.testing.toy import toy_tokenizer
from tests import processes

IMAGES = ToyImages("train", 12)
ALL = torch.arange(len(IMAGES))


class Spy:
    """Counts what is asked for, and lets the next plugin answer."""

    rows = 0

    @hookimpl
    def extract(self, pixels):
        self.rows += len(pixels) if pixels.any() else 0  # the cache asks with an empty image who answers

    def new(self):
        """Rows asked for since the last call."""
        rows, self.rows = self.rows, 0
        return rows


@pytest.fixture
def spy():
    spy = Spy()
    plugins.manager().register(spy, "spy")
    yield spy
    plugins.manager().unregister(spy)


def open_cache(folder, backbone=None, **options):
    """A cache over a folder, as another process would open it."""
    backbone = backbone or toy_backbone("0")
    return FeatureCache(backbone, Store(folder), hook=plugins.manager().hook, load=pick_backbone, **options)


def test_rows_are_shared_by_methods_shots_and_seeds(tmp_path, spy):
    workspace = Workspace(Setting(dataset="toy", backbone="toy:0", select="none"), home=tmp_path)
    four, again, eight = workspace.task(4, 1), workspace.task(4, 2), workspace.task(8, 1)
    adapt(method("gda", views=3), four)
    assert spy.new() == 20 * 3, "the first method must compute every view of its support"
    adapt(method("tip-adapter", views=3), four)
    assert spy.new() == 0, "another method that reads the same views must compute nothing"
    known = set(four.support.index.tolist())
    for task, what in ((again, "another seed"), (eight, "more shots")):
        adapt(method("gda", views=3), task)
        fresh = set(task.support.index.tolist()) - known
        assert spy.new() == 3 * len(fresh), f"{what} must compute the views of the images that are new, only"
        known |= fresh
    predict(adapt(method("zero-shot"), four), workspace.test())
    assert spy.new() == 60, "test images must be computed when they are first read"
    predict(adapt(method("gda", views=3), eight), workspace.test()[20:])
    assert spy.new() == 0, "all methods must share the test images"


def test_another_object_over_the_same_folder_computes_nothing(tmp_path, spy):
    first = open_cache(tmp_path).images(IMAGES, Pooled(views=4, plain_first=True), ALL)
    assert spy.new() == 4 * 12, "each view must be computed once"
    cache = open_cache(tmp_path, batch_size=5)
    assert torch.equal(cache.images(IMAGES, Pooled(views=4, plain_first=True), ALL), first), "equal rows must be read"
    assert (spy.new(), cache.computed) == (0, {}), "nothing may be computed twice"


def test_fewer_views_or_images_compute_nothing_and_more_the_difference(tmp_path, spy):
    cache = open_cache(tmp_path)
    ten = cache.images(IMAGES, Pooled(views=10), ALL[:6])
    spy.new()
    assert torch.equal(cache.images(IMAGES, Pooled(views=4), ALL[:6]), ten[:, :4]), "the first four must be read"
    assert spy.new() == 0, "four of ten stored views must cost nothing"
    cache.images(IMAGES, Pooled(views=11), ALL[4:8])
    assert spy.new() == 2 * 1 + 2 * 11, "only the missing views of each image may be computed"
    cache.images(IMAGES, Pooled(), torch.tensor([3, 3, 1, 3]))
    assert spy.new() == 2, "an image that is asked for twice must be computed once"


def other_activation():
    """The same weights, in a checkpoint whose configuration names another activation."""
    backbone = toy_backbone.__wrapped__("0")
    backbone.model.config.vision_config.hidden_act = "relu"
    for layer in backbone.model.vision_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.ReLU()
    backbone.freeze()
    return backbone


def toy_with(**attributes):
    """The toy backbone, but for some attributes."""
    backbone = copy.copy(toy_backbone("0"))
    vars(backbone).update(attributes)
    return backbone


def named_alike(offset):
    """A need of one plugin's own; another plugin may choose the same name."""

    @dataclass(frozen=True, kw_only=True)
    class Mine(Need):
        def compute(self, backbone, pixels):
            return backbone.encode_image(pixels) + offset

    Mine.__module__ = f"plugin_{offset}"
    return Mine()


def variants():
    """Ways to ask for rows that must all be different rows."""
    plain = toy_backbone("0").preprocess
    return {
        "as it is": {},
        "weights": {"backbone": toy_backbone("1")},
        "mean": {"backbone": toy_with(preprocess=replace(plain, mean=(0.0, 0.0, 0.0)))},
        "activation": {"backbone": other_activation()},
        "dtype": {"dtype": "float32"},
        "precision": {"precision": "bf16-mixed"},
        "content": {"source": ToyImages("train", 12, noise=0.3)},
        "views": {"need": Pooled(views=1)},
        "augment": {"need": Pooled(views=1, augment="wide-crop-flip")},
        "projected": {"need": Pooled(projected=False)},
        "last block": {"need": Patches()},
        "first block": {"need": Patches(block=0)},
        "one plugin's": {"need": named_alike(1)},
        "another plugin's": {"need": named_alike(2)},
    }


def test_nothing_that_differs_reads_the_rows_of_another(tmp_path, spy):
    def read(folder, source=IMAGES, need=None, **options):
        return open_cache(tmp_path / folder, **options).images(source, need or Pooled(), ALL), spy.new()

    alone = {name: read(name, **variant)[0] for name, variant in variants().items()}
    for count in (12, 0):
        got = {name: read("shared", **variant) for name, variant in variants().items()}
        mixed = [name for name, (rows, computed) in got.items() if computed != count or not rows.equal(alone[name])]
        assert not mixed, f"each must have {count} rows computed, all its own; not so when these differ: {mixed}"


def test_texts_are_found_by_sentence_tokenizer_and_weights(tmp_path):
    sentences = ["a cat.", "a dog.", "a cat."]
    first = open_cache(tmp_path).sentences(sentences)
    assert torch.equal(first[0], first[2]), "equal sentences must have equal rows"
    cache = open_cache(tmp_path)
    assert torch.equal(cache.sentences(["a dog.", "a fox.", "a cat."])[[0, 2]], first[[1, 0]]), "order must not matter"
    assert cache.computed == {"Sentence": 1}, "only the sentence that is new may be encoded"
    upper = toy_with(tokenizer=lambda sentences: toy_tokenizer([s.upper() for s in sentences]), vocabulary="upper")
    for what, backbone in (("weights", toy_backbone("1")), ("tokenizer", upper)):
        got, want = open_cache(tmp_path, backbone).sentences(sentences), backbone.encode_text(sentences)
        torch.testing.assert_close(got, want, msg=f"texts of another {what} must not be read")


def test_a_damaged_shard_is_named_and_computed_again(tmp_path, spy):
    before = open_cache(tmp_path).images(IMAGES, Pooled(), ALL)
    (shard,) = tmp_path.rglob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-5] ^= 4
    shard.write_bytes(data)
    spy.new()
    with pytest.warns(DamagedShardWarning, match=shard.name):
        again = open_cache(tmp_path).images(IMAGES, Pooled(), ALL)
    assert spy.new() == 12, "rows of a damaged shard must be computed again"
    assert torch.equal(again, before), "and be what they were"


SLOW = """
import time
import adaptkit.features.extraction
from adaptkit import hookimpl
from adaptkit.features.datasets import Splits
from adaptkit.testing import CLASSES, ToyImages

adaptkit.features.extraction.COMMIT = 0.05

class Slow(ToyImages):
    def image(self, i):
        time.sleep(0.02)
        return super().image(i)

@hookimpl
def datasets():
    return {"slow": lambda place="": Splits("slow", CLASSES, Slow("train", 20), Slow("test", 120))}
"""
RECIPE = (
    "{dataset: slow, backbone: toy, select: none, batch_size: 8, shots: [1], seeds: [1], methods: [zero-shot, gda]}"
)
ROWS = 120 + 5 * 10  # test images, and the views of GDA's support


def start(folder, name):
    """Start a run on 120 slow images in a process of its own."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "slow.yaml").write_text(RECIPE)
    top = ["--home", folder, "--plugin", folder / "slow.py"]
    return processes.command(*top, "run", folder / "slow.yaml", "--quiet", "--out", folder / name)


def computed(process):
    """How many rows a run says it computed."""
    return int(re.search(r"features: ([\d,]+) rows computed", process.result())[1])


def stored(folder):
    """How many rows of images are stored."""
    return sum(t.rows for t in Store(folder / "features").tables() if "vocabulary" not in t.spec)


def check_whole(folder, spy):
    assert Store(folder / "features").verify() == [], "every file must be sound"
    assert stored(folder) == ROWS, "every row must be stored once"
    rows = open_cache(folder / "features").images(ToyImages("test", 120), Pooled(), torch.arange(120))
    assert spy.new() == 0, "this process must find the rows of the others"
    alone = open_cache(folder / "alone").images(ToyImages("test", 120), Pooled(), torch.arange(120))
    torch.testing.assert_close(rows, alone, atol=2e-3, rtol=0, msg="they must be those of an uninterrupted run")


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, spy):
    process, give_up = start(tmp_path, "killed"), time.monotonic() + 150
    while stored(tmp_path) < 70 and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = stored(tmp_path)
    assert 70 <= kept < ROWS, f"the run must have been killed in the middle; it had stored {kept} of {ROWS}"
    assert computed(start(tmp_path, "resumed")) == ROWS - kept, "the second run must compute what is missing, only"
    check_whole(tmp_path, spy)


def test_two_runs_at_once_compute_each_row_once(tmp_path, spy):
    runs = [start(tmp_path, name) for name in ("one", "two")]
    counts = [computed(run) for run in runs]
    assert sum(counts) == ROWS, f"each row must be computed by one of the two; they computed {counts} of {ROWS}"
    check_whole(tmp_path, spy)
