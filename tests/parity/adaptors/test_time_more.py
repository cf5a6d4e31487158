"""Test-time methods beside TDA and ZERO."""

import copy

import torch

from adaptkit import Task, adapt, method, predict, tune
from adaptkit.features.items import Images
from tests.parity.golden import adaptor


def task_of(golden, scale=100.0, **options):
    """A task of class embeddings, with the golden's support if it has one."""
    text = golden["in_text"]
    support = torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long)
    if "in_support" in golden:
        support = golden["in_support"], golden["in_support_labels"]
    return Task.from_arrays(support, text, logit_scale=golden.hyper.get("logit_scale", scale), **options)


def percent(scores, golden):
    return 100 * (scores.argmax(-1) == golden["in_labels"]).double().mean()


@adaptor("mta", method="mta")
def mta(golden):
    names = {
        "lambda_y": "lambda_y",
        "lambda_q": "lambda_q",
        "max_iter": "rounds",
        "threshold": "threshold",
        "neighbour_fraction": "nearest",
    }
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    views = golden["in_views"]
    fitted = adapt(method("mta", **options, steps=options["rounds"], views=views.shape[1]), task_of(golden))
    logits = predict(fitted, views)
    golden.close("out_logits", logits, atol=2e-3)
    golden.equal("out_pred", logits.argmax(-1))
    mode, inlierness = fitted.solve(views_of(fitted, views))
    golden.close("out_mode", mode, atol=1e-5)
    golden.close("out_inlierness", inlierness, atol=1e-4)


def cache_options(golden):
    """TDA's options, for every method with its caches."""
    found = {}
    for sign, prefix in (("positive", ""), ("negative", "negative_")):
        part = golden.hyper.get(sign)
        if part:
            found |= {prefix + name: part[name] for name in ("alpha", "beta")}
            found[prefix + "capacity"] = part["shot_capacity"] * part["enabled"]
        if part and sign == "negative":
            found["window"] = [part["entropy_threshold"][end] for end in ("lower", "upper")]
            found["mask"] = [part["mask_threshold"][end] for end in ("lower", "upper")]
    return found


def stream(fitted, arrays):
    """The method's answers one by one, each with the method as the image has left it."""
    images = Images.from_arrays(arrays).bind(fitted.needs())
    with torch.no_grad():
        for i in range(len(images)):
            yield fitted(images[i : i + 1])


def views_of(fitted, arrays):
    """Views as the method reads them, ``(N, V, D)``."""
    return Images.from_arrays(arrays).bind(fitted.needs()).views


def found_in(keys, rows, held):
    """Which of the ``(N, D)`` rows is in each slot ``(C, K)``; -1 in those not held."""
    at = (keys[:, :, None] - rows).abs().amax(-1)  # (C, K, N)
    assert (at.amin(-1)[held] == 0).all(), "a slot holds no image of the stream"
    return torch.where(held, at.argmin(-1), -1)


def padded(ids, like):
    """As wide as the golden's; the first slots are ours."""
    out = torch.full(like.shape, -1)
    out[:, : ids.shape[1]] = ids
    return out


@adaptor("boostadapter", method="boost-adapter")
def boost_adapter(golden):
    averaged = "imagenet" in golden.hyper["dataset_config"]
    options = cache_options(golden) | {"delta": golden.hyper["delta"], "average": averaged, "as_released": True}
    views = golden["in_views"]
    fitted = adapt(method("boost-adapter", views=views.shape[1], **options), task_of(golden))
    logits = predict(fitted, views)
    golden.close("out_logits", logits, atol=1e-3)
    golden.equal("out_pred", logits.argmax(-1))
    golden.close("out_accuracy", percent(logits, golden), atol=1e-4)
    rows = []
    for i, _ in enumerate(stream(fitted, views)):
        rows.append(fitted.stands_for(views_of(fitted, views)[i])[0])
    for name, cache, by_age in (("pos", fitted.positive, False), ("neg", fitted.negative, True)):
        ids = found_in(cache.keys, torch.stack(rows), cache.held)
        if by_age:  # the oldest first, the empty last
            order = torch.where(cache.held, ids, len(views)).argsort(1)
            ids = ids.gather(1, order)
        golden.equal(f"out_{name}_cache_ids", padded(ids, golden[f"out_{name}_cache_ids"]))


