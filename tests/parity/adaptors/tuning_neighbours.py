"""Methods that train towers or words for neighbouring tasks, whose goldens take plain steps: DePT, PromptKD and on."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from adaptkit_plugins.domain_adaptation.poda import Mining, moments

from adaptkit import predict, unit
from adaptkit.methods.ops import as_queries
from tests.parity.adaptors.both_towers import DEEP, both_names, counted, visual_names
from tests.parity.adaptors.prompt_learning import fitted
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_task


def room(golden, key):
    """How far an output may be off, as its sidecar says."""
    return golden.meta["outputs"][key]["tolerance_abs"]


def held(golden, key, value):
    """Compare an output within the sidecar's room."""
    golden.close(key, value, atol=room(golden, key))


def started(golden, names, prefix="in_w."):
    """Let parameters start as the golden's, by its names."""
    for name, parameter in names.items():
        parameter.data.copy_(golden[f"{prefix}{name}"].reshape(parameter.shape))


def follow_plainly(golden, names, loss):
    """Two plain steps of SGD: losses, and the gradients of the first that are among the outputs.

    Args:
        golden: with ``out_lossS`` and ``out_grad0.*``.
        names: parameters by the golden's names.
        loss: called before each step.
    """
    optimizer = torch.optim.SGD([*names.values()], golden.hyper["lr"])
    for step in range(2):
        value = loss(step)
        held(golden, f"out_loss{step}", value)
        optimizer.zero_grad()
        value.backward()
        for name, parameter in names.items():
            if step == 0 and (key := f"out_grad0.{name}") in golden:
                held(golden, key, parameter.grad.reshape(golden[key].shape))
        optimizer.step()


def pixel_task(golden, **more):
    """The golden's images as the support of a task over its backbone."""
    golden.arrays |= {f"in.{name}": golden.arrays[f"in_{name}"] for name in ("pixel_values", "labels")}
    golden.meta["classnames"] = golden.hyper["classnames"]
    return tiny_task(golden, **more)


@adaptor("dept-coop", method="de-pt")
def de_pt(golden):
    task, hyper = pixel_task(golden), golden.hyper
    made = fitted("de-pt", task, n=hyper["n_ctx"], init="", weight=hyper["weight"])
    names = {"prompt_learner.ctx": made.context}
    for name, part in (("film_lp_img", made.of_image), ("film_lp_text", made.of_text)):
        names |= {f"{name}.scale": part.scale, f"{name}.bias": part.bias}
    names |= {"linear_probe_proj.weight": made.head.weight, "linear_probe_proj.bias": made.head.bias}
    started(golden, names)
    pixels, batch = golden["in_pixel_values"], made.training_images(task.bind(made))

    def answers(step):
        x = task.backbone.encode_image(pixels)
        held(golden, f"out_logits_fused{step}", predict(made.eval(), pixels))
        made.known = False
        held(golden, f"out_logits_similarity{step}", predict(made, pixels))
        made.known = True
        held(golden, f"out_logits_probe{step}", made.probed(x))
        made.train()

    answers(0)
    follow_plainly(golden, names, lambda _: made.loss(batch))
    answers(2)


@adaptor("cpe-clip", method="cpe-clip")
def cpe_clip(golden):
    task, hyper = pixel_task(golden, logit_scale=100), golden.hyper
    depth, n = golden["in_g_values"].shape[:2]
    made = fitted("cpe-clip", task, n=n, depth=depth)
    made.before = len(task.classnames) - hyper["classes_per_session"][-1]
    parts = [made.context, *made.deep]
    for parameter, given in zip(parts, golden["in_g_values"], strict=True):
        parameter.data.copy_(given)
    made.map.weight.data.copy_(golden["in_proj_weight"])
    made.map.bias.data.copy_(golden["in_proj_bias"])
    pixels, batch = golden["in_pixel_values"], made.training_images(task.bind(made))
    optimizer = replace(made.schedule, lr=hyper["lr"]).make(made.parameters())
    for step in range(2):
        if step == 0:
            held(golden, "out_logits0", predict(made, pixels))
        loss = made.train().loss(batch)
        held(golden, f"out_loss{step}", loss)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            held(golden, "out_grad0.g_values", torch.stack([parameter.grad for parameter in parts]))
            held(golden, "out_grad0.prompt_proj.weight", made.map.weight.grad)
            held(golden, "out_grad0.prompt_proj.bias", made.map.bias.grad)
        optimizer.step()
    held(golden, "out_logits2", predict(made.eval(), pixels))


