"""Methods that tune a prompt or a tower for each image anew: TPT, C-TPT, RLCF, PromptAlign."""

import math
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import optimizer

from adaptkit import Backbone, Method, Pixels, Preprocess, Task, adapt, method, predict, unit
from adaptkit.features.items import Images
from adaptkit.methods.episodes import picked
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import text_tower


def options_of(golden, context):
    """What the methods over words have in common, as the golden ran."""
    hyper = golden.hyper
    return {
        "n": hyper["n_ctx"],
        "init": context,
        "views": golden["in_views"].shape[1],
        "keep": hyper["selection_p"],
        "steps": hyper["tta_steps"],
        "lr": hyper["lr"],
        "weight_decay": hyper["weight_decay"],
    }


def over_words(golden, name, arrays, judges=None, **more):
    """The method adapted to the golden's classes, and its task."""
    backbone, context, names = text_tower(golden)
    with torch.no_grad():
        text = backbone.encode_text([f"{context} {each}." for each in names])
    support = (golden["in_views"], golden["in_labels"])
    task = Task.from_arrays(support, text, classnames=names, backbone=backbone, text_by=judges)
    made = adapt(method(name, **options_of(golden, context), **more), task)
    return made, Images.from_arrays(arrays).bind(made.needs())


@contextmanager
def watched():
    """Every optimiser step's gradient, and the prompts before and after: ``(B, n, W)`` each, in three lists."""
    grads, before, after = [], [], []

    def tuned(of):
        return of.param_groups[0]["params"][0]

    hooks = [
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: grads.append(tuned(o).grad.clone())),
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: before.append(tuned(o).detach().clone())),
        optimizer.register_optimizer_step_post_hook(lambda o, *_: after.append(tuned(o).detach().clone())),
    ]
    try:
        yield grads, before, after
    finally:
        for hook in hooks:
            hook.remove()


def by_image(each, steps):
    """Steps of images that were tuned together, one part after the other, as ``(N, steps, ...)``."""
    parts = [torch.stack(each[i : i + steps], 1) for i in range(0, len(each), steps)]
    return torch.cat(parts)


def hold_words(golden, made, images, last_loss, room):
    """Hold prompts, text and logits against the golden.

    Args:
        golden: of any method over words.
        made: adapted.
        images: bound to what it reads.
        last_loss: of an answer and what was seen, ``(B,)``.
        room: for gradients, prompts, text and logits, and what makes a prediction sure.

    Returns:
        The class embeddings in the end, ``(N, C, D)``.
    """
    golden.close("out_ctx_init", made.context, atol=1e-7)
    with watched() as (grads, before, after):
        logits = predict(made, images)
    stages = len(made.stages())
    steps = made.steps * stages
    grad, before, after = (by_image(each, steps) for each in (grads, before, after))  # (N, steps, n, W)
    golden.close("out_ctx_grad", grad, of_max=room["grad"])
    want, slack = golden["out_ctx_after"], 2 * golden.hyper["lr"] * steps
    sure = (grad.abs() > 1e-5 * grad.abs().amax((-2, -1), keepdim=True)).all(1)
    near = (after[:, -1] - want).abs() <= slack
    golden.close("out_ctx_after", torch.where(~sure & near, want, after[:, -1]), atol=room["prompt"])
    seen = {name: getattr(images, name) for name in images.needs}
    with torch.no_grad():
        chosen, text = made.choose(seen), unit(made.prompts.encode_each(after[:, -1]))
        start = made.see(made.start(len(chosen)), seen).logits[:, 0]
        last = made.see({"context": before[:, -stages]}, picked(seen, chosen))
        golden.close("out_loss_last_step", last_loss(last, picked(seen, chosen)), atol=2e-5)
    golden.equal("out_selected", chosen)
    golden.close("out_text_after", text, atol=room["text"])
    golden.close("out_logits_before", start, atol=2e-4)
    golden.close("out_logits", logits, atol=room["logits"])
    golden.agree("out_pred", logits.argmax(-1), logits, room["sure"])
    return text