@adaptor("dmn", method="dmn")
def dmn(golden):
    options = {
        "capacity": golden.hyper["memory_size"],
        "beta": golden.hyper["beta"],
        "keep": golden.hyper["selection_p"],
        "shots": "in_support" in golden,
    }
    views = golden["in_views"]
    fitted = adapt(method("dmn", views=views.shape[1], **options), task_of(golden))
    chosen = tune(fitted, Images.from_arrays(views, golden["in_labels"]))  # on the test images, as the release does
    accuracy = 100 * int(chosen.correct.max()) / chosen.total
    golden.close("out_search", [accuracy, 1.0, fitted.dynamic, fitted.static * options["shots"]], rtol=1e-5)
    final = predict(fitted, views)
    golden.close("out_final", final.exp(), atol=1e-4)
    x = views_of(fitted, views)
    log_p, slots, entropies = [], torch.full(golden["out_memory_ids"].shape, -1), torch.zeros(len(x))
    for i in range(len(x)):
        log_p.append(fitted.log_probabilities(x[i : i + 1])[0])
        ids = found_in(fitted.memory.keys, x[:, 0], fitted.memory.held)
        if (ids == i).any():  # it went where an image left, or to the first free place
            label = int((ids == i).any(1).int().argmax())
            slot = int((~torch.isin(slots[label], ids[label]) | (slots[label] < 0)).int().argmax())
            slots[label, slot] = i
            entropies[i] = fitted.memory.entropy[ids == i][0]
    for name, part in zip(("text", "dynamic", "static"), torch.stack(log_p, 1).exp(), strict=False):
        golden.close(f"out_prob_{name}", part, atol=1e-4)
    golden.equal("out_memory_ids", slots)
    golden.equal("out_memory_count", fitted.memory.held.sum(1))
    golden.close("out_memory_entropy", torch.where(slots < 0, 0, entropies[slots]), atol=1e-4)


@adaptor("ecalp", method="ecalp")
def ecalp(golden):
    names = {"k_text": "k_text", "k_image": "k_image", "k_fewshot": "k_shot", "iterations": "iterations"}
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    options |= {name: golden.hyper[name] for name in ("gamma", "alpha")} | {"shots": "in_support" in golden}
    fitted = adapt(method("ecalp", as_released=True, **options), task_of(golden))
    scores = predict(fitted, golden["in_features"])
    largest = golden["out_scores"].abs().amax(1, keepdim=True)
    golden.arrays["out_scores"] = (golden["out_scores"] / largest).numpy()  # the tolerance is one of each row's largest
    golden.close("out_scores", scores / largest, atol=1e-3)
    golden.equal("out_pred", scores.argmax(-1))


@adaptor("x-more", method="x-more")
def x_more(golden):
    arrays = {"x": golden["in_features"], "captions": golden["in_captions"]}
    fitted = adapt(method("x-more", captions="given", k=golden.hyper["K"], as_released=True), task_of(golden))
    scores = predict(fitted, arrays).exp()
    golden.close("out_scores", scores, atol=1e-5)
    golden.equal("out_pred", scores.argmax(-1))
    golden.close("out_accuracy", percent(scores, golden), atol=1e-4)
    images = Images.from_arrays(arrays).bind(fitted.needs())
    weights = fitted.answer_by(images.x, images.captions)[1]
    for name, weight in zip(("image", "caption"), weights.T, strict=True):
        golden.close(f"out_{name}_coef", weight, atol=1e-5)


@adaptor("dpe", method="dpe")
def dpe(golden):
    rates = golden.hyper["learning_rate"]
    options = {"lr_text": rates["text"], "lr_image": rates["image"], "align": rates["align"]}
    options["average"] = "imagenet_a" in golden.hyper["dataset_config"]
    views = golden["in_views"]
    fitted = adapt(method("dpe", views=views.shape[1], **cache_options(golden), **options), task_of(golden))
    logits = predict(fitted, views)
    golden.close("out_logits", logits, atol=5e-3)
    golden.equal("out_pred", logits.argmax(-1))
    golden.close("out_accuracy", percent(logits, golden), atol=1e-4)
    x, before = views_of(fitted, views), stream(fitted, views[:-1])
    assert torch.equal(torch.cat(list(before)), logits[:-1]), "a stream must answer as predict does"
    last = copy.deepcopy(fitted)
    last(Images.from_arrays(views[-1:]))
    golden.close("out_text_global", last.text, atol=1e-4)
    golden.equal("out_n_global_updates", int(last.seen) - 1)
    golden.equal("out_pos_cache_size", last.cache.held.sum(1))
    classes, prototypes = last.prototypes()
    golden.equal("out_cached_classes_last", classes)
    text, image = fitted.step(x[-1], classes, prototypes)
    golden.close("out_text_residual_last", text, of_max=2e-3)  # tighter than the sidecar's 2e-5, which is as large
    golden.close("out_visual_residual_last", image, of_max=2e-3)  # as some residuals are
