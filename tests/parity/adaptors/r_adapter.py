"""R-Adapter."""

import re

import torch

from adaptkit import method, predict
from tests.parity.adaptors.tower_adapters import starts
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_task

ADAPTERS = {"adapter_attn": "out", "adapter_mlp": "fc2"}
MERGED = {"out_proj.weight": "out.weight", "c_proj.bias": "fc2.bias"}
PLAIN = {"smoothing": 0.0, "margin": 0.0}


def adapter_part(made, key, kept=None):
    """Where ``[visual.]transformer.resblocks.I.adapter_NAME[_cache].PART`` lies in ours, or in `kept`."""
    tower, inside = key.split("transformer.resblocks.")
    block, adapter, part = inside.split(".")[:3]
    kept = kept or (made.averages if adapter.endswith("_cache") else made.adapters)
    name = f"{'image' if tower else 'text'}.block.{block}.{ADAPTERS[adapter.removesuffix('_cache')]}"
    return kept[made.names.index(name)][{"s": 0, "f": 1, "d": 1, "u": 2}[part]]


def starts_like(golden, prefix):
    """The prefix of the initial values: a variant without any has those that its words name, ``full.init.*``."""
    told = re.search(r"(\w+\.)init\b", golden.meta["variants"].get(prefix.removesuffix("."), ""))
    return prefix if starts(golden, prefix) else told[1] if told else "full."


@adaptor("r_adapter", method="r-adapter")
def r_adapter(golden):
    hyper, room = golden.hyper, golden.meta["tolerance"]
    for which in ("mpm", "ce"):
        hold_mpm_nce(golden, which)
    for prefix in [key.removesuffix("logits0") for key in golden.arrays if key.split(".")[-1] == "logits0"]:
        first = starts_like(golden, prefix)
        ranks = {
            key.split("transformer")[0]: len(golden[f"{first}init.{key}"])
            for key in starts(golden, first)
            if key[-8:] in ("f.weight", "d.weight")
        }
        made = method(
            "r-adapter",
            image_rank=ranks["visual."],
            text_rank=ranks[""],
            drop=0.0,
            momentum=hyper["ema"],
            scale=hyper["eval_scale"],
            smoothing=hyper["label_smoothing"],
            margin=hyper["margin"],
            clip=hyper["grad_clip_norm"],
            as_released=True,
            schedule={"lr": hyper["lr"]},
        )
        task = tiny_task(golden)
        made.fit(task.bind(made))
        for key in starts(golden, first):
            for kept in (made.adapters, made.averages):
                adapter_part(made, key, kept).data.copy_(golden[f"{first}init.{key}"])
        if "drop" in prefix:
            made.kept = lambda change: change * golden["in.droppath_token_mask"][: change.shape[1], None]
        made.drawn = lambda labels: {"input_ids": golden["in.input_ids_batch"]}
        golden.close(f"{prefix}logits0", predict(made.eval(), golden["in.pixel_values"]), atol=room["logits"])
        follow_averages(golden, prefix, made, task)


def hold_mpm_nce(golden, which):
    """The loss by itself, with and without smoothing and margin, and its gradients."""
    scale, smoothing, margin = map(float, re.findall(r"[\d.]+", golden.hyper["lossfn"]))
    made = method("r-adapter", **({"smoothing": smoothing, "margin": margin} if which == "mpm" else PLAIN))
    pair = [golden[f"lossfn.in.{name}"].requires_grad_() for name in ("image", "text")]
    loss = made.mpm_nce(*pair, golden["lossfn.in.labels"], scale)
    golden.close(f"lossfn.{which}.loss", loss, atol=golden.meta["tolerance"]["loss"])
    for name, grad in zip(("image", "text"), torch.autograd.grad(loss, pair), strict=True):
        golden.close(f"lossfn.{which}.grad_{name}", grad, of_max=golden.meta["tolerance"]["grad_rel"])


def follow_averages(golden, prefix, made, task):
    """Steps of training, the averages behind them, and what answers in the end, merged."""
    room, pixels, batch = golden.meta["tolerance"], golden["in.pixel_values"], task.bind(made).support
    keys = starts(golden, starts_like(golden, prefix))
    parts = {key: adapter_part(made, key) for key in keys}
    optimizer, steps = made.train().schedule.make(parts.values()), sum(f"{prefix}loss{s}" in golden for s in range(9))
    sure = {key: torch.ones_like(p, dtype=torch.bool) for key, p in parts.items()}
    for s in range(steps):
        if not s:
            features = {"image": made.images(pixels), "text": made.encode(made.drawn(batch.targets))}
            for name, x in features.items():
                golden.close(f"{prefix}train_{name}_feat0", x, atol=room["param"])
        loss = made.loss(batch)
        golden.close(f"{prefix}loss{s}", loss, atol=room["loss"])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in parts.values()]).norm()
        golden.close(f"{prefix}gradnorm_preclip{s}", norm, of_max=room["grad_rel"])
        made.limit()
        noise = 1e-5 * max(float(p.grad.abs().max()) for p in parts.values())  # below which AdamW moves by its sign
        for key, p in parts.items():
            sure[key] &= p.grad.abs() > noise
            alone = noise if p.numel() == 1 else 0.0  # one number may be all but nothing, in a sum of others
            golden.close(f"{prefix}gradnorm{s}.{key}", p.grad.norm(), of_max=room["grad_rel"], atol=alone)
            if f"{prefix}grad{s}.{key}" in golden:
                golden.close(f"{prefix}grad{s}.{key}", p.grad, of_max=room["grad_rel"], atol=alone)
        optimizer.step()
        made.average()
    hyper = golden.hyper
    for name in [key for key in golden.outputs if key.startswith((f"{prefix}step{steps}.", f"{prefix}ema{steps}."))]:
        key, want = name.partition(f"{steps}.")[2], golden[name]
        got = adapter_part(made, key).detach()
        near = (got - want).abs() <= 2 * hyper["lr"] * steps
        kept = sure[key.replace("_cache", "")]
        golden.close(name, torch.where(~kept & near, want, got), atol=room["param"])
    golden.close(f"{prefix}logits{steps}", predict(made.eval(), pixels), atol=room["logits"])
    if f"{prefix}logits{steps}_reparam" in golden:
        golden.close(f"{prefix}logits{steps}_reparam", predict(made, pixels), atol=room["logits"])
        with made.changed("image"):
            merged = {part: made.backbone.weight(f"image.block.0.{name}") for part, name in MERGED.items()}
        for part, weight in merged.items():
            golden.close(f"{prefix}reparam.v0.{part}", weight, atol=room["param"])
