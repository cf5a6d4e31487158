"""Prompts that are tuned for each image anew, through the text tower of a ViT-B/16, random weights.

Plain code is the release's: one image after the other, every sentence at its full length. Beside it, our own way with
one image at a time, which is what tuning several together saves on a device that one image does not fill.
"""

import functools

import torch
from torch import Tensor, nn

from adaptkit import Method, Task, adapt, method, predict, unit
from adaptkit.methods.ops import entropy
from benchmarks.frame import Row, Size, case, ensure_close, timed
from benchmarks.towers import MOST, backbone, block_flops, names, own_tokens, plain_text

IMAGES, VIEWS = 4, 64
ROOM = 5e-2  # of logits: a step of AdamW follows the sign of gradients, the smallest of which are rounding


@functools.cache
def scene(size: Size, name: str) -> tuple[Method, Tensor]:
    """A method adapted to class names, and embeddings of views of some images, ``(N, V, D)``."""
    tower, draw = backbone(size.C < MOST), torch.Generator().manual_seed(0)
    text = torch.randn(size.C, tower.dim, generator=draw)
    task = Task.from_arrays((text[:0], []), text, classnames=names(size.C), backbone=tower)
    x = torch.randn(IMAGES, 1, tower.dim, generator=draw) + torch.randn(IMAGES, VIEWS, tower.dim, generator=draw)
    return adapt(method(name, views=VIEWS), task), unit(x)


def flops(model: Method, images: int) -> float:
    """Of the text tower: forward and back in each step, and forward once more."""
    each = block_flops(model.backbone, "text", own_tokens(model)) / 2  # one way
    return images * each * (1 + 2 * model.steps)


@case("tpt", C100=8)
def tpt(size: Size) -> Row:
    """One step for each image: the entropy of the mean of its surest views."""
    model, x = scene(size, "tpt")
    tower, tokens = model.backbone, model.prompts.tokens["input_ids"]

    def logits(views: Tensor, context: Tensor) -> Tensor:
        return tower.logit_scale * views @ plain_text(tower, tokens, context).T

    def answer(views: Tensor) -> Tensor:
        context = nn.Parameter(model.context.clone())
        optimizer = torch.optim.AdamW([context], model.lr)
        for _ in range(model.steps):
            said = logits(views, context)
            surest = said[entropy(said).argsort()[: int(model.keep * len(said))]]
            loss = entropy(surest.log_softmax(-1).logsumexp(0))
            (context.grad,) = torch.autograd.grad(loss, context)
            optimizer.step()
        with torch.no_grad():
            return logits(views[:1], context)

    plain, want = timed(lambda: answer(x[0]))
    ours, got = timed(lambda: predict(model, x), 2)
    ensure_close(got[:1], want, ROOM, "logits")
    return Row(plain * IMAGES, ours, f"1 of {IMAGES} images", flops(model, IMAGES))


def together(size: Size, name: str) -> Row:
    """Several images at once, beside one at a time."""
    model, x = scene(size, name)
    predict(model, x[:1])
    plain, want = timed(lambda: predict(model, x, batch_size=1), 2)
    ours, got = timed(lambda: predict(model, x), 2)
    ensure_close(got, want, ROOM, "logits")
    return Row(plain, ours, "all, by ourselves", flops(model, IMAGES))


@case("tpt together")
def tpt_together(size: Size) -> Row:
    """One step each."""
    return together(size, "tpt")


@case("c-tpt together")
def c_tpt_together(size: Size) -> Row:
    """One step each, classes spread."""
    return together(size, "c-tpt")


@case("rlcf together")
def rlcf_together(size: Size) -> Row:
    """Three steps each."""
    model, x = scene(size, "rlcf")
    seen = {"views": x, "judged": x}
    plain, want = timed(lambda: predict(model, seen, batch_size=1))
    ours, got = timed(lambda: predict(model, seen), 2)
    ensure_close(got, want, 3 * ROOM, "logits")
    return Row(plain, ours, "all, by ourselves", flops(model, IMAGES))
