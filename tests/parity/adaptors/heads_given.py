"""Heads on goldens whose arrays are rows: CLAP and its baseline, the cross-modal probe, LFA, GLA; and VDT-Adapter."""

import copy
import dataclasses
from unittest import mock

import torch

from adaptkit import Method, Pooled, adapt, method, predict
from tests.parity.adaptors.given import given_task, row_centred, rows_of_views
from tests.parity.driving import fitted
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task


def each_row(golden, text):
    """A task in which every stored view is an image of its own, so that a batch can name it."""
    return given_task(golden, text, support=rows_of_views(golden))


def row_numbers(golden, batches):
    """``(image, view)`` pairs as rows of `each_row`."""
    views = golden["in_support"].shape[1] if golden["in_support"].dim() == 3 else 1
    return batches[..., 0] * views + batches[..., 1]


@adaptor("clap", method="clap", having="in_batches")
@adaptor("zs-lp", method="zs-lp")
def clap(golden):
    hyper, constrained = golden.hyper, golden.hyper["constraint"] != "none"
    schedule = {"epochs": hyper["epochs"], "lr": hyper["lr"], "decay": "constant", "warmup": 0}
    adaptive = {"adaptive": hyper["constraint"].endswith("adaptative")} if constrained else {}
    task = each_row(golden, golden["in_raw_text"])
    model, support = fitted(method("clap" if constrained else "zs-lp", **adaptive, schedule=schedule), task)
    multipliers = [model.multipliers.clone()] if constrained else []
    losses, prototypes = [], []
    optimizer = model.schedule.make([model.prototypes])
    for epoch in row_numbers(golden, golden["in_batches"]):
        for step, rows in enumerate(epoch):
            loss = model.loss(support[rows])
            losses.append(loss.item())
            optimizer.param_groups[0]["lr"] = model.schedule.rate(step, len(epoch), hyper["epochs"] * len(epoch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        prototypes.append(model.prototypes.detach().clone())
        if adaptive.get("adaptive"):
            model.outer_step()
            multipliers.append(model.multipliers.clone())
    if constrained:
        golden.close("out_multipliers", torch.stack(multipliers), rtol=1e-5)
    golden.close("out_losses", losses, rtol=1e-5)
    golden.close("out_prototypes", torch.stack(prototypes), of_max=1e-5)
    golden.close("out_logits", predict(model.eval(), golden["in_test"]), atol=2e-4)


@adaptor("cross-modal", method="cross-modal")
def cross_modal(golden):
    hyper = golden.hyper
    names = {"max_iter": "steps", "lr": "lr", "weight_decay": "weight_decay", "warmup_lr": "warmup_lr"}
    schedule = {names[key]: value for key, value in hyper.items() if key in names}
    task = each_row(golden, list(golden["in_raw_text"]))
    model, support = fitted(method("cross-modal", schedule=schedule), task)
    model.schedule = dataclasses.replace(model.schedule, warmup_steps=hyper["warmup_iter"])
    golden.close("out_start", model.weight, atol=1e-5)
    optimizer = model.schedule.make([model.weight])
    losses, rates, rights, states = [], [], [], []
    batches = zip(row_numbers(golden, golden["in_image_batches"]), golden["in_text_batches"], strict=True)
    for step, (images, sentences) in enumerate(batches):
        rates.append(model.schedule.rate(step, 1, hyper["max_iter"]))
        optimizer.param_groups[0]["lr"] = rates[-1]
        batch = support[images]
        loss = model.joint(batch.views[:, 0], batch.labels, sentences)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % hyper["eval_freq"] == 0:
            rights.append(float((predict(model, task.val).argmax(-1) == task.val.labels).double().mean()))
            states.append(copy.deepcopy(model.state_dict()))
    best = rights.index(max(rights))
    golden.close("out_rates", rates, rtol=1e-9)
    golden.close("out_losses", losses, rtol=1e-4)
    golden.equal("out_best_iter", best * hyper["eval_freq"])
    golden.close("out_best_val_acc", rights[best], atol=1e-9)
    model.load_state_dict(states[best])
    model.eval()
    golden.close("out_weight", model.weight, atol=1e-5)
    golden.close("out_logits", predict(model, golden["in_test"]), atol=2e-3)
    model.ensemble = 0.5
    golden.close("out_logits_wiseft", predict(model, golden["in_test"]), atol=2e-3)


@adaptor("lfa", method="lfa")
def lfa(golden):
    hyper, task, x = golden.hyper, given_task(golden), golden["in_test"]
    schedule = {"steps": hyper["n_iters"], "lr": hyper["learning_rate"], "weight_decay": hyper["weight_decay"]}
    schedule["final_lr"] = hyper["cosine_end_lr"]
    options = {"neighbours": hyper["knn"], "margin": hyper["arerank_scale"], "noise": hyper["gaussian_noise"]}
    options |= {"dropout": hyper["dropout"], "share": 1.0, "schedule": schedule}
    solved, support = fitted(method("lfa", betas=1, **options), task)  # one value of beta: 0
    golden.close("out_procrustes", solved.map, atol=2e-5)
    golden.close("out_loss_at_start", solved.loss(support), atol=1e-5)
    scale = task.backbone.logit_scale
    golden.close("out_cosines_procrustes", predict(solved.eval(), x) / scale, atol=2.5e-4)
    refined = adapt(method("lfa", betas=1, **options), task)
    golden.close("out_refined", refined.map, atol=2.5e-4)
    golden.close("out_cosines", predict(refined, x) / scale, atol=2.5e-4)
    orders = [order.flip(0) for order in golden["in_permutations"]]  # theirs solve on the first rows, ours on the last
    with mock.patch.object(torch, "randperm", side_effect=orders):
        chosen, _ = fitted(method("lfa", splits=len(orders), **options), task)
    golden.close("out_cv_map", chosen.map, atol=2e-5)


class Given(Method):
    """Another model's logits, as arrays."""

    def needs(self):
        return {"logits": Pooled(unit=False)}

    def fit(self, task):
        pass

    def forward(self, batch):
        return batch.logits


@adaptor("gla-fewshot", method="gla")
def gla(golden):
    val = {"x": golden["in_val"], "logits": golden["in_finetuned_val_logits"]}
    support = {"x": golden["in_support"], "logits": torch.zeros(len(golden["in_support"]), len(golden["in_text"]))}
    task = given_task(golden, support=(support, golden["in_labels"]), val=(val, golden["in_val_labels"]))
    model = adapt(method("gla", base=Given(), as_released=True), task)
    golden.close("out_zero_shot_T", model.zero_shot_temperature, rtol=1e-3)
    golden.close("out_finetuned_T", model.temperature, rtol=1e-3)
    golden.close("out_pretraining_prior", model.bias.exp(), atol=1e-5)
    zero_shot = model.zero_shot(golden["in_test"]) / model.zero_shot_temperature
    golden.close("out_zero_shot_logits_over_T", zero_shot, atol=1e-3)
    queries = {"x": golden["in_test"], "logits": golden["in_finetuned_test_logits"]}
    row_centred(golden, "out_gla_logits", predict(model, queries), atol=1e-3)


@adaptor("vdt-adapter", method="vdt-adapter")
def vdt_adapter(golden):
    room, variants = golden.meta["tolerance"], golden.hyper["variants"]
    sentences = [golden.hyper["sentences"][name.replace("_", " ")] for name in golden.meta["classnames"]]
    ours = {"w_qs": "q", "w_ks": "k", "w_vs": "v", "layer_norm": "norm", "fc": "out"}
    schedule = {"lr": golden.hyper["lr"], "decay": "constant", "warmup": 0}
    for variant, changed in variants.items():
        prefix = "" if variant == "(none)" else variant
        task = tiny_task(golden, text=list(golden["in.rows"]), prompts=sentences)
        options = {"reduction": golden.hyper["reduction"], "dropout": 0.0, "attention_dropout": 0.0, **changed}
        model, _ = fitted(method("vdt-adapter", **options, schedule=schedule), task)
        with torch.no_grad():
            rows = task.backbone.encode_text([s for own in sentences for s in own])
        golden.close("in.rows", rows.view_as(model.rows), atol=room["logits"])
        keys = [key for key in golden.arrays if key.startswith(f"{prefix}init.")]
        names = {}
        for key in keys:
            layer, kind = key.rsplit(".", 2)[1:]
            names[key.removeprefix(f"{prefix}init.")] = getattr(getattr(model, ours[layer]), kind)
        for s, loss in follow(golden, model, task, names, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])
