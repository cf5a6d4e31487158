"""Heads on a second tower, and the last projection."""

import copy

import torch
from torch import nn

from adaptkit import Backbone, Task, method, predict, tune
from adaptkit.features.items import Images
from tests.parity.adaptors.training_free import percent
from tests.parity.driving import fitted, same_counts, steps
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip


class Projected(Backbone):
    """A backbone of which only the last linear map is known."""

    def __init__(self, weight, bias=None):
        self.model = nn.Module()
        self.model.visual_projection = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
        self.model.visual_projection.weight.data = weight
        if bias is not None:
            self.model.visual_projection.bias.data = bias
        self.points = {"image.projection": self.model.visual_projection}
        self.dim, self.logit_scale = len(weight), 100.0


@adaptor("prolip-vit", "prolip-rn", method="pro-lip")
def pro_lip(golden):
    hyper, vit = golden.hyper, "in_proj" in golden
    backbone = Projected(
        golden["in_proj"].T.contiguous() if vit else golden["in_weight"], None if vit else golden["in_bias"]
    )
    views, labels, text = golden["in_train_pre"].transpose(0, 1), golden["in_train_labels"], golden["in_clip_weights"].T
    task = Task.from_arrays(({"h": views}, labels), text, backbone=backbone)
    epochs, eps = hyper["train_epoch"], float(hyper["optimizer"].split("eps ")[1])
    schedule = {"epochs": epochs, "lr": hyper["lr"], "eps": eps}
    model, support = fitted(
        method("pro-lip", penalty=hyper["lambda_"] * len(labels) / len(text), schedule=schedule), task
    )
    optimizer, total = model.schedule.make([model.weight]), model.schedule.length(1, shots=1)
    ce, reg, rates, seen = [], [], [], []
    for epoch in range(total):
        rates.append(model.schedule.rate(epoch, 1, total))
        seen.append(predict(model, {"h": views[:, (model.turn + 1) % views.shape[1]]}))
        reg.append(model.distance().item())
        loss = model.loss(support)
        ce.append(loss.item() - model.strength * reg[-1])
        optimizer.param_groups[0]["lr"] = rates[-1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, room = {"h": golden["in_test_pre"]}, {"atol": 5e-4}
    golden.close("out_ce_losses", ce, rtol=2e-5)
    golden.close("out_reg_losses", reg, rtol=1e-4)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", seen[0], **room)
    golden.close("out_train_logits_last", seen[-1], **room)
    golden.close("out_weight_final", model.weight.T if vit else model.weight, atol=2e-6)
    golden.close("out_test_logits", predict(model, x), **room)
    golden.close("out_test_acc", percent(predict(model, x), golden["in_test_labels"]), atol=1e-9)


@adaptor("prolip", method="pro-lip")
def pro_lip_towers(golden):
    hyper, room = golden.hyper, golden.meta["tolerance"]
    backbone, text = tiny_clip(golden, logit_scale=100.0), golden["in.text_weights"].T
    views, labels = golden["in.view_features"].transpose(0, 1), golden["in.labels"]
    eps = float(hyper["optimizer"].split("eps=")[1].split(",")[0])
    schedule = {"epochs": hyper["epochs"], "lr": hyper["lr"], "eps": eps}
    for prefix, rule in hyper["lambdas"].items():
        strength = 1 / int(rule.split("shots=")[1]) if isinstance(rule, str) else rule  # "1/shots with shots=2"
        task = Task.from_arrays(({"h": views}, labels), text, backbone=backbone)
        penalty = strength * len(labels) / len(text)
        model, support = fitted(method("pro-lip", penalty=penalty, schedule=schedule), task)
        golden.close(f"{prefix}.lambda", model.strength, atol=1e-7)
        optimizer = model.schedule.make([model.weight])
        for s in range(hyper["epochs"]):
            logits = predict(model, {"h": views[:, (model.turn + 1) % views.shape[1]]})
            golden.close(f"{prefix}.train_logits{s}", logits, atol=room["logits"])
            distance, loss = model.distance().item(), model.loss(support)
            golden.close(f"{prefix}.ce{s}", loss.item() - strength * distance, atol=room["loss"])
            optimizer.param_groups[0]["lr"] = model.schedule.rate(s, 1, hyper["epochs"])
            optimizer.zero_grad()
            loss.backward()
            golden.close(f"{prefix}.grad{s}.vit_proj", model.weight.grad.T, of_max=room["grad_rel"])
            optimizer.step()
            golden.close(f"{prefix}.step{s + 1}.vit_proj", model.weight.T, atol=room["param"])
        golden.close(f"{prefix}.final_loss", loss, atol=room["loss"])
        for queries in (
            {"h": golden["in.test_features"]},
            golden["in.test_pixel_values"],
        ):  # the tower makes the features
            golden.close(f"{prefix}.test_logits{hyper['epochs']}", predict(model, queries), atol=room["logits"])


def two_towers(golden, split, second="dino"):
    """What both towers see of a split, by the names that the method reads."""
    return {"x": golden[f"in_{split}_features"], "z": golden[f"in_{second}_{split}_features"]}


def searched(golden):
    hyper = golden.hyper
    names = {"beta": "init_beta", "alpha": "init_alpha", "search_scale": "search_scale", "search_steps": "search_step"}
    return {ours: hyper[theirs] for ours, theirs in names.items() if theirs in hyper}


@adaptor("cafo-fusion", method="cafo")
def cafo_fusion(golden):
    support, text = (two_towers(golden, "train"), golden["in_train_labels"]), golden["in_clip_weights"].T
    task = Task.from_arrays(support, text, val=(two_towers(golden, "val"), golden["in_val_labels"]), logit_scale=100)
    queries = two_towers(golden, "test")
    model, _ = fitted(method("cafo", **searched(golden)), task)
    zero_shot = model.zero_shot(queries["x"])
    affinities = queries["x"] @ model.keys.T, queries["z"] @ model.second_keys.T
    golden.close("out_zero_shot_logits", zero_shot, atol=1e-4)
    votes = torch.stack([model.votes(affinity, model.beta) for affinity in affinities])
    for key, value in zip(("clip", "dino"), votes, strict=True):
        golden.close(f"out_{key}_cache_logits", value, atol=2e-5)
    for normalize in ("mean", "softmax", "linear"):
        model.normalize = normalize
        golden.close(f"out_fused_{normalize}", model.fused(zero_shot, votes), atol=2e-5)
    model.normalize = "mean"
    search = tune(model, task.val)
    golden.equal("out_best_beta", model.beta)
    golden.equal("out_best_alpha", model.alpha)
    same_counts(golden, "out_val_correct_grid", model, task.val, search, 1e-4)


@adaptor("cafo-f", method="cafo")
def cafo_f(golden):
    hyper = golden.hyper
    labels = torch.cat([golden["in_train_labels"], golden["in_dalle_labels"]])
    real, made = two_towers(golden, "train"), {"x": golden["in_dalle_features"], "z": golden["in_dino_dalle_features"]}
    support = {name: torch.cat([real[name], made[name]]) for name in real}
    val = two_towers(golden, "val"), golden["in_val_labels"]
    task = Task.from_arrays((support, labels), golden["in_clip_weights"].T, val=val, logit_scale=100)
    schedule = {"epochs": hyper["train_epoch"], **{name: hyper[name] for name in ("lr", "eps", "weight_decay")}}
    model, rows = fitted(method("cafo", **searched(golden), schedule=schedule), task)
    queries, truth = two_towers(golden, "test"), golden["in_test_labels"]
    halves = torch.arange(len(labels)).split([len(real["x"]), len(made["x"])])  # one batch of real images, one of made
    total = hyper["train_epoch"]  # the release counts the batches of real images only
    optimizer = model.schedule.make([model.second_keys, model.keys])
    losses, rates, states, tests = [], [], [], []
    first = predict(model, real)
    for step in range(hyper["train_epoch"] * len(halves)):
        rates.append(model.schedule.rate(step, 1, total))
        loss = model.loss(rows[halves[step % len(halves)]])
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = rates[-1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % len(halves) == len(halves) - 1:
            states.append(copy.deepcopy(model.state_dict()))
            tests.append(percent(predict(model, queries), truth))
    golden.close("out_losses", losses, rtol=2e-5)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", first, atol=5e-4)
    golden.close("out_dino_adapter_final", model.second_keys, atol=5e-6)
    golden.close("out_clip_adapter_final", model.keys, atol=5e-6)
    tune(model, task.val)  # on the last epoch, as released
    best = int(torch.stack(tests).argmax())
    model.load_state_dict(states[best])
    golden.equal("out_best_beta", model.beta)
    golden.equal("out_best_alpha", model.alpha)
    golden.equal("out_best_epoch", best)
    golden.close("out_clip_adapter_best", model.keys, atol=5e-6)
    golden.close("out_dino_adapter_best", model.second_keys, atol=5e-6)
    golden.close("out_test_logits", predict(model, queries), atol=5e-4)
    golden.close("out_test_acc", percent(predict(model, queries), truth), atol=1e-9)
    golden.skip(
        "an accident of the release: its caches share memory with what is trained", "out_search_keys_are_last_epoch"
    )


@adaptor("amu-tuning", method="amu-tuning")
def amu_tuning(golden):
    hyper = golden.hyper
    images = {"x": golden["in_train_features"], "z": golden["in_aux_train_features"]}
    queries, truth = {"x": golden["in_test_features"], "z": golden["in_aux_test_features"]}, golden["in_test_labels"]
    task = Task.from_arrays((images, golden["in_train_labels"]), golden["in_clip_weights"].T, logit_scale=100)
    schedule = {"epochs": hyper["train_epoch"], **{name: hyper[name] for name in ("lr", "eps", "weight_decay")}}
    options = {"alpha": hyper["alpha"], "merge": hyper["lambda_merge"], "power": hyper["uncent_power"]}
    options |= {"schedule": schedule, "as_released": True}

    def unsure(how):
        return fitted(method("amu-tuning", uncertainty=how, **options), task)[0]

    for key in (k for k in golden.outputs if k.startswith("out_loss_")):
        how = key.removeprefix("out_loss_")
        model = unsure(how)
        if not golden[f"out_logits_{how}"].isfinite().all():
            golden.skip("not a number in the release, finite here", key, f"out_logits_{how}")
            continue
        labelled = Images.from_arrays(queries, truth).bind(model.support_needs())
        golden.close(key, model.loss(labelled), rtol=2e-5)
        golden.close(f"out_logits_{how}", predict(model, queries), atol=5e-4)
    model, support = fitted(method("amu-tuning", uncertainty=hyper["trained_with"], **options), task)
    bound = Images.from_arrays(queries).bind(model.needs())

    def auxiliary():
        with torch.no_grad():
            return model.logits(bound.x, bound.z)[1]

    golden.close("out_adapter_init", model.head, atol=2e-6)
    golden.close("out_aux_logits_init", auxiliary(), atol=5e-4)
    losses, rates, tests = [], [], []
    per_epoch = len(golden["out_lrs"]) // hyper["train_epoch"]
    for rows, loss, rate in steps(golden, model, support, hyper["train_epoch"]):
        if losses and len(losses) % per_epoch == 0:
            tests.append(percent(predict(model, queries), truth))
        batch = support[rows]
        with torch.no_grad():
            parts = model.losses(batch.x[:, 0], batch.z[:, 0], batch.labels)
        losses.append([loss, *(part.item() for part in parts)])
        rates.append(rate)
    tests.append(percent(predict(model, queries), truth))
    golden.close("out_losses", losses, rtol=2e-5)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_adapter_final", model.head, atol=2e-6)
    golden.close("out_test_logits", predict(model, queries), atol=5e-4)
    golden.close("out_test_aux_logits", auxiliary(), atol=5e-4)
    golden.equal("out_best_epoch", 1 + int(torch.stack(tests).argmax()))
    golden.close("out_best_acc", torch.stack(tests).max(), atol=1e-9)
