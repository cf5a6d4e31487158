"""LP++ once more, by torch's own gradients in double precision, as the paper writes it."""

import numpy as np
import torch
import torch.nn.functional as F

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(counts=(3, 6, 2), dim=10, queries=80, seed=0):
    rng = np.random.default_rng(seed)
    text = unit(rng.standard_normal((len(counts), dim)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    truth = rng.integers(len(counts), size=queries)
    x, q = (unit(text[of] + 0.5 * rng.standard_normal((len(of), dim))) for of in (labels, truth))
    return text, x, labels, q, truth


def iterates(text, x, labels, n):
    """W, b and alpha after each iteration; one step of alpha in ten."""
    t, x, y = torch.tensor(text), torch.tensor(x), torch.tensor(labels)
    classes = range(len(t))
    w = torch.stack([x[y == c].mean(0) for c in classes]).requires_grad_()
    b = torch.zeros(len(t), dtype=torch.double, requires_grad=True)
    start = 250 * sum(float((x[y == c] @ t[c]).mean()) for c in classes) / len(t)
    alpha = torch.full((len(t),), start, dtype=torch.double, requires_grad=True)
    lipschitz = float(torch.linalg.matrix_norm(x, 2)) ** 2
    descent = torch.optim.SGD([w, b], 4 * len(x) / lipschitz, momentum=0.9)
    rate = len(x) / (4 * max(float(((x @ t[c]) ** 2).sum()) for c in classes))
    for i in range(1, n + 1):
        loss = F.cross_entropy(x @ w.T + b + alpha * (x @ t.T), y)
        for p in (w, b, alpha):
            p.grad = None
        loss.backward()
        descent.step()
        if i % 10 == 0:
            alpha.data -= rate * alpha.grad
        yield [p.detach().numpy().copy() for p in (w, b, alpha)]


def logits(text, queries, w, b, alpha):
    return queries @ w.T + b + alpha * (queries @ text.T)


def test_lp_plus_plus_descends_as_the_paper_says():
    text, x, labels, queries, _ = draw()
    *_, last = iterates(text, x, labels, 35)
    got = predict(adapt(method("lp-plus-plus", iterations=35), Task.from_arrays((x, labels), text)), queries).numpy()
    want = logits(text, queries, *last)
    off = np.abs(got - want).max()
    assert off < 1e-4 * np.abs(want).max(), f"logits are off by {off:.2g}"


def test_lp_plus_plus_keeps_the_last_of_the_best_iterates():
    text, x, labels, queries, truth = draw(seed=1)
    every = [logits(text, queries, *state) for state in iterates(text, x, labels, 60)]
    right = [int((out.argmax(1) == truth).sum()) for out in every]
    best = max(i for i, r in enumerate(right) if r == max(right))
    assert best < 59, "the best must not be the last, or this test shows nothing"
    task = Task.from_arrays((x, labels), text, val=(queries, truth))
    got = predict(adapt(method("lp-plus-plus", iterations=60), task), queries).numpy()
    off = np.abs(got - every[best]).max()
    assert off < 1e-4 * np.abs(every[best]).max(), f"logits of iterate {best} are off by {off:.2g}"


def test_a_class_without_images_starts_from_its_text_alone():
    text, x, labels, queries, _ = draw((3, 0, 4))
    out = predict(adapt(method("lp-plus-plus", iterations=5), Task.from_arrays((x, labels), text)), queries)
    assert out.isfinite().all(), "a class without images must not spoil the others"
