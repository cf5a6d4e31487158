"""WCA's double sum over crops and sentences."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("as_released", [False, True])
def test_it_is_a_weighted_sum_over_crops_and_sentences(as_released):
    rng = np.random.default_rng(0)
    text = [rng.standard_normal((m, 5)) for m in (2, 4, 1)]
    views, x = unit(rng.standard_normal((8, 6, 5))), unit(rng.standard_normal((8, 5)))
    nothing = (np.zeros((0, 5)), np.zeros(0, int))
    options = {"image_sharpness": 5.0, "text_sharpness": 3.0, "as_released": as_released}
    wca = adapt(method("wca", **options), Task.from_arrays(nothing, text, logit_scale=10.0))
    got = predict(wca, {"x": x.astype(np.float32), "views": views.astype(np.float32)}).numpy()
    for n in range(8):
        w = softmax(np.array([5 * x[n] @ view for view in views[n]]))
        for c, rows in enumerate(map(unit, text)):
            name = unit(rows.mean(0))
            v = softmax(np.array([3 * name @ row for row in rows]))
            want = sum(w[i] * v[j] * views[n, i] @ rows[j] for i in range(6) for j in range(len(rows)))
            if as_released:
                want /= np.linalg.norm(w @ views[n]) * np.linalg.norm(v @ rows)
            assert abs(got[n, c] - 10 * want) < 1e-4, f"image {n}, class {c} must be {10 * want}; got {got[n, c]}"
