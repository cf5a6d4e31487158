"""Fine-tuned towers, and mixtures of two states of a method."""

import torch

from adaptkit import method, predict
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
    model.captions = lambda labels: rows
    golden.close("logits0", predict(model.eval(), pixels), atol=room["logits"])
    parameters = dict(zip(model.tuned.names, model.tuned.values, strict=True))
    count = sum(key.startswith("loss") for key in golden.arrays)
    optimizer, moved = model.train().schedule.make([p for p in model.parameters() if p.requires_grad]), 0.0
    still = {name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items()}
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
        still = {name: still[name] & (g.abs() <= 1e-5 * largest) for name, g in grads.items()}
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
