"""ProKeR, and the caches that look at class distributions or at chosen channels."""

import copy
import re

import torch
from adaptkit_plugins.training_free.ape import likeness, pair_by_pair

from adaptkit import Task, adapt, method, predict, tune, unit
from tests.parity.adaptors.training_free import few_shot_task, percent
from tests.parity.driving import fitted, same_counts, steps
from tests.parity.golden import adaptor


@adaptor("proker", method="proker")
def proker(golden):
    def ends(name):
        first, last, count = re.fullmatch(r"linspace\((.+),(.+),(.+)\)", golden.hyper[name]).groups()
        return float(first), float(last), int(count)

    task = few_shot_task(golden)
    model = adapt(method("proker", betas=ends("beta"), lams=ends("lmbda")), task)
    same_counts(golden, "out_val_correct_grid", model, task.val, tune(model, task.val), 1e-4)
    golden.close("out_best_beta", model.beta, rtol=1e-6)  # their grid is in single precision
    golden.close("out_best_lambda", model.lam, rtol=1e-6)
    rows = len(model.keys)
    order = (
        torch.arange(rows).view(len(golden["in_train_labels"]), -1).T.flatten()
    )  # theirs: all of a view, then the next
    golden.close("out_K_ss", model.lift(model.keys, model.beta)[order][:, order], atol=1e-5)
    golden.close("out_alpha", model.coefficients[order], of_max=1e-4)
    logits = predict(model, golden["in_test_features"]) / task.backbone.logit_scale  # theirs stay on the cosines' scale
    golden.close("out_test_logits", logits, atol=1e-5)


def support_task(golden, **support):
    """A support that was found for the class names, with validation images."""
    return Task.from_arrays(
        ({"views": golden["in_support_features"], **support}, golden["in_support_labels"]),
        golden["in_clip_weights"].T,
        val=(golden["in_val_features"], golden["in_val_labels"]),
    )


def counts(golden, *names):
    """How many values of each a sidecar's search has: ``"20 values"``."""
    return [int(golden.hyper[name].split()[0]) for name in names]


@adaptor("tipx", method="tip-x")
def tip_x(golden):
    task, x, labels = support_task(golden), golden["in_test_features"], golden["in_test_labels"]
    options = {"temperature": golden.hyper["temperature"], "as_released": True}
    coarse = adapt(method("tip-x", **options, search_steps=golden["out_val_correct_grid"].shape), task)
    search = tune(coarse, task.val)
    same_counts(golden, "out_val_correct_grid", coarse, task.val, search, 2e-4)

    steps = counts(golden, "alpha", "beta", "gamma")
    model = adapt(method("tip-x", **options, search_steps=steps), task)
    for name in ("alpha", "beta", "gamma"):
        golden.close(f"out_best_{name}", getattr(model, name), rtol=1e-12)
    golden.equal("out_best_val_correct", tune(model, task.val).correct.max())
    golden.close("out_support_distribution", model.distribution(model.keys)[0], atol=2e-6)
    golden.close("out_test_distribution", model.distribution(x)[0], atol=2e-6)
    golden.close("out_kl_test", torch.cat(list(model.divergences(x))), atol=2e-6)
    golden.close("out_kl_val", torch.cat(list(model.divergences(golden["in_val_features"]))), atol=2e-6)
    logits = predict(model, x)
    golden.close("out_test_logits", logits, atol=2e-4)
    golden.close("out_test_top1", percent(logits, labels), atol=1e-6)
    golden.equal("out_test_top5_correct", (logits.topk(5).indices == labels[:, None]).any(1).sum())


@adaptor("caps-adapter", method="caps-adapter")
def caps_adapter(golden):
    task = support_task(golden, captions=golden["in_caption_features"])
    x, labels = golden["in_test_features"], golden["in_test_labels"]
    alpha, beta, delta, gamma = golden["out_val_correct_grid"].shape
    options = {"temperature": golden.hyper["temperature"], "captions": "given", "as_released": True}
    coarse = adapt(method("caps-adapter", **options, search_steps=(alpha, beta, delta, gamma)), task)
    search = tune(coarse, task.val)
    same_counts(golden, "out_val_correct_grid", coarse, task.val, search, 2e-4)

    alpha, beta, gamma = counts(golden, "alpha", "beta", "gamma")
    model = adapt(method("caps-adapter", **options, search_steps=(alpha, beta, delta, gamma)), task)
    for name in ("alpha", "beta", "delta", "gamma"):
        golden.close(f"out_best_{name}", getattr(model, name), rtol=1e-12)
    golden.equal("out_best_val_correct", tune(model, task.val).correct.max())
    golden.close("out_test_distribution", model.distribution(x).exp() / x.shape[1], atol=2e-6)
    golden.close("out_kl_test", torch.cat(list(model.divergences(x))), atol=2e-6)
    golden.close("out_kl_val", torch.cat(list(model.divergences(golden["in_val_features"]))), atol=2e-6)
    logits = predict(model, x)
    golden.close("out_test_logits", logits, atol=2e-4)
    golden.close("out_test_top1", percent(logits, labels), atol=1e-6)


