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


def close(got, want, what, room=1e-4):
    """Within `room` of the reference's largest number."""
    got = np.asarray(got.detach() if hasattr(got, "detach") else got, dtype=float)
    assert got.shape == want.shape, f"{what} must have shape {want.shape}; got {got.shape}"
    off = np.abs(got - want).max()
    assert off <= room * np.abs(want).max(), f"{what} is off by {off:.2g} of at most {np.abs(want).max():.2g}"
