"""ZS-LP once more, by hand-written gradients, from the paper (arXiv:2312.12730)."""

import numpy as np

from adaptkit import Schedule, Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, unit


def zs_lp(text, x, y, scale, epochs, lr):
    """Prototypes after full-batch descent on cross-entropy, from the raw class embeddings."""
    w, speed = text.copy(), np.zeros_like(text)
    for epoch in range(epochs):
        rate = lr / 2 * (1 + np.cos(np.pi * (epoch - 1) / epochs)) if epoch else 1e-5
        p = softmax(scale * x @ unit(w).T)
        g = scale * (p - np.eye(len(w))[y]).T @ x / len(x)  # by the unit-norm prototypes
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        g = (g - unit(w) * (unit(w) * g).sum(1, keepdims=True)) / norm
        speed = 0.9 * speed + g
        w = w - rate * speed
    return w


def test_zs_lp_is_the_papers():
    rng = np.random.default_rng(0)
    text = rng.standard_normal((4, 6)) * rng.uniform(1, 3, (4, 1))
    y = rng.permutation(np.repeat(np.arange(4), (3, 1, 2, 4)))
    x = unit(text[y] + 1.5 * rng.standard_normal((len(y), 6)))
    views = np.repeat(x[:, None], 3, axis=1) * rng.uniform(0.5, 2, (len(y), 3, 1))  # equal but for their norms
    schedule = Schedule(
        epochs=30, lr=0.1, batch_size=256, optimizer="sgd", decay="cosine-epoch", warmup=1, drop_last=True
    )
    assert method("zs-lp").schedule == Schedule(**{**vars(schedule), "epochs": 300}), "the paper's schedule"
    fitted = adapt(method("zs-lp", schedule=schedule), Task.from_arrays((views, y), text, logit_scale=20.0))
    queries = unit(rng.standard_normal((20, 6)))
    want = 20 * queries @ unit(zs_lp(text, x, y, 20.0, 30, 0.1)).T
    assert np.abs(want - 20 * queries @ unit(text).T).max() > 2, "training must matter"
    close(predict(fitted, queries), want, "zs-lp's logits", 1e-3)
