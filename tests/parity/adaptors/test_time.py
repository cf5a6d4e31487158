"""Test-time methods: TDA's caches and ZERO's votes."""

import numpy as np
import torch

from adaptkit import Task, adapt, method, predict
from adaptkit.features.items import Images
from tests.parity.golden import adaptor


def unsupervised(golden, scale):
    """A task of class embeddings alone."""
    text = golden["in_text"]
    nothing = (torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long))
    judge = {"reward": golden["in_reward_text"]} if "in_reward_text" in golden else None
    return Task.from_arrays(nothing, text, text_by=judge, logit_scale=scale)


@adaptor("tda", method="tda")
def tda(golden):
    positive, negative = golden.hyper["positive"], golden.hyper["negative"]
    options = {
        "alpha": positive["alpha"],
        "beta": positive["beta"],
        "capacity": positive["shot_capacity"] * positive["enabled"],
        "negative_alpha": negative["alpha"],
        "negative_beta": negative["beta"],
        "negative_capacity": negative["shot_capacity"] * negative["enabled"],
        "window": [negative["entropy_threshold"][end] for end in ("lower", "upper")],
        "mask": [negative["mask_threshold"][end] for end in ("lower", "upper")],
    }
    views = golden["in_views"] if "in_views" in golden else golden["in_features"][:, None]
    fitted = adapt(method("tda", views=views.shape[1], **options), unsupervised(golden, golden.hyper["logit_scale"]))
    logits = predict(fitted, views)
    golden.close("out_logits", logits, atol=1e-3)
    golden.equal("out_pred", logits.argmax(-1))
    golden.close("out_accuracy", 100 * (logits.argmax(-1) == golden["in_labels"]).double().mean(), atol=1e-4)
    stream = Images.from_arrays(views).bind(fitted.needs())
    keys = []
    with torch.no_grad():
        for i in range(len(stream)):  # the caches after the last image, which predict fills in a copy
            fitted(stream[i : i + 1])
            keys.append(fitted.summary(stream[i : i + 1].views)[0][0])
    for sign, short in (("positive", "pos"), ("negative", "neg")):
        cache = getattr(fitted, sign)
        held, h = cache.keys, cache.entropy
        at = (held[:, :, None] - torch.stack(keys)).abs().amax(-1)  # (C, K, N)
        assert (at.amin(-1)[h.isfinite()] == 0).all(), f"a {sign} slot holds no image of the stream"
        shape = golden.arrays[f"out_{short}_cache_ids"].shape
        ids, entropies = np.full(shape, -1), np.full(shape, np.nan)
        ids[:, : h.shape[1]] = torch.where(h.isfinite(), at.argmin(-1), -1)
        entropies[:, : h.shape[1]] = torch.where(h.isfinite(), h, torch.nan)
        golden.equal(f"out_{short}_cache_ids", ids)
        key = f"out_{short}_cache_entropy"
        empty = np.isnan(golden.arrays[key])
        assert (empty == np.isnan(entropies)).all(), f"{golden.name}: {key} is empty in other slots"
        golden.arrays[key] = np.where(empty, 0, golden.arrays[key])
        golden.close(key, np.where(empty, 0, entropies), atol=1e-4)


@adaptor("zero", method="zero")
def zero(golden):
    judge = "reward" if "in_reward_text" in golden else ""
    options = {"gamma": golden.hyper["gamma"], "as_released": True, "judge": judge}
    fitted = adapt(method("zero", **options), unsupervised(golden, scale=1 / golden.hyper["temperature"]))
    arrays = {"views": golden["in_views"]} | ({"judged": golden["in_reward_views"]} if judge else {})
    votes = predict(fitted, arrays)
    golden.equal("out_votes", votes)
    golden.equal("out_pred", votes.argmax(-1))
    if "out_n_tied" in golden:
        images = Images.from_arrays(arrays).bind(fitted.needs())
        counts, rest, after = fitted.count(images.views, *([images.judged] if judge else []))
        tied = counts == counts.amax(1, keepdim=True)
        golden.equal("out_n_tied", tied.sum(1))
        _, unbroken = fitted.tie_break(tied, rest, after)
        golden.equal("out_fallback_used", unbroken & (tied.sum(1) > 1))
