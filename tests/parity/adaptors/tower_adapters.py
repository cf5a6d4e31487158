"""Adapters, tuned weights and representation tokens in both towers: MMA, MMRL, 2SFS."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from adaptkit import Task, adapt, method, predict
from adaptkit.methods.adapt import retarget
from tests.parity.adaptors.prompt_learning import constant
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

TOWERS = {"visual": "image", "text": "text"}
PARTS = {"ln_1": "norm1", "ln_2": "norm2", "attn.out_proj": "out", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
OUTSIDE = {"visual.ln_pre": "image.prenorm", "visual.ln_post": "image.norm", "ln_final": "text.norm"}


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
            schedule={"optimizer": "sgd", "weight_decay": 5e-4, **constant(golden)},
        )
        made.fit(task.bind(made))
        names = {}
        for key in starts(golden, prefix):
            _, adapter, block, *inside, last = key.split(".")
            tower, j = adapter.split("_")[0], int(block) - made.start
            part = made.shared if tower == "shared" else getattr(made, inside[0])[TOWERS[tower]]
            if j < len(part):  # a shallower tower has no such block
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
            schedule={"optimizer": "sgd", "weight_decay": 5e-4, **constant(golden)},
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


def weight_name(key):
    """A weight of OpenAI's CLIP by our name."""
    module, _, kind = key.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    tower, inside = module.split("transformer.resblocks.")
    block, _, part = inside.partition(".")
    return f"{'image' if tower else 'text'}.block.{block}.{PARTS[part]}.{kind}"


class Watch(pl.Callback):
    """Holds every step of a training to a golden: logits, loss, gradients, parameters, and what a stage starts from."""

    def __init__(self, golden, prefix, made, task, trained):
        self.golden, self.prefix, self.made, self.task, self.trained = golden, prefix, made, task, trained
        self.room, self.grads = golden.meta["tolerance"], []

    def close(self, key, value, **room):
        self.golden.close(self.prefix + key, value, **room)

    @torch.no_grad()
    def on_before_backward(self, trainer, lit, loss):
        s, made = trainer.global_step, self.made
        support = self.task.bind(made).support
        self.close(f"train_logits{s}", made(support), atol=self.room["logits"])
        self.close(f"loss{s}", loss, atol=self.room["loss"])
        if s == self.golden.hyper["stage1_iters"]:
            self.close("init_stage2.classifier", made.classifier, atol=self.room["param"])
            logits = made.backbone.logits(made.images(self.golden["in.pixel_values"]), made.text())
            self.close("logits_stage1", logits, atol=self.room["logits"])

    def on_train_start(self, trainer, lit):
        weights = dict(zip(self.made.names, self.made.tuned.values, strict=True))
        self.own = {key: weights[name] for key, name in self.trained.items()} | {"classifier": self.made.classifier}

    def on_before_optimizer_step(self, trainer, lit, optimizer):
        s = trainer.global_step
        self.close(f"lr{s}", optimizer.param_groups[0]["lr"], rtol=1e-9)
        for key, parameter in self.told(f"grad{s}"):
            self.close(f"grad{s}.{key}", parameter.grad, of_max=self.room["grad_rel"])
        grads = {key: parameter.grad.abs() for key, parameter in self.told(f"grad{s}")}
        largest = max(grad.max() for grad in grads.values())
        self.grads.append({key: grad > 1e-5 * largest for key, grad in grads.items()})

    def on_train_batch_end(self, trainer, lit, *_):
        k = trainer.global_step
        for key, parameter in self.told(f"step{k}"):
            want, got = self.golden[f"{self.prefix}step{k}.{key}"], parameter.detach()
            sure = torch.stack([grads[key] for grads in self.grads if key in grads]).all(0)
            near = (got - want).abs() <= 2 * self.golden.hyper["lr"] * k  # AdamW moves by the sign of noise
            self.close(f"step{k}.{key}", torch.where(~sure & near, want, got), atol=self.room["param"])

    def told(self, part):
        """The parameters of which the golden tells something."""
        return [(key, p) for key, p in self.own.items() if f"{self.prefix}{part}.{key}" in self.golden]


@adaptor("two-sfs", method="two-sfs")
def two_sfs(golden):
    hyper, room, pixels = golden.hyper, golden.meta["tolerance"]["logits"], golden["in.pixel_values"]
    task = tiny_task(golden, template=hyper["template"])
    for prefix in [key.removesuffix("trained") for key in golden.arrays if key.endswith("trained")]:
        ours = {key: weight_name(key) for key in starts(golden, prefix)}
        blocks = [name.split(".") for name in ours.values() if ".block." in name]
        first = {t: min((int(i) for tower, _, i, *_ in blocks if tower == t), default=0) for t in ("image", "text")}
        made = method(
            "two-sfs",
            tunes="bitfit" if any(".mlp." in key for key in ours) else "layer-norm",
            share=hyper["frac"],
            encoder={"image": "vision", "text": "text", "imagetext": "both"}["".join(sorted({b[0] for b in blocks}))],
            image_start=first["image"],
            text_start=first["text"],
            template=hyper["template"],
            as_released=True,
            schedule={
                "steps": hyper["total_iters"],
                "lr": hyper["lr"],
                "weight_decay": hyper["wd"],
                "batch_size": len(pixels),
            },
        )
        made.fit(task.bind(made))
        golden.close(f"{prefix}logits0", predict(made.eval(), pixels), atol=room)
        trained = {key: ours[key] for key in map(str, golden.arrays[f"{prefix}trained"])}
        assert {*trained.values()} == {*made.names}, f"{golden.name}: {prefix} must train {sorted(trained.values())}"
        golden.skip("names, compared above", f"{prefix}trained")
        adapt(made, task, trainer={"callbacks": [Watch(golden, prefix, made, task, trained)]})
        golden.close(f"{prefix}logits{hyper['total_iters']}", predict(made, pixels), atol=room)
        mixed = [hyper["template"].format(name.replace("_", " ")) for name in hyper["mixed_categories"]]
        with torch.no_grad():
            text = task.backbone.encode_text(mixed)
        new = Task.from_arrays(
            (pixels[:0], golden["in.labels"][:0]), text, classnames=hyper["mixed_categories"], backbone=task.backbone
        )
        golden.close(f"{prefix}logits_mixed", predict(retarget(made, new), pixels), atol=room)
