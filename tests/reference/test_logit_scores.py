"""Scores of how sure an answer is once more, in numpy, on cosines (arXiv:1911.11132, arXiv:2010.03759)."""

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, texts_and_images

SCORES = {
    "max-logit": lambda cosine, t: cosine.max(-1),
    "energy": lambda cosine, t: t * np.log(np.exp(cosine / t).sum(-1)),
    "entropy": lambda cosine, t: (softmax(cosine / t) * np.log(softmax(cosine / t))).sum(-1),
    "variance": lambda cosine, t: softmax(cosine / t).var(-1),
}


@pytest.mark.parametrize("scale", [100.0, 8.0])
@pytest.mark.parametrize("name", SCORES)
def test_the_score_is_the_papers(name, scale):
    text, x, _ = texts_and_images(n=12)
    task = Task.from_arrays((x[:0], []), text, logit_scale=scale)
    for t in (1.0,) if name == "max-logit" else (1.0, 0.3):
        options = {} if name == "max-logit" else {"temperature": t}
        close(predict(adapt(method(name, **options), task), x), SCORES[name](x @ text.T, t), name)
