"""Methods that learn words or tokens: CoOp, CoCoOp and MaPLe."""

import torch

from adaptkit import method
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

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


@adaptor("maple", method="maple")
def maple(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for prefix in variants(golden):
        deep = sum(f"{prefix}init.prompt_learner.compound_prompts_text.{i}" in golden for i in range(99))
        n = len(golden[f"{prefix}init.{CONTEXT}"])
        maple = fitted("maple", task, n=n, depth=deep + 1, schedule=constant(golden))
        names = {CONTEXT: maple.context}
        for i, prompt in enumerate(maple.deep):
            names[f"prompt_learner.compound_prompts_text.{i}"] = prompt
        layers = {f"prompt_learner.compound_prompt_projections.{i}": layer for i, layer in enumerate(maple.couplings)}
        for name, layer in {"prompt_learner.proj": maple.coupling, **layers}.items():
            names |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        for s, loss in follow(golden, maple, task, names, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])
