"""Steps of training through the towers of a ViT-B/16, random weights: forward and backward, ours beside plain code.

Plain code knows the towers and the method, and encodes every class's sentence at its full length, as releases do.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit import Backbone, Method, Preprocess, Task, method, unit
from adaptkit.features.items import Images
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
from benchmarks.frame import Row, Size, case, ensure_close, peak, timed

NAME_TOKENS = (1, 1, 2, 2, 2, 3, 3, 4)  # of class names, over and over
MOST = 100  # classes that the plain way is timed with: it is as long for each, and takes 3.5 GB for a hundred
TIMES = 2
VOCABULARY = 49408


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


def names(count: int) -> list[str]:
    """Class names of so many words, a token each, all different."""
    return [" ".join([f"n{i}", *["of", "the", "sea"][: NAME_TOKENS[i % 8] - 1]]) for i in range(count)]


def scene(size: Size, key: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Task, Images]:
    """A task of random images, a batch of which is trained on: embeddings or pixels, by their shape."""
    tower, draw = backbone(size.C < MOST), torch.Generator().manual_seed(seed)
    x, y = torch.randn(*shape, generator=draw), torch.arange(shape[0]) % size.C
    text = torch.randn(size.C, tower.dim, generator=draw)
    task = Task.from_arrays(
        ({key: unit(x) if len(shape) < 4 else x}, y), text, classnames=names(size.C), backbone=tower
    )
    return task, task.support


def fitted(name: str, task: Task, **options: object) -> Method:
    """A method at the start of training."""
    torch.manual_seed(0)
    made = method(name, **options)
    made.fit(task.bind(made))
    return made.train()


def step(work: Callable[[], Tensor], learned: list[Tensor]) -> list[Tensor]:
    """Loss and gradients."""
    loss = work()
    return [loss.detach(), *torch.autograd.grad(loss, learned)]


def plain_text(tower: Backbone, tokens: Tensor, context: Tensor, deep: dict[int, Tensor] | None = None) -> Tensor:
    """Class embeddings on all tokens that the tower has places for, learned words behind the start, unit norm."""
    model = tower.model.text_model
    ends = tower.ends(tokens)
    most = model.config.max_position_embeddings
    ids, n = F.pad(tokens, (0, most - tokens.shape[1])), context.shape[0]
    words = model.embeddings.token_embedding(ids)
    words = torch.cat([words[:, :1], context.expand(len(ids), -1, -1), words[:, 1 + n :]], 1)
    x = words + model.embeddings.position_embedding.weight
    for i, block in enumerate(model.encoder.layers):
        if i in (deep or {}):
            x = torch.cat([x[:, :1], deep[i].expand(len(ids), -1, -1), x[:, 1 + n :]], 1)
        x = block(x, None, is_causal=True)
    x = model.final_layer_norm(x)[torch.arange(len(ids)), ends]
    return F.normalize(tower.model.text_projection(x), dim=-1)


def compare(size: Size, ours: Callable[[], list[Tensor]], plain: Callable[[], list[Tensor]], flops: float) -> Row:
    """Both ways timed by turns, after a first time that nobody times; the plain way may be of fewer classes."""
    shown = min(size.C, MOST)
    want, got, took = plain(), ours(), ([], [])
    for _ in range(TIMES):
        for way, seconds in ((plain, took[0]), (ours, took[1])):
            seconds.append(timed(way)[0])
    if shown == size.C:
        for name, a, b in zip(["loss", *["a gradient"] * len(got)], got, want, strict=False):
            ensure_close(a, b, 1e-4 * max(1e-3, float(b.abs().max())), name)
    held = peak(plain) * size.C / shown, peak(ours)
    said = "all" if shown == size.C else f"{shown} of {size.C} classes"
    return Row(min(took[0]) * size.C / shown, min(took[1]), said, flops, held)


def text_flops(tower: Backbone, tokens: int) -> float:
    """Of products with weights, forward and back to what entered."""
    return 2 * 24 * tokens * tower.depth["text"] * tower.width["text"] ** 2


def new_tokens(prompts: object) -> int:
    """Tokens of sentences that no other sentence has: what no way can do without."""
    packs = prompts.packs()  # type: ignore[attr-defined]
    return len(packs.order) * 2 if packs is None else int(packs.word.numel() - (packs.word >= 0).sum())


@case("coop step", C100=8, C1000=8)
def coop(size: Size) -> Row:
    """Sixteen learned words, 32 embeddings of images."""
    task, images = scene(size, "views", (32, 1, 16 if size.C < MOST else 512))
    made = fitted("coop", task)
    batch = task.bind(made).support
    some, tower, x = min(size.C, MOST), made.backbone, images.bind(made.support_needs()).views[:, 0]

    def plain() -> list[Tensor]:
        text = plain_text(tower, made.prompts.tokens["input_ids"][:some], made.context)
        return step(lambda: F.cross_entropy(tower.logit_scale * x @ text.T, batch.labels % some), [made.context])

    flops = text_flops(tower, new_tokens(made.prompts))
    return compare(size, lambda: step(lambda: made.loss(batch), [made.context]), plain, flops)
