"""Images: rows that are read when asked for, under the names a method gave them, and never more than it may see."""

import copy
import hashlib

import pytest
import torch

from adaptkit import Patches, Pixels, Pooled, unit
from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Images
from adaptkit.features.parts import prepared
from adaptkit.features.store import Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.testing import ToyImages, toy_backbone
from tests import processes

IMAGES = ToyImages("train", 12)
ALL = torch.arange(len(IMAGES))
NEEDS = {"x": Pooled(), "raw": Pooled(unit=False), "views": Pooled(views=2)}


@pytest.fixture
def images(toy):
    return toy[1].bind(NEEDS)


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (slice(3, 6), [3, 4, 5]),
        (slice(None, None, 29), [0, 29, 58]),
        ([5, 2, 5], [5, 2, 5]),
        ([-1], [59]),
        (torch.tensor([4, 1]), [4, 1]),
        (torch.arange(60) == 7, [7]),
        ([], []),
    ],
    ids=["slice", "step", "list", "negative", "tensor", "mask", "nothing"],
)
def test_part_of_some_images_has_their_labels_and_rows(which, rows, images):
    part = images[which]
    assert len(part) == len(rows), "as many images as asked for"
    assert part.labels.tolist() == images.labels[rows].tolist(), "labels must go with their images"
    assert part.needs == images.needs, "names must stay"
    if rows:
        assert torch.equal(part.x, images.x[rows]), "rows must go with their images"
        assert torch.equal(part[-1:].x, images.x[rows[-1:]]), "a part of a part must count within the part"


def test_each_declared_need_is_an_attribute(images):
    assert images.x.shape == (60, 16), "one row per image"
    assert images.views.shape == (60, 2, 16), "views must have an axis of their own"
    torch.testing.assert_close(images.x, unit(images.raw), msg="a unit-norm reading must be the raw one, scaled")
    assert images.bind({"tokens": Patches()}).tokens.shape == (60, 17, 32), "tokens must come as (N, T, W)"
    assert images[:2].bind({"image": Pixels()}).image.shape == (2, 3, 32, 32), "pixels must come as (N, 3, H, W)"


def test_an_undeclared_name_is_an_error_that_lists_the_declared(images):
    with pytest.raises(AttributeError, match=r"one of the declared needs, \['raw', 'views', 'x'\]; got 'patches'"):
        _ = images.patches
    with pytest.raises(AttributeError, match=r"\['mine'\]; got 'x'"):
        _ = images.bind({"mine": Pooled()}).x
    assert not hasattr(images, "__array__"), "numpy must not take images for an array"


def test_binding_changes_names_and_nothing_else(images):
    other = images[5:9].bind({"mine": Pooled()})
    assert torch.equal(other.mine, images.x[5:9]), "another name must read the same rows"
    assert other.labels.tolist() == images.labels[5:9].tolist(), "labels must stay"
    assert set(images.needs) == set(NEEDS), "the images bound before must stay as they were"


def test_blind_images_have_no_labels_in_any_part(images):
    blind = images.blind()
    parts = (blind, blind[3:], blind[[1]], blind.bind(NEEDS), blind.to("cpu"), blind.load(), blind.load()[:2])
    assert all(part.labels is None for part in parts), "labels must not come back"
    assert images.labels is not None, "the images themselves must keep them"
    assert torch.equal(blind.label(images.labels).labels, images.labels), "labels may be given"


def test_loaded_images_are_read_once_and_only_what_may_be_held(images):
    reads = []

    class Rows:
        def read(self, name, need, index):
            reads.append((name, len(index)))
            return images.rows.read(name, need, index)

    needs = {"x": Pooled(), "fresh": Pooled(views=1, fresh=True), "pixels": Pixels()}
    loaded = Images(Rows(), images.index, images.labels, needs)[10:30].load()
    assert reads == [("x", 20)], "loading must read what is stored, once"
    assert torch.equal(loaded[[3, 1]].x, images.x[[13, 11]]), "loaded rows must be the same rows"
    assert torch.equal(loaded[5:].load().x, images.x[15:30]), "and may be loaded again"
    assert reads == [("x", 20)], "loaded rows must not be read again"
    assert not torch.equal(loaded[:2].fresh, loaded[:2].fresh), "fresh views must be drawn at every reading"
    assert torch.equal(loaded[[4]].pixels, images[[14]].bind({"p": Pixels()}).p), "pixels must be those of the image"
    assert ("pixels", 1) in reads, "pixels must be read when asked for"
    assert loaded.labels.tolist() == images.labels[10:30].tolist(), "labels must go with their images"


def test_rows_and_labels_are_read_onto_the_device_asked_for(images):
    away = images.to("meta")  # a device that every machine has, and that holds no numbers
    assert (away.x.device.type, away.labels.device.type) == ("meta", "meta"), "everything must be there"
    assert away[2:4].blind().bind(NEEDS).views.device.type == "meta", "and stay there"
    assert away[[1, 2]].labels.shape == (2,), "parts must be taken on any device"
    built = Images(images.rows, images.index, images.labels, NEEDS, device="meta")
    assert built.labels.device.type == "meta", "labels must follow the device they are given with"
    assert images.x.device.type == "cpu", "the images themselves must stay where they were"


