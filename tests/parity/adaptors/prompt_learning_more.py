"""More methods that learn words: several prompts by transport or by a gate, by images' statistics, without labels."""

import copy
from dataclasses import replace
from unittest.mock import patch

import torch
from adaptkit_plugins.prompt_learning.cpl import confidence, partial_loss
from torch import nn

from adaptkit import Images, Prompts, method, predict, unit
from adaptkit.methods.candidates import among_likeliest, candidate_bounds
from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted, variants
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task


@adaptor("plot", method="plot")
def plot(golden):
    task, room, hyper = tiny_task(golden), golden.meta["tolerance"], golden.hyper
    for prefix in variants(golden):
        context = golden[f"{prefix}init.{CONTEXT}"]  # (N, n, W)
        plot = fitted(
            "plot",
            task,
            n=context.shape[-2],
            count=len(context),
            epsilon=hyper["eps"],
            iterations=hyper["max_iter"],
            threshold=hyper["thresh"],
            pooled=prefix == "imagenet.",
            as_released=True,
            schedule=constant(golden),
        )
        with torch.no_grad():
            plot.context.copy_(context)
            patches = task.bind(plot).support.views[:, 0]
            text = unit(plot.prompts.encode(plot.context[:, None]))
            cosines = torch.einsum("bpd,ncd->bcpn", patches, text)
            golden.close(f"{prefix}plan0", plot.plan(cosines).flatten(0, 1), atol=room["param"])
            if "image_tokens" in golden:
                raw = [plot.needs()["patches"].compute(task.backbone, golden["in.pixel_values"])]  # (B, P, D)
                raw = [task.backbone.encode_image(golden["in.pixel_values"])[:, None], *raw]
                golden.close("image_tokens", torch.cat(raw, 1).transpose(0, 1), atol=room["logits"])
        for s, loss in follow(golden, plot, task, {CONTEXT: plot.context}, prefix):
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=room["loss"])


@adaptor("mocoop", method="mocoop")
def mocoop(golden):
    task, room, hyper = tiny_task(golden), golden.meta["tolerance"], golden.hyper
    prompts = iter(hyper["prompts"])
    mocoop = fitted(
        "mocoop",
        task,
        groups=tuple(tuple(next(prompts) for _ in range(size)) for size in hyper["groups"]),
        top=hyper["top_k"],
        text_weight=hyper["text_loss_weight"],
        gate_weight=hyper["gate_loss_weight"],
        as_released=True,
        schedule=constant(golden),
    )
    golden.close("grouped_prototypes", mocoop.prototypes, atol=room["logits"])
    names = {"prompt_learner.w": mocoop.correction}
    names |= {f"prompt_learner.gate.{part}": getattr(mocoop.gate, part) for part in ("weight", "bias")}
    for i, (before, after) in enumerate(zip(mocoop.before, mocoop.after, strict=True)):
        names |= {f"prompt_learner.ctx_before_{i}": before, f"prompt_learner.ctx_after_{i}": after}
    support, parts = task.bind(mocoop).support, {}
    for s, _ in follow(golden, mocoop, task, names):
        with torch.no_grad():
            for i, (text, gate) in enumerate([(1, 0), (0, 1), (0, 0)]):
                mocoop.text_weight, mocoop.gate_weight = text, gate
                parts[i] = mocoop.loss(support)
            mocoop.text_weight, mocoop.gate_weight = hyper["text_loss_weight"], hyper["gate_loss_weight"]
        own = {"text": parts[0] - parts[2], "answers": parts[2], "gate": parts[1] - parts[2]}
        for i, name in enumerate(own):
            golden.close(f"part{s}.cross_entropy.{i}", own[name], atol=room["loss"])


