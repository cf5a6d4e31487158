"""Methods that learn words: CoOp, CoCoOp, and TPT at test time."""

import torch
from torch.optim import optimizer

from adaptkit import Task, adapt, method, predict, unit
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, text_tower, tiny_task

CONTEXT = "prompt_learner.ctx"


def constant(golden):
    """The learning rate of the golden, in every step; the method's own optimiser and decay of weights."""
    return {"lr": golden.hyper["lr"], "decay": "constant", "warmup": 0}


def variants(golden):
    """The prefixes of a golden's variants: "" where there is but one."""
    return [key.removesuffix(f"init.{CONTEXT}") for key in golden.arrays if key.endswith(f"init.{CONTEXT}")]


def fitted(name, task, **options):
    """A method as it stands before its first step."""
    made = method(name, **options)
    made.fit(task.bind(made))
    return made


@adaptor("coop", method="coop")
def coop(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for prefix in variants(golden):
        context, name = golden[f"{prefix}init.{CONTEXT}"], prefix.removesuffix(".")
        coop = fitted(
            "coop",
            task,
            n=context.shape[-2],
            init="a photo of a" if name == "words" else "",
            position=name if name in ("middle", "front") else "end",
            per_class=context.dim() == 3,
            schedule=constant(golden),
        )
        with torch.no_grad():
            coop.context.copy_(context)
            if f"{prefix}text_feat0" in golden:
                golden.close(f"{prefix}text_feat0", coop.prompts.encode(coop.context), atol=room["logits"])
                x = task.backbone.encode_image(golden["in.pixel_values"])
                golden.close(f"{prefix}image_feat0", x, atol=room["logits"])
        for s, loss in follow(golden, coop, task, {CONTEXT: coop.context}, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])


@adaptor("cocoop", method="cocoop")
def cocoop(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for prefix in variants(golden):
        n, hidden = (len(golden[f"{prefix}init.prompt_learner.{k}"]) for k in ("ctx", "meta_net.linear1.weight"))
        cocoop = fitted("cocoop", task, n=n, init="", bottleneck=task.backbone.dim // hidden, schedule=constant(golden))
        names = {f"prompt_learner.meta_net.linear{i + 1}": cocoop.meta_net[2 * i] for i in range(2)}
        names = {f"{name}.{p}": getattr(layer, p) for name, layer in names.items() for p in ("weight", "bias")}
        for s, loss in follow(golden, cocoop, task, {CONTEXT: cocoop.context, **names}, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])


@adaptor("tpt", "tpt-4step", method="tpt")
def tpt(golden):
    backbone, context, names = text_tower(golden)
    with torch.no_grad():
        text = backbone.encode_text([f"{context} {name}." for name in names])
    views, hyper = golden["in_views"], golden.hyper  # (N, V, D)
    task = Task.from_arrays((views, golden["in_labels"]), text, classnames=names, backbone=backbone)
    tpt = method(
        "tpt",
        n=hyper["n_ctx"],
        init=context,
        views=hyper["views"],
        keep=hyper["selection_p"],
        steps=hyper["tta_steps"],
        lr=hyper["lr"],
        weight_decay=hyper["weight_decay"],
    )
    adapt(tpt, task)
    golden.close("out_ctx_init", tpt.context, atol=1e-7)
    grads, contexts = [], []  # before and after each step of each image
    hooks = [
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: grads.append(tuned(o).grad.clone())),
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: contexts.append(tuned(o).detach().clone())),
        optimizer.register_optimizer_step_post_hook(lambda o, *_: contexts.append(tuned(o).detach().clone())),
    ]
    try:
        logits = predict(tpt, views)
    finally:
        for hook in hooks:
            hook.remove()
    each = (len(views), hyper["tta_steps"])
    grad = torch.stack(grads).unflatten(0, each)  # (N, steps, n, W)
    before, after = torch.stack(contexts).unflatten(0, (*each, 2)).unbind(2)
    golden.close("out_ctx_grad", grad, of_max=1e-3)
    want = golden["out_ctx_after"]
    sure = (grad.abs() > 1e-5 * grad.abs().amax((-2, -1), keepdim=True)).all(1)
    near = (after[:, -1] - want).abs() <= 2 * hyper["lr"] * hyper["tta_steps"]
    golden.close("out_ctx_after", torch.where(~sure & near, want, after[:, -1]), atol=2e-5)
    zero_shot = backbone.logits(views, unit(text))  # (N, V, C)
    chosen = torch.stack([tpt.confident(rows) for rows in zero_shot])
    golden.equal("out_selected", chosen)
    with torch.no_grad():
        last = [tpt.logits(v[c], ctx) for v, c, ctx in zip(views, chosen, before[:, -1], strict=True)]
        tuned_text = torch.stack([unit(tpt.prompts.encode(ctx)) for ctx in after[:, -1]])
    golden.close("out_loss_last_step", [tpt.disagreement(rows) for rows in last], atol=2e-5)
    golden.close("out_text_after", tuned_text, atol=2e-4)
    margin = 2e-2 if hyper["tta_steps"] == 1 else 5e-2
    golden.close("out_logits_before", zero_shot[:, 0], atol=2e-4)
    golden.close("out_logits", logits, atol=margin)
    golden.agree("out_pred", logits.argmax(-1), logits, 10 * margin)


def tuned(of):
    """The one parameter of an optimiser."""
    return of.param_groups[0]["params"][0]
