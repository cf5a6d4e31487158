"""Composed retrieval: an image and a text that says what to change about it."""

import torch

from adaptkit import Task, adapt, method, predict
from adaptkit.features.items import Images
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.retriever import LAST, cosines, finding
from tests.parity.driving import fitted
from tests.parity.golden import adaptor

COMBINER = {
    "text_projection_layer": "text_in",
    "image_projection_layer": "image_in",
    "combiner_layer": "mix",
    "output_layer": "out",
    "dynamic_scalar.0": "weigh",
    "dynamic_scalar.3": "weight",
}


def put(golden, model, names):
    """Give the golden's weights to modules of a method, by the golden's names; parameters by those names."""
    held = {}
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            if (key := f"in_w.{theirs}.{kind}") in golden:
                parameter = getattr(model.get_submodule(ours), kind)
                parameter.data.copy_(golden[key])
                held[f"{theirs}.{kind}"] = parameter
    return held


def room(golden, key):
    """The golden's tolerance of an output."""
    return golden.meta["outputs"][key]["tolerance_abs"]


def close(golden, key, value):
    """Hold an output within its own tolerance."""
    golden.close(key, value, atol=room(golden, key))


def close_gradients(golden, held, prefix="out_grad"):
    """Hold the gradients that a golden has, of parameters by its names."""
    for name, parameter in held.items():
        if (key := f"{prefix}.{name}") in golden:
            close(golden, key, parameter.grad.view_as(golden[key]))


def trained(golden, model, batch, held, optimizer):
    """Hold loss and gradients of every step that a golden has; yields a step's number before it is taken."""
    for step in range(sum(f"out_loss{s}" in golden for s in range(9))):
        yield step
        optimizer.zero_grad()
        loss = model.loss(batch)
        close(golden, f"out_loss{step}", loss)
        loss.backward()
        close_gradients(golden, held, f"out_grad{step}")
        optimizer.step()


@adaptor("clip4cir-combiner", method="clip4cir-combiner")
def clip4cir(golden):
    pairs = {"text": golden["in_text"], "reference": golden["in_reference"], "item": golden["in_target"]}
    labels, hyper = torch.arange(len(pairs["item"])), golden.hyper
    task = Task.from_pairs((pairs, labels), {"item": pairs["item"]}, logit_scale=hyper["logit_scale"])
    wide, deep = (len(golden[f"in_w.{name}.bias"]) for name in ("text_projection_layer", "combiner_layer"))
    model = method("clip4cir-combiner", projection=wide, hidden=deep, dropout=0.0, schedule={"lr": hyper["lr"]})
    model, batch = fitted(model, task)
    held = put(golden, model, COMBINER)
    steps = 0
    for s in trained(golden, model, batch, held, model.schedule.make([*held.values()])):
        if f"out_predicted{s}" in golden:
            close(golden, f"out_predicted{s}", model.query(batch))
            close(golden, f"out_logits{s}", model.logits(batch, batch))
        steps = s + 1
    for name, parameter in held.items():
        close(golden, f"out_step{steps}.{name}", parameter)
    close(golden, f"out_predicted{steps}", model.query(batch))
    close(golden, f"out_logits{steps}", model.logits(batch, batch))


@adaptor("genecis", method="genecis")
def genecis(golden):
    images, refs = golden["in_images"], golden["in_ref_idx"]
    asked = {"text": golden["in_texts"][golden["in_text_idx"]], "reference": images[refs]}
    wide, deep = (len(golden[f"in_w.{name}.bias"]) for name in ("text_projection_layer", "combiner_layer"))
    model = method("genecis", projection=wide, hidden=deep, schedule={"epochs": 0})
    order = golden["in_global_gallery_idx"]
    pairs = ({**asked, "item": images[refs]}, torch.arange(len(refs)))
    model = adapt(model, Task.from_pairs(pairs, {"item": images[order]}, logit_scale=1))
    put(golden, model, COMBINER)
    queries = Images.from_arrays(asked).bind(model.needs())
    with torch.no_grad():
        combined = model.query(queries)
        own = cosines(combined[:, None], images[golden["in_gallery_idx"]])[:, 0]  # (Q, G)
    close(golden, "out_combined", combined)
    close(golden, "out_similarities", own)
    ranks = evaluation("ranking").ranks(own, golden["in_target_rank"])
    close(golden, "out_recall", [(ranks <= k).double().mean() for k in golden.hyper["topk"]])
    found = predict(model, asked)
    masked = found.gather(1, golden["in_global_ref_rank"][:, None])
    assert (masked == LAST).all() and (found == LAST).sum() == len(refs), "a query's own image must come last"
    close(golden, "out_global_similarities", found)
    marks = torch.zeros_like(found).scatter(1, golden["in_global_target_rank"], 1)
    ranks = evaluation("ranking").ranks(found, marks)
    close(golden, "out_global_recall", [(ranks <= k).double().mean() for k in (1, 5, 10)])


@adaptor("transagg", method="trans-agg")
def trans_agg(golden):
    text, image, target = golden["in_text"], golden["in_reference"], golden["in_target"]
    words, shown, ids = golden["in_text_tokens"], golden["in_reference_tokens"], golden["in_ids"]
    pairs = {"text": text, "reference": image, "item": target, "words": words, "patches": shown[:, 1:]}
    own, hyper = torch.eye(len(text)).bool(), golden.hyper
    task = Task.from_pairs((pairs, torch.arange(len(text))), {"item": target}, logit_scale=hyper["logit_scale"])
    options = {"layers": hyper["layers"], "heads": hyper["heads"], "dropout": 0.0, "as_released": True}
    options |= {"hidden": len(golden["in_w.fusion.layers.0.linear1.bias"])}
    options |= {"inner": len(golden["in_w.combiner_layer.bias"]), "words_read": words.shape[1]}
    model, _ = fitted(method("trans-agg", **options), task)
    model.between.data.copy_(golden["in_w.sep_token"][0, 0])
    names = {"combiner_layer": "mix", "output_layer": "out", "weighted_layer": "weigh"}
    held = put(golden, model, names) | {"sep_token": model.between}
    parts = {"self_attn.out_proj": "attention.out_proj", "linear1": "fc1", "linear2": "fc2"}
    parts |= {"norm1": "norm1", "norm2": "norm2"}
    for i, block in enumerate(model.blocks):
        put(golden, model, {f"fusion.layers.{i}.{k}": f"blocks.{i}.{v}" for k, v in parts.items()})
        for kind in ("in_proj_weight", "in_proj_bias"):
            getattr(block.attention, kind).data.copy_(golden[f"in_w.fusion.layers.{i}.self_attn.{kind}"])
        held[f"fusion.layers.{i}.self_attn.in_proj_weight"] = block.attention.in_proj_weight
    query = model.fused(text, image, words, shown, ids != 0)
    logits = hyper["logit_scale"] * query @ torch.nn.functional.normalize(target, dim=-1).T
    loss = finding(logits, own)
    close(golden, "out_query", query)
    close(golden, "out_logits", logits)
    close(golden, "out_loss", loss)
    loss.backward()
    close_gradients(golden, held)
