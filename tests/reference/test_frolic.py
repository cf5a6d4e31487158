"""Frolic once more, in numpy, from the paper (arXiv:2410.19294)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, unit


def confidence(logits):
    return softmax(logits).max(-1).mean()


def stationary(means):
    """The prior that the mean predictions of each class leave as it is, by power iteration, stopped as released."""
    prior = np.full(len(means), 1 / len(means))
    for _ in range(100):
        before, prior = prior, prior @ means
        if np.abs(prior - before).sum() < 1e-3:
            break
    return prior / prior.sum()


def frolic(x, sentences, f_c, shrink=0.9, rounds=10):
    """Fused logits less the log of the label bias, which is estimated on them."""
    z = np.array([unit(unit(rows).mean(0)) for rows in sentences])
    seen = np.concatenate([x, *(unit(rows) for rows in sentences)])
    var = (1 - shrink) * seen.var(0, ddof=1) + shrink
    f_g = np.array([[xi / var @ zk - zk / var @ zk / 2 for zk in z] for xi in x])
    low, high = 1e-6, 1e3
    for _ in range(200):  # tau_f: both are as confident
        tau = np.sqrt(low * high)
        low, high = (tau, high) if confidence(f_g / tau) > confidence(f_c) else (low, tau)
    fused = f_c + f_g / tau
    p, classes, beta = softmax(fused), len(z), np.full(len(z), 1 / len(z))
    for _ in range(rounds):
        f_d = fused - np.log(beta)
        best = np.sort(f_d)[:, ::-1]
        sure, label = best[:, 0] - best[:, 1] > 1 / classes, f_d.argmax(-1)
        of = [sure & (label == k) for k in range(classes)]
        before, beta = beta, stationary(np.array([p[rows].mean(0) if rows.any() else p.mean(0) for rows in of]))
        if np.abs(beta - before).sum() < 1e-3:
            break
    return fused - np.log(beta)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((5, 8))
    sentences = [c + 0.5 * rng.standard_normal((t, 8)) for c, t in zip(centre, (4, 2, 3, 4, 1), strict=True)]
    return sentences, unit(centre[rng.choice(5, 40, p=[0.5, 0.2, 0.2, 0.1, 0])] + rng.standard_normal((40, 8)))


@pytest.mark.parametrize("options", [{}, {"shrink": 0.3, "rounds": 2}])
def test_frolic_is_the_papers(options):
    sentences, x = draw()
    text = np.array([unit(unit(rows).mean(0)) for rows in sentences])
    got = adapt(method("frolic", **options), Task.from_arrays((x[:0], []), sentences, logit_scale=6.0))
    close(predict(got, x), frolic(x, sentences, 6 * x @ text.T, **options), "frolic's logits")


def test_frolic_fuses_with_the_logits_of_its_base():
    sentences, x = draw(1)
    task = Task.from_arrays((x[:0], []), sentences, logit_scale=6.0)
    base = predict(adapt(method("in-map", iterations=20), task), x).double().numpy()
    got = predict(adapt(method("frolic", base={"in-map": {"iterations": 20}}), task), x)
    close(got, frolic(x, sentences, base), "frolic's logits")


def released(x, sentences, f_c, shrink=0.9):
    """The same as the authors' script has it: a coarse temperature, and biases taken off one after another."""
    z = np.array([unit(unit(rows).mean(0)) for rows in sentences])
    var = (1 - shrink) * np.concatenate([x, *(unit(rows) for rows in sentences)]).var(0, ddof=1) + shrink
    f_g, tau = np.array([[xi / var @ zk - zk / var @ zk / 2 for zk in z] for xi in x]), 1.0
    while abs(confidence(f_c) - confidence(f_g / tau)) >= 0.1 * confidence(f_c):
        tau *= 1.1 if confidence(f_g / tau) > confidence(f_c) else 1 / 1.1
    logits, classes = f_c + f_g / tau, len(z)
    for _ in range(11):
        best = np.sort(logits)[:, ::-1]
        rows = logits[best[:, 0] - best[:, 1] > 1 / classes]
        label, p = rows.argmax(-1), softmax(rows)
        means = np.array([p[label == k].mean(0) if (label == k).any() else np.zeros(classes) for k in range(classes)])
        prior = np.full(classes, 1 / classes)
        for _ in range(100):
            after = prior @ means / (prior @ means).sum()
            if np.abs(after - prior).sum() < 1e-3:
                break
            prior = after
        logits = logits - np.log(prior + 1e-12)
    return logits


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
def test_as_released_it_takes_off_one_bias_after_another():
    sentences, x = draw(2)
    text = np.array([unit(unit(rows).mean(0)) for rows in sentences])
    got = adapt(method("frolic", as_released=True), Task.from_arrays((x[:0], []), sentences, logit_scale=6.0))
    close(predict(got, x), released(x, sentences, 6 * x @ text.T), "frolic's logits", 1e-3)
