"""Neural Priming once more, in numpy loops, from the paper (arXiv:2306.10191): mixtures of unit norm."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, texts_and_images, unit


@pytest.mark.parametrize("with_pool", [False, True])
def test_neural_priming_mixes_text_and_images(with_pool):
    text, x, y = texts_and_images(classes=4, n=40)
    pool, known = x[:20], y[20:30] != 2  # of one class there is no labelled image
    shots, labels = x[20:30][known], y[20:30][known]
    task = Task.from_arrays((shots, labels), text, pool=pool if with_pool else None, logit_scale=10.0)
    got = predict(adapt(method("neural-priming", alpha=0.6), task), x[30:])
    rows = [(row, c) for row, c in zip(shots, labels, strict=True)]
    rows += [(row, int((text @ row).argmax())) for row in pool] if with_pool else []
    weights = []
    for c in range(4):
        own = [row for row, label in rows if label == c]
        weights.append(unit(0.6 * text[c] + 0.4 * unit(np.sum(own, 0))) if own else text[c])
    close(got, 10 * x[30:] @ np.array(weights).T, "neural priming's logits")
