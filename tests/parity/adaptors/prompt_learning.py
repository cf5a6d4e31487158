"""Methods that learn words: CoOp and CoCoOp."""

import re

import torch

from adaptkit import method
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

CONTEXT = "prompt_learner.ctx"


def constant(golden):
    """The learning rate of the golden, in every step, and its decay of weights; the method's own optimiser."""
    told = re.search(r"weight_decay=([\de.-]+)", str(golden.meta.get("optimizer_in_golden")))
    decay = {"weight_decay": float(told[1])} if told else {}
    return {"lr": golden.hyper["lr"], "decay": "constant", "warmup": 0, **decay}


def variants(golden):
    """The prefixes of a golden's variants: "" where there is but one."""
    return [key.removesuffix(f"init.{CONTEXT}") for key in golden.arrays if key.endswith(f"init.{CONTEXT}")]


def fitted(name, task, **options):
    """A method as it stands before its first step."""
    made = method(name, **options)
    made.fit(task.bind(made))
    return made


def words_of(context):
    """Words that as many tokens may start from, none where their number is another: the golden gives the start."""
    words = "a photo of a"
    return words if context.shape[-2] == len(words.split()) else ""


@adaptor("coop", method="coop")
def coop(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for prefix in variants(golden):
        context, name = golden[f"{prefix}init.{CONTEXT}"], prefix.removesuffix(".")
        coop = fitted(
            "coop",
            task,
            n=context.shape[-2],
            init=words_of(context) if name == "words" else "",
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
