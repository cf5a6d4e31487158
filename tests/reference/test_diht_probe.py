"""The probe's weights satisfy the conditions of a minimum within the balls."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method


def draw():
    rng = np.random.default_rng(0)
    text = rng.standard_normal((4, 6))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    labels = np.arange(20) % 4
    x = text[labels] + 0.8 * rng.standard_normal((20, 6))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels, text


@pytest.mark.parametrize("radius", [0.0, 0.2, 0.6])
def test_the_slope_points_into_the_ball_where_the_ball_binds_and_vanishes_elsewhere(radius):
    x, labels, text = draw()
    probe = adapt(method("diht-probe", radius=radius, steps=3000), Task.from_arrays((x, labels), text, logit_scale=4.0))
    w = probe.text.double().numpy()
    p = np.exp(4 * x @ w.T)
    slope = 4 * (p / p.sum(1, keepdims=True) - np.eye(4)[labels]).T @ x / len(x)
    for c in range(4):
        moved = w[c] - text[c]
        far = np.linalg.norm(moved)
        assert far <= radius + 1e-6, f"class {c} must stay within {radius}; it is {far} away"
        if radius and far > radius - 1e-4:
            cosine = -slope[c] @ moved / np.linalg.norm(slope[c]) / far
            assert cosine > 0.999, f"at the border of class {c} the slope must point inwards; cosine {cosine}"
        elif radius:
            assert np.abs(slope[c]).max() < 1e-3, f"inside the ball of class {c} the slope must vanish; got {slope[c]}"


def test_validation_images_choose_the_radius():
    x, labels, text = draw()
    wrong = Task.from_arrays((x, (labels + 1) % 4), text, val=(text, np.arange(4)), logit_scale=4.0)
    assert adapt(method("diht-probe"), wrong).radius == 0.0, "images with wrong labels must teach nothing"
    good = adapt(method("diht-probe"), Task.from_arrays((x, labels), text, val=(x, labels), logit_scale=4.0))
    assert good.radius > 0, "images with right labels must teach something"
