"""Zero-shot once more, in numpy loops, from the paper (arXiv:2103.00020)."""

import numpy as np

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, unit


def test_zero_shot_is_the_papers():
    rng = np.random.default_rng(0)
    sentences = [rng.standard_normal((t, 6)) * rng.uniform(1, 9, (t, 1)) for t in (3, 1, 4)]
    x = 3 * rng.standard_normal((7, 6))
    classes = [unit(sum(unit(row) for row in rows)) for rows in sentences]
    want = np.array([[12 * unit(xi) @ t - 2 for t in classes] for xi in x])
    task = Task.from_arrays((x[:0], []), sentences, logit_scale=12.0, logit_bias=-2.0)
    close(predict(adapt(method("zero-shot"), task), x), want, "zero-shot's logits")
