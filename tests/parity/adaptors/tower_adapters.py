"""Adapters, tuned weights and representation tokens in both towers: MMA, MMRL, 2SFS, R-Adapter."""

import torch
import torch.nn.functional as F

from adaptkit import method
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

SGD = {"optimizer": "sgd", "weight_decay": 5e-4, "decay": "constant", "warmup": 0}
TOWERS = {"visual": "image", "text": "text"}


def prefixes(golden, mark):
    """The prefixes of a golden's variants, by a word in the names of their initial parameters."""
    return sorted({key.split("init.")[0] for key in golden.arrays if "init." in key and mark in key})


def starts(golden, prefix):
    """The names of a variant's initial parameters."""
    return [key.removeprefix(f"{prefix}init.") for key in golden.arrays if key.startswith(f"{prefix}init.")]


def run(golden, made, task, names, prefix):
    """Fit, and hold two steps against the golden."""
    for s, loss in follow(golden, made, task, names, prefix):
        if f"{prefix}part{s}.cross_entropy.0" in golden:
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=golden.meta["tolerance"]["loss"])


@adaptor("mma", method="mma")
def mma(golden):
    task = tiny_task(golden, template=golden.hyper["template"])
    for prefix in prefixes(golden, "adapter_learner"):
        hyper = golden.hyper["variants"][prefix or "(none)"]
        made = method(
            "mma",
            **{name: hyper[name] for name in ("start", "end", "scale")},
            width=hyper["dim"],
            template=golden.hyper["template"],
            as_released=True,
            schedule={**SGD, "lr": golden.hyper["lr"]},
        )
        made.fit(task.bind(made))
        names = {}
        for key in starts(golden, prefix):
            _, adapter, block, *inside, last = key.split(".")
            tower, j = adapter.split("_")[0], made.blocks.index(int(block) - 1)
            part = made.shared if tower == "shared" else getattr(made, inside[0])[TOWERS[tower]]
            names[key] = getattr(part[j], last)
        run(golden, made, task, names, prefix)


@adaptor("mmrl", method="mmrl")
def mmrl(golden):
    room = golden.meta["tolerance"]
    for prefix in prefixes(golden, "compound_rep_tokens"):
        hyper = golden.hyper["variants"][prefix or "(none)"]
        task = tiny_task(golden, template=hyper["template"], logit_scale=100.0)  # the release's constant
        made = method(
            "mmrl",
            n=hyper["n_rep"],
            width=hyper["rep_dim"],
            start=min(hyper["layers"]),
            end=max(hyper["layers"]),
            alpha=hyper["alpha"],
            penalty=hyper["reg_weight"],
            template=hyper["template"],
            schedule={**SGD, "lr": golden.hyper["lr"]},
        )
        made.fit(task.bind(made))
        names, learner = {"image_encoder.proj_rep": made.head}, "representation_learner.compound_rep_tokens"
        names[learner] = made.space
        for short, tower in {"v": "image", "t": "text"}.items():
            for j, one in enumerate(made.projections[tower]):
                names |= {f"{learner}_r2{short}proj.{j}.{p}": getattr(one, p) for p in ("weight", "bias")}
        steps = sum(f"{prefix}loss{s}" in golden for s in range(9))
        trained = [golden.arrays.pop(f"{prefix}train_logits{s}") for s in range(steps)]  # by the class token alone
        golden.arrays |= {f"{prefix}trained{s}": trained[s] for s in range(steps)}
        for s, _ in follow(golden, made, task, names, prefix):
            by_class, by_tokens = answers(made, golden["in.pixel_values"])
            golden.close(f"{prefix}trained{s}", by_class, atol=room["logits"])
            for j, logits in enumerate((by_class, by_tokens)):
                wrong = F.cross_entropy(logits, golden["in.labels"])
                golden.close(f"{prefix}part{s}.cross_entropy.{j}", wrong, atol=room["loss"])
            if not s:
                hold_answers(golden, made, f"{prefix}%s_logits0")
        hold_answers(golden, made, f"{prefix}%s_logits{steps}")


@torch.no_grad()
def answers(made, pixels):
    """Logits by the class token, and by the representation tokens."""
    return [made.backbone.logits(x, made.text()) for x in made.both(pixels)]


def hold_answers(golden, made, name):
    """Both answers are the golden's."""
    for kind, logits in zip(("class", "rep"), answers(made, golden["in.pixel_values"]), strict=True):
        golden.close(name % kind, logits, atol=golden.meta["tolerance"]["logits"])
