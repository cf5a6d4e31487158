"""ParaCLIP's loss, pair by pair."""

import math

import pytest
import torch

from adaptkit import Images, adapt, method, unit
from adaptkit.testing.kinds import toy_of


def slow_loss(text, image, labels, same, scale):
    """Image and text both ways, and texts among each other, by their formulas."""
    count, terms = len(text), []
    for one, other in ((text, image), (image, text)):
        for i in range(count):
            found = [math.exp(scale * float(one[i] @ other[j])) for j in range(count)]
            right = sum(f for j, f in enumerate(found) if labels[j] == labels[i])
            terms.append(-math.log(right / sum(found)) / (2 * count))
    among = []
    for i in range(count):
        others = [j for j in range(count) if not same[i][j]]
        twins = [j for j in others if labels[j] == labels[i]]
        if twins:
            found = {j: math.exp(scale * float(text[i] @ text[j])) for j in others}
            among.append(-math.log(sum(found[j] for j in twins) / sum(found.values())))
    return sum(terms) + (sum(among) / len(among) if among else 0)


def test_a_loss_is_of_texts_and_images_and_of_texts_of_one_image():
    task, queries = toy_of("toy-pairs")
    tuned = adapt(method("para-clip", schedule={"steps": 3, "lr": 0.001}), task)
    torch.manual_seed(0)
    ids = queries.bind(tuned.needs()).ids[:5]
    items, labels = torch.randn(6, task.backbone.dim), [0, 0, 1, 2, 2, 2]
    ids = ids[[0, 1, 2, 3, 4, 4]]
    same = [[torch.equal(a, b) for b in ids] for a in ids]
    batch = Images.from_arrays({"ids": ids, "item": items}, labels).bind(tuned.support_needs())
    with torch.no_grad():
        text, got = unit(tuned.texts(ids)), float(tuned.loss(batch))
    want = slow_loss(text.double(), unit(items).double(), labels, same, task.backbone.logit_scale)
    assert got == pytest.approx(want, rel=1e-4), "both ways with images, and texts of one label with each other"
    assert not torch.allclose(text, unit(task.backbone.encode_text({"input_ids": ids})), atol=1e-4), "it is tuned"