def test_images_can_be_copied(images):
    for twin in (copy.copy(images), copy.deepcopy(images[:3].load())):
        assert torch.equal(twin[:3].x, images[:3].x), "a copy must read the same rows"


def test_images_show_how_many_they_are_and_what_can_be_read(images):
    shown = repr(images[:7].blind())
    assert shown.startswith("Images(7, needs={'x': Pooled(") and shown.endswith("labelled=False)"), f"got {shown}"


def open_cache(folder, backbone=None, **options):
    """A cache over a folder, as another process would open it."""
    backbone = backbone or toy_backbone("0")
    return FeatureCache(backbone, Store(folder), hook=plugins.manager().hook, load=pick_backbone, **options)


def some_views():
    needs = (Pooled(augment=a) for a in ("crop-flip", "augmix"))
    return [prepared(IMAGES, need, toy_backbone("0"), 3, v)[1] for need in needs for v in (-1, 0, 7)]


def digest(views):
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in views)).hexdigest()


def print_digest():
    print(digest(some_views()))


def test_a_view_is_the_same_in_any_batch_order_and_process(tmp_path):
    need = Pooled(views=3)
    rows = open_cache(tmp_path / "a", batch_size=32).images(IMAGES, need, ALL)
    order = torch.randperm(12)
    other = open_cache(tmp_path / "b", batch_size=5).images(IMAGES, need, order)
    torch.testing.assert_close(other, rows[order], atol=2e-3, rtol=0, msg="batches and order must not change a view")
    views = some_views()
    assert processes.Forked(print_digest).result().strip() == digest(views), (
        "another process must draw the same views, to the last bit"
    )
    assert len({v.numpy().tobytes() for v in views[1:]}) == 5, "views of different numbers or augmentations must differ"


def test_unit_and_raw_read_one_table_and_the_projection_another(tmp_path):
    cache = open_cache(tmp_path)
    raw = cache.images(IMAGES, Pooled(unit=False), ALL)
    scaled = cache.images(IMAGES, Pooled(), ALL)
    assert cache.computed == {"Pooled": 12}, "raw and unit-norm must be two readings of one stored row"
    torch.testing.assert_close(scaled, unit(raw), msg="unit-norm must be the raw row, scaled")
    assert (raw.norm(dim=-1) - 1).abs().max() > 0.01, "raw rows must not be normalised"
    assert cache.images(IMAGES, Pooled(projected=False), ALL).shape == (12, 32), "before the projection it is W wide"
    assert cache.computed == {"Pooled": 24}, "which is another row"


def test_the_plain_image_comes_first_where_asked(tmp_path):
    cache = open_cache(tmp_path)
    plain, views = cache.images(IMAGES, Pooled(), ALL), cache.images(IMAGES, Pooled(views=2), ALL)
    both = cache.images(IMAGES, Pooled(views=3, plain_first=True), ALL)
    assert torch.equal(both, torch.cat([plain[:, None], views], 1)), "it must be the plain image, then random views"
    assert cache.computed == {"Pooled": 12, "Pooled views": 24}, "all of which were there"


def test_fresh_views_differ_repeat_under_a_seed_and_leave_no_trace(tmp_path):
    cache, need = open_cache(tmp_path), Pooled(views=2, fresh=True)
    torch.manual_seed(7)
    one, two = cache.images(IMAGES, need, ALL), cache.images(IMAGES, need, ALL)
    torch.manual_seed(7)
    assert torch.equal(cache.images(IMAGES, need, ALL), one), "a seed must repeat them"
    assert (one - two).abs().max() > 1e-3, "each reading must draw anew"
    assert (one[:, 0] - one[:, 1]).abs().max() > 1e-3, "the views of one reading must differ"
    torch.manual_seed(8)
    assert not torch.equal(cache.images(IMAGES, need, ALL), one), "another seed must draw others"
    assert not list(tmp_path.rglob("*")), "fresh views must not be stored"


def test_pixels_are_never_stored(tmp_path):
    got = open_cache(tmp_path).images(IMAGES, Pixels(views=2, plain_first=True), ALL[:3])
    assert got.shape == (3, 2, 3, 32, 32), "pixels must come with the axis of their views"
    assert torch.equal(got[1, 0], toy_backbone("0").preprocess(IMAGES.image(1))), "the first must be the plain image"
    assert not list(tmp_path.rglob("*")), "pixels must not be stored"


def test_a_need_may_name_a_second_backbone_and_shares_its_rows(tmp_path):
    asked, own = open_cache(tmp_path), open_cache(tmp_path, toy_backbone("1"))
    rows = asked.images(IMAGES, Pooled(backbone="toy:1"), ALL)
    assert asked.computed == {"Pooled": 12}, "the second backbone must have computed its rows"
    assert torch.equal(rows, own.images(IMAGES, Pooled(), ALL)), (
        "they must be the rows that it computes as a task's own"
    )
    assert own.computed == {}, "and be shared with it"


def test_arrays_of_another_shape_than_a_need_wants_are_refused_by_name():
    images = Images.from_arrays({"patches": torch.zeros(4, 16)}).bind({"patches": Patches()})
    with pytest.raises(ValueError, match=r"arrays must be \(N, T, D\) for 'patches', Patches.*; got"):
        getattr(images, "patches")  # noqa: B009 (read when asked for)
