"""Needs: each says what its rows are like, and computes what a plain reading of its docstring computes."""

from copy import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import (
    Dense,
    Frames,
    Layers,
    Masked,
    Masks,
    Need,
    Patches,
    Pixels,
    Pooled,
    Regions,
    SentenceTokens,
    Task,
    ValuePath,
    Windows,
    unit,
)
from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Images
from adaptkit.features.needs.statistics import BlockStatistics
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
    Layers(blocks=(0, -1)),
    Layers(blocks=(1,), tokens="patches"),
    Layers(blocks=(0, 1, -1), tokens=(2, -1)),
    Dense(),
    Dense(attention="own", projected=False),
    Dense(attention="value-value"),
    Dense(attention="query-query", projected=False),
    Dense(attention="key-key"),
    Frames(count=3),
    Windows(rows=2, columns=3, projected=False),
    Masks(count=2),
    Masks(count=2, attention="own", projected=False),
]


def large(i, width=70, height=50):
    """An image of more details than a tower sees."""
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8))


def item_for(need, i=0):
    """What a source would hold for a need."""
    if isinstance(need, Frames):
        return [large(10 * i + k) for k in range(5)]
    masks = np.zeros((2, 50, 70), bool)
    masks[0, :, :35], masks[1, 10:40, 20:50] = True, True
    return Masked(large(i), masks) if isinstance(need, Masks) else large(i)


def computed(need, backbone, items=None, view=-1):
    """Rows of some items, read as a method would."""
    items = [item_for(need, i) for i in range(2)] if items is None else items
    batch = torch.stack([need.prepare(item, backbone, view, "seed") for item in items])
    with torch.no_grad():
        return need.compute(backbone, batch)


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
    rows = computed(need, backbone)
    assert need.shape(backbone) == tuple(rows.shape[1:]), "the shape must be that of a computed row"
    with torch.no_grad():
        blank = need.compute(backbone, need.blank(backbone)[None])
    assert blank.shape == rows[:1].shape, "a blank must be computed as an item is"
    assert len(need.axes) == rows.dim() - 1, "each axis must have a name"
    for dtype, size in (("float16", 2), ("float32", 4)):
        assert need.bytes(backbone, dtype) == size * rows[0].numel(), f"{dtype} must have {size} bytes a number"


STORED = [Pooled(), Patches(), Silent(), Layers(blocks=(0, -1), tokens=(1, 2)), Dense(), Windows(rows=1, columns=2)]


@pytest.mark.parametrize("need", STORED, ids=repr)
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


def test_given_pixels_are_told_from_given_rows():
    three = torch.rand(4, 3, 5, 16)
    images = Images.from_arrays({"views": three, "layers": three})
    assert torch.equal(images.bind({"views": Patches(views=3)}).views, three), "three views must not pass for colours"
    assert torch.equal(images.bind({"layers": Layers(blocks=(0, 1, 2))}).layers, three), "nor three blocks"
    frames = torch.rand(4, 2, 3, 32, 32)
    task = Task.from_arrays((frames, [0, 1, 0, 1]), text=torch.rand(2, 16), backbone=toy_backbone("0"))
    two, first = task.support.bind({"frames": Frames(count=2)}).frames, task.support.bind({"x": Pooled()}).x
    assert two.shape == (4, 2, 16), "given pixels, frames must be those of the need"
    torch.testing.assert_close(two[:, 0], first, msg="where others see views, of which the first counts")


def plain(x, layer, weights=None):
    """A transformer's block written out, ``(B, T, W)`` to ``(B, T, W)``; `weights` makes attention of q, k and v."""
    attention, h = layer.self_attn, layer.layer_norm1(x)
    q, k, v = (
        getattr(attention, f"{name}_proj")(h).unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for name in "qkv"
    )
    scale = attention.head_dim**-0.5
    mixed = (scale * (q @ k.mT)).softmax(-1) @ v if weights is None else weights(q, k, v, scale)
    x = x + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.layer_norm2(x))


def states(pixels):
    """The toy's vision model, and what enters each of its blocks and leaves the last, ``(B, T, W)`` each."""
    vision = toy_backbone("0").model.vision_model
    x = vision.pre_layrnorm(vision.embeddings(pixels))
    found = [x]
    for layer in vision.encoder.layers:
        found.append(plain(found[-1], layer))
    return vision, found


def pixels_of(images, backbone=None):
    return torch.stack([(backbone or toy_backbone("0")).preprocess(image) for image in images])


SOURCE = [large(0), large(1)]


