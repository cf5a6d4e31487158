"""Streams with Gaussians and graphs: a whole stream at once and image by image, beside the way of the releases."""

import copy
import functools

import torch
from torch import Tensor

from adaptkit import Method, adapt, method, unit
from adaptkit.features.items import Images
from adaptkit.methods.ops import row_variance
from benchmarks.frame import Row, Size, case, ensure_close, features, timed

STREAM, ONLINE = 4000, 400  # images of a stream, and those of it that come one by one at its end


def drawn(size: Size, name: str, **options: bool) -> tuple[Method, Tensor]:
    """A method and a stream in the order of a draw."""
    task, x, _ = features(size)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:STREAM]]
    return adapt(method(name, **options), task), x


def images(model: Method, x: Tensor) -> Images:
    """The stream as the method reads it."""
    return Images.from_arrays(x).bind(model.needs()).load()


def plain_count(size: Size, most: int) -> int:
    """Images that the releases' way is timed on, and held to: all of a small stream."""
    return {5: size.N, 100: most, 1000: max(2, most // 5)}[size.C]


@functools.cache
def oga(size: Size) -> tuple[Method, Tensor, int, float, Tensor]:
    """OGA, a stream, and the paper's way at its end: a covariance of all that is held, and its inverse, an image."""
    model, x = drawn(size, "oga")
    count, text = plain_count(size, 20), model.text.double()
    filled = copy.deepcopy(model)
    if early := len(x) - count:
        filled.replay(images(model, x[:early]))
    cache = filled.cache

    def answer(row: Tensor) -> Tensor:
        logits = 100.0 * row @ model.text.T
        cache.enter(logits.argmax()[None], -(logits.softmax(0) * logits.log_softmax(0)).sum()[None], row[None])
        held, means, off = cache.held, text.clone(), []
        for c in held.any(1).nonzero()[:, 0].tolist():
            keys = cache.keys[c][held[c]].double()
            if len(keys) >= 2:
                means[c] = keys.mean(0)
            off.append(keys - means[c])
        n, dim, rows = int(held.sum()), len(row), torch.cat(off)
        rows, precision = rows - rows.mean(0), dim * torch.eye(dim).double()
        if held.sum(1).max() > 2:
            scatter = rows.T @ rows
            shrunk = scatter + scatter.trace() / (n - 1) * torch.eye(dim)
            few = n <= 4 * dim
            precision = dim * torch.linalg.inv(shrunk) if few else (n - 1) * torch.linalg.pinv(scatter, hermitian=True)
        away = row.double() - means
        return (logits - 0.025 * (away @ precision * away).sum(1)).float()

    return model, x, count, *timed(lambda: torch.stack([answer(row) for row in x[early:]]))


@functools.cache
def dota(size: Size) -> tuple[Method, Tensor, int, float, Tensor]:
    """DOTA, a stream, and the paper's way at its beginning: all classes' matrices moved, and one inverted, an image."""
    model, x = drawn(size, "dota")
    x, count = x[: STREAM // 10], plain_count(size, 10)
    text, counts = model.text, torch.ones(size.C)
    means, covariances = text.clone(), 0.002 * torch.eye(size.D).repeat(size.C, 1, 1)

    def answer(row: Tensor) -> Tensor:
        logits = 100.0 * row @ text.T
        precision = torch.linalg.inv((1 - 1e-4) * covariances.mean(0) + 1e-4 * torch.eye(size.D))
        gaussian = means @ precision @ row - 0.5 * (means @ precision * means).sum(1)
        p, weight = logits.softmax(0), (0.02 * counts.mean()).clamp_max(0.2)
        away, total = row - means, counts + p
        means.add_((p / total)[:, None] * away)
        covariances.mul_((counts / total)[:, None, None])
        covariances.add_((p / total)[:, None, None] * away[:, :, None] * away[:, None])
        counts.copy_(total)
        return logits + weight * gaussian

    return model, x, count, *timed(lambda: torch.stack([answer(row) for row in x[:count]]))


def stored(model: Method, x: Tensor, count: int, plain: float, want: Tensor, at_end: bool, flops: float) -> Row:
    """A stream that is there from the start; `plain` seconds are those of the images in `want`, times all."""
    with torch.no_grad():
        ours, got = timed(lambda: copy.deepcopy(model).replay(images(model, x)))
    ensure_close(got[-count:] if at_end else got[:count], want, 1e-2, "logits")
    return Row(plain * len(x) / count, ours, f"{count} of {len(x)}", flops * len(x))


def online(model: Method, x: Tensor, count: int, plain: float, want: Tensor, at_end: bool, flops: float) -> Row:
    """A stream of which each image is answered before the next one comes."""
    running, early = copy.deepcopy(model), max(0, len(x) - ONLINE) if at_end else 0
    with torch.no_grad():
        if early:
            running.replay(images(model, x[:early]))
        rows = images(model, x[early : early + ONLINE])
        ours, got = timed(lambda: torch.cat([running(rows[i : i + 1]) for i in range(len(rows))]))
    held = min(count, len(got))
    ensure_close(got[-held:] if at_end else got[:held], want[-held:], 1e-2, "logits")
    return Row(plain * len(rows) / count, ours, f"{count} of {len(rows)}", flops * len(rows))


def oga_flops(size: Size) -> float:
    """Products of a matrix with an image and with two columns: the text, the inverse and the means."""
    return 2 * (size.C * size.D + 3 * size.D**2 + 3 * size.C * size.D)


def dota_flops(size: Size) -> float:
    """Every class's matrix, read and moved, and a Cholesky factor with the means solved."""
    return 2 * (2 * size.C * size.D**2 + size.D**3 / 6 + size.C * size.D**2 / 2)


@case("oga stored stream", C100=20, C1000=50)
def oga_stored(size: Size) -> Row:
    """OGA, the whole stream at once."""
    return stored(*oga(size), True, oga_flops(size))


@case("oga online", C100=5, C1000=15)
def oga_online(size: Size) -> Row:
    """OGA, image by image, after the others of the stream."""
    return online(*oga(size), True, oga_flops(size))


@case("dota stored stream", C100=10, C1000=10)
def dota_stored(size: Size) -> Row:
    """DOTA, the whole stream at once."""
    return stored(*dota(size), False, dota_flops(size))


@case("dota online", C100=5, C1000=5)
def dota_online(size: Size) -> Row:
    """DOTA, image by image."""
    return online(*dota(size), False, dota_flops(size))


def ecalp_plain(size: Size) -> tuple[Method, Tensor, int, float, Tensor]:
    """ECALP, the beginning of a stream, and the graph built anew for each image, with dense matrices."""
    model, x = drawn(size, "ecalp", shots=False)
    x, text, held = x[: {5: 60, 100: 800, 1000: 400}[size.C]], model.text, torch.zeros(0, size.C)
    heavy = unit(x * row_variance(text))

    def strongest(similarity: Tensor, k: int) -> Tensor:
        top = similarity.topk(min(k, similarity.shape[1]))
        return torch.zeros_like(similarity).scatter_(1, top.indices, top.values.clamp_min(0) ** 10)

    def answer(n: int) -> Tensor:
        nonlocal held
        nodes, part = size.C + n, heavy[:n] @ x[:n].T  # the older image's side is weighed
        w = torch.zeros(nodes, nodes)
        w[size.C :, : size.C] = strongest(x[:n] @ text.T, 3)
        w[size.C :, size.C :] = strongest(part.triu() + part.triu(1).T, 8)
        w = w + w.T
        root = 1 / (w.sum(1).sqrt() + 1e-6)
        w = (root[:, None] * w * root)[size.C :]
        start = torch.cat([held, torch.zeros(1, size.C)])
        y = start
        for _ in range(3):
            y = w @ torch.cat([torch.eye(size.C), y])
        held = torch.where(y == y.max(1, keepdim=True).values, y / 5, 0)
        return y[-1]

    return model, x, len(x), *timed(lambda: torch.stack([answer(n + 1) for n in range(len(x))]))


@case("ecalp online", C100=2, C1000=3)
def ecalp_online(size: Size) -> Row:
    """ECALP, image by image; the limit is two steps over the links of all images."""
    model, x, *rest = ecalp_plain(size)
    return online(model, x, *rest, True, 2 * len(x) * size.C * 16)