def room_of_tpt(steps):
    """TPT's tolerances: of logits they depend on the steps."""
    margin = 2e-2 if steps == 1 else 5e-2
    return {"grad": 1e-3, "prompt": 2e-5, "text": 2e-4, "logits": margin, "sure": 10 * margin}


@adaptor("tpt", "tpt-4step", method="tpt")
def tpt(golden):
    made, images = over_words(golden, "tpt", golden["in_views"])
    hold_words(golden, made, images, made.objective, room_of_tpt(made.steps))


@adaptor("c-tpt", method="c-tpt")
def c_tpt(golden):
    more = {"weight": golden.hyper["lambda_term"], "two_step": golden.hyper["two_step"]}
    made, images = over_words(golden, "c-tpt", golden["in_views"], **more)
    room = room_of_tpt(made.steps * len(made.stages()))
    text = hold_words(golden, made, images, lambda answer, _: made.disagreement(answer.logits), room)
    golden.close("out_spread_after", -made.closeness(text) / made.weight, atol=2e-4)


def judged(golden):
    """Options that tell how the golden rewarded, and class embeddings by its judge."""
    k = golden.hyper.get("sample_k")
    return {"judge": "reward", **({"k": k} if k else {})}, {"reward": golden["in_reward_text"]}


@adaptor("rlcf-prompt", method="rlcf")
def rlcf_prompt(golden):
    options, judges = judged(golden)
    arrays = {"views": golden["in_views"], "judged": golden["in_reward_views"]}
    made, images = over_words(golden, "rlcf", arrays, judges, **options)
    room = {"grad": 1e-3, "prompt": 5e-4, "text": 2e-3, "logits": 0.1, "sure": 0.5}
    hold_words(golden, made, images, made.objective, room)


