"""What the references share: elementary functions in numpy and double precision, draws, and a comparison."""

import numpy as np


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def centred(logits):
    """Less what all classes share, which says nothing."""
    return logits - logits.mean(-1, keepdims=True)


def slope(f, at, h=1e-6):
    """Gradient of a number by differences."""
    out = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        nudge = np.zeros_like(at)
        nudge[i] = h
        out[i] = (f(at + nudge) - f(at - nudge)) / (2 * h)
    return out


def texts_and_images(classes=4, n=24, dim=8, spread=0.6, seed=0):
    """Unit-norm class embeddings and images about them, with their classes, in no order."""
    rng = np.random.default_rng(seed)
    text = unit(rng.standard_normal((classes, dim)))
    y = rng.permutation(np.arange(n) % classes)
    return text, unit(text[y] + spread * rng.standard_normal((n, dim))), y


def draw(counts=(2, 4, 1), views=3, dim=8, queries=25, seed=0):
    """Class texts, raw support views of unequal norms, labels in no order, queries and their labels."""
    rng = np.random.default_rng(seed)
    text = unit(rng.standard_normal((len(counts), dim)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = text[labels][:, None] + 0.4 * rng.standard_normal((len(labels), views, dim))
    x *= rng.uniform(1, 9, (len(labels), views, 1))
    truth = rng.integers(len(counts), size=queries)
    return text, x, labels, unit(text[truth] + 0.6 * rng.standard_normal((queries, dim))), truth


def close(got, want, what, room=1e-4):
    """Within `room` of the reference's largest number."""
    got = np.asarray(got.detach() if hasattr(got, "detach") else got, dtype=float)
    assert got.shape == want.shape, f"{what} must have shape {want.shape}; got {got.shape}"
    off = np.abs(got - want).max()
    assert off <= room * np.abs(want).max(), f"{what} is off by {off:.2g} of at most {np.abs(want).max():.2g}"
