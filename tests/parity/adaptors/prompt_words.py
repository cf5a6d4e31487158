"""Methods that learn words in front of class names by more than cross-entropy."""

import torch
import torch.nn.functional as F

from adaptkit import unit
from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted, variants
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task


@adaptor("kgcoop", method="kgcoop")
def kgcoop(golden):
    task, room = tiny_task(golden, template=golden.hyper["template"]), golden.meta["tolerance"]
    for prefix in variants(golden):
        n = len(golden[f"{prefix}init.{CONTEXT}"])
        golden.close(f"{prefix}text_feat_fixed", task.text, atol=room["logits"])
        kgcoop = fitted(
            "kgcoop", task, n=n, init="", weight=golden.hyper["W"], as_released=True, schedule=constant(golden)
        )
        for s, loss in follow(golden, kgcoop, task, {CONTEXT: kgcoop.context}, prefix):
            known = kgcoop.penalty(kgcoop.text()) / kgcoop.weight
            golden.close(f"{prefix}part{s}.kg_score", known, atol=room["loss"])
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss - kgcoop.weight * known, atol=room["loss"])


@adaptor("prograd", method="prograd")
def prograd(golden):
    hyper, room = golden.hyper, golden.meta["tolerance"]
    golden.close("zs_text_feat", tiny_task(golden, template=hyper["template"]).text, atol=room["logits"])
    for prefix in variants(golden):
        task = tiny_task(golden, template=hyper["template"], labels=golden[f"{prefix}in.labels"])
        n, options = len(golden[f"{prefix}init.{CONTEXT}"]), {"weight": hyper["lambda_"], "temperature": hyper["T"]}
        prograd = fitted("prograd", task, n=n, schedule=constant(golden), **options)
        x = unit(task.backbone.encode_image(golden["in.pixel_values"])).detach()
        zero_shot = task.backbone.logits(x, prograd.frozen)
        if prefix == variants(golden)[0]:
            golden.close("zs_logits", zero_shot, atol=room["logits"])
        for s, loss in follow(golden, prograd, task, {CONTEXT: prograd.context}, prefix, of="xe_loss"):
            logits = task.backbone.logits(x, prograd.text())
            general = prograd.distilled(logits, zero_shot)
            golden.close(f"{prefix}kl_loss{s}", general, atol=room["loss"])
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])
            plain = F.cross_entropy(logits, golden[f"{prefix}in.labels"])
            for name, part in (("kl", general), ("ce", plain)):
                (grad,) = torch.autograd.grad(part, prograd.context, retain_graph=True)
                golden.close(f"{prefix}raw{s}.grad_{name}", grad, of_max=room["grad_rel"])


@adaptor("tcp", method="tcp")
def tcp(golden):
    hyper, room = golden.hyper, golden.meta["tolerance"]
    written, learned = hyper["templates"]
    names = [name.replace("_", " ") for name in golden.meta["classnames"]]
    task = tiny_task(golden, template=written, prompts=[[written.format(name)] for name in names])
    hidden = len(golden["init.prompt_learner.meta_net.linear1.weight"])
    tcp = fitted(
        "tcp",
        task,
        n=len(golden[f"init.{CONTEXT}"]),
        init="",
        block=hyper["inject_before_block"],
        bottleneck=task.backbone.dim // hidden,
        weight=hyper["kg_weight"],
        as_released=True,
        schedule={**constant(golden), "optimizer": "sgd"},
    )
    want = task.backbone.tokenize([learned.format(name) for name in names])["input_ids"]
    assert torch.equal(tcp.prompts.tokens["input_ids"], want), "learned sentences must close as the written ones"
    golden.close("text_feat_fixed", task.text, atol=room["logits"])
    parts = {f"prompt_learner.meta_net.linear{i + 1}": layer for i, layer in enumerate((tcp.down, tcp.up))}
    parameters = {f"{name}.{p}": getattr(layer, p) for name, layer in parts.items() for p in ("weight", "bias")}
    for s, loss in follow(golden, tcp, task, {CONTEXT: tcp.context, **parameters}):
        known = tcp.penalty(tcp.text()) / tcp.weight
        golden.close(f"part{s}.kg_score", known, atol=room["loss"])
        golden.close(f"part{s}.cross_entropy.0", loss - tcp.weight * known, atol=room["loss"])
