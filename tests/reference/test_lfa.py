"""LFA once more: beta-Procrustes in numpy, and the re-ranking loss in loops, from the paper (arXiv:2304.01752)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Schedule, Task, adapt, method, predict
from tests.reference.by_hand import close, slope, texts_and_images, unit


def procrustes(x, targets, beta):
    """From the orthogonal map that brings ``x`` nearest to its targets, beta = 0, to the identity, beta = 1.

    What neither spans is turned as little as it can be.
    """
    u, s, vt = np.linalg.svd(x.T @ targets)
    r = int((s > 1e-9 * s[0]).sum())
    a, _, bt = np.linalg.svd(u[:, r:].T @ vt[r:].T)
    w = u[:, :r] @ vt[:r] + u[:, r:] @ a @ bt @ vt[r:]
    return w - (w - np.eye(len(w))) * beta


def reranking(x, y, text, w, k, margin):
    """Mean hinge over each image's k nearest classes, of its distance to its own against theirs (ARerank)."""
    total = 0.0
    for xi, yi in zip(unit(x @ w), y, strict=True):
        distance = [np.sqrt(((xi - t) ** 2).sum()) for t in text]
        for c in np.argsort(distance)[: min(k, len(text))]:
            total += max(0.0, distance[yi] - distance[c] + (1 - text[c] @ text[yi]) / margin)
    return total / (len(x) * min(k, len(text)))


def fitted(text, x, y, steps, **options):
    schedule = replace(method("lfa").schedule, steps=steps, epochs=min(steps, 1))
    return adapt(method("lfa", schedule=schedule, **options), Task.from_arrays((x, y), text, logit_scale=10.0))


def map_of(lfa):
    return next(lfa.parameters()).detach().double().numpy()


@pytest.mark.parametrize("dim", [5, 9])
def test_the_map_starts_at_beta_procrustes(dim):
    text, x, y = texts_and_images(classes=6, n=40, dim=dim, spread=0.8)
    queries = texts_and_images(dim=dim, seed=1)[1]
    got = fitted(text, x, y, 0, betas=1)  # 0 alone
    want = procrustes(x, text[y], 0.0)
    close(map_of(got), want, "the map")
    close(predict(got, queries), 10 * unit(queries @ want) @ text.T, "lfa's logits")


def test_beta_is_chosen_on_splits_of_the_support():
    text, x, y = texts_and_images(classes=6, n=30, dim=5, spread=1.2)
    torch.manual_seed(0)
    got = map_of(fitted(text, x, y, 0, splits=4))
    torch.manual_seed(0)
    splits = [torch.randperm(30).numpy() for _ in range(4)]
    scores = []
    for beta in np.linspace(0, 1, 25):
        maps = [procrustes(x[split[6:]], text[y[split[6:]]], beta) for split in splits]  # a fifth is held back
        answers = [(x[split[:6]] @ w @ text.T).argmax(-1) for w, split in zip(maps, splits, strict=True)]
        scores.append(sum(int((a == y[s[:6]]).sum()) for a, s in zip(answers, splits, strict=True)))
    assert 0 < np.argmax(scores) < 24, f"the draw must tell betas apart; got {scores}"
    close(got, procrustes(x, text[y], np.linspace(0, 1, 25)[np.argmax(scores)]), "the map")


def test_training_is_adamw_on_the_reranking_loss():
    text, x, y = texts_and_images(classes=6, n=20, dim=4, spread=0.8)
    start = procrustes(x, text[y], 0.0)
    w, m, v, steps = start, 0, 0, 5
    for t in range(1, steps + 1):
        gradient = slope(lambda w: reranking(x, y, text, w, 4, 2.0), w)
        rate = 1e-7 + (5e-4 - 1e-7) * (1 + np.cos(np.pi * (t - 1) / steps)) / 2
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w * (1 - rate * 5e-4) - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    released = {"steps": 200, "lr": 5e-4, "optimizer": "adamw", "weight_decay": 5e-4, "final_lr": 1e-7}
    schedule = method("lfa").schedule
    assert schedule == Schedule(**released, batch_size=schedule.batch_size), f"the released schedule; got {schedule}"
    plain = {"share": 1.0, "noise": 0.0, "dropout": 0.0, "neighbours": 4, "margin": 2.0, "betas": 1}
    close(map_of(fitted(text, x, y, steps, **plain)) - start, w - start, "how far the map went", 5e-3)


def test_a_turned_space_is_turned_back():
    text, x, y = texts_and_images(n=48, dim=5, spread=0.1)
    x = x @ np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    got = adapt(method("lfa"), Task.from_arrays((x, y), text))
    right = [int((a == y).sum()) for a in ((x @ text.T).argmax(-1), predict(got, x).argmax(-1).numpy())]
    assert right[0] < 40 < right[1], f"nearly all of 48 must be right after the turn, not before; got {right}"


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_a_step_keeps_the_nearest_classes_of_each_image_and_not_all():
    text, x, y = texts_and_images(classes=200, n=400, dim=16, spread=0.8)
    model, kept = fitted(text, x, y, 0, betas=1, share=1.0), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        model.ranking(torch.as_tensor(x).float() @ model.map.requires_grad_(), torch.as_tensor(y))
    most = 400 * (1 + model.neighbours) * 16
    assert max(kept) <= most, f"no tensor may be of all images by classes by dimensions; the largest has {max(kept)}"
