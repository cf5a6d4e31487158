"""Methods that learn words in front of class names by more than cross-entropy."""

import functools
from unittest import mock

import torch
import torch.nn.functional as F
from adaptkit_plugins.supports.pseudo_label import surest

from adaptkit import unit
from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted, variants, words_of
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


@adaptor("lasp", method="lasp")
def lasp(golden):
    hyper, room, task = golden.hyper, golden.meta["tolerance"], tiny_task(golden)
    options = {"init": hyper["ctx_init"], "templates": hyper["templates"], "weight": hyper["weight"], "groups": 1}
    options["virtual"] = hyper["extra_classes_in_text_loss"]
    for prefix in variants(golden):
        norms = [key for key in golden.arrays if key.startswith(f"{prefix}init.image_encoder")]
        schedule = {**constant(golden), "lr": hyper["lr_vit_ln"] if norms else hyper["lr"]}
        lasp = fitted("lasp", task, norms=bool(norms), as_released=True, schedule=schedule, **options)
        everyone = (*golden.meta["classnames"], *options["virtual"])
        spoken = [name.replace("_", " ") for name in everyone]
        raw = task.encode([one.format(name) for one in hyper["templates"] for name in spoken])
        golden.close(f"{prefix}text_feat_templates", raw.view_as(lasp.written.answer), atol=room["logits"])
        assert torch.allclose(unit(raw).view_as(lasp.written.answer), lasp.written.answer), "unit-norm, by template"
        names = {CONTEXT: lasp.contexts[0], "prompt_learner.w": lasp.added}
        for name, parameter in zip(lasp.names, lasp.tuned, strict=True):
            _, _, block, norm, part = name.split(".")
            names[f"image_encoder.transformer.resblocks.{block}.{norm.replace('norm', 'ln_')}.{part}"] = parameter
        with mock.patch.object(torch, "rand", lambda *_: torch.tensor(0.9)):  # without noise, as the golden ran
            for s, loss in follow(golden, lasp, task, names, prefix):
                between = lasp.text_to_text(lasp.learned())
                golden.close(f"{prefix}part{s}.cross_entropy.1", between, atol=room["loss"])
                golden.close(f"{prefix}part{s}.cross_entropy.0", loss - lasp.weight * between, atol=room["loss"])


@adaptor("upl", method="upl")
def upl(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for prefix in variants(golden):
        context, name = golden[f"{prefix}init.{CONTEXT}"], prefix.removesuffix(".")
        upl = fitted(
            "upl",
            task,
            members=1,
            n=context.shape[-2],
            init=words_of(context) if name == "words" else "",
            position=name if name in ("middle", "front") else "end",
            per_class=context.dim() == 3,
            schedule=constant(golden),
        )
        with torch.no_grad():
            upl.contexts[0].copy_(context)
            if f"{prefix}text_feat0" in golden:
                raw = upl.prompts.encode(upl.contexts[0])
                golden.close(f"{prefix}text_feat0", raw, atol=room["logits"])
                assert torch.allclose(upl.text()[0], unit(raw), atol=1e-6), "one member must be the context's own"
                x = task.backbone.encode_image(golden["in.pixel_values"])
                golden.close(f"{prefix}image_feat0", x, atol=room["logits"])
        for s, loss in follow(golden, upl, task, {CONTEXT: upl.contexts[0]}, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])
    logits, found = (
        golden["sel.in.logits"],
        {key.rpartition(".")[0] for key in golden.outputs if key.startswith("sel.")},
    )
    for key in sorted(found - {"sel.in"}):
        rule, _, number = key.removeprefix("sel.").rpartition("_k")
        if rule:  # the K surest of each class, by probability or, of averaged logits, by the logit itself
            chosen = surest(logits if rule == "raw" else logits.softmax(-1), int(number))
        else:  # all above a threshold, surest first
            chosen = surest(logits.softmax(-1), len(logits), int(key.removeprefix("sel.thr")) / 100)
            order = chosen[2].argsort(descending=True, stable=True)
            chosen = [part[order] for part in chosen]
        golden.equal(f"{key}.index", chosen[0])
        golden.equal(f"{key}.label", chosen[1])
        if f"{key}.conf" in golden:
            golden.close(f"{key}.conf", chosen[2], atol=1e-5)


@adaptor("proda", method="proda")
def proda(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    x, labels = unit(task.backbone.encode_image(golden["in.pixel_values"])).detach(), golden["in.labels"]
    for prefix in variants(golden):
        hyper, context = golden.hyper["variants"][prefix or "(none)"], golden[f"{prefix}init.{CONTEXT}"]
        made = fitted(
            "proda",
            task,
            n=context.shape[1],
            contexts=len(context),
            at_once=hyper["prompts_per_step"],
            weight=hyper["alpha"],
            as_released=True,
            schedule=constant(golden),
        )
        made.context.data.copy_(context)
        mean = made.text(torch.arange(made.contexts)).mean(0)
        golden.close(f"{prefix}class_embeddings0", mean, atol=room["logits"])
        drawn = f"{prefix}in.prompt_rows" if f"{prefix}in.prompt_rows" in golden else "in.prompt_rows"
        whole = torch.arange(made.contexts)[None].repeat(9, 1)
        rows = golden[drawn] if made.at_once < made.contexts else whole
        made.left, order = rows.flatten().tolist(), iter(rows)
        seen = functools.partial(bounded, made, x, labels, order)
        for s, loss in follow(golden, made, task, {CONTEXT: made.context}, prefix, seen=seen):
            plain = loss - made.weight * made.alike()
            golden.close(f"{prefix}part{s}.cross_entropy.0", plain, atol=room["loss"])


def bounded(made, x, labels, order, _):
    """ProDA's logits in the loss, on the contexts of the next step."""
    return made.bound(x, made.text(next(order)), labels)
