"""Fine-tuned towers, and mixtures of two states of a method."""

import torch
from torch import nn

from adaptkit import Method, Task, adapt, method, predict
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip, tiny_task

BLOCK = {"ln_1": "norm1", "ln_2": "norm2", "attn.out_proj": "out", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
TOWER = {
    "visual.class_embedding": "image.tokens.class_embedding",
    "visual.positional_embedding": "image.tokens.position_embedding.weight",
    "visual.conv1.weight": "image.tokens.patch_embedding.weight",
    "visual.ln_pre": "image.prenorm",
    "visual.ln_post": "image.norm",
    "visual.proj": "image.projection.weight",
    "token_embedding.weight": "text.tokens.weight",
    "positional_embedding": "text.positions.weight",
    "ln_final": "text.norm",
    "text_projection": "text.projection.weight",
}


def ours(key):
    """The neutral names of a weight of OpenAI's CLIP, three where it holds queries, keys and values; and the turn."""
    if ".resblocks." in key:
        tower, rest = key.split("transformer.resblocks.")
        number, part = rest.split(".", 1)
        block = f"{'image' if tower else 'text'}.block.{number}"
        if part.startswith("attn.in_proj_"):
            return [f"{block}.{m}.{part.removeprefix('attn.in_proj_')}" for m in "qkv"], False
        inside, kind = part.rsplit(".", 1)
        return [f"{block}.{BLOCK[inside]}.{kind}"], False
    if key in TOWER:
        return [TOWER[key]], key.endswith("proj") or key == "text_projection"
    point, kind = key.rsplit(".", 1)
    return [f"{TOWER[point]}.{kind}"], False


def joined(key, tensors):
    """What our tensors by name are in the golden's form."""
    names, turned = ours(key)
    whole = torch.cat([tensors[name] for name in names])
    return whole.T if turned else whole


@adaptor("flyp", method="flyp")
def flyp(golden):
    hyper, room, pixels = golden.hyper, golden.meta["tolerance"], golden["in.pixel_values"]
    names = [name.replace("_", " ") for name in golden.meta["classnames"]]
    prompts = [[template.format(name) for template in hyper["templates"]] for name in names]
    schedule = {"lr": hyper["lr"], "weight_decay": hyper["wd"], "epochs": hyper["epochs"]}
    with torch.no_grad():
        text = [tiny_clip(golden).encode_text(own) for own in prompts]
    task = tiny_task(golden, text=text, prompts=prompts)
    model = method("flyp", schedule={**schedule, "warmup_steps": hyper["warmup_length"]})
    bound = task.bind(model)
    model.fit(bound)
    ids = [row[: len(golden["in.caption_ids"][0])] for row in model.tokens["input_ids"].tolist()]
    rows = torch.tensor([ids.index(row) for row in golden["in.caption_ids"].tolist()])
    model.drawn_rows = lambda labels: rows
    golden.close("logits0", predict(model.eval(), pixels), atol=room["logits"])
    parameters = dict(zip(model.tuned.names, model.tuned.values, strict=True))
    count = sum(key.startswith("loss") for key in golden.arrays)
    optimizer, moved = model.train().schedule.make([p for p in model.parameters() if p.requires_grad]), 0.0
    still = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in parameters.items()}
    for s in range(count):
        golden.close(f"train_logits{s}", model.pairs(pixels, rows), atol=room["logits"])
        loss = model.loss(bound.support)
        golden.close(f"loss{s}", loss, atol=room["loss"])
        optimizer.zero_grad()
        loss.backward()
        rate = model.schedule.rate(s, hyper["num_batches"], hyper["epochs"] * hyper["num_batches"])
        golden.close(f"lr{s}", rate, rtol=1e-6)
        moved += rate
        optimizer.param_groups[0]["lr"] = rate
        grads = {name: p.grad for name, p in parameters.items()}
        largest = max(float(g.abs().max()) for g in grads.values())
        still = {name: still[name] | (g.abs() <= 1e-5 * largest) for name, g in grads.items()}
        for key in [k.removeprefix(f"grad{s}.") for k in golden.arrays if k.startswith(f"grad{s}.")]:
            got = model.log_scale.grad if key == "logit_scale" else joined(key, grads)
            golden.close(f"grad{s}.{key}", got, of_max=room["grad_rel"])
        optimizer.step()
        for key in [k.removeprefix(f"step{s + 1}.") for k in golden.arrays if k.startswith(f"step{s + 1}.")]:
            if key == "logit_scale":
                golden.close(f"step{s + 1}.{key}", model.log_scale, atol=room["param"])
            else:
                by_sign = (
                    joined(key, still).numpy() * 2 * moved
                )  # the sidecar: an element that moves by rounding's sign
                golden.close(f"step{s + 1}.{key}", joined(key, parameters), atol=room["param"] + by_sign)
    golden.close(f"logits{count}", predict(model.eval(), pixels), atol=room["logits"])
    trained = [name for key in golden.arrays["trained"].tolist() if key != "logit_scale" for name in ours(key)[0]]
    assert sorted(trained) == sorted(parameters), "every weight must be trained, and no other"
    golden.seen["trained"] = 0.0


class State(Method):
    """A state of another model, whose loss has the roots of its Fisher information as gradients."""

    def __init__(self, weights, fisher):
        self.weights, self.fisher = weights, fisher

    def needs(self):
        return {}

    def fit(self, task):
        for name, value in self.weights.items():
            self.register_parameter(name, nn.Parameter(value.clone(), requires_grad=False))

    def forward(self, batch):
        moved = torch.zeros(())
        for name, p in self.named_parameters():
            known = [f for value, f in self.fisher if name in f and torch.equal(p, value[name])]
            moved = moved + sum((f[name].sqrt() * (p - p.detach())).sum() for f in known)
        return torch.stack([-2 * moved, moved.detach()])[None]  # of which a half is the gradient of the loss


@adaptor("wise-ft", method="wise-ft")
def wise_ft(golden):
    def of(prefix):
        found = {key.removeprefix(prefix): golden[key] for key in golden.arrays if key.startswith(prefix)}
        return {name.replace(".", "_"): value for name, value in found.items()}

    ends = [of("in_zs_"), of("in_ft_")]
    trust = [(ends[0], of("in_fisher_zs_")), (ends[1], of("in_fisher_ft_"))]
    task = Task.from_arrays((torch.zeros(1, 2), [0]), torch.eye(2))
    for kind in ("plain", "fisher"):
        states = [State(end, trust) for end in ends]
        options = {"fisher": kind == "fisher", "floor": golden.hyper["fisher_floor"]}
        made = adapt(method("wise-ft", other=states[0], base=states[1], **options), task)
        for key in [key for key in golden.outputs if key.startswith(f"out_{kind}_a")]:
            share, name = key.removeprefix(f"out_{kind}_a").split("_", 1)
            made.alpha = float(share)
            got = {**made.base.state_dict(), **made.mixed()}
            golden.close(key, got[name.replace(".", "_")], rtol=1e-6)
