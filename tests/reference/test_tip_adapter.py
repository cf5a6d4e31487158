"""Tip-Adapter once more, in numpy loops and double precision, from the paper's formulas."""

import numpy as np
import torch

from adaptkit import Schedule, Task, adapt, method, predict
from adaptkit.methods.adapt import cell_by_cell
from adaptkit.methods.search import unfold
from tests.reference.by_hand import draw, unit


def reference(text, keys, labels, queries, alpha, beta, scale):
    """Affinity exp(-beta (1 - cosine)), summed over the images of a class, times alpha, plus zero-shot."""
    out = np.zeros((len(queries), len(text)))
    for i, q in enumerate(queries):
        for c in range(len(text)):
            out[i, c] = scale * q @ text[c]
        for key, label in zip(keys, labels, strict=True):
            out[i, label] += scale / 100 * alpha * np.exp(-beta * (1 - q @ key))  # alpha is for a logit scale of 100
    return out


def test_tip_adapter_is_the_papers_formula():
    text, x, labels, queries, _ = draw()
    keys = np.array([unit(sum(views) / len(views)) for views in x])  # raw views are averaged, then normalised
    want = reference(text, keys, labels, queries, 2.5, 4.0, 30.0)
    tip = adapt(method("tip-adapter", alpha=2.5, beta=4.0), Task.from_arrays((x, labels), text, logit_scale=30))
    off = np.abs(predict(tip, queries).numpy() - want).max()
    assert off < 1e-4, f"logits are off by {off:.2g}"


def test_the_search_tries_every_pair_and_keeps_the_first_best():
    text, x, labels, queries, truth = draw()
    keys = unit(x.mean(1))
    best = (-1, None, None)
    for i in range(6):
        for j in range(4):
            beta, alpha = 0.1 + i * (5 - 0.1) / 6, 0.1 + j * (2 - 0.1) / 4  # the upper end is never reached
            logits = reference(text, keys, labels, queries, alpha, beta, 100.0)
            right = int((logits.argmax(1) == truth).sum())
            if right > best[0]:
                best = right, beta, alpha
    tip = method("tip-adapter", search_scale=(5, 2), search_steps=(6, 4))
    adapt(tip, Task.from_arrays((x, labels), text, val=(queries, truth)))
    got = tip.beta, tip.alpha
    assert np.allclose(got, best[1:]), f"the search must choose {best[1:]}; got {got}"


def test_the_shortcut_through_the_search_gives_the_same_numbers():
    text, x, labels, queries, truth = draw()
    task = Task.from_arrays((x, labels), text, val=(queries, truth))
    for name in ("tip-adapter", "tip-adapter-f"):
        tip = adapt(method(name, search_steps=(4, 3)), task)
        val = task.val.bind(tip.needs()).blind()
        with torch.no_grad():
            for fast, slow in zip(unfold(tip.sweep(val), tip.grid(), len(val)), cell_by_cell(tip, val), strict=True):
                assert torch.allclose(fast, slow, atol=1e-5), f"{name}'s sweep and its answers differ"


def test_tip_adapter_f_learns_its_keys_and_nothing_else():
    text, x, labels, _, _ = draw(views=1)
    task = Task.from_arrays((x, labels), text)
    before = adapt(method("tip-adapter"), task)
    schedule = Schedule(epochs=1, lr=1e-3, batch_size=64, weight_decay=0.01, eps=1e-4)
    after = adapt(method("tip-adapter-f", schedule=schedule), task)
    queries, keys = unit(x[:, 0]), unit(x.mean(1))

    def loss(keys):
        logits = reference(text, keys, labels, queries, 1.17, 1.0, 100.0)
        logits -= logits.max(1, keepdims=True)
        return np.mean(np.log(np.exp(logits).sum(1)) - logits[range(len(labels)), labels])

    want = np.zeros_like(keys)  # one step of AdamW: decay, then lr * g / (|g| + eps)
    for index in np.ndindex(keys.shape):
        nudge = np.zeros_like(keys)
        nudge[index] = 1e-5
        slope = (loss(keys + nudge) - loss(keys - nudge)) / 2e-5
        want[index] = keys[index] * (1 - 1e-3 * 0.01) - 1e-3 * slope / (abs(slope) + 1e-4)
    off = np.abs(after.keys.detach().numpy() - want).max()
    assert off < 2e-5, f"keys after one step are off by {off:.2g}; the step is 1e-3"
    assert torch.equal(before.labels, after.labels), "the keys' labels must stay as they are"
    assert [n for n, p in after.named_parameters() if p.requires_grad] == ["keys"], "only the keys are trained"
