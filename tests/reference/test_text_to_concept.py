"""Text-to-concept once more, with numpy, from the paper (arXiv:2305.06386): the map, and how it is trained.

Written by a second hand, which had not read the method.
"""

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, unit

VARIANCE, RATE, MOMENTUM, DECAY, HORIZON = 4.5, 0.01, 0.9, 5e-4, 200


def drawn(n=40):
    """A tower's embeddings and CLIP's of the same images, of other widths and scales; texts."""
    rng = np.random.default_rng(0)
    z = 3 * rng.standard_normal((n, 9)) + 1
    return z, 0.2 * z @ rng.standard_normal((9, 6)) + 0.05, unit(rng.standard_normal((4, 6)))


def trained(z, x, w, b, epochs):
    """Gradient descent with momentum on the mean squared error of all numbers, from `w` and `b`, one step an epoch."""
    speed = [np.zeros_like(w), np.zeros_like(b)]
    for epoch in range(epochs):
        off = z @ w.T + b - x
        slopes = [2 * off.T @ z / off.size + DECAY * w, 2 * off.sum(0) / off.size + DECAY * b]
        speed = [MOMENTUM * v + slope for v, slope in zip(speed, slopes, strict=True)]
        rate = RATE * (1 + np.cos(np.pi * epoch / HORIZON)) / 2
        w, b = w - rate * speed[0], b - rate * speed[1]
    return w, b


def fitted(z, x, text, epochs, **options):
    torch.manual_seed(0)
    task = Task.from_arrays(({"x": x, "z": z}, np.zeros(len(x), dtype=int)), text, logit_scale=10.0)
    schedule = {"epochs": epochs, "batch_size": len(x)}
    return adapt(method("text-to-concept", schedule=schedule, **options), task)


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize("as_released", [False, True])
def test_the_map_is_trained_where_both_have_one_variance_and_carried_back(as_released):
    z, x, text = drawn()
    scale_z, scale_x = np.sqrt(VARIANCE / z.var()), np.sqrt(VARIANCE / x.var())
    start, model = fitted(z, x, text, 0).map, fitted(z, x, text, 5, as_released=as_released)
    w, b = (p.detach().double().numpy() for p in (start.weight, start.bias))
    w, b = trained(scale_z * z, scale_x * x, w, b, 5)
    w, b = w * scale_z / scale_x, b * (scale_z / scale_x if as_released else 1 / scale_x)
    new = np.random.default_rng(1).standard_normal((7, 9))
    close(predict(model, {"z": new}), 10 * unit(new @ w.T + b) @ text.T, "zero-shot logits")


def test_trained_for_long_it_comes_to_the_least_squares_map():
    z, x, text = drawn()
    ones = np.hstack([z, np.ones((len(z), 1))])
    best = np.hstack([z[:5], np.ones((5, 1))]) @ np.linalg.lstsq(ones, x, rcond=None)[0]
    got = predict(fitted(z, x, text, 200), {"z": z[:5]})
    close(got, 10 * unit(best) @ text.T, "zero-shot logits", 0.05)
