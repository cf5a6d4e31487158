"""The pseudo-labelled support: what it takes, and that it never looks at a label."""

import numpy as np
import torch

from adaptkit import Task, plugins
from adaptkit.images import Images


def task_and_images(n=40, classes=5, dim=6):
    rng = np.random.default_rng(0)
    text, x = rng.standard_normal((classes, dim)), rng.standard_normal((n, dim))
    nothing = (np.zeros((0, dim)), np.zeros(0, int))
    return Task.from_arrays(nothing, text, logit_scale=5.0), x.astype(np.float32)


def test_each_class_has_its_surest_images_and_no_more_than_shots():
    task, x = task_and_images()
    p = task.backbone.logits(torch.nn.functional.normalize(torch.tensor(x), dim=-1), task.text).softmax(-1).numpy()
    support, val = plugins.pick("supports", "pseudo-label")(task, Images.from_arrays(x), None, shots=3, seed=1)
    want = []
    for c in range(5):
        mine = [i for i in range(len(x)) if p[i].argmax() == c]
        want += [(i, c) for i in sorted(mine, key=lambda i: -p[i].max())[:3]]
    got = list(zip(support.index.tolist(), support.labels.tolist(), strict=True))
    assert got == want, f"rows and labels must be {want}; got {got}"
    assert val is None, "pseudo-labels must come without labelled validation images"


def test_true_labels_change_nothing():
    task, x = task_and_images()
    choose = plugins.pick("supports", "pseudo-label")
    supports = [choose(task, Images.from_arrays(x, np.full(len(x), c)), None, shots=2, seed=1)[0] for c in (0, 4)]
    assert torch.equal(supports[0].index, supports[1].index), "the images depend on labels that must not be read"
    assert torch.equal(supports[0].labels, supports[1].labels), "the pseudo-labels depend on the true ones"
