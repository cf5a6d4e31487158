"""VDT-Adapter's attention, sentence by sentence, in classes of different sizes."""

import numpy as np

from adaptkit import Task, method, predict


def test_sentences_of_a_class_attend_to_each_other_only():
    rng = np.random.default_rng(0)
    text = [rng.standard_normal((m, 8)) for m in (3, 1, 4)]  # raw
    x = rng.standard_normal((6, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    task = Task.from_arrays((x, np.arange(6) % 3), text, logit_scale=5.0)
    vdt = method("vdt-adapter", ratio=0.3)
    vdt.fit(task.bind(vdt))
    got = predict(vdt.eval(), x).numpy()
    weights = {name: p.detach().double().numpy() for name, p in vdt.named_parameters()}
    q, k, v, out = (weights[f"{name}.weight"] for name in ("q", "k", "v", "out"))
    assert q.shape == (2, 8), f"the head must have a quarter of the width; got {q.shape}"
    for c, rows in enumerate(text):
        mixed = []
        for row in rows:
            scores = np.array([(q @ row) @ (k @ other) / np.sqrt(2) for other in rows])
            attention = np.exp(scores) / np.exp(scores).sum()
            value = out @ sum(a * (v @ other) for a, other in zip(attention, rows, strict=True)) + weights["out.bias"]
            blend = 2 * (0.3 * value + 0.7 * row)
            mixed.append((blend - blend.mean()) / np.sqrt(blend.var() + 1e-5))  # the norm's weights start as 1 and 0
        mean = np.mean(mixed, 0)
        want = 5 * x @ mean / np.linalg.norm(mean)
        assert np.abs(got[:, c] - want).max() < 1e-4, f"class {c} must have logits {want}; got {got[:, c]}"
