"""Needs that read the same images open each once, and share the tower's passes where that changes no bit."""

import threading
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from adaptkit import Dense, Layers, Need, Patches, Pooled, Windows, hookimpl
from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.cohorts import Pending
from adaptkit.features.items import Images
from adaptkit.features.store import Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.wanted import fill_source
from adaptkit.testing import ToyImages, toy_backbone
from adaptkit.towers.clip import CLIPBackbone

ALL = range(12)
READING = [Pooled(), Pooled(projected=False), Patches(block=0), Layers(blocks=(1, 0), tokens="class")]


@dataclass(frozen=True, kw_only=True)
class Steered(Need):
    """Rewrites what leaves a block."""

    def compute(self, backbone, pixels):
        with backbone.taps({"image.block.0": lambda _, out: out * 2}):
            return backbone.encode_image(pixels)


@dataclass(frozen=True, kw_only=True)
class Sly(Need):
    """Rewrites it in its place."""

    def compute(self, backbone, pixels):
        with backbone.taps({"image.block.0": lambda _, out: out.mul_(2)}):
            return backbone.encode_image(pixels)


@dataclass(frozen=True, kw_only=True)
class Direct(Need):
    """Enters the tower by no usual way."""

    def compute(self, backbone, pixels):
        kept = []
        with backbone.points["image.block.0"].attach(lambda _, out: kept.append(out) or out):
            backbone.encode_image(pixels)
        return kept[0]


@dataclass(frozen=True, kw_only=True)
class Dimmed(Need):
    """Encodes other pixels than it was given."""

    def compute(self, backbone, pixels):
        return backbone.encode_image(pixels / 2)


@dataclass(frozen=True, kw_only=True)
class Writing(Need):
    """Writes to the pixels it was given."""

    def compute(self, backbone, pixels):
        return backbone.encode_image(pixels.mul_(0.5))


@dataclass(frozen=True, kw_only=True)
class Broken(Need):
    """Wants what there is not."""

    def compute(self, backbone, pixels):
        raise ValueError("a tower must have wheels; got none")


class Counted(ToyImages):
    """Counts how often an item is opened."""

    opened = 0

    def open(self, i):
        type(self).opened += 1
        return super().open(i)


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setattr(Counted, "opened", 0)
    return Counted("train", len(ALL))


@pytest.fixture
def towers(monkeypatch):
    """How many images each pass through an image tower had."""
    seen, original = [], CLIPBackbone.image

    def image(self, pixels, project):
        seen.append(len(pixels))
        return original(self, pixels, project)

    monkeypatch.setattr(CLIPBackbone, "image", image)
    return seen


def open_cache(folder, backbone=None, **options):
    backbone, hook = backbone or toy_backbone("0"), plugins.manager().hook
    return FeatureCache(backbone, Store(folder), hook=hook, load=pick_backbone, dtype="float32", **options)


def alone(folder, source, needs, **options):
    """Rows of each need from a cache that is asked for them one after another, and the folders of its tables."""
    cache = open_cache(folder, **options)
    rows = [cache.images(source, need, torch.tensor(ALL)) for need in needs]
    return rows, {table.folder.name for table in cache.store.tables()}


