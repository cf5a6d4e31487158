"""Test-time methods: streams with caches, and votes and modes of an image's views."""

import copy
import functools
import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit import Method, Task, adapt, method, predict, unit
from adaptkit.features.items import Images
from benchmarks.frame import Row, Size, case, ensure_close, features, timed

STREAM, IMAGES, VIEWS = 5000, 100, 64


@functools.cache
def stream(size: Size) -> tuple[Method, Tensor, float, Tensor]:
    """TDA, a stream, and the paper's way: lists of images, of which every answer makes matrices anew."""
    task, x, _ = features(size)
    model, x, positive, negative = adapt(method("tda"), task), x[:STREAM], defaultdict(list), defaultdict(list)
    text, classes = model.text, size.C

    def admit(cache: dict[int, list], label: int, capacity: int, *entry: float | Tensor) -> None:
        cache[label] = sorted([*cache[label], entry], key=lambda held: held[0])[:capacity]

    def votes(row: Tensor, cache: dict[int, list], beta: float, values: Tensor) -> Tensor:
        keys = torch.stack([key for c in sorted(cache) for _, key, *_ in cache[c]])
        return (-beta * (1 - row @ keys.T)).exp() @ values

    def answer(row: Tensor) -> Tensor:
        logits = 100.0 * row @ text.T
        p, label = logits.softmax(0), int(logits.argmax())
        h = float(-(p * logits.log_softmax(0)).sum())
        admit(positive, label, 3, h, row)
        if 0.2 < h / math.log2(classes) < 0.5:
            admit(negative, label, 2, h, row, p)
        labels = torch.tensor([c for c in sorted(positive) for _ in positive[c]])
        logits = logits + 2.0 * votes(row, positive, 5.0, F.one_hot(labels, classes).float())
        if negative:
            spoken = torch.stack([p for c in sorted(negative) for _, _, p in negative[c]])
            logits = logits - 0.117 * votes(row, negative, 1.0, ((spoken > 0.03) & (spoken < 1.0)).float())
        return logits

    return model, x, *timed(lambda: torch.stack([answer(row) for row in x]))


def tda_flops(size: Size, count: int) -> float:
    """Zero-shot logits, and affinities to five slots a class."""
    return 2 * count * size.D * 6 * size.C


@case("tda stored stream", C1000=50)
def tda(size: Size) -> Row:
    """A stream that is there from the start."""
    model, x, plain, want = stream(size)
    ours, got = timed(lambda: predict(model, x), 3)
    ensure_close(got, want, 1e-3, "logits")
    return Row(plain, ours, "all", tda_flops(size, len(x)))


@case("tda online", C100=1, C1000=5)
def tda_online(size: Size) -> Row:
    """A stream of which each image is answered before the next one comes."""
    model, x, plain, want = stream(size)
    images, running = Images.from_arrays(x).bind(model.needs()).load(), copy.deepcopy(model)
    with torch.no_grad():
        ours, got = timed(lambda: torch.cat([running(images[i : i + 1]) for i in range(len(images))]))
    ensure_close(got, want, 1e-3, "logits")
    return Row(plain, ours, "all", tda_flops(size, len(x)))


def seen(size: Size) -> tuple[Task, Tensor]:
    """A task, and views of some images, ``(N, V, D)``."""
    task, x, _ = features(size)
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(len(x[:IMAGES]), VIEWS, size.D, generator=draw) / size.D**0.5
    return task, unit(x[:IMAGES, None] + 0.7 * noise)


@case("zero", C100=4, C1000=4)
def zero(size: Size) -> Row:
    """Image by image: the confident views' predictions at temperature zero, added up; ties by the next views."""
    task, views = seen(size)
    text = task.text

    def answer(x: Tensor) -> Tensor:
        logits = 100.0 * x @ text.T
        order = (-(logits.softmax(1) * logits.log_softmax(1)).sum(1)).argsort(stable=True)
        kept = int(0.3 * len(x))
        votes = (logits[order[:kept]] / torch.finfo(logits.dtype).eps).softmax(1).sum(0)
        best = (votes == votes.max()).nonzero()[:, 0].tolist()
        if len(best) > 1:
            further = [c for view in order[kept:] if (c := int(logits[view].argmax())) in best]
            votes[further[0] if further else max(best, key=lambda c: float(logits[order[kept], c]))] += 1
        return votes

    model = adapt(method("zero"), task)
    ours, got = timed(lambda: predict(model, views), 5)
    plain, want = timed(lambda: torch.stack([answer(x) for x in views]), 3)
    ensure_close(got, want, 0, "votes")
    return Row(plain, ours, "all", 2 * views.numel() * size.C)


@case("mta", C100=6, C1000=6)
def mta(size: Size) -> Row:
    """Image by image, in the space of the embeddings."""
    task, views = seen(size)
    text = task.text

    def kernel(x: Tensor, mode: Tensor, h2: Tensor) -> Tensor:
        return (-(x - mode).square().sum(1) / (2 * h2)).exp()

    def answer(x: Tensor) -> Tensor:
        p, near = (100.0 * x @ text.T).softmax(1), int(0.3 * (len(x) - 1))
        distance2 = (x[:, None] - x).square().sum(-1)
        h2 = distance2.sort(1).values[:, 1 : near + 1].mean(1) / 2
        affinity, mode, y = p @ p.T, x[0], torch.full((len(x),), 1 / len(x))
        for _ in range(5):
            density = kernel(x, mode, h2)
            for _ in range(5):
                before, y = y, ((density + 4.0 * affinity @ y) / 0.2).softmax(0)
                if (y - before).norm() < 1e-6:
                    break
            for _ in range(5):
                before, mode = mode, unit((kernel(x, mode, h2) * y) @ x)
                if (mode - before).norm() < 1e-6:
                    break
        return 100.0 * mode @ text.T

    model = adapt(method("mta"), task)
    ours, got = timed(lambda: predict(model, views), 5)
    plain, want = timed(lambda: torch.stack([answer(x) for x in views]), 3)
    ensure_close(got, want, 2e-3, "logits")
    return Row(plain, ours, "all", 2 * views.numel() * (size.C + 2 * VIEWS))
