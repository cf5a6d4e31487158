"""EM-Dirichlet (arXiv:2405.18437): what `predict` gives, and how clusters go to classes."""

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import softmax, texts_and_images


@pytest.mark.parametrize("name", ["em-dirichlet", "hard-em-dirichlet"])
def test_answers_are_probabilities_of_classes_that_clusters_are_matched_with(name):
    text, x, y = texts_and_images(classes=6, n=60)
    x = x[y < 4]  # two classes without queries
    model = adapt(method(name), Task.from_arrays((x[:0], []), text))
    got = predict(model, x)
    assert torch.allclose(got.exp().sum(1), torch.ones(len(x)), atol=1e-5), "each row must sum to 1"
    z = softmax(30 * x @ text.T)
    log_u = model.solve(torch.as_tensor(z))[0]
    cluster, seen = log_u.argmax(1).numpy(), got.argmax(1).numpy()
    pairs = {(int(a), int(b)) for a, b in zip(cluster, seen, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "a cluster must be one class"
    matched = sum(z[cluster == a].mean(0)[b] for a, b in pairs)
    own = sum(z[cluster == a].mean(0)[a] for a, _ in pairs)
    assert matched >= own - 1e-9, "no other assignment of clusters to classes may be likelier"


def test_alpha_is_where_the_likelihood_is_flat():
    torch.manual_seed(0)
    mean = (torch.rand(3, 3).double() * 0.9 + 0.05).log() - 1
    alpha = method("em-dirichlet", steps=5000).majorised(torch.ones(3, 3).double(), mean)
    slope = alpha.sum(-1, keepdim=True).digamma() - alpha.digamma() + mean
    assert float(slope.abs().max()) < 1e-4, "the gradient of the mean log-likelihood must vanish at alpha"
    assert np.isfinite(alpha.numpy()).all(), "alpha must be finite"
