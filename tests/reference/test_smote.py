"""SMOTE (arXiv:1106.1813): what a base is adapted to, whatever it reads of an image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, texts_and_images


def unbalanced(views=0):
    text, x, y = texts_and_images(classes=3, n=30)
    keep = (y == 0) | ((y == 1) & (y.cumsum() < 12)) | (torch.arange(30).numpy() == (y == 2).argmax())
    x, y = torch.as_tensor(x[keep]).float(), torch.as_tensor(y[keep])
    if views:
        x = x[:, None] + 0.01 * torch.randn(len(x), views, x.shape[1])
    return Task.from_arrays((x, y), text), x, y


@pytest.mark.parametrize(("base", "views"), [("gda", 0), ("clap", 3), ({"wise-ft": {"base": "task-res"}}, 3)])
def test_every_class_is_as_large_as_the_largest_and_the_base_learns_from_that(base, views):
    torch.manual_seed(0)
    task, x, y = unbalanced(views)
    model = method("smote", base=method(base))
    balanced = model.base_task(task).support
    counts = balanced.labels.bincount()
    assert (counts == counts.max()).all(), f"classes must be of one size; got {counts.tolist()}"
    adapted = adapt(model, task)
    assert torch.equal(balanced.labels[: len(y)], y), "new rows must come behind the images"
    assert predict(adapted, x[:, 0] if views else x).isfinite().all(), "and answers must be numbers"


def test_a_single_image_is_repeated_and_new_rows_lie_between_two_of_a_class():
    task, x, y = unbalanced()
    model = method("smote", base=method("linear-probe"))
    balanced = model.base_task(task).support.bind(model.base.support_needs())
    new, labels = balanced.x[len(x) :], balanced.labels[len(x) :]
    alone = x[y == 2]
    assert len(alone) == 1 and torch.equal(new[labels == 2], alone.expand(int((labels == 2).sum()), -1)), "repeated"
    own = x[y == 1]
    for row in new[labels == 1]:
        detour = torch.cdist(row[None], own)[0]
        gap = (detour[:, None] + detour - torch.cdist(own, own)).fill_diagonal_(1).min()
        assert gap < 1e-5, "a new row must lie on a line between two images"


def test_a_balanced_support_stays_as_it_is_and_pixels_are_refused():
    task, x, y = unbalanced()
    same = replace(task, support=task.support[torch.stack([(y == c).nonzero()[0, 0] for c in range(3)])])
    one = adapt(method("smote", base=method("gda")), same)
    assert torch.equal(predict(one, x), predict(adapt(method("gda"), same), x)), "nothing is to be added"
    with pytest.raises(ValueError, match="base must read stored embeddings of the support for smote; got Pixels"):
        method("smote", base=method("vpt")).base_task(task)


def smote(x, y, k, seed):
    """Images and new rows behind them, class by class, by a second hand, with the draws of imbalanced-learn."""
    rows, most = [x], np.bincount(y).max()
    for c in range(y.max() + 1):
        own, draws = x[y == c], np.random.RandomState(seed)
        missing, near = most - len(own), min(k, len(own) - 1)
        far = np.linalg.norm(own[:, None] - own, axis=-1) + np.diag(np.full(len(own), -1.0))
        nearest = far.argsort(1)[:, 1 : near + 1]  # the row itself comes first
        pairs = draws.randint(0, len(own) * near, missing)  # each image with each of its neighbours is as likely
        steps = draws.uniform(size=missing)
        one = own[pairs // near]
        rows.append(one + steps[:, None] * (own[nearest[pairs // near, pairs % near]] - one))
    return np.concatenate(rows)


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (3, 1), (5, 2), (50, 3)])
def test_new_rows_are_those_of_a_second_hand(k, seed):
    _, x, y = texts_and_images(classes=3, n=60)
    keep = np.ones(60, dtype=bool)
    keep[np.flatnonzero(y == 0)[7:]] = keep[np.flatnonzero(y == 2)[12:]] = False
    x, y = x[keep], y[keep]
    task = Task.from_arrays((x, y), np.eye(3, x.shape[1]))
    model = method("smote", base=method("linear-probe"), k=k, seed=seed)
    close(model.base_task(task).support.bind(model.base.support_needs()).x, smote(x, y, k, seed), "the support", 1e-5)
