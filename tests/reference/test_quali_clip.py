"""QualiCLIP's score once more, from the paper (arXiv:2403.11176): shares of good sentences, spread over grades.

Written by a second hand, which had not read the method.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import adapt, method, predict
from tests.reference.by_hand import close, softmax, unit

PAIRS = ("a good photo.|a bad photo.", "a sharp image.|a blurry image.", "a bright picture.|a dark picture.")


@pytest.mark.parametrize("grades", [2, 5])
def test_quality_is_the_mean_share_of_the_good_sentences_between_the_first_grade_and_the_last(grades, toy):
    task, queries = toy
    names = [f"{n} of {grades}" for n in range(grades)]
    task = replace(task, kind="ordinal", classnames=names, prompts=[[n] for n in names])
    task = replace(task, support=task.support[:0], val=None)
    model = adapt(method("quali-clip", pairs=PAIRS), task)
    x = unit(queries.bind(model.needs()).x.double().numpy())
    shares = []
    for pair in PAIRS:
        with torch.no_grad():
            both = unit(task.backbone.encode_text(pair.split("|")).double().numpy())
        shares.append(softmax(task.backbone.logit_scale * x @ both.T)[:, 0])
    close(predict(model, queries), (grades - 1) * np.mean(shares, axis=0), "quality")


def test_no_pair_is_refused(toy):
    with pytest.raises(ValueError, match="pairs must hold a pair"):
        adapt(method("quali-clip", pairs=()), replace(toy[0], kind="ordinal"))
