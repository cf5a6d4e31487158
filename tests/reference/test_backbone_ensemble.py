"""The ensemble of backbones once more: weights of least cross-entropy, by plain gradient descent in numpy."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images

SCALE, PENALTY = 6.0, 0.05


@pytest.mark.parametrize("shots", [0, 30])
def test_weights_are_those_of_least_cross_entropy_near_equal_ones(shots):
    towers = [texts_and_images(classes=4, n=50, dim=d, spread=s, seed=3) for d, s in ((6, 1.0), (5, 1.6), (8, 1.3))]
    y = towers[0][2]
    logits = np.stack([SCALE * x @ text.T for text, x, _ in towers], axis=-1)  # (N, C, K)
    w = np.full(3, 1 / 3)
    for _ in range(1500 if shots else 0):
        wrong = softmax(logits[:shots] @ w) - np.eye(4)[y[:shots]]
        w = w - 0.05 * ((wrong[..., None] * logits[:shots]).sum(1).mean(0) + 2 * PENALTY * (w - 1 / 3))
    support = {f"x{i}": x[:shots] for i, (_, x, _) in enumerate(towers)}
    text_by = {"b": towers[1][0], "c": towers[2][0]}
    task = Task.from_arrays((support, y[:shots]), towers[0][0], text_by=text_by, logit_scale=SCALE)
    got = adapt(method("backbone-ensemble", others=("b", "c"), penalty=PENALTY), task)
    queries = {f"x{i}": x for i, (_, x, _) in enumerate(towers)}
    close(predict(got, queries), logits @ w, "the ensemble's logits")
