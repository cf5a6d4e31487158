"""Text towers of OpenCLIP, taken apart so that they can be entered, and its tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.io.files import canonical, digest
from adaptkit.towers.attention import SplitAttention, split_attention
from adaptkit.towers.clip import block_points, named_blocks
from adaptkit.towers.openclip_images import BLOCK_NAMES, linear

ENCODER = {"query": "q", "key": "k", "value": "v", "attention.output.dense": "out"}
ENCODER |= {"intermediate.dense": "fc1", "output.dense": "fc2"}  # as `transformers` calls them in BERT and its kin
POOLS = ("argmax", "eos", "last", "first")
PROBE = "a photo of a cat."


class TextTower(nn.Module):
    """OpenCLIP's `TextTransformer`, or what its `CLIP` has of one.

    Attributes:
        trims: what follows end-of-text reaches nothing, so that rows may end there.
        width: W of tokens.
        depth: number of blocks.
    """

    def __init__(self, text: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        self.pool = getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax"))
        if self.pool not in POOLS:
            raise ValueError(f"pool_type of the text tower must be one of {', '.join(POOLS)}; got {self.pool!r}")
        self.end: Any = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
        self.tokens, self.norm = text.token_embedding, text.ln_final
        self.blocks = split_attention(text.transformer.resblocks)
        self.positions = nn.Embedding.from_pretrained(text.positional_embedding.detach())
        self.last: nn.Parameter | None = getattr(text, "cls_emb", None)  # CoCa reads a token behind the sentence
        self.pad, self.later = getattr(text, "pad_id", 0), not getattr(text, "correct_cls_mask", False)
        self.causal, made = text.attn_mask is not None, text.text_projection
        self.projection = made if isinstance(made, nn.Module) else nn.Identity() if made is None else linear(made)
        self.width, self.depth = self.positions.embedding_dim, len(text.transformer.resblocks)
        self.trims = self.causal and self.last is None and self.pool in ("argmax", "eos")

    def ends(self, ids: Tensor) -> Tensor:
        """Position of what is read of each sentence, ``(P,)``."""
        if self.last is not None or self.pool in ("last", "first"):
            return torch.full(ids.shape[:1], -1 if self.pool != "first" else 0, device=ids.device)
        return ids.argmax(-1) if self.pool == "argmax" else ids.eq(self.end).int().argmax(-1)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids ``(P, L)`` to raw embeddings, ``(P, D)``."""
        x = self.tokens(ids)  # (P, L, W)
        if self.last is not None:
            x = torch.cat([x, self.last.to(x.dtype).expand(len(x), 1, -1)], 1)
        x = x + self.positions(torch.arange(ids.shape[1] + (self.last is not None), device=ids.device)[None])
        x = self.through(x, self.mask(x, ids))
        return self.projection(self.norm(x[torch.arange(len(x), device=x.device), self.ends(ids)]))

    def through(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens through all blocks, under a mask that is added to scores."""
        for block in self.blocks.children():
            if mask is not None and mask.dim() == 2 and len(mask) != x.shape[1]:  # a tap added tokens, or took them
                mask = later_hidden(x)
            x = block(x, attn_mask=mask)
        return x

    def mask(self, x: Tensor, ids: Tensor) -> Tensor | None:
        """What hides later tokens and, from the token behind the sentence, padding: as trained, one place off."""
        mask = later_hidden(x) if self.causal else None
        if self.last is None:
            return mask
        real, always = ids != self.pad, ids.new_ones(len(ids), 1, dtype=torch.bool)
        seen = torch.cat([always, real] if self.later else [real, always], 1)  # (P, L + 1)
        hidden = x.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None, None]
        return hidden if mask is None else mask + hidden

    def packed(self, tokens: Any) -> Tensor:  # noqa: ANN401 (see `PackedRows`)
        """Raw embeddings of rows as `adaptkit.towers.packing` makes them, ``(P, D)``."""
        x = self.tokens(tokens["input_ids"]) + self.positions(tokens["position_ids"])
        mask = x.new_zeros(tokens["attention_mask"].shape).masked_fill(~tokens["attention_mask"], float("-inf"))
        return self.projection(self.norm(self.through(x, mask).flatten(0, 1)[tokens["ends"]]))

    @property
    def takes_packs(self) -> bool:
        """Where each token sees what its mask says, and nothing else."""
        return self.trims and all(isinstance(block.attn, SplitAttention) for block in self.blocks.children())

    def points(self) -> dict[str, nn.Module]:
        """All but positions where another token follows the sentence, as no token can be added there."""
        points = {"text.tokens": self.tokens, "text.norm": self.norm, "text.projection": self.projection}
        points |= {} if self.last is not None else {"text.positions": self.positions}
        if isinstance(self.projection, nn.Identity):
            del points["text.projection"]
        return {**points, **named_blocks("text", [*self.blocks.children()], BLOCK_NAMES)}

    def extra_repr(self) -> str:
        """What no weight tells."""
        return f"pool={self.pool!r}, end={self.end}, causal={self.causal}, pad={self.pad}, later={self.later}"


class EncoderTower(nn.Module):
    """OpenCLIP's `HFTextEncoder`: a text encoder of `transformers`, which reads padding by its number."""

    trims = takes_packs = False

    def __init__(self, text: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        self.model, config = text, text.config
        text.output_tokens = False
        self.layers = next((m for m in text.modules() if isinstance(m, nn.ModuleList)), nn.ModuleList())
        self.width = int(text.transformer.get_input_embeddings().embedding_dim)
        self.depth, self.pad = len(self.layers), config.pad_token_id

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids ``(P, L)`` to raw embeddings, ``(P, D)``."""
        return self.model(ids)

    def points(self) -> dict[str, nn.Module]:
        """Words and blocks."""
        words = self.model.transformer.get_input_embeddings()
        return {"text.tokens": words, **block_points("text", self.layers, ENCODER)}  # type: ignore[arg-type]


class OpenWords:
    """A tokenizer of OpenCLIP: rows of full length, or as long as the longest where the tower reads nothing after it.

    Attributes:
        vocabulary: digest of all that determines the tokens.
        prefix: special tokens in front of a sentence's first word.
    """

    def __init__(self, tokenizer: Any, tower: TextTower | EncoderTower, rows: int) -> None:  # noqa: ANN401
        """Take a tokenizer.

        Args:
            tokenizer: of OpenCLIP.
            tower: that reads its tokens.
            rows: how many tokens it knows.

        Raises:
            ValueError: when a sentence would be read elsewhere than at its end.
        """
        self.tokenizer, self.tower, self.rows = tokenizer, tower, rows
        tokenizer.reduction_fn = None  # long sentences are cut, not thinned out at random
        own = getattr(tokenizer, "tokenizer", None)  # of `transformers`
        special = own.all_special_ids if own is not None else tokenizer.all_special_ids
        first = tokenizer([PROBE])[0].tolist()
        self.prefix = next((i for i, token in enumerate(first) if token not in special), 0)
        clean = f"{tokenizer.clean_fn.__name__}, {tokenizer.context_length}, {getattr(tokenizer, 'strip_sep_token', 0)}"
        backend = getattr(own, "backend_tokenizer", None)
        said = self._words(own) if backend is None else backend.to_str()
        self.vocabulary = digest(canonical({"clean": clean, "rules": digest(said.encode())}))
        if isinstance(tower, TextTower) and tower.trims:
            end = int(tower.ends(torch.tensor([first])))
            if first[end] not in special or len({*first[end + 1 :]}) > 1:
                raise ValueError(f"a sentence must close where the text tower is read; got place {end} of {first[:12]}")

    def _words(self, own: Any) -> str:  # noqa: ANN401 (of transformers, or none)
        known = self.tokenizer.encoder if own is None else own.get_vocab()
        return repr([sorted(known.items()), [*getattr(self.tokenizer, "bpe_ranks", {})]])

    def __call__(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """P sentences to ``input_ids``, ``(P, L)``.

        Raises:
            ValueError: for a token that the tower has no embedding for.
        """
        ids = self.tokenizer([*sentences])
        if ids.numel() and int(ids.max()) >= self.rows:
            raise ValueError(
                f"a token must be one of the {self.rows} that the text tower knows; got number {int(ids.max())}; take "
                "the tokenizer that the weights were trained with"
            )
        if isinstance(self.tower, TextTower) and self.tower.trims and len(ids):
            ids = ids[:, : int(self.tower.ends(ids).max()) + 1]
        return {"input_ids": ids}


def later_hidden(x: Tensor) -> Tensor:
    """What is added to scores so that no token of ``(P, L, W)`` sees a later one, ``(L, L)``."""
    return x.new_full((x.shape[1], x.shape[1]), float("-inf")).triu(1)


def text_tower(model: Any) -> TextTower | EncoderTower:  # noqa: ANN401 (OpenCLIP's own)
    """The tower of a model of OpenCLIP, taken apart in place."""
    text = getattr(model, "text", model)
    return EncoderTower(text) if hasattr(text, "pooler") else TextTower(text)