class LinearTower(Backbone):
    """An image tower that is one linear map, of vectors in the place of pixels."""

    def __init__(self, weight, bias, logit_scale):
        self.model = nn.Linear(weight.shape[1], len(weight))
        self.model.load_state_dict({"weight": weight, "bias": bias})
        self.preprocess = Preprocess(size=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.points, self.dim, self.width, self.depth = {}, len(weight), {}, {}
        self.logit_scale = logit_scale
        self.freeze()

    def image(self, pixels, project):
        return self.model(pixels.flatten(1)[:, : self.model.in_features])

    @staticmethod
    def pixels(vectors):
        """``(N, V, D)`` vectors as images of one row, zeros behind them."""
        width = math.ceil(vectors.shape[-1] / 3)
        padded = nn.functional.pad(vectors, (0, 3 * width - vectors.shape[-1]))
        return padded.unflatten(-1, (3, 1, width))


@adaptor("rlcf-visual", method="rlcf")
def rlcf_visual(golden):
    hyper, (options, judges) = golden.hyper, judged(golden)
    backbone = LinearTower(golden["in_A"], golden["in_b"], hyper.get("logit_scale", 100.0))
    text, pixels = golden["in_text"], backbone.pixels(golden["in_views"])
    task = Task.from_arrays((pixels[:0, 0], []), text, backbone=backbone, text_by=judges)
    options |= {name: hyper[name] for name in ("steps", "weight_decay")} | {"tower_lr": hyper["lr"]}
    options |= {"decay": hyper["tta_momentum"], "every": hyper["update_freq"], "share": hyper["update_w"]}
    options |= {"momentum": hyper["momentum_update"], "keep": hyper["selection_p"], "views": pixels.shape[1]}
    made = adapt(method("rlcf", tunes="image-tower", **options), task)
    arrays = {"pixels": pixels, "judged": golden["in_reward_views"]}
    logits = predict(made, arrays)
    golden.close("out_logits", logits, atol=5e-2)
    golden.agree("out_pred", logits.argmax(-1), logits, 0.5)
    with watched() as (_, _, after), torch.no_grad():
        made.replay(Images.from_arrays(arrays).bind(made.needs()))  # which, unlike predict, leaves its mark
    weights = by_image(after, made.steps)[:, -1]
    golden.close("out_A_after_first", weights[0], atol=1e-4)
    golden.close("out_A_after_last", weights[-1], atol=1e-4)
    golden.close("out_A_initial_last", made.start(1)["model.weight"][0], atol=1e-4)


class ToyTower(Backbone):
    """An image tower of tokens that pass maps with a tanh, of which the first token is projected."""

    def __init__(self, maps, projection, logit_scale, tokens):
        layers = [nn.Linear(*each.shape, bias=False) for each in maps]
        self.model = nn.Sequential(*(nn.Sequential(layer, nn.Tanh()) for layer in layers))
        for layer, each in zip(layers, maps, strict=True):
            layer.weight.data = each.T.contiguous()
        self.projection, self.tokens = projection, tokens
        self.preprocess = Preprocess(size=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.start = nn.Identity()
        blocks = {f"image.block.{i}": block for i, block in enumerate(self.model)}
        self.points = {"image.tokens": self.start, **blocks}
        self.dim, self.width = projection.shape[1], {"image": len(projection)}
        self.depth, self.logit_scale = {"image": len(maps)}, logit_scale
        self.freeze()

    def image(self, pixels, project):
        length, width = self.tokens
        out = self.model(self.start(pixels.flatten(1)[:, : length * width].unflatten(1, self.tokens)))
        return out[:, 0] @ self.projection


class Shifted(Method):
    """Every token of the toy tower is shifted by a prompt."""

    tunable = ("prompt",)

    def needs(self):
        return {"pixels": Pixels()}

    def support_needs(self):
        return {}

    def fit(self, task):
        self.backbone, self.text = task.backbone, task.text
        self.prompt = nn.Parameter(torch.zeros(task.backbone.width["image"]), requires_grad=False)

    def forward(self, batch):
        with self.backbone.taps({"image.tokens": lambda _, tokens: tokens + self.prompt}):
            return self.backbone.logits(unit(self.backbone.encode_image(batch.pixels)), self.text)


@adaptor("promptalign", method="prompt-align")
def prompt_align(golden):
    hyper, tokens = golden.hyper, golden["in_tokens"].transpose(0, 1)  # (V, L, dm)
    first, end = hyper["ALIGN_LAYER_FROM"], hyper["ALIGN_LAYER_TO"]
    tower = ToyTower(golden["in_A"], golden["in_P"], hyper["logit_scale"], tokens.shape[1:])
    pixels = LinearTower.pixels(tokens.flatten(1)[None])  # (1, V, 3, 1, ...)
    task = Task.from_arrays((pixels[0, :1], [0]), golden["in_text"], backbone=tower)
    options = {"weight": hyper["DISTR_LOSS_W"], "keep": hyper["TPT_THRESHOLD"], "align_keep": hyper["ALIGN_THRESHOLD"]}
    options |= {"lowest": first, "layers": end - first, "lr": hyper["lr"], "weight_decay": hyper["weight_decay"]}
    made = adapt(method("prompt-align", base=Shifted(), as_released=True, views=len(tokens), **options), task)
    made.base.prompt.copy_(golden["in_prompt"])
    made.source_mean, made.source_variance = (golden[f"in_source_{name}"][first:end] for name in ("means", "vars"))
    with watched() as (grads, _, after):
        predict(made, pixels)
    golden.close("out_grad", grads[0][0], of_max=1e-4)
    golden.close("out_prompt_after", after[0][0], atol=1e-5)
    seen = {"pixels": pixels}
    chosen = made.choose(seen)
    kept, aligned = picked(seen, chosen), made.surest(made.see(made.start(1), seen).logits, made.align_keep)
    answer = made.see(made.start(1), kept)
    golden.close("out_loss", made.objective(answer, kept)[0], rtol=1e-5)
    golden.close("out_entropy", made.disagreement(answer.logits)[0], rtol=1e-5)
    golden.equal("out_selected", aligned[0])
    made.blocks = range(tower.depth["image"])
    blocks = torch.cat(made.see(made.start(1), kept).blocks)[:, : aligned.shape[1]]  # (nl, K, L, dm)
    golden.close("out_means", blocks.mean(1), atol=1e-5)
    golden.close("out_vars", blocks.var(1, correction=0), atol=1e-5)