@torch.no_grad()
def test_layers_are_the_tokens_that_leave_each_block():
    _, found = states(pixels_of(SOURCE))
    want = torch.stack(found[1:], 1)  # (B, 2, T, W)
    got = computed(Layers(blocks=(0, -1)), toy_backbone("0"), SOURCE)
    torch.testing.assert_close(got, want, msg="each block must be there, in the order asked")
    for tokens, rows in (("patches", want[:, :, 1:]), ("class", want[:, :, :1]), ((3, -1), want[:, :, [3, -1]])):
        got = computed(Layers(blocks=(0, 1), tokens=tokens), toy_backbone("0"), SOURCE)
        torch.testing.assert_close(got, rows, msg=f"of {tokens} there must be those alone")
    one = computed(Layers(blocks=(-1,)), toy_backbone("0"), SOURCE)[:, 0]
    torch.testing.assert_close(one, computed(Patches(), toy_backbone("0"), SOURCE), msg="one block is what Patches is")


ATTEND = {
    "own": None,
    "value": lambda q, k, v, scale: v,
    "value-value": lambda q, k, v, scale: (scale * (v @ v.mT)).softmax(-1) @ v,
    "query-query": lambda q, k, v, scale: (scale * (q @ q.mT)).softmax(-1) @ v,
    "key-key": lambda q, k, v, scale: (scale * (k @ k.mT)).softmax(-1) @ v,
}


@pytest.mark.parametrize("attention", ATTEND)
@torch.no_grad()
def test_dense_tokens_are_those_of_the_last_block_by_the_attention_named(attention):
    vision, found = states(pixels_of(SOURCE))
    want = plain(found[-2], vision.encoder.layers[-1], ATTEND[attention])[:, 1:]
    backbone = toy_backbone("0")
    got = computed(Dense(attention=attention, projected=False), backbone, SOURCE)
    torch.testing.assert_close(got, want, msg="before the projection they must be the block's own output")
    want = backbone.model.visual_projection(vision.post_layernorm(want))
    need = Dense(attention=attention)
    got = computed(need, backbone, SOURCE)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5, msg="in the joint space they must have passed the head")
    torch.testing.assert_close(need.read(got), unit(want), atol=1e-5, rtol=1e-5, msg="and be read at unit norm")
    others = [computed(Dense(attention=other), backbone, SOURCE) for other in ATTEND if other != attention]
    assert all((got - other).abs().max() > 1e-3 for other in others), "each attention must give rows of its own"


@torch.no_grad()
def test_dense_tokens_of_a_tower_without_class_token_pass_its_pooling_head_alone(siglip):  # noqa: F811
    from adaptkit_plugins.backbones import hf

    backbone = hf.load(str(siglip))
    vision, pixels = backbone.model.vision_model, pixels_of(SOURCE, backbone)
    x = vision.embeddings(pixels)
    for layer in vision.encoder.layers[:-1]:
        x = plain(x, layer)
    x = vision.post_layernorm(plain(x, vision.encoder.layers[-1], ATTEND["value-value"]))  # (B, P, W)
    want = torch.stack([vision.head(x[:, i : i + 1]) for i in range(x.shape[1])], 1)
    got = computed(Dense(attention="value-value"), backbone, SOURCE)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5, msg="every patch must be pooled as if it were alone")
    with pytest.raises(ValueError, match="got 'class' and a tower without class token"):
        computed(Layers(blocks=(0,), tokens="class"), backbone)


@torch.no_grad()
def test_frames_are_evenly_spaced_and_pooled_one_by_one():
    backbone = toy_backbone("0")
    clip_of = [[large(k) for k in range(n)] for n in (9, 2)]
    got = computed(Frames(count=3), backbone, clip_of)
    for rows, frames, places in zip(got, clip_of, ([1, 4, 7], [0, 1, 1]), strict=True):
        want = backbone.encode_image(pixels_of([frames[i] for i in places]))
        torch.testing.assert_close(rows, want, msg=f"of {len(frames)} frames there must be {places}")
    assert not computed(Frames(count=3), backbone, clip_of[:1], view=0).equal(got[:1]), "views must be other rows"
    still = computed(Frames(count=2), backbone, [[large(0)] * 4], view=0)
    assert torch.equal(still[:, 0], still[:, 1]), "a view must cut all frames alike"
    with pytest.raises(ValueError, match="an item must be a sequence of images for Frames; got str"):
        Frames().prepare("a caption", backbone, -1, "")


@torch.no_grad()
def test_windows_are_squares_on_a_grid_from_edge_to_edge():
    backbone, image = toy_backbone("0"), large(0, 100, 40)
    got = computed(Windows(rows=2, columns=3, side=0.5), backbone, [image])[0]
    boxes = [(x, y, x + 20, y + 20) for y in (0, 20) for x in (0, 40, 80)]
    want = backbone.encode_image(pixels_of([image.crop(box) for box in boxes]))
    torch.testing.assert_close(got, want, msg="windows must be cut out of the whole image, row by row")
    one = computed(Windows(rows=1, columns=1, side=1.0), backbone, [image])[0]
    torch.testing.assert_close(
        one, backbone.encode_image(pixels_of([image.crop((30, 0, 70, 40))])), msg="one alone is the middle"
    )


