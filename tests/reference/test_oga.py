"""OGA once more, image by image in numpy, from the paper (arXiv:2501.04352)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import centred, close, softmax, texts_and_images


def oga(text, stream, scale, capacity, tau, least=2):
    """Log-posteriors of a stream: an image enters the memory of its class first and is then answered."""
    classes, dim = text.shape
    memory = [[] for _ in range(classes)]  # (entropy, image), the lowest entropies of each zero-shot class
    answers = []
    for x in stream:
        p = softmax(scale * x @ text.T)
        label = p.argmax()
        memory[label] = sorted([*memory[label], (-(p * np.log(p)).sum(), x)], key=lambda m: m[0])[:capacity]
        held = [np.array([image for _, image in m]) for m in memory]
        mu = np.array([h.mean(0) if len(h) >= least else t for h, t in zip(held, text, strict=True)])
        rows = np.concatenate([h - m for h, m in zip(held, mu, strict=True) if len(h) >= least] or [np.zeros((0, dim))])
        precision = dim * np.eye(dim)
        if any(len(h) > 2 for h in held):
            n = len(rows)
            cov = rows.T @ rows / (n - 1)
            ridge = dim * np.linalg.pinv((n - 1) * cov + np.trace(cov) * np.eye(dim))
            precision = ridge if n <= 4 * dim else np.linalg.pinv(cov)
        answers.append([np.log(p[k]) - tau / 2 * (x - mu[k]) @ precision @ (x - mu[k]) for k in range(classes)])
    return np.array(answers)


@pytest.mark.parametrize(("dim", "n", "capacity"), [(8, 40, 5), (3, 60, 8)])
def test_oga_is_the_papers_under_shrinkage_and_beyond(dim, n, capacity):
    text, stream, _ = texts_and_images(dim=dim, n=n)
    task = Task.from_arrays((stream[:0], []), text, logit_scale=12.0)
    got = predict(adapt(method("oga", capacity=capacity, tau=0.4), task), stream)
    close(centred(got.numpy()), centred(oga(text, stream, 12.0, capacity, 0.4)), "oga's logits")
