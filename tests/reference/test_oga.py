"""OGA with a list of images per class and everything computed anew for each query."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def entropy(logits):
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def reference(x, text, capacity, tau, scale=100.0):
    held, answers, dim = [[] for _ in text], [], text.shape[1]
    for row in x:
        logits = scale * text @ row
        label = int(logits.argmax())
        held[label] = sorted([*held[label], (entropy(logits), tuple(row))])[:capacity]
        images = [np.array([r for _, r in rows]) for rows in held]
        means = np.stack([r.mean(0) if len(r) >= 2 else t for r, t in zip(images, text, strict=True)])
        precision = dim * np.eye(dim)
        if max(map(len, images)) > 2:
            centred = np.concatenate([r - r.mean(0) for r in images if len(r) >= 2])
            n, covariance = len(centred), centred.T @ centred / (len(centred) - 1)
            if n <= 4 * dim:
                precision = dim * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(dim))
            else:
                precision = np.linalg.inv(covariance)
        z = logits - 0.5 * tau * np.array([(row - m) @ precision @ (row - m) for m in means])
        answers.append(z - z.mean())
    return np.stack(answers)


@pytest.mark.parametrize(("dim", "capacity", "tau"), [(16, 3, 0.05), (4, 8, 0.2)])  # shrunk only; then not
def test_answers_are_log_posteriors_of_the_gaussians(dim, capacity, tau):
    rng = np.random.default_rng(0)
    text = unit(rng.standard_normal((5, dim)))
    x = unit(text[rng.integers(0, 5, 80)] + 0.3 * rng.standard_normal((80, dim))).astype(np.float32)
    task = Task.from_arrays((np.zeros((0, dim)), np.zeros(0, int)), text)
    fitted = adapt(method("oga", capacity=capacity, tau=tau), task)
    got = predict(fitted, x).double().numpy()
    want = reference(unit(x.astype(np.float64)), text, capacity, tau)
    off = np.abs(got - got.mean(1, keepdims=True) - want).max() / np.abs(want).max()
    assert off < 1e-4, f"logits are off by {off:.2g} of the largest"
