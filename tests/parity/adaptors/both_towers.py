"""Methods that learn tokens in both towers, or in the image tower: VPT, IVLP, MaPLe, PromptSRC, CoPrompt."""

from dataclasses import replace

import torch

from adaptkit import Images, adapt, method, predict, unit
from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted, variants
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

VISUAL = "image_encoder"
DEEP = "transformer.resblocks.{}.VPT_shallow"


def counted(golden, name):
    """How many keys there are of a name with a gap, from 1 on."""
    return next(i for i in range(1, 999) if name.format(i) not in golden) - 1


def tokens_of(golden, prefix):
    """How many tokens the image tower learns, and in how many blocks; none in none."""
    first = f"{prefix}init.{VISUAL}.VPT"
    if first not in golden:
        return 1, 0
    return len(golden[first]), 1 + counted(golden, f"{prefix}init.{VISUAL}.{DEEP}")


def visual_names(parameters):
    """The image tower's tokens by the golden's names."""
    return {f"{VISUAL}.{DEEP.format(i)}" if i else f"{VISUAL}.VPT": p for i, p in enumerate(parameters)}


def both_names(made):
    """All tokens of both towers by the golden's names."""
    deep = {f"text_encoder.{DEEP.format(i)}": p for i, p in enumerate(made.deep, 1)}
    return {CONTEXT: made.context, **deep, **visual_names(made.visual)}


def followed(golden, made, task, names, prefix):
    """Both steps; the loss is nothing but the cross-entropy."""
    for s, loss in follow(golden, made, task, names, prefix):
        golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=golden.meta["tolerance"]["loss"])


