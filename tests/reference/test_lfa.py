"""LFA's closed form against what defines it, and its ranking loss class by class."""

import numpy as np
import torch
from adaptkit_plugins.adapters.lfa import procrustes

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(rng, classes=4, shots=6, dim=5):
    text = unit(rng.standard_normal((classes, dim)))
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    labels = np.repeat(np.arange(classes), shots)
    return unit(text[labels] @ turn.T + 0.1 * rng.standard_normal((len(labels), dim))), labels, text


def test_procrustes_is_orthogonal_and_no_rotation_of_it_is_better():
    rng = np.random.default_rng(0)
    x, labels, text = draw(rng, classes=6)
    y = text[labels]
    w = procrustes(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    assert np.abs(w.T @ w - np.eye(5)).max() < 1e-9, "the map must be orthogonal"
    best = ((x @ w - y) ** 2).sum()
    for _ in range(50):
        a = 0.1 * rng.standard_normal((5, 5))
        turned = w @ np.linalg.solve(np.eye(5) + a - a.T, np.eye(5) - a + a.T)  # Cayley: a rotation
        assert ((x @ turned - y) ** 2).sum() >= best - 1e-9, "a rotation must not bring the rows nearer"


def test_directions_that_no_image_has_stay_where_they_are():
    x = torch.eye(6)[:2]  # images and classes live in two of six dimensions
    w = procrustes(x, x.flip(0))
    assert torch.allclose(w[2:, 2:], torch.eye(4), atol=1e-4), "the rest must be the identity"
    assert torch.allclose(x @ w, x.flip(0), atol=1e-4), "the images must meet their classes"


def test_the_ranking_loss_is_the_mean_excess_over_the_nearest_classes():
    rng = np.random.default_rng(1)
    x, labels, text = draw(rng)
    lfa = method("lfa", neighbours=3, margin=2.0)
    lfa.fit(Task.from_arrays((x, labels), text).bind(lfa))
    got = lfa.ranking(torch.from_numpy(x).float(), torch.from_numpy(labels)).item()
    excess = []
    for row, y in zip(x, labels, strict=True):
        distance = [np.linalg.norm(row - t) for t in text]
        for j in np.argsort(distance)[:3]:
            excess.append(max(0, distance[y] + (1 - text[j] @ text[y]) / 2 - distance[j]))
    assert abs(got - np.mean(excess)) < 1e-5, f"the loss must be {np.mean(excess)}; got {got}"


def test_a_turned_space_is_turned_back():
    rng = np.random.default_rng(2)
    x, labels, text = draw(rng, shots=12)
    lfa = adapt(method("lfa"), Task.from_arrays((x, labels), text))
    right = (predict(lfa, x.astype(np.float32)).argmax(1).numpy() == labels).mean()
    before = ((x @ text.T).argmax(1) == labels).mean()
    assert right > max(0.95, before), f"the map must undo the turn; right before {before}, after {right}"