@adaptor("gopro", method="gopro")
def gopro(golden):
    room, hyper = golden.meta["tolerance"], golden.hyper
    given = {name: golden[f"in.{name}_pixels"] for name in ("mocov3", "augmix")}
    pixels = {"crop": golden["in.pixel_values"], "moco": given["mocov3"], "augmix": given["augmix"]}
    support = {f"{kind}_{what}": rows for kind, rows in pixels.items() for what in ("x", "statistics")}
    support |= {what: golden["in.pixel_values"] for what in ("x", "statistics")}  # as `forward` reads them
    plain, labelled = tiny_task(golden), Images.from_arrays(support, golden["in.labels"])
    labelled.rows.backbone = plain.backbone
    task = replace(plain, support=labelled)
    gopro = fitted(
        "gopro",
        task,
        n=len(golden[f"init.{CONTEXT}"]),
        init=hyper["ctx_init"],
        contrast=hyper["contrastive_weight"],
        tau=hyper["tau"],
        schedule=constant(golden),
    )
    parts = {"simproj.linear": gopro.projector[0], "simproj.batchnorm": gopro.projector[1]}
    for kind in ("style", "content"):
        parts |= {f"prompt_learner.{kind}.linear.{i}": layer for i, layer in enumerate(getattr(gopro, kind))}
    names = {f"{name}.{p}": getattr(layer, p) for name, layer in parts.items() for p in ("weight", "bias")}
    names |= {CONTEXT: gopro.context, "prompt_learner.rho.weight": gopro.mix.weight}
    idle = {"prompt_learner.rho.bias": gopro.mix.bias, "simproj.linear.bias": names.pop("simproj.linear.bias")}
    for name, bias in idle.items():
        bias.data.copy_(golden[f"init.{name}"])
        noise = [key for key in golden.outputs if key.endswith(name)]
        golden.skip("a norm takes away what it adds, so that its gradient is rounding noise", *noise)
    batch, before = task.bind(gopro).support, copy.deepcopy(gopro)
    for s, _ in follow(golden, gopro, task, names):
        before.load_state_dict({**gopro.state_dict(), **buffers(before)})
        answers, *moved, contrast = before.train().parts(batch)
        golden.close(f"part{s}.cross_entropy.0", answers, atol=room["loss"])
        for i, mean in enumerate(moved):
            golden.close(f"part{s}.mse_loss.{i}", mean, atol=room["loss"])
        halves = sum(float(golden[f"part{s}.cross_entropy.{i}"]) for i in (1, 2)) / 2
        assert abs(contrast.item() - halves) <= room["loss"], f"the contrastive loss must be {halves}; got {contrast}"
        golden.skip("compared as their mean", f"part{s}.cross_entropy.1", f"part{s}.cross_entropy.2")
    for name in ("running_mean", "running_var"):
        key = f"buffers.simproj.batchnorm.{name}"
        golden.close(key, getattr(gopro.projector[1], name), atol=room["param"])


def buffers(made):
    """A method's buffers, by name."""
    return dict(made.named_buffers())


@adaptor("fpl-train", method="fpl-prompts")
def fpl_prompts(golden):
    task, hyper = tiny_task(golden), golden.hyper
    for key in [key for key in golden.arrays if key.startswith("text.") and key.endswith(".prefix")]:
        golden.arrays[key] = golden.arrays[key][0]  # (1, n, W) in the release
    schedule = {**constant(golden), "weight_decay": hyper["weight_decay"]}
    for modality in ("text", "image"):
        n = len(golden[f"{modality}.init.prefix"])
        template = hyper.get("template", "a photo of a {}")
        options = {"modality": modality, "n": n, "template": template, "schedule": schedule}
        made = fitted("fpl-prompts", task, **options)
        prefix = made.context if modality == "text" else made.visual
        for _ in follow(golden, made, task, {"prefix": prefix}, f"{modality}."):
            pass


@adaptor("cpl", method="cpl")
def cpl(golden):
    logits, hyper = golden["in_logits"], golden.hyper
    p, sure = logits.softmax(-1), hyper["conf_quantile"] / 100
    total, least = candidate_bounds(p, sure, hyper["regular_threshold"])
    golden.close("out_threshold", total, atol=1e-7)
    golden.equal("out_intra", among_likeliest(p, total))
    golden.equal("out_inter", p >= least)
    made = method("cpl", soft=True, sure=sure, top=hyper["regular_threshold"])
    made.total, made.least = total, least
    weights = made.weights(p)
    golden.equal("out_kept", weights.sum(1) > 0)
    golden.close("out_labels", weights, rtol=1e-5, atol=1e-7)
    kept = golden["out_kept"]
    later, weights = golden["in_logits_later"][kept].requires_grad_(), weights[kept]
    for kind in ("cc", "ce", "gce", "rc_rc", "rc_cav", "lw_lw"):
        short = kind.split("_")[-1]
        losses = partial_loss(short, later, weights, confidence(short, None, weights))
        golden.close(f"out_loss_{kind}", losses, rtol=1e-5)
        golden.close(f"out_grad_{kind}", torch.autograd.grad(losses.mean(), later)[0], of_max=1e-5)
        if "_" in kind:
            golden.close(f"out_confidence_{kind}", confidence(short, later.detach(), weights), rtol=1e-5, atol=1e-7)


