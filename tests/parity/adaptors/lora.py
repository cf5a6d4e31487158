"""CLIP-LoRA."""

import math
import re
from unittest import mock

from adaptkit_plugins.adapters import clip_lora as plugin
from torch import nn

from adaptkit import method
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

TOWERS = {"visual.transformer": "image", "transformer": "text"}
MAPS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "proj": "out"}


class Given(nn.Module):
    """The golden's dropout: what enters a low-rank branch times one vector, in training."""

    def __init__(self, vector):
        super().__init__()
        self.vector = vector

    def forward(self, x):
        return x * self.vector[: x.shape[-1]] if self.training else x


class Cut(nn.Module):
    """The defect of the release without dropout: no gradient reaches lower blocks through the low-rank branch."""

    def forward(self, x):
        return x.detach()


@adaptor("clip_lora", method="clip-lora")
def clip_lora(golden):
    hyper = golden.hyper
    task = tiny_task(golden, template=hyper["template"], logit_scale=hyper["logit_scale"])
    for prefix in sorted({key.split("init.")[0] for key in golden.arrays if "init." in key}):
        keys = [key.removeprefix(f"{prefix}init.") for key in golden.arrays if key.startswith(f"{prefix}init.")]
        towers = {key.split(".resblocks")[0] for key in keys}
        rank, alpha = (hyper[name] + added(golden, prefix, name) for name in ("r", "alpha"))
        lora = method(
            "clip-lora",
            rank=rank,
            alpha=alpha,
            dropout=0.0,
            encoder="both" if len(towers) == 2 else {"image": "vision", "text": "text"}[TOWERS[towers.pop()]],
            maps=[short for long, short in MAPS.items() if any(f"attn.{long}." in key for key in keys)],
            template=hyper["template"],
            schedule={"lr": hyper["lr"]},
        )
        with mock.patch.object(plugin, "chosen", side_effect=blocks(keys)):  # any, also where no position is those
            lora.fit(task.bind(lora))
        if prefix == "drop.":
            lora.drop = Given(golden["in.dropout_vector"])
        if prefix == "p0.":
            lora.drop = Cut()
        golden.close(f"{prefix}scaling", lora.alpha / math.sqrt(lora.rank), atol=1e-7)
        names = {key: parameter(lora, key) for key in keys}
        for _ in follow(golden, lora, task, names, prefix):
            pass


def added(golden, prefix, name):
    """What a variant, in its words, adds to a hyperparameter: 2 in "r+2, alpha+1"."""
    words = golden.meta.get("variants", {}).get(prefix.removesuffix("."), "")
    told = re.search(rf"\b{name} ?\+ ?([\d.]+)", words)
    return float(told[1]) if told and "." in told[1].rstrip(".") else int(told[1].rstrip(".")) if told else 0


def blocks(keys):
    """Numbers of the adapted blocks, of the image tower first."""
    found = {}
    for key in keys:
        tower, rest = key.split(".resblocks.")
        found.setdefault(TOWERS[tower], set()).add(int(rest.partition(".")[0]))
    return [sorted(found[tower]) for tower in ("image", "text") if tower in found]


def parameter(lora, key):
    """``[visual.]transformer.resblocks.I.attn.q_proj.w_lora_A`` of the release, as ours."""
    tower, rest = key.split(".resblocks.")
    block, _, name, which = rest.split(".")
    i = lora.names.index(f"{TOWERS[tower]}.block.{block}.{MAPS[name]}")
    return {"w_lora_A": lora.a, "w_lora_B": lora.b}[which][i]
