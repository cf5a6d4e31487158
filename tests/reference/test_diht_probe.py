"""The DiHT probe once more: cross-entropy within a ball about each class's text, by plain projected gradients."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images


def probe(text, x, y, scale, radius, steps=600):
    w, rate = text.copy(), 4 / scale**2
    for _ in range(steps):
        w = w - rate * scale * (softmax(scale * x @ w.T) - np.eye(len(w))[y]).T @ x / len(x)
        away = w - text
        norm = np.linalg.norm(away, axis=1, keepdims=True)
        w = text + away * np.minimum(1, radius / np.maximum(norm, 1e-12))
    return w


def draw():
    text, x, y = texts_and_images(classes=4, n=60, dim=6, spread=1.0)
    return text, x[:24].reshape(12, 2, 6), y, x[24:], y[24:]


@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0])
def test_it_is_the_best_within_the_ball(radius):
    text, x, y, queries, _ = draw()
    labels = y[:12]
    got = adapt(method("diht-probe", radius=radius, steps=600), Task.from_arrays((x, labels), text, logit_scale=8.0))
    w = probe(text, x.reshape(-1, 6), labels.repeat(2), 8.0, radius)
    close(predict(got, queries), 8 * queries @ w.T, "diht-probe's logits", 1e-3)


def test_the_radius_is_chosen_on_validation_images():
    text, x, y, val, val_y = draw()
    radii = (0.0, 0.2, 0.5, 1.0)
    weights = [probe(text, x.reshape(-1, 6), y[:12].repeat(2), 8.0, r) for r in radii]
    scores = [int(((val @ w.T).argmax(-1) == val_y).sum()) for w in weights]
    task = Task.from_arrays((x, y[:12]), text, val=(val, val_y), logit_scale=8.0)
    got = adapt(method("diht-probe", radii=radii, steps=600), task)
    assert got.radius == pytest.approx(radii[int(np.argmax(scores))]), f"the radius is {got.radius}; scores {scores}"
