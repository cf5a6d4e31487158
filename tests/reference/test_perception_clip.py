"""PerceptionCLIP's two steps, one image, class and circumstance at a time."""

import dataclasses

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict

FACTORS = [["", "in snow|on ice"], ["", "dark"]]
ENDS = [[""], [", dark"], [", in snow", ", on ice"], [", in snow, dark", ", on ice, dark"]]  # synonyms, by circumstance


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def world(rng, classes=3, dim=6):
    names = [f"thing {c}" for c in range(classes)]
    plain = [[f"a photo of a {n}.", f"art of a {n}"] for n in names]
    every = [[p.rstrip(".") + e + "." * p.endswith(".") for ends in ENDS for e in ends for p in own] for own in plain]
    every[0] += [f"a photo of an object{e}." for ends in ENDS for e in ends]
    vectors = {s: rng.standard_normal(dim).astype(np.float32) for own in every for s in own}
    text = [np.stack([vectors[s] for s in own]) for own in every]
    nothing = (np.zeros((0, dim)), np.zeros(0, int))
    task = Task.from_arrays(nothing, text, classnames=names, prompts=every, logit_scale=7.0)
    return dataclasses.replace(task, prompts=tuple(map(tuple, plain))), vectors, plain


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("without_class", ["", "a photo of an object."])
def test_it_is_the_sum_over_circumstances(temperature, without_class):
    rng = np.random.default_rng(0)
    task, vectors, plain = world(rng)
    x = unit(rng.standard_normal((9, 6))).astype(np.float32)

    def embed(sentences, ends):
        rows = [unit(vectors[s.rstrip(".") + e + "." * s.endswith(".")]) for e in ends for s in sentences]
        return unit(np.mean(rows, 0))

    options = {"factors": FACTORS, "temperature": temperature, "without_class": without_class}
    got = predict(adapt(method("perception-clip", **options), task), x).exp().numpy()
    for image, row in zip(x, got, strict=True):
        f = np.array([[7 * image @ embed(own, ends) for ends in ENDS] for own in plain])  # (C, Z)
        if without_class:
            p_z = np.exp(np.array([7 * image @ embed([without_class], ends) for ends in ENDS]) / temperature)
        else:
            p_z = np.exp(f / temperature).sum(0)
        want = (np.exp(f) / np.exp(f).sum(0) * (p_z / p_z.sum())).sum(1)
        assert np.abs(row - want).max() < 1e-5, f"probabilities must be {want}; got {row}"