@adaptor("promptkd", method="prompt-kd")
def prompt_kd(golden):
    pixels, hyper, towers = golden["in_pixel_values"], golden.hyper, "image_encoder"
    task = pixel_task(golden, pool=pixels)
    n, blocks = len(golden[f"in_student.{towers}.VPT"]), 1 + counted(golden, f"in_student.{towers}.{DEEP}")
    depth = 1 + counted(golden, f"in_teacher.text_encoder.{DEEP}")
    image_depth = 1 + counted(golden, f"in_teacher.{towers}.{DEEP}")
    shape = {"n": len(golden["in_teacher.prompt_learner.ctx"]), "depth": depth, "depth_image": image_depth, "init": ""}
    teacher = fitted("ivlp", task, **shape, n_image=len(golden[f"in_teacher.{towers}.VPT"])).requires_grad_(False)
    started(golden, both_names(teacher), "in_teacher.")
    told = {"temperature": hyper["temperature"], "weight": hyper["kd_weight"]}
    made = fitted("prompt-kd", task, n=n, depth=blocks, base=teacher.eval(), **told)
    names, layers = visual_names(made.visual), {i: made.projector[i] for i in (0, 3, 1)}
    names |= {f"VPT_image_trans.conv1.{i}.{p}": getattr(layers[i], p) for i in layers for p in ("weight", "bias")}
    started(golden, names, "in_student.")
    with torch.no_grad():
        held(golden, "out_teacher_image", unit(teacher.prompted(pixels)))
        held(golden, "out_teacher_text", made.text)
        held(golden, "out_teacher_logits", predict(teacher, pixels))
    held(golden, "out_logits0", predict(made.eval(), pixels))
    batch = made.train().training_images(task.bind(made))
    made.base.eval()
    follow_plainly(golden, names, lambda _: made.loss(batch))
    held(golden, "out_logits2", predict(made.eval(), pixels))


@adaptor("ad-clip", method="ad-clip")
def ad_clip(golden):
    learner = "prompt_learner"
    golden.arrays["in_pixel_values"] = golden.arrays["in_source"]
    task = pixel_task(golden, pool=golden["in_target"])
    hidden, style = (
        len(golden[f"in_w.{learner}.{part}_tokens.linear1.0.bias"]) for part in ("domain", "style_mapping")
    )
    made = fitted("ad-clip", task, hidden=hidden, style_hidden=style, as_released=True)
    names = {}
    ends, images = ("weight", "bias"), (made.domain, made.content, made.source)
    for i in range(task.backbone.depth["image"]):
        domain, content, source = (projectors[i] for projectors in images)
        parts = {f"domain_tokens.linear1.{i}": domain[0], f"domain_tokens.linear2.{i}": domain[-1]}
        parts |= {f"style_mapping_tokens.linear1.{i}": source[0], f"style_mapping_tokens.linear2.{i}": source[-1]}
        parts[f"image_tokens.linear.{i}"] = content[0]
        names |= {f"{learner}.{name}.{p}": getattr(layer, p) for name, layer in parts.items() for p in ends}
    names |= {f"{learner}.image_tokens.lin.{p}": getattr(made.join, p) for p in ends}
    started(golden, names)
    bound = task.bind(made)
    source, target = as_queries(bound.support, made.needs()), bound.pool

    @torch.no_grad()
    def answers(step):
        (of_source, stand_in), (of_target, _) = made.tokens(source.statistics), made.tokens(target.statistics)
        texts = [made.text(of_source, of_target, images.statistics) for images in (source, target)]
        logits = [task.backbone.logits(images.x, text) for images, text in zip((source, target), texts, strict=True)]
        held(golden, f"out_source_logits{step}", logits[0])
        held(golden, f"out_target_probs{step}", logits[1].softmax(1))
        if step == 0:
            told = {
                "domain_tokens": of_source,
                "style_tokens": stand_in,
                "source_text": texts[0],
                "target_text": texts[1],
            }
            for name, value in told.items():
                held(golden, f"out_{name}0", value)

    def loss(step):
        parts = [*made.parts(source, target)]
        weights = (1.0, made.style, made.confident, made.align)
        for name, part, weight in zip(("ce", "smn", "entropy", "kl"), parts, weights, strict=True):
            held(golden, f"out_loss_{name}{step}", part / weight)
        return sum(parts)

    answers(0)
    follow_plainly(golden, names, loss)
    answers(2)


