"""GLA once more, in numpy, from the paper (arXiv:2310.08106)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import centred, close, softmax, texts_and_images


def log_prior(logits, y):
    """``log q`` with which ``logits - log q`` has the least risk on a class-balanced target, by Newton's method."""
    classes, weight, b = logits.shape[1], 1 / np.bincount(y)[y], np.zeros(logits.shape[1])
    for _ in range(100):
        p = softmax(logits + b)
        slope = weight @ (p - np.eye(classes)[y])
        b -= np.linalg.pinv(np.diag(weight @ p) - (weight[:, None] * p).T @ p) @ slope
    return -b


def temperature(logits, y):
    """At which mean confidence is accuracy, by bisection."""
    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = np.sqrt(low * high)
        sure = softmax(logits / middle).max(-1).mean()
        low, high = (middle, high) if sure > (logits.argmax(-1) == y).mean() else (low, middle)
    return middle


def draw(*counts, skip=0):
    text, x, y = texts_and_images(classes=3, n=90, spread=1.2, seed=2)
    keep = np.concatenate([np.flatnonzero(y == c)[skip : skip + k] for c, k in enumerate(counts)])
    return text, x[keep], y[keep]


@pytest.mark.parametrize("with_val", [False, True])
def test_gla_is_the_papers(with_val):
    (text, x, y), scale = draw(20, 8, 12), 6.0
    _, val, val_y = draw(5, 9, 7, skip=20)
    val = (val, val_y) if with_val else None
    task = Task.from_arrays((x, y), text, val=val, logit_scale=scale)
    base = {"gda": {"alpha": 1.0}}
    got = adapt(method("gla", base=base), task)
    adapted = adapt(method(base), task)
    logits, heat, seen, seen_y = scale * x @ text.T, 1.0, x, y
    if with_val:
        heat = temperature(predict(adapted, val[0]).double().numpy(), val_y)
        seen, seen_y = np.concatenate([x, val[0]]), np.concatenate([y, val_y])
    prior = log_prior(scale * seen @ text.T, seen_y)
    want = predict(adapted, x).double().numpy() / heat - np.log(np.bincount(y) / len(y)) + logits - prior
    close(centred(predict(got, x).double().numpy()), centred(want), "gla's logits")


def test_how_often_the_support_shows_a_class_says_nothing_of_pre_training():
    text, x, y = draw(20, 8, 12)
    often = np.repeat(np.arange(len(y)), np.array([1, 5, 2])[y])
    answers = []
    for rows in (np.arange(len(y)), often):
        task = Task.from_arrays((x[rows], y[rows]), text, logit_scale=6.0)
        answers.append(predict(adapt(method("gla"), task), x).double().numpy() + np.log(np.bincount(y[rows])))
    close(centred(answers[1]), centred(answers[0]), "the logits without the support's prior")


def test_a_class_without_images_has_no_bias():
    text, x, y = draw(20, 8, 0)
    got = predict(adapt(method("gla"), Task.from_arrays((x, y), text, logit_scale=6.0)), x).double().numpy()
    bias = 2 * 6.0 * x @ text.T - np.log(np.array([20, 8, 0.5]) / 28) - got
    seen = log_prior(6.0 * x @ text[:2].T, y)
    close(centred(bias), centred(np.append(seen - seen.mean(), 0) + np.zeros((len(x), 1))), "the bias")