@adaptor("ship", method="ship")
def ship(golden):
    room, hyper, rows = golden.meta["tolerance"], golden.hyper, golden["in.base_rows"]
    task = tiny_task(golden, logit_scale=100.0)
    task = replace(task, support=task.support[rows])
    vae = {"epochs": 0, "lr": hyper["lr_vae"], "weight_decay": 0.01, "decay": "constant"}
    made = fitted(
        "ship",
        task,
        n=len(golden["init.CoOp_PromptLearner.ctx"]),
        init="",
        hidden_encoder=hyper["hidden_encoder"],
        hidden_generator=hyper["hidden_generator"],
        generator=vae,
        schedule={"lr": hyper["lr_coop"], "optimizer": "sgd"},
    )
    maker, batch = made.maker.requires_grad_(), task.bind(made).support
    words = golden["init.PromptLearner.ctx"]  # of the generator: as many as it likes
    made.made_of, maker["words"][0] = Prompts(task.backbone, task.classnames, n=len(words)), nn.Parameter(words)
    draws = iter([golden[f"in.z{i}"] for i in range(sum(f"in.z{i}" in golden for i in range(99)))])
    given = iter([golden[f"in.generated_labels{s}"] for s in range(hyper["epochs_coop"])])
    randint, new = torch.randint, made.new.tolist()

    def labels_given(high, size):  # one view has nothing to draw
        return randint(high, size) if high == 1 else torch.tensor([new.index(c) for c in next(given).tolist()])

    names = {"PromptLearner.ctx": maker["words"][0]}
    layers = {"Encoder.net.0": maker["encoder"][0], "Encoder.mean": maker["mean"], "Encoder.log_var": maker["log_var"]}
    layers |= {f"Generator.net.{i}": maker["generator"][i] for i in (0, 2)}
    names |= {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    for name, parameter in names.items():
        parameter.data = golden[f"init.{name}"]  # whose latent may have another width than embeddings
    x, labels, seen, moved = batch.views[:, 0], batch.labels, [], made.made_up
    made.made_up = lambda latent, classes: seen.append((latent, moved(latent, classes))) or seen[-1][1]
    with patch("torch.randn_like", lambda like: next(draws)), patch("torch.randint", labels_given):
        optimizer = made.generator.make(names.values())
        for s in range(sum(f"loss{s}" in golden for s in range(99))):
            inner = maker["encoder"](x)
            for key in ("mean", "log_var"):
                golden.close(f"{key}{s}", maker[key](inner), atol=room["logits"])
            loss = made.maker_loss(x, labels)
            golden.close(f"reconstruction{s}", seen[-1][1], atol=room["logits"])
            golden.close(f"loss{s}", loss, atol=room["loss"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            stepped(golden, names, s, hyper["lr_vae"])
        maker.requires_grad_(False)
        context, total = {"CoOp_PromptLearner.ctx": made.context}, hyper["epochs_coop"]
        made.context.data.copy_(golden["init.CoOp_PromptLearner.ctx"])
        optimizer = made.schedule.make(made.parameter_groups([made.context]))
        for s in range(total):
            optimizer.param_groups[0]["lr"] = made.schedule.rate(s, per_epoch=1, total=total)
            golden.close(f"coop.lr{s}", made.schedule.rate(s, 1, total), atol=1e-9)
            loss = made.loss(batch)
            golden.close(f"coop.loss{s}", loss, atol=room["loss"])
            logits = task.backbone.logits(torch.cat([x, seen[-1][1]]), unit(made.prompts.encode(made.context)))
            golden.close(f"coop.train_logits{s}", logits, atol=room["logits"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            stepped(golden, context, s, 0)
    golden.close(f"coop.logits{total}", predict(made.eval(), golden["in.pixel_values"]), atol=room["logits"])


def stepped(golden, names, s, lr):
    """Hold gradients and what a step made of the parameters; where AdamW follows rounding noise, within its steps."""
    room = golden.meta["tolerance"]
    largest = max(float(golden[f"grad{s}.{name}"].abs().max()) for name in names)
    for name, parameter in names.items():
        golden.close(f"grad{s}.{name}", parameter.grad, of_max=room["grad_rel"])
        want, sure = golden[f"step{s + 1}.{name}"], golden[f"grad{s}.{name}"].abs() > 1e-5 * largest
        near = (parameter.data - want).abs() <= 2 * lr * (s + 1)
        golden.close(f"step{s + 1}.{name}", torch.where(~sure & near, want, parameter.data), atol=room["param"])
