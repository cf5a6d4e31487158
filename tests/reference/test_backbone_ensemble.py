"""The ensemble's weights: no slope of the penalised risk is left, and the better backbone has the larger one."""

import numpy as np

from adaptkit import Task, adapt, method, predict


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_weights_are_where_the_risk_has_no_slope():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 4
    texts = [unit(rng.standard_normal((4, d))) for d in (5, 7)]
    seen = [unit(t[labels] + s * rng.standard_normal((24, t.shape[1]))) for t, s in zip(texts, (1.0, 0.3), strict=True)]
    images = {f"x{k}": x.astype(np.float32) for k, x in enumerate(seen)}
    task = Task.from_arrays((images, labels), texts[0], text_by={"other": texts[1]}, logit_scale=8.0)
    model = adapt(method("backbone-ensemble", others=["other"], penalty=0.01), task)
    w = model.weights.double().numpy()
    each = np.stack([8 * x @ t.T for x, t in zip(seen, texts, strict=True)], -1)  # (S, C, K)
    slope = 2 * 0.01 * (w - 0.5)
    for row, label in zip(each, labels, strict=True):
        p = np.exp(row @ w) / np.exp(row @ w).sum()
        slope = slope + (p - np.eye(4)[label]) @ row / len(each)
    assert np.abs(slope).max() < 1e-4, f"the slope must vanish; got {slope}"
    assert w[1] > w[0], f"the better backbone must weigh more; got {w}"
    off = np.abs(predict(model, images).numpy() - each @ w).max()
    assert off < 1e-4, f"logits are off by {off:.3g}"


def test_without_images_all_weigh_the_same():
    rng = np.random.default_rng(1)
    texts = [unit(rng.standard_normal((3, 4))) for _ in range(2)]
    nothing = {f"x{k}": np.zeros((0, 4)) for k in range(2)}, np.zeros(0, int)
    model = adapt(
        method("backbone-ensemble", others=["b"]), Task.from_arrays(nothing, texts[0], text_by={"b": texts[1]})
    )
    assert model.weights.tolist() == [0.5, 0.5], f"weights must be equal; got {model.weights.tolist()}"
