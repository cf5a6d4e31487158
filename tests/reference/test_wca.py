"""WCA once more, in numpy loops, from the paper (arXiv:2406.02915)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, unit


def wca(images, crops, sentences, labels, scale, image_sharpness, text_sharpness, as_released):
    answers = []
    for whole, parts in zip(images, crops, strict=True):
        w = softmax(image_sharpness * parts @ whole)
        row = []
        for rows, label in zip(sentences, labels, strict=True):
            v = softmax(text_sharpness * rows @ label)
            score = sum(w[i] * v[j] * parts[i] @ rows[j] for i in range(len(w)) for j in range(len(v)))
            if as_released:
                score /= np.linalg.norm(w @ parts) * np.linalg.norm(v @ rows)
            row.append(scale * score)
        answers.append(row)
    return np.array(answers)


@pytest.mark.parametrize("as_released", [False, True])
def test_wca_is_the_papers(as_released):
    rng = np.random.default_rng(0)
    sentences = [unit(rng.standard_normal((t, 8))) for t in (5, 3, 4)]
    labels = np.array([unit(rows.mean(0)) for rows in sentences])
    images, crops = unit(rng.standard_normal((6, 8))), unit(rng.standard_normal((6, 7, 8)))
    options = {"image_sharpness": 3.0, "text_sharpness": 2.0, "as_released": as_released}
    got = adapt(method("wca", views=7, **options), Task.from_arrays((images[:0], []), sentences, logit_scale=30.0))
    close(
        predict(got, {"x": images, "views": crops}),
        wca(images, crops, sentences, labels, 30.0, **options),
        "wca's logits",
    )
