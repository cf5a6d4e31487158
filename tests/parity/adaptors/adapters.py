"""Adapters and residuals."""

import re

import torch

from adaptkit import Task, method, predict
from tests.parity.driving import fitted, steps
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip, tiny_task


def raw_task(golden):
    """Raw features and raw text embeddings."""
    support = golden["in_train_features"], golden["in_train_labels"]
    return Task.from_arrays(support, golden["in_base_text_features"], logit_scale=golden.hyper.get("logit_scale", 100))


def dassl_schedule(hyper):
    """The schedule in a sidecar; its numbers may have words behind them."""
    total = hyper.get("max_epoch") or int(re.search(r"over (\d+)", hyper["schedule"])[1])
    return {"epochs": total, "lr": hyper["lr"], "weight_decay": float(str(hyper["weight_decay"]).split()[0])}


def drive(golden, model, support):
    """Take the golden's steps, compare what is seen on the way, and return the state after the first."""
    losses, rates, seen, first = [], [], [], None
    for rows, loss, rate in steps(golden, model, support, golden.hyper["epochs_run"]):
        if len(losses) == 1:
            first = {n: p.detach().clone() for n, p in model.named_parameters()}
        losses.append(loss)
        rates.append(rate)
        seen.append(predict(model, golden["in_train_features"][rows]))
    golden.close("out_losses", losses, rtol=1e-5)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", seen[0], atol=5e-4)
    golden.close("out_train_logits_last", seen[-1], atol=5e-4)
    golden.close("out_test_logits", predict(model, golden["in_test_features"]), atol=5e-4)
    return first


@adaptor("clip-adapter", method="clip-adapter")
def clip_adapter(golden):
    hyper, task = golden.hyper, raw_task(golden)
    options = {"ratio": hyper["ratio"], "reduction": hyper["reduction"], "schedule": dassl_schedule(hyper)}
    model, support = fitted(method("clip-adapter", **options), task)
    first, second = (n for n, _ in model.named_parameters())
    model.load_state_dict({first: golden["in_w1_init"], second: golden["in_w2_init"]}, strict=False)
    golden.close("out_test_logits_init", predict(model, golden["in_test_features"]), atol=5e-4)
    drive(golden, model, support)
    golden.close("out_w1_final", model.get_parameter(first), atol=1e-6)
    golden.close("out_w2_final", model.get_parameter(second), atol=1e-6)


@adaptor("taskres", method="task-res")
def task_res(golden):
    hyper, task = golden.hyper, raw_task(golden)
    schedule = dassl_schedule(hyper) | {"eps": hyper["eps"]}
    model, support = fitted(method("task-res", alpha=hyper["residual_scale"], schedule=schedule), task)
    after = drive(golden, model, support)
    golden.close("out_residual_after_step1", after["residual"], of_max=1e-3)  # one step at the warm-up rate: 1e-5
    golden.close("out_residual_final", model.residual, atol=2e-6)


@adaptor("taskres_towers", method="task-res")
def task_res_towers(golden):
    hyper, room = golden.hyper, golden.meta["tolerance"]
    decay = float(re.search(r"weight_decay=([\de.-]+)", golden.meta["optimizer_in_golden"])[1])
    backbone = tiny_clip(golden)
    sentences = [hyper["template"].format(name) for name in golden.meta["classnames"]]  # underscores stay, as released
    if "in.input_ids" in golden:
        golden.equal("in.input_ids", backbone.tokenize(sentences)["input_ids"])
    with torch.no_grad():
        task = tiny_task(golden, text=backbone.encode_text(sentences))
    for optimizer in ("sgd", "adam"):
        schedule = {"optimizer": optimizer, "lr": hyper["lr"], "weight_decay": decay, "decay": "constant", "warmup": 0}
        model, support = fitted(method("task-res", alpha=hyper["alpha"], schedule=schedule), task)
        name = "prompt_learner.text_feature_residuals"
        model.load_state_dict({"residual": golden[f"{optimizer}.init.{name}"]}, strict=False)
        golden.close(f"{optimizer}.text_feat_fixed", model.raw, atol=room["logits"])
        for key in ("logits0", "train_logits0"):
            golden.close(f"{optimizer}.{key}", predict(model, golden["in.pixel_values"]), atol=room["logits"])
        step = model.schedule.make([model.residual])
        for s in (0, 1):
            loss = model.loss(support)
            step.zero_grad()
            loss.backward()
            golden.close(f"{optimizer}.loss{s}", loss, atol=room["loss"])
            golden.close(f"{optimizer}.part{s}.cross_entropy.0", loss, atol=room["loss"])
            golden.close(f"{optimizer}.grad{s}.{name}", model.residual.grad, of_max=room["grad_rel"])
            step.step()
            golden.close(f"{optimizer}.step{s + 1}.{name}", model.residual, atol=room["param"])
        golden.close(f"{optimizer}.logits2", predict(model, golden["in.pixel_values"]), atol=room["logits"])