def ape_options(golden, weights, channels):
    hyper = golden.hyper
    first = {name: hyper[f"init_{name}"] for name in ("alpha", "beta", "gamma") if f"init_{name}" in hyper}
    search = {"search_scale": hyper["search_scale"], "search_steps": hyper["search_step"]}
    return first | search | {"weights": weights, "channels": channels}


@adaptor("ape", method="ape")
def ape(golden):
    hyper, task, x = golden.hyper, few_shot_task(golden), golden["in_test_features"]
    options = ape_options(golden, hyper["w_training_free"], hyper["training_free_feat_num"])
    model, _ = fitted(method("ape", **options, as_released=True), task)
    keys = task.bind(model).support.views.mean(1)
    labels = torch.cat([torch.arange(len(task.text)), model.labels])
    members = torch.cat([task.text, unit(keys)])
    golden.close("out_similarity", pair_by_pair(members, labels), atol=1e-7)
    exact = pair_by_pair(members.double(), labels)
    assert likeness(members.double(), labels).allclose(exact, rtol=1e-9, atol=1e-12), (
        "the closed form must be the loop's"
    )
    golden.equal("out_indices", model.chosen)
    golden.close("out_cache_div", model.divergence, atol=5e-6)
    golden.close("out_logits_before_search", predict(model.eval(), x), atol=2e-4)
    search = tune(model, task.val)
    same_counts(golden, "out_val_correct_grid", model, task.val, search, 2e-4)
    for name in ("beta", "alpha", "gamma"):
        golden.close(f"out_best_{name}", getattr(model, name), rtol=1e-12)
    logits = predict(model, x)
    golden.close("out_test_logits", logits, atol=2e-4)
    golden.close("out_test_acc", percent(logits, golden["in_test_labels"]), atol=1e-6)


@adaptor("ape-t", method="ape-t")
def ape_t(golden):
    hyper, task, x = golden.hyper, few_shot_task(golden), golden["in_test_features"]
    schedule = {"epochs": hyper["train_epoch"]} | {name: hyper[name] for name in ("lr", "eps", "weight_decay")}
    options = ape_options(golden, hyper["w_training"], hyper["feat_num"])
    model, support = fitted(method("ape-t", **options, schedule=schedule), task)
    golden.equal("out_indices", model.chosen)
    rows_of, per_epoch = golden["in_train_features"], len(golden["out_losses"]) // hyper["train_epoch"]
    losses, rates, seen, best, state, epochs = [], [], [], -1, None, []

    def end_of_epoch():
        right = percent(predict(model, task.val), task.val.labels)
        epochs.append(right)
        return (right, copy.deepcopy(model.state_dict())) if right > best else (best, state)

    for rows, loss, rate in steps(golden, model, support, hyper["train_epoch"]):
        if losses and len(losses) % per_epoch == 0:
            best, state = end_of_epoch()
        losses.append(loss)
        rates.append(rate)
        seen.append(predict(model, rows_of[rows]))
    best, state = end_of_epoch()
    golden.close("out_losses", losses, rtol=1e-5)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", seen[0], atol=5e-4)
    golden.close("out_train_logits_last", seen[-1], atol=5e-4)
    golden.close("out_value_weights_final", model.learned, atol=5e-6)
    golden.close("out_res_final", model.residual, atol=5e-6)
    golden.close("out_epoch_val_acc", epochs, atol=1e-6)
    golden.equal("out_best_epoch", epochs.index(max(epochs)))
    model.load_state_dict(state)
    golden.close("out_value_weights_best", model.learned, atol=5e-6)
    golden.close("out_res_best", model.residual, atol=5e-6)
    tune(model, task.val)
    for name in ("beta", "alpha"):
        golden.close(f"out_best_{name}", getattr(model, name), rtol=1e-12)
    logits = predict(model, x)
    golden.close("out_test_logits", logits, atol=5e-4)
    golden.close("out_test_acc", percent(logits, golden["in_test_labels"]), atol=1e-6)
