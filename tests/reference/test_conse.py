"""ConSE's convex combination, image by image."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


@pytest.mark.parametrize("known", [[0, 2, 3, 5], []])
@pytest.mark.parametrize("top", [1, 3, 10])
def test_an_image_is_the_mean_of_the_names_it_is_given(known, top):
    rng = np.random.default_rng(0)
    text, x = rng.standard_normal((7, 5)), rng.standard_normal((20, 5))
    text, x = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (text, x))
    labels = np.array(known, int)
    conse = adapt(method("conse", top=top), Task.from_arrays((text[labels], labels), text, logit_scale=9.0))
    got = predict(conse, x.astype(np.float32)).numpy()
    known = known or list(range(7))
    for image, row in zip(x, got, strict=True):
        p = np.exp([9 * image @ text[c] for c in known])
        p = p / p.sum()
        best = np.argsort(-p)[:top]
        mean = sum(p[t] * text[known[t]] for t in best) / p[best].sum()
        want = [9 * mean @ t / np.linalg.norm(mean) for t in text]
        assert np.abs(row - want).max() < 1e-4, f"logits must be {want}; got {row}"
