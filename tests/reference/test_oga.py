"""OGA once more, image by image in numpy, from the paper (arXiv:2501.04352)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import centred, close, softmax, texts_and_images


def oga(text, stream, scale, capacity, tau, least=2, as_released=False):
    """Log-posteriors of a stream: an image enters the memory of its class first and is then answered."""
    classes, dim = text.shape
    memory = [[] for _ in range(classes)]  # (entropy, image), the lowest entropies of each zero-shot class
    answers = []
    for x in stream:
        p = softmax(scale * x @ text.T)
        label = p.argmax()
        memory[label] = sorted([*memory[label], (-(p * np.log(p)).sum(), x)], key=lambda m: m[0])[:capacity]
        held = [np.array([image for _, image in m]) for m in memory]
        slots = [capacity if as_released else len(h) for h in held]
        mu = np.array([h.sum(0) / k if len(h) >= least else t for h, k, t in zip(held, slots, text, strict=True)])
        rows = np.concatenate([h - m for h, m in zip(held, mu, strict=True) if len(h)])  # also of a class's only image
        rows, n, precision = rows - rows.mean(0), len(rows), dim * np.eye(dim)
        if any(len(h) > 2 for h in held):
            cov = rows.T @ rows / (n - 1)
            ridge = dim * np.linalg.pinv((n - 1) * cov + np.trace(cov) * np.eye(dim))
            precision = ridge if n <= 4 * dim else np.linalg.pinv(cov)
        answers.append([np.log(p[k]) - tau / 2 * (x - mu[k]) @ precision @ (x - mu[k]) for k in range(classes)])
    return np.array(answers)


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize(("dim", "n", "capacity", "released"), [(8, 40, 5, False), (3, 60, 8, False), (8, 40, 5, True)])
def test_oga_is_the_papers_under_shrinkage_and_beyond(dim, n, capacity, released):
    text, stream, _ = texts_and_images(dim=dim, n=n)
    task = Task.from_arrays((stream[:0], []), text, logit_scale=12.0)
    got = predict(adapt(method("oga", capacity=capacity, tau=0.4, as_released=released), task), stream)
    want = oga(text, stream, 12.0, capacity, 0.4, as_released=released)
    close(centred(got.numpy()), centred(want), "oga's logits")


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_images_that_are_alone_in_their_class_do_not_cost_more_than_all_the_others_gain():
    rng = np.random.default_rng(0)
    text, apart = rng.standard_normal((100, 32)), 0.5 * rng.standard_normal(32)  # images lie apart from all texts
    y = rng.integers(100, size=400)
    x = text[y] + 0.8 * rng.standard_normal((400, 32)) + 3 * apart
    task = Task.from_arrays((x[:0], []), text - apart)
    right = [(predict(adapt(method(m), task), x).argmax(-1).numpy() == y).mean() for m in ("zero-shot", "oga")]
    assert right[1] >= right[0], f"oga must not be worse than zero-shot, which it starts from; got {right}"
