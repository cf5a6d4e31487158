"""The linear probe once more, by Newton's method in numpy, with the search of CoOp's few-shot code."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import centred, close, softmax, texts_and_images


def logistic(x, y, c, classes):
    """Weights and biases where ``c sum(cross-entropy) + |W|^2 / 2`` is least, as scikit-learn has it.

    Of two classes it penalises the difference of their weights, which is twice the penalty of both.
    """
    c = c / 2 if classes == 2 else c
    rows = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    dim = rows.shape[1]
    ridge = np.diag(np.tile([1.0] * (dim - 1) + [0.0], classes))
    w = np.zeros(classes * dim)

    def cost(w):
        p = softmax(rows @ w.reshape(classes, dim).T)
        return -c * np.log(p[np.arange(len(y)), y]).sum() + w @ ridge @ w / 2

    for _ in range(60):
        p = softmax(rows @ w.reshape(classes, dim).T)
        slope = c * ((p - np.eye(classes)[y]).T @ rows).ravel() + ridge @ w
        by_logit = p[:, :, None] * (np.eye(classes) - p[:, None])  # (N, C, C)
        bend = ridge + c * np.einsum("nab,nd,ne->adbe", by_logit, rows, rows).reshape(ridge.shape)
        step, size = np.linalg.pinv(bend, hermitian=True) @ slope, 1.0
        while size > 1e-6 and cost(w - size * step) > cost(w):
            size /= 2
        w = w - size * step
        if np.abs(slope).max() < 1e-9 * c:
            break
    return w.reshape(classes, dim)


def answer(x, w):
    return x @ w[:, :-1].T + w[:, -1]


def searched(x, y, val, val_y, classes, rounds):
    """C by the released search: a coarse grid from weak to strong, then halving towards the side that is right more."""

    def right(c):
        return int((answer(val, logistic(x, y, c, classes)).argmax(-1) == val_y).sum())

    grid = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    peak = np.log10(grid[int(np.argmax([right(c) for c in grid]))])
    low, high = peak - 1, peak + 1
    for _ in range(rounds):
        middle, to_high = (low + high) / 2, right(10**low) < right(10**high)
        final, low, high = (high, middle, high) if to_high else (low, low, middle)
    return 10**final


def draw(seed=0, classes=3):
    """Raw embeddings, of any norm and off centre; the classes overlap, so that every optimum is finite."""
    text, x, y = texts_and_images(classes, n=260, dim=4, spread=1.0, seed=seed)
    x = 3 * x + 1
    return text, x[:40], y[:40], x[40:240], y[40:240], x[240:]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.05, 0.316, 20.0])
def test_without_validation_images_it_is_the_optimum_for_the_given_penalty(c, classes):
    text, x, y, _, _, queries = draw(classes=classes)
    got = predict(adapt(method("linear-probe", inverse_penalty=c), Task.from_arrays((x, y), text)), queries)
    want = answer(queries, logistic(x, y, c, classes))
    close(centred(got.double().numpy()), centred(want), "the logits", 1e-3)


@pytest.mark.parametrize("seed", [0, 1, 18])
def test_the_penalty_is_searched_as_in_the_released_code(seed):
    text, x, y, val, val_y, queries = draw(seed)
    got = adapt(method("linear-probe"), Task.from_arrays((x, y), text, val=(val, val_y)))
    c = searched(x, y, val, val_y, 3, 8)
    assert got.inverse_penalty == pytest.approx(c, rel=1e-3), f"C must be {c}; got {got.inverse_penalty}"
    want = answer(queries, logistic(x, y, c, 3))
    close(centred(predict(got, queries).double().numpy()), centred(want), "the logits", 1e-3)


def test_a_class_without_images_is_named():
    text, x, y, *_ = draw()
    with pytest.raises(ValueError, match="got none of class 1"):
        adapt(method("linear-probe"), Task.from_arrays((x[y != 1], y[y != 1]), text))
