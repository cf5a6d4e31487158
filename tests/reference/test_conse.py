"""ConSE once more, in numpy loops, from the paper (arXiv:1312.5650)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images, unit


@pytest.mark.parametrize(("top", "known"), [(2, [0, 2, 3]), (10, [0, 2, 3]), (3, [0, 1, 2, 3, 4]), (2, [])])
def test_conse_is_the_papers(top, known):
    text, x, _ = texts_and_images(classes=5, n=12)
    task = Task.from_arrays((text[known], known), text, logit_scale=7.0)
    known = known or list(range(5))
    want = []
    for p in softmax(7 * x @ text[known].T):
        best = np.argsort(-p)[:top]
        z = p[best].sum()  # eq. 2: Z
        f = sum(p[t] / z * text[known[t]] for t in best)
        want.append([7 * unit(f) @ t for t in text])
    close(predict(adapt(method("conse", top=top), task), x), np.array(want), "conse's logits")