@adaptor("vpt", method="vpt")
def vpt(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for key in [key for key in golden.arrays if key.endswith(f"init.{VISUAL}.VPT")]:
        prefix = key.removesuffix(f"init.{VISUAL}.VPT")
        n, depth = tokens_of(golden, prefix)
        made = fitted("vpt", task, n=n, depth=depth, schedule=constant(golden))
        raw = task.encode([sentence for (sentence,) in task.prompts])
        golden.close(f"{prefix}text_feat_fixed", raw, atol=room["logits"])
        followed(golden, made, task, visual_names(made.visual), prefix)


@adaptor("ivlp", method="ivlp")
def ivlp(golden):
    task = tiny_task(golden)
    for prefix in variants(golden):
        n_image, depth_image = tokens_of(golden, prefix)
        depth = 1 + counted(golden, f"{prefix}init.text_encoder.{DEEP}")
        shape = {
            "n": len(golden[f"{prefix}init.{CONTEXT}"]),
            "depth": depth,
            "n_image": n_image,
            "depth_image": depth_image,
        }
        made = fitted("ivlp", task, **shape, schedule=constant(golden))
        followed(golden, made, task, both_names(made), prefix)


def coupled_names(made):
    """MaPLe's parameters by the golden's names."""
    names, layers = {CONTEXT: made.context}, {"prompt_learner.proj": made.coupling}
    names |= {f"prompt_learner.compound_prompts_text.{i}": prompt for i, prompt in enumerate(made.deep)}
    layers |= {f"prompt_learner.compound_prompt_projections.{i}": layer for i, layer in enumerate(made.couplings)}
    return names | {f"{name}.{p}": getattr(layer, p) for name, layer in layers.items() for p in ("weight", "bias")}


@adaptor("maple", method="maple")
def maple(golden):
    task = tiny_task(golden)
    for prefix in variants(golden):
        depth = 1 + sum(f"{prefix}init.prompt_learner.compound_prompts_text.{i}" in golden for i in range(99))
        made = fitted("maple", task, n=len(golden[f"{prefix}init.{CONTEXT}"]), depth=depth, schedule=constant(golden))
        followed(golden, made, task, coupled_names(made), prefix)


@adaptor("promptsrc", method="prompt-src")
def prompt_src(golden):
    task, hyper, room = tiny_task(golden), golden.hyper, golden.meta["tolerance"]
    n_image, depth_image = tokens_of(golden, "")
    options = {
        "n": len(golden[f"init.{CONTEXT}"]),
        "depth": 1 + counted(golden, f"init.text_encoder.{DEEP}"),
        "n_image": n_image,
        "depth_image": depth_image,
        "text_weight": hyper["text_loss_weight"],
        "image_weight": hyper["image_loss_weight"],
        "templates": tuple(hyper["templates"]),
        "mean": hyper["gpa_mean"],
        "deviation": hyper["gpa_std"],
        "as_released": True,
    }
    made = fitted("prompt-src", task, **options, schedule=constant(golden))
    golden.close("image_feat_fixed", task.backbone.encode_image(golden["in.pixel_values"]), atol=room["logits"])
    golden.close("text_feat_fixed", raw_mean(task, hyper["templates"]), atol=room["logits"])
    assert torch.allclose(made.frozen, unit(golden["text_feat_fixed"]), atol=room["loss"]), "scaled after the mean"
    for s, _ in follow(golden, made, task, both_names(made)):
        cross, text, image, divergence = made.parts(golden["in.pixel_values"], golden["in.labels"])
        golden.close(f"part{s}.cross_entropy.0", cross, atol=room["loss"])
        golden.close(f"part{s}.l1_loss.0", text / made.text_weight, atol=room["loss"])
        golden.close(f"part{s}.l1_loss.1", image / made.image_weight, atol=room["loss"])
        numbers = len(golden["in.labels"]) * len(task.classnames)
        golden.close(f"part{s}.kl_div.0", divergence * numbers, atol=room["loss"] * numbers)
    averaged(golden, task, options)


def raw_mean(task, templates):
    """The mean of raw embeddings over templates, ``(C, D)``."""
    names = [name.replace("_", " ") for name in task.classnames]
    return torch.stack([task.encode([t.format(name) for t in templates]).mean(0) for name in names])


def averaged(golden, task, options):
    """A whole training as a recipe runs it, in epochs of one batch: tokens after each epoch, and their average."""
    hyper, room = golden.hyper, golden.meta["tolerance"]
    epochs, rates = hyper["gpa_epochs"], []
    schedule = {"epochs": epochs, "lr": hyper["lr"], "warmup": 0, "batch_size": len(task.support)}
    made = method("prompt-src", **options, schedule=schedule)
    rates = [made.schedule.rate(e, per_epoch=1, total=epochs) for e in range(epochs)]
    golden.close("gpa.lr_f64", torch.tensor(rates, dtype=torch.double), atol=1e-9)
    weights = torch.tensor([made.weight(e) for e in range(1, epochs + 1)], dtype=torch.double)
    golden.close("gauss_weights_f64", weights / weights.sum(), atol=1e-9)
    fit, add = made.fit, made.add

    def from_the_goldens_start(task):
        fit(task)
        for name, parameter in both_names(made).items():
            parameter.data.copy_(golden[f"init.{name}"])

    def held(epoch):
        for name, parameter in both_names(made).items():
            golden.close(f"gpa.epoch{epoch}.{name}", parameter, atol=room["param"])
        add(epoch)

    made.fit, made.add = from_the_goldens_start, held
    adapt(made, task)
    for name, parameter in both_names(made).items():
        golden.close(f"gpa.final.{name}", parameter, atol=room["param"])
    golden.close("gpa.logits", predict(made, golden["in.pixel_values"]), atol=room["logits"])


@adaptor("coprompt", method="co-prompt")
def co_prompt(golden):
    hyper, room, first = golden.hyper, golden.meta["tolerance"], golden["in.pixel_values"]
    names = [name.replace("_", " ") for name in golden.meta["classnames"]]
    sentences = [hyper["sentences"][name] for name in names]
    task = tiny_task(golden, text=golden["in.text_targets"].unbind(1), prompts=sentences)
    views = {"pixels": first, "views": torch.stack([first, golden["in.pixel_values2"]], 1)}
    task = replace(task, support=Images.from_arrays(views, golden["in.labels"]))
    with torch.no_grad():
        ours = [unit(task.backbone.encode_text(own)) for own in sentences]
        frozen = task.backbone.encode_image(golden["in.pixel_values2"])
    assert torch.allclose(torch.stack(ours, 1), golden["in.text_targets"], atol=room["logits"]), "the frozen text's"
    assert torch.allclose(frozen, golden["in.image_targets"], atol=room["logits"]), "the frozen image's"
    for prefix, variant in hyper["variants"].items():
        held_to_the_frozen_towers(golden, task, prefix.replace("(none)", ""), variant)


def held_to_the_frozen_towers(golden, task, prefix, variant):
    """One variant of CoPrompt, with the sentences that the golden drew."""
    hyper, room = golden.hyper, golden.meta["tolerance"]
    options = {
        "n": variant["n_ctx"],
        "depth": variant["depth"],
        "weight": variant["w"],
        "distance": variant["distill"],
        "reduction": hyper["adapter_reduction"],
        "image_share": hyper["image_adapter_weight"],
        "text_share": hyper["text_adapter_weight"],
    }
    made = fitted("co-prompt", task, **options, schedule=constant(golden))
    names = coupled_names(made)
    for tower in ("image", "text"):
        adapter = getattr(made, f"adapter_{tower}")
        names |= {f"adapter_{tower}.fc.{i}.weight": adapter[i].weight for i in (0, 2)}
    count, step = len(golden["in.text_targets"]), 0
    made.draw = lambda: (int(golden[f"{prefix}in.sentence_index"][step]) + 0.5) / count
    views = golden["in.pixel_values"], golden["in.pixel_values2"]
    for step, _ in follow(golden, made, task, names, prefix):
        cross, text, image = made.parts(*views, golden["in.labels"])
        golden.close(f"{prefix}part{step}.cross_entropy.0", cross, atol=room["loss"])
        if made.distance == "mse":
            golden.close(f"{prefix}part{step}.mse_loss.0", text, atol=room["loss"])
            golden.close(f"{prefix}part{step}.mse_loss.1", image, atol=room["loss"])
        step += 1  # `follow` computes the next loss before it says which step that is
