"""Needs: each says what its rows are like, and computes what a plain reading of its docstring computes."""

from dataclasses import dataclass

import pytest
import torch

from adaptkit import Need, Patches, Pixels, Pooled
from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Images
from adaptkit.features.store import Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.plan import table_cost
from adaptkit.testing import ToyImages, toy_backbone
from tests.test_hf import clip, siglip  # noqa: F401 (fixtures)

IMAGES = ToyImages("train", 12)
ALL = torch.arange(len(IMAGES))


class Silent(Need):
    """A third party's need, which says nothing of its shape."""

    def compute(self, backbone, pixels):
        return backbone.encode_image(pixels)[:, None, :3]


NEEDS = [
    Pooled(),
    Pooled(projected=False),
    Patches(),
    Patches(block=0),
    Pixels(),
    Silent(),
]


@pytest.fixture(params=["toy", "clip", "siglip"])
def backbone(request):
    """Three towers: with a class token, with one of another width, without."""
    from adaptkit_plugins.backbones import hf

    return toy_backbone("0") if request.param == "toy" else hf.load(str(request.getfixturevalue(request.param)))


def open_cache(folder, backbone=None, **options):
    """A cache over a folder, as another process would open it."""
    backbone = backbone or toy_backbone("0")
    return FeatureCache(backbone, Store(folder), hook=plugins.manager().hook, load=pick_backbone, **options)


@pytest.mark.parametrize("need", NEEDS, ids=repr)
def test_a_need_says_the_shape_and_the_bytes_of_what_it_computes(need, backbone):
    pixels = torch.stack([backbone.preprocess(IMAGES.image(i)) for i in range(2)])
    with torch.no_grad():
        rows = need.compute(backbone, pixels)
    assert need.shape(backbone) == tuple(rows.shape[1:]), "the shape must be that of a computed row"
    assert len(need.axes) == rows.dim() - 1, "each axis must have a name"
    for dtype, size in (("float16", 2), ("float32", 4)):
        assert need.bytes(backbone, dtype) == size * rows[0].numel(), f"{dtype} must have {size} bytes a number"


@pytest.mark.parametrize("need", [Pooled(), Patches(), Silent()], ids=repr)
def test_a_plan_tells_the_bytes_that_a_need_will_take(need, tmp_path):
    cache = open_cache(tmp_path)
    (part,) = cache.parts(IMAGES, need, ALL.tolist())
    planned = table_cost(cache, IMAGES, part)
    assert not list(tmp_path.rglob("*")), "planning must store nothing"
    rows = cache.images(IMAGES, need, ALL)
    assert planned.bytes == 2 * rows.numel(), "the bytes planned must be those of the rows in half precision"
    assert (planned.wanted, planned.present) == (12, 0), "and none of them were there"
    assert table_cost(cache, IMAGES, part).present == 12, "now they are"


@dataclass(frozen=True, kw_only=True)
class Named(Need):
    """A third party's need of one number a row."""

    axes = ("D",)


def test_arrays_are_checked_by_the_axes_a_need_names():
    rows = torch.rand(4, 16)
    images = Images.from_arrays({"mine": rows, "tokens": torch.rand(4, 5, 16)})
    assert torch.equal(images.bind({"mine": Named()}).mine, rows), "a third party's axes must be believed"
    assert images.bind({"tokens": Patches(views=1)}).tokens.shape == (4, 1, 5, 16), "views must get an axis"
    with pytest.raises(ValueError, match=r"arrays must be \(N, 3, H, W\) for 'mine', Pixels.*; got \(4, 16\)"):
        getattr(images.bind({"mine": Pixels()}), "mine")  # noqa: B009 (read when asked for)