def pooled(golden, maps, positions=False):
    """Embeddings of maps, ``(N, e, h, w)``, by the golden's attention pool, and those of their regions."""
    tokens = maps.flatten(2).mT  # (N, T, e)
    whole = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    whole = whole + golden["in_ap.positional_embedding"] if positions else whole

    def linear(name, x):
        return F.linear(x, golden[f"in_ap.{name}_proj.weight"], golden[f"in_ap.{name}_proj.bias"])

    def in_heads(x):
        return x.unflatten(-1, (golden.hyper["heads"], -1)).transpose(1, 2)

    q, k, v = (in_heads(linear(name, x)) for name, x in (("q", whole[:, :1]), ("k", whole), ("v", whole)))
    x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0]
    return linear("c", x), linear("c", linear("v", tokens))


@adaptor("tai-dpt", method="tai-dpt")
def tai_dpt(golden):
    x, regions = map(unit, pooled(golden, golden["in_image_map"]))
    golden.arrays["in_pixel_values"], labels = np.zeros((0, 3, 32, 32), np.float32), golden["in_labels"]
    task, hyper = replace(pixel_task(golden, labels=labels[:0]), kind="multi-label"), golden.hyper
    sharp = {"of_words": hyper["spatial_text"], "of_regions": hyper["spatial_image"]}
    made = fitted("tai-dpt", task, n=hyper["n_ctx"], **sharp)
    made.tokens, made.labels = {"input_ids": golden["in_captions"]}, labels
    names, batch = {"ctx": made.whole, "ctx_double": made.local}, made.training_images(task)
    started(golden, names, "in_")

    @torch.no_grad()
    def answers(step):
        caption, words, real = made.read(made.tokens)
        told = {"caption": made.logits(caption, words, made.of_words, real)}
        told["image"] = made.logits(x, regions, made.of_regions)
        for name, (whole, local) in told.items():
            held(golden, f"out_{name}_logits{step}", whole)
            held(golden, f"out_{name}_local_logits{step}", local)
        cosines = regions @ made.class_embeddings()[1].T
        held(golden, f"out_image_local_cosines{step}", cosines.transpose(0, 1))

    answers(0)
    follow_plainly(golden, names, lambda _: made.loss(batch))
    answers(2)


@adaptor("poda-pin", method="poda")
def poda(golden):
    hyper, maps = golden.hyper, golden["in_features"]
    content, shape = maps.flatten(2).mT, maps.shape[2:]  # (B, T, W)
    told = {name: hyper[name] for name in ("steps", "lr", "weight_decay")}
    mine = Mining(replace(Mining().schedule, **told), positive=True)

    def encode(tokens):
        return pooled(golden, tokens.mT.unflatten(2, shape), positions=True)[0]

    *style, losses = mine(content, encode, golden["in_text"])
    held(golden, "out_losses", losses)
    names = "style_mean", "style_std", "content_mean", "content_std"
    for name, value in zip(names, (*style, *moments(content)), strict=True):
        held(golden, f"out_{name}", value.mT[..., None])
    held(golden, "out_stylised", mine.styled(content, *style).mT.unflatten(2, shape))