@torch.no_grad()
def test_masks_are_means_of_the_tokens_inside():
    backbone, image = toy_backbone("0"), large(0, 64, 32)  # the tower sees columns 16 to 48, as 4 by 4 patches
    masks = np.zeros((3, 32, 64), bool)
    masks[0, :8, 16:32], masks[1, 28:, 16:24], masks[2, :, :16] = True, True, True
    need = Masks(count=4, attention="own")
    got = computed(need, backbone, [Masked(image, masks)])[0]
    tokens = computed(Dense(attention="own"), backbone, [image])[0].unflatten(0, (4, 4))
    torch.testing.assert_close(got[0], tokens[0, :2].mean(0), msg="a mask of two patches must give their mean")
    torch.testing.assert_close(got[1], tokens[3, 0], msg="half a patch must count as that patch where it is all")
    assert got[2:].abs().max() == 0, "a mask that the crop leaves out, and one that is not there, must be zero"
    with pytest.raises(ValueError, match="with at most 1 masks, for Masks; got 3 masks"):
        computed(Masks(), backbone, [Masked(image, masks)])
    with pytest.raises(ValueError, match=r"a mask must be \(32, 64\); got \(32, 32\)"):
        computed(Masks(), backbone, [Masked(image, masks[:1, :, :32])])


def test_without_an_augmentation_the_one_view_is_the_plain_image(tmp_path):
    cache = open_cache(tmp_path)
    need = Pooled(views=1, augment="none")
    assert need == Pooled(views=1, plain_first=True) and Pooled(augment="none") == Pooled(), "they are the same tensor"
    assert not Pooled(views=1, augment="none", fresh=True).fresh, "there is nothing to draw anew"
    rows = cache.images(IMAGES, need, ALL)
    assert torch.equal(rows[:, 0], cache.images(IMAGES, Pooled(), ALL)), "it must be the plain image's row"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Layers(blocks=()), "blocks must be at least one"),
        (lambda: Layers(tokens="some"), "tokens must be one of all, patches, class, places; got 'some'"),
        (lambda: Dense(attention="values"), "attention must be one of"),
        (lambda: Frames(count=0), "count must be at least 1; got 0"),
        (lambda: Windows(rows=0), "rows and columns must be at least 1; got 0 and 3"),
        (lambda: Windows(side=1.5), "side must be above 0 and at most 1; got 1.5"),
        (lambda: Pooled(views=4, augment="none"), "views must be 1 with augment 'none', the plain image alone; got 4"),
        (lambda: Pooled(augment="crop"), "augment must be one of none, crop-flip"),
        (lambda: Masks(count=0), "count must be at least 1"),
        (lambda: Masks(views=2, augment="augmix"), "augment must move pixels only"),
        (lambda: computed(Layers(tokens=(17,), blocks=(0,)), toy_backbone("0")), "places from -17 to 16; got 17"),
        (lambda: Pooled().prepare([1], toy_backbone("0"), -1, ""), "an item must be an image for Pooled; got list"),
    ],
    ids=range(12),
)
def test_a_need_that_cannot_be_met_says_so(make, said):
    with pytest.raises(ValueError, match=said):
        make()


TAPPING = [Patches(), Layers(), Dense(), Regions(), ValuePath(), BlockStatistics(), SentenceTokens()]


@pytest.mark.parametrize("need", TAPPING, ids=lambda need: type(need).__name__)
def test_a_tower_without_the_points_that_a_need_taps_is_told_so_by_name(need):
    backbone = copy(toy_backbone("0"))
    some = backbone.tokenize(["a cat."]) if isinstance(need, SentenceTokens) else torch.zeros(1, 3, 32, 32)
    backbone.points = {}
    with pytest.raises(ValueError, match=r"backbone must have tap point '(image|text)\..*'.*; choose a backbone with"):
        need.compute(backbone, some)


@pytest.mark.parametrize("need", [ValuePath(), BlockStatistics()], ids=lambda need: type(need).__name__)
def test_a_tower_that_has_a_pool_and_no_blocks_is_told_so_where_blocks_are_tapped(need):
    backbone = copy(toy_backbone("0"))
    backbone.points, backbone.depth = {"image.block.-1": backbone.points["image.block.-1"]}, {"image": 0, "text": 2}
    with pytest.raises(ValueError, match=r"backbone must have tap point 'image\.block\.0'"):
        need.compute(backbone, torch.zeros(1, 3, 32, 32))
