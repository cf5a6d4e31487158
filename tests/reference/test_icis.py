"""ICIS (arXiv:2308.10599): a head for classes that it has never seen an image of."""

import numpy as np
import torch

from adaptkit import Task, accuracy, adapt, method
from adaptkit.features.items import Images
from adaptkit.methods.adapt import retarget
from tests.reference.by_hand import unit

NEW = 3


def drawn(seed=0):
    """Classes whose images lie at a linear map of their texts; the last `NEW` are for later."""
    rng = np.random.default_rng(seed)
    text, turn = unit(rng.standard_normal((40, 8))), rng.standard_normal((8, 8))
    y = np.arange(400) % 40
    return text, text[y] @ turn + 0.2 * rng.standard_normal((400, 8)), y


def test_icis_answers_for_classes_without_images_and_for_known_ones():
    text, x, y = drawn()
    old, new = y < 40 - NEW, y >= 40 - NEW
    names = [f"class {c}" for c in range(40)]
    task = Task.from_arrays((x[old], y[old]), text[:-NEW], classnames=names[:-NEW])
    model = adapt(method("icis", hidden=64), task)
    torch.manual_seed(0)
    others = retarget(model, Task.from_arrays((x[:0], []), text[-NEW:], classnames=names[-NEW:]))
    right = accuracy(others, Images.from_arrays(x[new], y[new] - (40 - NEW)))
    assert right > 0.8, f"three new classes must be told apart by their texts; got {right:.0%}"
    both = retarget(model, Task.from_arrays((x[:0], []), text, classnames=names))
    assert torch.equal(both.rows[:-NEW], model.rows), "rows that were learned from images must stay"
    mean = model.rows.norm(dim=1).mean()
    assert torch.allclose(both.rows[-NEW:].norm(dim=1), mean, rtol=1e-4), "new rows must have the norm of known ones"
