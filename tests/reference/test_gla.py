"""GLA's bias is where the risk has no slope, its temperature where confidence is accuracy."""

import numpy as np
import torch
from adaptkit_plugins.adapters.gla import pretraining_bias, temperature

from adaptkit import Task, adapt, method, predict


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def draw(seed=0, n=200, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return 2 * np.eye(classes)[labels] + rng.standard_normal((n, classes)) + np.array([2.0, 0, 0, -1])[:classes], labels


def test_without_the_bias_every_class_is_said_as_often_as_it_is_there():
    logits, labels = draw()
    bias = pretraining_bias(torch.from_numpy(logits), torch.from_numpy(labels), 50).double().numpy()
    said = softmax(logits - bias).mean(0)  # the slope of the mean cross-entropy is this minus the shares
    assert np.abs(said - np.bincount(labels) / len(labels)).max() < 1e-6, f"classes must be said {said} of the time"
    assert abs(bias.mean()) < 1e-6, "the bias must have mean 0"
    assert bias[0] > bias[1] > bias[3], f"a favoured class must have the larger bias; got {bias}"


def test_a_class_without_images_has_no_bias():
    logits, labels = draw(classes=4)
    kept = labels != 2
    bias = pretraining_bias(torch.from_numpy(logits[kept]), torch.from_numpy(labels[kept]), 50)
    assert bias[2] == 0, f"what is not seen must stay; got {bias}"


def test_at_the_temperature_confidence_is_accuracy():
    logits, labels = draw(1)
    heat = temperature(torch.from_numpy(5 * logits), torch.from_numpy(labels))
    sure, right = softmax(5 * logits / heat).max(1).mean(), (logits.argmax(1) == labels).mean()
    assert abs(sure - right) < 1e-4, f"confidence must be {right}; got {sure}"


def test_the_parts_add_up():
    rng = np.random.default_rng(2)
    text = rng.standard_normal((3, 5))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    labels = np.array([0, 0, 0, 1, 2, 2])
    x = (text[labels] + 0.4 * rng.standard_normal((6, 5))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    task = Task.from_arrays((x, labels), text, logit_scale=6.0)
    got = predict(adapt(method("gla", base={"gda": {"alpha": 1.0}}), task), x).double().numpy()
    zero_shot = 6 * x.astype(float) @ text.T
    base = predict(adapt(method("gda", alpha=1.0), task), x).double().numpy()
    bias = pretraining_bias(torch.from_numpy(zero_shot), torch.from_numpy(labels), 50).double().numpy()
    want = base - np.log(np.bincount(labels) / 6) + zero_shot - bias
    off = np.abs((got - got.mean(1, keepdims=True)) - (want - want.mean(1, keepdims=True))).max()
    assert off < 1e-3, f"logits are off by {off:.3g}, up to what all classes share"
