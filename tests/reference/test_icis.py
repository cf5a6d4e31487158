"""ICIS (arXiv:2308.10599): a head for classes that it has never seen an image of."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from adaptkit import Task, accuracy, adapt, method, predict
from adaptkit.features.items import Images
from adaptkit.methods.adapt import retarget
from tests.reference.by_hand import centred, close, softmax, unit

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


def test_known_rows_are_a_logistic_regression_and_new_ones_have_a_bias_too():
    text, x, y = drawn()
    old = y < 40 - NEW
    task = Task.from_arrays((x[old], y[old]), text[:-NEW])
    model = adapt(method("icis", hidden=16, epochs=2, inverse_penalty=0.2), task)
    head = LogisticRegression(C=0.2, tol=1e-8, max_iter=10_000).fit(x[old], y[old])
    want = softmax(x[:50] @ head.coef_.T + head.intercept_)
    close(softmax(predict(model, x[:50]).double().numpy()), want, "probabilities", 0.01)
    names = [f"class {c}" for c in range(40)]
    both = retarget(model, Task.from_arrays((x[:0], []), text, classnames=names))
    rows = both.rows.detach().double().numpy()  # (C, D + 1), the bias last
    want = np.hstack([x, np.ones((len(x), 1))]) @ rows.T
    close(centred(predict(both, x).numpy()), centred(want), "logits")


def test_classes_of_the_task_that_have_no_images_get_rows_from_their_texts():
    text, x, y = drawn()
    old, new = y < 40 - NEW, y >= 40 - NEW
    torch.manual_seed(0)
    model = adapt(method("icis", hidden=64), Task.from_arrays((x[old], y[old]), text))
    right = accuracy(model, Images.from_arrays(x[new], y[new]))
    assert right > 0.5, f"three classes without images must be found among all forty; got {right:.0%}"
