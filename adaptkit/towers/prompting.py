"""Sentences about classes with room for learned words: what every prompt-learning method starts from."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from adaptkit.io.notices import notice
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.chunks import WHOLE_SENTENCES, at_once
from adaptkit.towers.chunks import chunked as chunked
from adaptkit.towers.once import Once
from adaptkit.towers.packing import WORTH, Packs
from adaptkit.towers.points import Tap
from adaptkit.towers.reading import fill_all
from adaptkit.towers.weights import in_effect

Position = Literal["end", "middle", "front"]
ALONE = 4  # sentences that are not worth laying out


class Prompts:
    """Context words and a class name, tokenised once; `encode` puts learned words where the context is.

    Position embeddings, masks and pooling stay in the tower: taps swap the words, and nothing else.

    Attributes:
        tokens: of the C sentences, with filler or initial words in the context's place.
        n: learned words.
        places: where they stand in each sentence, ``(C, n)``.

    Raises:
        ValueError: when a sentence is longer than the tower reads.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> prompts = ak.Prompts(task.backbone, task.classnames, n=4)
    >>> context = prompts.start()  # (n, W): what is learned
    >>> prompts.encode(context).shape  # (C, D), raw class embeddings
    torch.Size([5, 16])
    """

    words_around: dict[str, Any]

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        *,
        n: int = 16,
        init: str = "",
        position: Position = "end",
        suffix: str = ".",
        chunk: int | Literal["auto"] = "auto",
    ) -> None:
        """Tokenise.

        Args:
            backbone: whose text tower will encode.
            classnames: C names; underscores become spaces.
            n: learned words; with `init`, its first `n` tokens, or all when there are fewer.
            init: words to start from, e.g. ``"a photo of a"``; ``{}`` marks the class name's place, if not `position`.
            position: where the class name stands in the context.
            suffix: what closes each sentence; never learned.
            chunk: sentences encoded at a time; with more, each chunk is computed again in the backward pass, so that
                memory does not grow with C. ``"auto"`` looks at what is free on a GPU when it first encodes; on a
                processor it takes the tokens of 256 sentences.
        """
        self.backbone, self.init, self.once = backbone, init, Once()
        self.words_around = {"n": n, "init": init, "position": position, "suffix": suffix, "chunk": chunk}
        context = placed_name(init or " ".join(["X"] * n), position)
        names = [name.replace("_", " ") for name in classnames]
        sentences = [context.replace("{}", name) + suffix for name in names]
        self.tokens = backbone.tokenize(sentences)
        if full := [s for s, is_full in zip(sentences, fill_all(backbone, sentences), strict=True) if is_full]:
            longest = self.tokens["input_ids"].shape[1]
            raise ValueError(f"a sentence must be shorter than {longest} tokens; got {full[0]!r}; choose fewer words")
        before, after = (self._count(part) for part in context.split("{}"))
        lengths = torch.tensor([self._count(name) if after else 0 for name in names])  # (C,)
        word = torch.arange(min(n, before + after))
        self.n = len(word)
        self.places = backbone.prefix + word + (word >= before) * lengths[:, None]  # (C, n)
        self._chunk = 0 if chunk == "auto" else chunk
        self._packs: tuple[Packs | None, ...] = ()

    @property
    def chunk(self) -> int:
        """Sentences encoded at a time, each by itself; of those that share a beginning more take the same memory."""
        if not self._chunk:
            count, length = self.tokens["input_ids"].shape
            self._chunk = at_once(self.backbone, length)
            if self.backbone.device.type != "cpu" and self._chunk < count:
                notice(f"{self._chunk} of {count} sentences fit into the GPU's free memory: the rest is computed twice")
        return self._chunk

    def of(self, classnames: Sequence[str]) -> Prompts:
        """The same words around the names of other classes."""
        return Prompts(self.backbone, classnames, **self.words_around)

    def _count(self, text: str) -> int:
        """Tokens of a text, special ones and padding not counted: what it adds in front of a word."""
        with_it, without = (self.backbone.tokenize([s])["input_ids"][0] for s in (f"{text} X".strip(), "X"))
        return int((with_it != with_it[-1]).nonzero().max() - (without != without[-1]).nonzero().max())

    @torch.no_grad()
    def words(self) -> Tensor:
        """Word embeddings of the context as tokenised, ``(n, W)``: where words given by `init` start."""
        first = {name: value[:1] for name, value in self.tokens.items()}
        return self.backbone.words(first)[0, self.places[0].to(self.backbone.device)].clone()

    def start(self, std: float = 0.02) -> Tensor:
        """Where learning starts, ``(n, W)``: the words given by `init`, or normal noise."""
        return self.words() if self.init else std * torch.randn(self.n, self.backbone.width["text"])

    def encode(self, context: Tensor, deep: Mapping[int, Tensor] | None = None) -> Tensor:
        """Raw class embeddings under a context; gradients reach it.

        Where no gradient is wanted, the last answer is given again while the context stays equal to the last one.

        Args:
            context: ``(n, W)`` shared by all classes, ``(C, n, W)`` one for each, or B of these, ``(B, 1, n, W)`` or
                ``(B, C, n, W)``.
            deep: what replaces the context's tokens on entering a block, by the block's number: ``(n, W)`` or
                ``(C, n, W)``.

        Returns:
            ``(C, D)``, or ``(B, C, D)`` for B contexts.
        """
        classes, deep = len(self.places), deep or {}
        batch = context.shape[:1] if context.dim() == 4 else ()
        if not all(deep):
            raise ValueError("deep prompts must enter block 1 or a later one; got block 0, which the context enters")

        def encode(i: Tensor) -> Tensor:
            rows = i % classes
            words = context[i // classes, rows if context.shape[1] > 1 else 0] if batch else of_rows(context, rows)
            return self._encode(rows, words, {block: of_rows(prompt, rows) for block, prompt in deep.items()})

        def every(size: int) -> Tensor:
            return chunked(encode, everyone, size or len(everyone)).unflatten(0, (*batch, classes))

        everyone = torch.arange(classes * math.prod(batch))  # (B * C,)
        if any(point.tapped for name, point in self.backbone.points.items() if name.startswith("text")):
            return every(0)  # somebody's taps: gone by the backward pass, and unknown to `once`
        alone = context.shape[1] == 1 if batch else context.dim() == 2  # one context for all classes
        if alone and all(prompt.dim() == 2 for prompt in deep.values()) and (packs := self.packs()):
            every = partial(self._encode_packed, packs, context, deep)
        if torch.is_grad_enabled() and in_effect():
            return every(0)  # somebody's weights: gone by the backward pass
        # answers do not depend on how much memory is free: nothing is kept where no gradient is wanted
        given = torch.is_grad_enabled() or self.words_around["chunk"] != "auto"
        size = self.chunk if given else WHOLE_SENTENCES
        return self.once(lambda: every(size), context, *deep.values())

    def encode_each(self, contexts: Tensor) -> Tensor:
        """Raw class embeddings under each of B contexts: ``(B, n, W)`` to ``(B, C, D)``."""
        return self.encode(contexts[:, None])

    def _encode(self, rows: Tensor, context: Tensor, deep: Mapping[int, Tensor]) -> Tensor:
        taps: dict[str, Tap] = {"text.tokens": lambda _, words: self.splice(words, context, rows)}
        for block, prompt in deep.items():
            taps[f"text.block.{block - 1}"] = lambda _, out, prompt=prompt: self.splice(out, prompt, rows)  # type: ignore[misc]
        with self.backbone.taps(taps):
            return self.backbone.encode_text({name: value[rows] for name, value in self.tokens.items()})

    def packs(self) -> Packs | None:
        """The sentences in rows that hold their beginning once; none where the tower does not take such, or for few."""
        ids, most = self.tokens["input_ids"], self.words_around["chunk"]
        most = len(ids) if most == "auto" else most  # how much memory is free must not move the last digits
        if not self._packs and self.backbone.takes_packs and min(most, len(ids)) >= ALONE:
            ends = self.backbone.ends(ids)
            packs = Packs(ids, ends, self.places, self.backbone.width["text"], most)
            self._packs = (packs if packs.tokens < WORTH * len(ids) * int(ends.max() + 1) else None,)
        return self._packs[0] if self._packs else None

    def unpacked(self) -> Prompts:
        """A copy that lays its sentences out when it is asked to: what is saved."""
        other = copy.copy(self)
        other._packs = ()
        return other

    def _encode_packed(self, packs: Packs, context: Tensor, deep: Mapping[int, Tensor], size: int) -> Tensor:
        for prompt in (context, *deep.values()):
            self._hold(prompt)
        each = packs.whole if self.words_around["chunk"] == "auto" else int(packs.counts.max())
        return packs.encode(self.backbone, context, deep, size and max(1, size // each))

    def _hold(self, prompt: Tensor) -> None:
        if prompt.shape[-2] != self.n:
            raise ValueError(f"a context must have {self.n} words; got {prompt.shape[-2]}")

    def splice(self, words: Tensor, context: Tensor, rows: Tensor) -> Tensor:
        """Put a context, ``(P, n, W)``, in its place among the words of some classes, ``(P, L, W)``."""
        self._hold(context)
        places = self.places[rows].to(words.device)[..., None].expand(-1, -1, words.shape[-1])
        return words.scatter(1, places, context.to(words.dtype))


def placed_name(context: str, position: Position) -> str:
    """A context with ``{}`` where the class name stands, if it has none yet."""
    if "{}" in context:
        return context
    words = context.split()
    cut = {"end": len(words), "middle": len(words) // 2, "front": 0}[position]
    return " ".join([*words[:cut], "{}", *words[cut:]])


def image_prompts(prompts: Sequence[Tensor]) -> dict[str, Tap]:
    """Taps that give the image tower learned tokens, at the end of its sequence.

    Args:
        prompts: tokens entering block 0, 1, and on, each ``(n, W)``. The first get no position, and pass whatever the
            tower does to its tokens before block 0; each later one replaces what the block before made of its
            predecessor, and the last one's outputs stay to the end.
    """

    def enter(i: int) -> Tap:
        def tap(_: Tensor, tokens: Tensor) -> Tensor:
            kept = tokens[:, : tokens.shape[1] - len(prompts[i - 1])] if i else tokens
            return torch.cat([kept, prompts[i].expand(len(tokens), -1, -1).to(tokens.dtype)], 1)

        return tap

    return {f"image.block.{i - 1}" if i else "image.tokens": enter(i) for i in range(len(prompts))}


def of_rows(prompt: Tensor, rows: Tensor) -> Tensor:
    """One prompt, ``(n, W)``, for each of P rows, or the rows' own of ``(C, n, W)``: ``(P, n, W)``."""
    return prompt.expand(len(rows), -1, -1) if prompt.dim() == 2 else prompt[rows]
