"""Steps of training through the towers of a ViT-B/16, random weights: forward and backward, ours beside plain code.

Plain code knows the towers and the method, and encodes every class's sentence at its full length, as releases do.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit import Backbone, Method, Preprocess, Task, method, unit
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
from benchmarks.frame import Row, Size, case, ensure_close, measured

NAME_TOKENS = (1, 1, 2, 2, 2, 3, 3, 4)  # of class names, over and over
MOST = 100  # classes that the plain way is timed with: it takes as long for each, and 3.7 GB for a hundred
TIMES = 2
VOCABULARY = 49408
SCALE = 2**10  # of losses


@functools.cache
def backbone(small: bool) -> Backbone:
    """Towers of random weights, spread so that sentences differ; sentences are padded to the longest, as they come."""
    from transformers import CLIPConfig, CLIPModel

    width, depth, heads, side, patch = (16, 2, 2, 16, 8) if small else (512, 12, 8, 224, 16)
    text = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth, "vocab_size": VOCABULARY}
    ends = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 0}
    image = {"hidden_size": 3 * width // 2, "intermediate_size": 6 * width, "num_hidden_layers": depth}
    image |= {"num_attention_heads": 3 * heads // 2, "image_size": side, "patch_size": patch}
    torch.manual_seed(0)
    made = CLIPConfig(
        text_config={**text, **ends, "num_attention_heads": heads}, vision_config=image, projection_dim=width
    )
    model = CLIPModel(made)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5 * weight.shape[-1] ** -0.5)
    model.logit_scale.data.fill_(3.0)
    preprocess = Preprocess(size=side, mean=(0.5,) * 3, std=(0.25,) * 3)
    return CLIPBackbone(model, functools.partial(toy_tokenizer, vocab=VOCABULARY), preprocess)


def shown_of(size: Size, device: str) -> int:
    """Classes that the plain way is timed with: on a GPU all."""
    return min(size.C, MOST) if device == "cpu" else size.C


def names(count: int) -> list[str]:
    """Class names of so many words, a token each, all different."""
    return [" ".join([f"n{i}", *["of", "the", "sea"][: NAME_TOKENS[i % 8] - 1]]) for i in range(count)]


def scene(size: Size, device: str, shape: tuple[int, ...]) -> Task:
    """A task of random images, a batch that is trained on: unit-norm embeddings or pixels, by their shape."""
    tower, draw = backbone(size.C < MOST).to(device), torch.Generator().manual_seed(0)
    x, labels = torch.randn(*shape, generator=draw), torch.arange(shape[0]) % size.C
    text = torch.randn(size.C, tower.dim, generator=draw)
    support = ({"views": (unit(x) if len(shape) == 2 else x)[:, None]}, labels)
    return Task.from_arrays(support, text, classnames=names(size.C), backbone=tower).to(device)


def fitted(name: str, task: Task, **options: object) -> Method:
    """A method at the start of training."""
    torch.manual_seed(0)
    made = method(name, **options)
    made.fit(task.bind(made))
    return made.to(task.support.device).train()


def step(work: Callable[[], Tensor], learned: list[Tensor]) -> list[Tensor]:
    """Loss and gradients, as many times larger as half precision needs so that none is lost."""
    loss = SCALE * work()
    return [loss.detach(), *torch.autograd.grad(loss, learned)]


def plain_text(
    tower: Backbone, tokens: Tensor, context: Tensor | None = None, deep: dict[int, Tensor] | None = None
) -> Tensor:
    """Class embeddings on all tokens that the tower has places for, learned words behind the start, unit norm."""
    model, tokens = tower.model.text_model, tokens.to(tower.device)
    ends = tower.ends(tokens)
    most = model.config.max_position_embeddings
    ids = F.pad(tokens, (0, most - tokens.shape[1]))

    def placed(x: Tensor, prompt: Tensor | None) -> Tensor:
        if prompt is None:
            return x
        return torch.cat([x[:, :1], prompt.expand(len(ids), -1, -1), x[:, 1 + len(prompt) :]], 1)

    x = placed(model.embeddings.token_embedding(ids), context) + model.embeddings.position_embedding.weight
    for i, block in enumerate(model.encoder.layers):
        x = block(placed(x, (deep or {}).get(i)), None, is_causal=True)
    x = model.final_layer_norm(x)[torch.arange(len(ids)), ends]
    return F.normalize(tower.model.text_projection(x), dim=-1)


def plain_images(tower: Backbone, pixels: Tensor, prompts: list[Tensor]) -> Tensor:
    """Image embeddings, learned tokens behind the patches, replaced on entering each block, unit norm."""
    model = tower.model.vision_model
    x = model.embeddings(pixels)
    whole = x.shape[1]
    for i, block in enumerate(model.encoder.layers):
        if i < len(prompts):
            x = torch.cat([x[:, :whole], prompts[i].expand(len(x), -1, -1)], 1)
        x = block(model.pre_layrnorm(x) if i == 0 else x, None)
    return F.normalize(tower.model.visual_projection(model.post_layernorm(x[:, 0])), dim=-1)


@dataclass(frozen=True)
class Steps:
    """A step both ways, the plain one of `shown` of the classes, and the flops that no way can do without."""

    ours: Callable[[], list[Tensor]]
    plain: Callable[[], list[Tensor]]
    shown: int
    flops: float


def compare(size: Size, steps: Steps) -> Row:
    """Both ways by turns, the least of some times; of fewer classes, the plain way is taken to be as long for each."""
    ours, plain, shown = steps.ours, steps.plain, steps.shown
    took, held = {plain: [], ours: []}, {}
    for _ in range(TIMES):
        results = []
        for way in (plain, ours):
            seconds, held[way], result = measured(way)
            took[way].append(seconds)
            results.append(result)
    for want, got in zip(*results, strict=True) if shown == size.C else ():
        ensure_close(got, want, 1e-4 * max(1e-3, float(want.abs().max())), "loss and gradients")
    more = size.C / shown
    said = "all" if shown == size.C else f"{shown} of {size.C} classes"
    return Row(min(took[plain]) * more, min(took[ours]), said, steps.flops, (held[plain] * more, held[ours]))


def block_flops(tower: Backbone, which: str, tokens: int) -> float:
    """Of products with weights, forward and back to what entered."""
    return 2 * 24 * tokens * tower.depth[which] * tower.width[which] ** 2


def own_tokens(made: Method) -> int:
    """Tokens of sentences behind what all begin with, which no way can do without, and the beginning once."""
    tokens, places = made.prompts.tokens["input_ids"], made.prompts.places
    begin = int(places[0, -1]) + 1
    return begin + int((made.backbone.ends(tokens) + 1 - begin).sum())


def coop_steps(size: Size, device: str = "cpu") -> Steps:
    """Sixteen learned words, 32 embeddings of images."""
    small = size.C < MOST
    task = scene(size, device, (32, 16 if small else 512))
    made = fitted("coop", task)
    batch, some, tower = task.bind(made).support, shown_of(size, device), made.backbone
    x, ids = batch.views[:, 0], made.prompts.tokens["input_ids"][:some]

    def plain() -> Tensor:
        return F.cross_entropy(tower.logit_scale * x @ plain_text(tower, ids, made.context).T, batch.labels % some)

    learned, flops = [made.context], block_flops(tower, "text", own_tokens(made))
    return Steps(lambda: step(lambda: made.loss(batch), learned), lambda: step(plain, learned), some, flops)


def maple_steps(size: Size, device: str = "cpu") -> Steps:
    """Two learned words in nine blocks of both towers, four images."""
    side = 16 if size.C < MOST else 224
    task = scene(size, device, (4, 3, side, side))
    made = fitted("maple", task)
    batch, some, tower = task.bind(made).support, shown_of(size, device), made.backbone
    pixels, ids = batch.views[:, 0], made.prompts.tokens["input_ids"][:some]

    def plain() -> Tensor:
        text = plain_text(tower, ids, made.context, dict(enumerate(made.deep, 1)))
        couples = zip([made.coupling, *made.couplings], [made.context, *made.deep], strict=True)
        x = plain_images(tower, pixels, [couple(prompt) for couple, prompt in couples])
        return F.cross_entropy(tower.logit_scale * x @ text.T, batch.labels % some)

    learned = [*made.parameters()]
    tokens = 4 * (1 + (side // tower.model.config.vision_config.patch_size) ** 2)
    flops = block_flops(tower, "text", own_tokens(made)) + block_flops(tower, "image", tokens)
    return Steps(lambda: step(lambda: made.loss(batch), learned), lambda: step(plain, learned), some, flops)


def clip_lora_steps(size: Size, device: str = "cpu") -> Steps:
    """Updates of three maps in all blocks of both towers, without dropout, four images."""
    side = 16 if size.C < MOST else 224
    task = scene(size, device, (4, 3, side, side))
    made = fitted("clip-lora", task, dropout=0.0, template="a photo of a {}.")
    for b in made.b:
        torch.nn.init.normal_(b, std=0.01)
    batch, some, tower = task.bind(made).support, shown_of(size, device), made.backbone
    pixels, ids = batch.views[:, 0], made.tokens["input_ids"][:some]

    def plain() -> Tensor:
        scale = made.alpha / made.rank**0.5
        beside = [lambda x, out, a=a, b=b: out + scale * (x @ a.T @ b.T) for a, b in zip(made.a, made.b, strict=True)]
        with tower.taps(dict(zip(made.names, beside, strict=True))):
            text, x = plain_text(tower, ids), plain_images(tower, pixels, [])
        return F.cross_entropy(tower.logit_scale * x @ text.T, batch.labels % some)

    learned = [*made.parameters()]
    words, tokens = int((tower.ends(made.tokens["input_ids"]) + 1).sum()), 4 * (1 + (side // 16) ** 2)
    flops = block_flops(tower, "text", words) + block_flops(tower, "image", tokens)
    return Steps(lambda: step(lambda: made.loss(batch), learned), lambda: step(plain, learned), some, flops)


@case("coop step", C100=8, C1000=8)
def coop(size: Size) -> Row:
    """See `coop_steps`."""
    return compare(size, coop_steps(size))


@case("maple step", C100=3, C1000=6)
def maple(size: Size) -> Row:
    """See `maple_steps`."""
    return compare(size, maple_steps(size))


@case("clip-lora step", C100=2, C1000=3)
def clip_lora(size: Size) -> Row:
    """See `clip_lora_steps`."""
    return compare(size, clip_lora_steps(size))
