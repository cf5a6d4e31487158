"""The linear probe against what defines it: the gradient of its loss, Newton's method for two classes, the search."""

import math

import numpy as np
import pytest
import torch
from adaptkit_plugins.adapters.linear_probe import search

from adaptkit import Task, adapt, method, predict


def draw(classes, shots=5, dim=6, seed=0):
    """Raw features with a large common part, as CLIP's have, and labels in no order."""
    rng = np.random.default_rng(seed)
    means, labels = rng.standard_normal((classes, dim)), rng.permutation(np.repeat(np.arange(classes), shots))
    return (5 + means[labels] + 0.8 * rng.standard_normal((len(labels), dim))).astype(np.float32), labels


def fit(x, labels, val=None, **options):
    text = np.ones((labels.max() + 1, x.shape[1]))
    return adapt(method("linear-probe", **options), Task.from_arrays((x, labels), text, val=val))


@pytest.mark.parametrize("c", [0.01, 0.316, 30.0])
def test_the_gradient_of_the_penalised_loss_vanishes(c):
    x, labels = draw(classes=4)
    probe = fit(x, labels, inverse_penalty=c)
    weight, bias = probe.weight.double().numpy(), probe.bias.double().numpy()
    slope_w, slope_b = weight / c, np.zeros(4)  # the bias is not penalised
    for row, label in zip(x.astype(float), labels, strict=True):
        p = np.exp(weight @ row + bias - (weight @ row + bias).max())
        p /= p.sum()
        p[label] -= 1
        slope_w, slope_b = slope_w + np.outer(p, row), slope_b + p
    worst = max(np.abs(slope_w).max(), np.abs(slope_b).max())
    assert worst < 1e-3 * len(x), f"the loss must be stationary; its gradient is {worst:.2g}"


def test_two_classes_have_the_probabilities_of_newtons_method():
    x, labels = draw(classes=2, shots=12)
    c, design = 0.7, np.hstack([x, np.ones((len(x), 1))]).astype(float)
    theta, penalty = np.zeros(design.shape[1]), np.diag([*[1 / c] * x.shape[1], 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ theta))
        hessian = (design.T * (p * (1 - p))) @ design + penalty
        theta = theta - np.linalg.solve(hessian, design.T @ (p - labels) + penalty @ theta)
    want = 1 / (1 + np.exp(-design @ theta))
    got = predict(fit(x, labels, inverse_penalty=c), x).softmax(-1)
    assert got.shape == (len(x), 2), f"two classes must have two columns; got {tuple(got.shape)}"
    off = np.abs(got[:, 1].numpy() - want).max()
    assert off < 1e-4, f"probabilities are off by {off:.2g}"


@pytest.mark.parametrize("peak", [-7.3, -2.0, 0.4, 3.1, 6.9])
def test_the_search_is_a_coarse_grid_and_eight_halvings(peak):
    def score(log_c):
        return -round(abs(log_c - peak), 3)

    start = None
    for log_c in (6, 4, 2, 0, -2, -4, -6):
        if start is None or score(log_c) > score(start):
            start = log_c
    c_left, c_right, chosen = 10 ** (start - 1), 10 ** (start + 1), None
    for _ in range(8):
        left, right = math.log10(c_left), math.log10(c_right)
        middle = (left + right) / 2
        if score(left) < score(right):
            chosen, c_left = right, 10**middle
        else:
            chosen, c_right = left, 10**middle
    got = search(score, 8)
    assert abs(got - chosen) < 1e-6, f"the search must end at {chosen}; got {got}"


def test_validation_images_choose_the_penalty_and_their_absence_leaves_it():
    x, labels = draw(classes=3, shots=4)
    held, truth = draw(classes=3, shots=10)
    assert fit(x, labels).inverse_penalty == pytest.approx(0.316), "without validation images the default stays"
    chosen, default = fit(x, labels, val=(held, truth)), fit(x, labels)
    right = [int((predict(m, held).argmax(-1) == torch.tensor(truth)).sum()) for m in (chosen, default)]
    assert 1e-7 <= chosen.inverse_penalty <= 1e7, "the search stays within a decade of its grid"
    assert right[0] >= right[1] - 1, f"the chosen penalty must do about as well as the default on val; got {right}"


def test_a_class_without_images_is_named():
    x, labels = draw(classes=3)
    with pytest.raises(ValueError, match="got none of class 1"):
        fit(x[labels != 1], labels[labels != 1])
