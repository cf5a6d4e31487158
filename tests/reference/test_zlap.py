"""ZLaP with a dense inverse, in the forms that no golden has: scaled without the release's order of clipping."""

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def edges(x, bank, text, k):
    """One image's edges: (node, similarity, to a class?)."""
    for nodes, to_class in ((text, True), (bank, False)):
        similarity = nodes @ x
        for j in np.argsort(-similarity)[:k]:
            yield (j if to_class else len(text) + j), similarity[j], to_class


def reference(x, bank, text, k, gamma, alpha, sparse):
    c, size = len(text), len(text) + len(bank)
    graph = [(c + i, *edge) for i, row in enumerate(bank) for edge in edges(row, bank, text, k)]
    low, high = min(e[2] for e in graph), max(e[2] for e in graph)

    def weight(similarity, to_class):
        scaled = max(0.0, (similarity - low) / (high - low))
        return scaled**gamma if to_class else scaled

    a = np.zeros((size, size))
    for source, to, similarity, to_class in graph:
        if source != to:
            a[source, to] = weight(similarity, to_class)
    a = a + a.T
    degree = np.where(a.sum(1) > 0, a.sum(1), 1)
    inverse = np.linalg.inv(np.eye(size) - alpha * a / np.sqrt(np.outer(degree, degree)))[:, :c]
    if sparse:
        inverse = inverse * (inverse == inverse.max(1, keepdims=True))
    return np.stack([sum(weight(s, t) * inverse[j] for j, s, t in edges(row, bank, text, k)) for row in x])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("k", "gamma", "alpha"), [(3, 2.5, 0.3), (9, 5.0, 0.8)])
def test_inductive_scores_are_a_dense_solution_read_at_the_neighbours(k, gamma, alpha, sparse):
    rng = np.random.default_rng(0)
    text, bank, x = (unit(rng.standard_normal((n, 8))) for n in (6, 30, 20))
    task = Task.from_arrays((np.zeros((0, 8)), np.zeros(0, int)), text, pool=bank)
    zlap = method("zlap-inductive", k=k, gamma=gamma, alpha=alpha, scaled=True, sparse=sparse)
    got, want = predict(adapt(zlap, task), x).numpy(), reference(x, bank, text, k, gamma, alpha, sparse)
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off < 1e-4, f"scores are off by {off:.2g} of the largest"


def test_without_a_pool_the_error_says_what_to_do():
    task = Task.from_arrays((np.zeros((0, 8)), np.zeros(0, int)), np.eye(8))
    with pytest.raises(ValueError, match="pool must have unlabelled images"):
        adapt(method("zlap-inductive"), task)


def test_a_class_that_is_nobodys_neighbour_leaves_the_others_finite():
    x = torch.eye(6)[:4] + 0.1
    text = torch.eye(6)[[0, 1, 2, 5]] - torch.tensor([0.0, 0.0, 0.0, 5.0])[:, None]  # the last is far from every image
    task = Task.from_arrays((x[:0], torch.zeros(0, dtype=torch.long)), text)
    scores = predict(adapt(method("zlap", k=2), task), x)
    assert scores.isfinite().all(), "an isolated class must not spoil the others"
    assert (scores[:, -1] == 0).all(), "and nobody may be given to it"
