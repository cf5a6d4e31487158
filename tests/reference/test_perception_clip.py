"""PerceptionCLIP once more, in numpy loops, from the paper (arXiv:2308.01313)."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, softmax, unit

FACTORS = (("", "in a city | downtown", "indoors"), ("", "dark"))
CLASSES = ("cat", "dog", "cow")
SCALE = 8.0


def embed(sentence):
    """A raw embedding that knows which words there are, and not in which order."""
    words = re.findall(r"[a-z]+", sentence.lower())
    return sum(np.random.default_rng(sum(map(ord, w)) * 31 + len(w)).standard_normal(12) for w in words)


def perception(x, prompts, temperature, without_class=""):
    """``log sum_z p(y|x, z) p(z|x)``. Synonyms are averaged, and so are the prompts of a class."""
    circumstances = [[value.split("|") for value in values] for values in FACTORS]

    def mean(bases, z):
        said = [f"{base} {' '.join(words)}" for base in bases for words in itertools.product(*z)]
        return unit(np.mean([unit(embed(s)) for s in said], axis=0))

    zs = list(itertools.product(*circumstances))
    logits = np.array([[[SCALE * xi @ mean(bases, z) for z in zs] for bases in prompts] for xi in x])  # (N, C, Z)
    if without_class:
        p_z = softmax(np.array([[SCALE * xi @ mean([without_class], z) for z in zs] for xi in x]) / temperature)
    else:
        p_z = np.exp(logits / temperature).sum(1)
        p_z /= p_z.sum(1, keepdims=True)
    return np.log((softmax(logits, axis=1) * p_z[:, None]).sum(-1))


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 3.0}, {"temperature": 2.0, "without_class": "a photo of an object"}],
)
def test_perception_clip_is_the_papers(options):
    prompts = tuple((f"a photo of a {c}.", f"art of the {c}.") for c in CLASSES)
    x = unit(np.random.default_rng(0).standard_normal((9, 12)))
    text = [[embed(s) for s in sentences] for sentences in prompts]
    task = Task.from_arrays((x[:0], []), text, classnames=CLASSES, prompts=prompts, logit_scale=SCALE)
    said = []

    def encode(sentences):
        said.extend(sentences)
        return torch.tensor(np.array([embed(s) for s in sentences])).float()

    task = replace(task, encode=encode)
    got = adapt(method("perception-clip", factors=FACTORS, **options), task)
    assert "a photo of a cat, downtown, dark." in said, f"circumstances must follow the sentence; got {said}"
    close(predict(got, x), perception(x, prompts, **options), "perception-clip's logits")