def together(folder, source, needs, **options):
    """The same from a cache that is asked for all at once."""
    cache = open_cache(folder, **options)
    cache.fill_together(source, {need: ALL for need in needs})
    computed = dict(cache.computed)
    rows = [cache.images(source, need, torch.tensor(ALL)) for need in needs]
    assert cache.computed == computed, "what was filled must be found"
    return rows, {table.folder.name for table in cache.store.tables()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_rows_and_keys_are_those_of_needs_that_are_alone(tmp_path, precision):
    needs = [
        Writing(),  # first, before those that read the same pixels
        *READING,
        Dense(),
        Steered(),
        Direct(),
        Sly(),
        Dimmed(),
        Windows(),
        Pooled(views=3, plain_first=True),
        Pooled(views=2),
    ]
    want, keys = alone(tmp_path / "alone", ToyImages("train", 12), needs, precision=precision)
    got, same = together(tmp_path / "together", ToyImages("train", 12), needs, precision=precision)
    differ = [need for need, a, b in zip(needs, want, got, strict=True) if not torch.equal(a, b)]
    assert not differ, f"rows must be equal bit for bit; not so of {differ}"
    assert keys == same, "they must be stored under the same keys"


def test_needs_that_read_one_pass_cost_one(tmp_path, images, towers):
    together(tmp_path, images, READING)
    assert images.opened == len(ALL), "each image must be opened once for all needs"
    assert sum(n for n in towers if n > 1) == len(ALL), "and enter the tower once"


def test_views_and_the_plain_image_are_made_of_one_reading(tmp_path, images, towers):
    needs = [Pooled(views=4, plain_first=True), Pooled(views=2), Patches(views=3), Dense()]
    together(tmp_path, images, needs)
    assert images.opened == len(ALL), "each image must be opened once"
    plain, dense, views = 12, 12, 12 * 3
    assert sum(n for n in towers if n > 1) == plain + dense + views, "three views must serve two needs"


def test_a_need_that_rewrites_the_pass_or_the_pixels_computes_alone(tmp_path, images, towers):
    together(tmp_path, images, [*READING, Steered(), Sly(), Direct(), Dimmed()])
    assert sum(n for n in towers if n > 1) == 5 * len(ALL), "one pass must serve all that only read, and none else"


def test_rows_that_one_need_has_already_are_not_computed_again(tmp_path, images):
    cache = open_cache(tmp_path)
    cache.fill(images, Patches(), range(5))
    cache.fill_together(images, {Patches(): ALL, Pooled(): range(3, 12)})
    assert cache.computed == {"Patches": 12, "Pooled": 9}, "each need must compute what it lacks"
    assert images.opened == 5 + 9, "items of one need and of both must be opened once"
    assert all(table.seconds > 0 for table in cache.store.tables()), "each table must know what it cost"


def test_images_with_several_needs_open_each_image_once(tmp_path, images, towers):
    rows = CachedRows(open_cache(tmp_path), images)
    some = Images(rows, torch.arange(12)).bind({"x": Pooled(), "tokens": Patches(), "views": Pooled(views=2)})
    held = some.load()
    assert held.tokens.shape == (12, 17, 32) and held.views.shape == (12, 2, 16), "every need must be read"
    assert images.opened == len(ALL), "each image must be opened once"
    assert sum(n for n in towers if n > 1) == 3 * len(ALL), "and enter the tower once as it is, and once for each view"


def test_a_plugin_that_answers_for_one_need_is_asked_for_it(tmp_path, images, towers):
    class Mine:
        @hookimpl
        def extract(self, need, pixels):
            return torch.ones(len(pixels), 7) if isinstance(need, Patches) else None

    plugins.manager().register(Mine(), "mine")
    try:
        rows, _ = together(tmp_path, images, [Pooled(), Pooled(projected=False), Patches()])
    finally:
        plugins.manager().unregister(name="mine")
    assert rows[2].shape == (12, 7), "the plugin's answer must be stored"
    assert images.opened == len(ALL), "of an image that was opened once"
    assert sum(n for n in towers if n > 1) == len(ALL), "the others must share a pass"


def test_a_plugin_may_write_to_the_pixels_it_is_given(tmp_path, images):
    class Mine:
        @hookimpl
        def extract(self, need, pixels):
            return pixels.mul_(0.5).flatten(1)[:, :5] if isinstance(need, Patches) else None

    plugins.manager().register(Mine(), "mine")
    try:
        needs = [Patches(), Dense(), Pooled(), Pooled(projected=False)]
        want, _ = alone(tmp_path / "alone", images, needs)
        got, _ = together(tmp_path / "together", images, needs)
    finally:
        plugins.manager().unregister(name="mine")
    assert all(map(torch.equal, want, got)), "other needs must get the pixels as they were"


def test_a_need_that_fails_leaves_the_others_theirs(tmp_path, images):
    cache = open_cache(tmp_path)
    failed = fill_source(cache, images, {Pooled(): ALL, Broken(): ALL, Patches(): ALL})
    assert [*failed] == [Broken()] and "wheels" in str(failed[Broken()]), "the reason must be told"
    assert cache.computed == {"Pooled": 12, "Patches": 12}, "and the other needs computed"


def test_two_workers_on_several_needs_compute_no_row_twice(tmp_path, images):
    caches = [open_cache(tmp_path, toy_backbone.__wrapped__("0"), batch_size=2) for _ in range(2)]
    needs = {Pooled(views=3, plain_first=True): ALL, Patches(): ALL}
    workers = [threading.Thread(target=cache.fill_together, args=(images, needs)) for cache in caches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    counts = [cache.computed for cache in caches]
    total = {name: sum(count.get(name, 0) for count in counts) for name in ("Pooled", "Pooled views", "Patches")}
    assert total == {"Pooled": 12, "Pooled views": 24, "Patches": 12}, f"each row must be computed once; got {counts}"
    assert Store(tmp_path).verify() == [], "and be stored soundly"


class Many:
    """As many items as one likes, none of which is ever opened."""

    name, labels = "many", ()

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def key(self, i):
        return f"{i:064}"


def test_what_is_pending_is_held_as_numbers(tmp_path):
    cache, source, held = open_cache(tmp_path), Many(40000), []
    for count in (20000, 40000):
        tracemalloc.start()
        pending = Pending(cache.parts(source, Pooled(), np.arange(count)))
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(pending) == count, "every item must be pending"
    more = (held[1] - held[0]) / 20000
    assert more < 250, f"an image must take some numbers and no objects, at most 250 bytes; got {more:.0f}"
