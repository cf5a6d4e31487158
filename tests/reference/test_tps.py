"""TPS once more, in numpy with gradients by differences, from the paper (arXiv:2403.12952)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, slope, softmax, unit


def tps(text, views, scale, keep, steps, lr, weight_decay, per_label=True):
    """Logits of the plain image, view 0, under the shifted class embeddings."""
    shift, m, v = (np.zeros_like(text if per_label else text[0]) for _ in range(3))

    def logits(shift):
        return scale * views @ unit(text + shift).T

    def entropy(p):
        return -(p * np.log(p)).sum(-1)

    for step in range(1, steps + 1):
        kept = np.argsort(entropy(softmax(logits(shift))))[: max(1, int(len(views) * keep))]
        gradient = slope(lambda s, kept=kept: entropy(softmax(logits(s)[kept]).mean(0)), shift)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2  # AdamW
        shift = (1 - lr * weight_decay) * shift
        shift = shift - lr * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return logits(shift)[0]


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0.3, "steps": 1},
        {"keep": 0.5, "steps": 4, "weight_decay": 0.3},
        {"keep": 0.01},
        {"steps": 2, "per_label": False},
    ],
)
def test_tps_is_the_papers(options):
    rng = np.random.default_rng(0)
    text, queries = unit(rng.standard_normal((4, 6))), unit(rng.standard_normal((5, 8, 6)))
    options = {"keep": 0.1, "steps": 1, "lr": 0.02, "weight_decay": 0.01, **options}
    want = np.array([tps(text, views, 12.0, **options) for views in queries])
    got = adapt(method("tps", **options), Task.from_arrays((queries[:0], []), text, logit_scale=12.0))
    close(predict(got, queries), want, "tps's logits")
