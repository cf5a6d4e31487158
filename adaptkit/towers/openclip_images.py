"""Image towers of OpenCLIP, taken apart so that they can be entered: its ViT, its ResNet, and those of `timm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.towers.attention import attended, split_attention
from adaptkit.towers.clip import named_blocks
from adaptkit.towers.timm_points import trunk_points

BLOCK_NAMES = {
    "attn.q": "q",
    "attn.k": "k",
    "attn.v": "v",
    "attn.out": "out",
    "attn.out_proj": "out",
    "mlp.c_fc": "fc1",
    "mlp.c_proj": "fc2",
    "ln_1": "norm1",
    "ln_2": "norm2",
}
"""Parts of a block of OpenCLIP's, and the ends of their points' names."""


class ImageTower(nn.Module):
    """Pixels ``(B, 3, H, W)`` to what is pooled, ``(B, W)``, and from there to the joint space, ``(B, D)``.

    Attributes:
        projection: into the joint space; an `nn.Identity` where what is pooled lies there already.
        depth: number of transformer blocks; 0 for a convolutional tower.
        width: of tokens.
        pooled_width: of what is pooled.
        dim: of the joint space.
    """

    projection: nn.Module
    depth: int = 0
    width: int
    pooled_width: int
    dim: int

    def pooled(self, pixels: Tensor) -> Tensor:
        """Before the projection, ``(B, W)``."""
        raise NotImplementedError

    def points(self) -> dict[str, nn.Module]:
        """Modules by the names of their points."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, project: bool = True) -> Tensor:
        """Raw embeddings."""
        x = self.pooled(pixels)
        return self.projection(x) if project else x


class Embeddings(nn.Module):
    """Patches of pixels as tokens, the class token first, positions added: ``(B, T, W)``."""

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        self.patches, self.first, self.positions = visual.conv1, visual.class_embedding, visual.positional_embedding

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens."""
        patches = self.patches(pixels).flatten(2).mT  # (B, P, W)
        return torch.cat([self.first.to(patches.dtype).expand(len(patches), 1, -1), patches], 1) + self.positions


class TransformerTower(ImageTower):
    """OpenCLIP's `VisionTransformer`, CoCa's attentional pool included."""

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        if getattr(visual, "attn_pool_contrastive", None) is not None or visual.pool_type not in ("tok", "avg"):
            raise ValueError(f"pool_type of a tower must be 'tok' or 'avg'; got {visual.pool_type!r}")
        self.tokens, self.prenorm, self.norm = Embeddings(visual), visual.ln_pre, visual.ln_post
        self.blocks, self.head = split_attention(visual.transformer.resblocks), visual.attn_pool
        self.mean, self.norm_last = visual.pool_type == "avg", visual.final_ln_after_pool or visual.pool_type == "tok"
        self.projection, self.depth = linear(visual.proj), len(visual.transformer.resblocks)
        self.width, (self.pooled_width, self.dim) = len(visual.class_embedding), visual.proj.shape

    def pooled(self, pixels: Tensor) -> Tensor:
        """The class token's, or a mean over patches."""
        x = self.prenorm(self.tokens(pixels))
        for block in self.blocks.children():
            x = block(x)
        x = x if self.head is None else self.head(x)
        x = x if self.norm_last else self.norm(x)
        x = x[:, 0] if not self.mean else x[:, min(1, x.shape[1] - 1) :].mean(1)  # of a token alone, itself
        return self.norm(x) if self.norm_last else x

    def points(self) -> dict[str, nn.Module]:
        """All that a transformer has."""
        named = {"tokens": self.tokens, "prenorm": self.prenorm, "norm": self.norm, "projection": self.projection}
        named |= {} if self.head is None else {"head": self.head}
        if isinstance(self.prenorm, nn.Identity):
            del named["prenorm"]
        if self.pooled_width != self.width:  # CoCa's norm reads no tokens
            del named["norm"]
        points = {f"image.{name}": module for name, module in named.items()}
        return {**points, **named_blocks("image", [*self.blocks.children()], BLOCK_NAMES)}

    def extra_repr(self) -> str:
        """How tokens are pooled."""
        return f"mean={self.mean}, norm_last={self.norm_last}"


class PoolTokens(nn.Module):
    """A map of features as tokens, their mean first, positions added: ``(B, W, h, w)`` to ``(B, T, W)``."""

    def __init__(self, positions: nn.Parameter) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, row by row."""
        x = x.flatten(2).mT  # (B, h * w, W)
        return torch.cat([x.mean(1, keepdim=True), x], 1) + self.positions


class AttentionPool(nn.Module):
    """What the first token finds by attention over all: ``(B, T, W)`` to ``(B, W)``."""

    def __init__(self, pool: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        self.q, self.k, self.v, self.heads = pool.q_proj, pool.k_proj, pool.v_proj, pool.num_heads

    def forward(self, x: Tensor) -> Tensor:
        """Of the first token."""
        return self.of(x[:, :1], x)[:, 0]

    def every(self, x: Tensor) -> Tensor:
        """Of each token, ``(B, T, W)``."""
        return self.of(x, x)

    def of(self, asking: Tensor, x: Tensor) -> Tensor:
        """Of some tokens, among all."""
        return attended(self.q(asking), self.k(x), self.v(x), self.heads)

    def extra_repr(self) -> str:
        """Heads, which no weight tells."""
        return f"heads={self.heads}"


class ResNetTower(ImageTower):
    """OpenCLIP's `ModifiedResNet`: convolutions, then attention that pools.

    There are no blocks to enter. ``image.block.-1`` stands for the tokens that enter the pool: one alone passes it by
    its value, which is MaskCLIP's way to dense features.
    """

    def __init__(self, visual: Any) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        pool, visual.attnpool = visual.attnpool, nn.Identity()
        self.trunk, self.tokens, self.head = visual, PoolTokens(pool.positional_embedding), AttentionPool(pool)
        self.projection = pool.c_proj
        self.width = self.pooled_width = pool.c_proj.in_features
        self.dim = pool.c_proj.out_features

    def pooled(self, pixels: Tensor) -> Tensor:
        """By attention of the mean over all places."""
        return self.head(self.tokens(self.trunk(pixels)))

    def points(self) -> dict[str, nn.Module]:
        """The tokens, the pool and the projection."""
        return {"image.block.-1": self.tokens, "image.head": self.head, "image.projection": self.projection}


class TimmTower(ImageTower):
    """OpenCLIP's `TimmModel`: a tower of `timm`, and what OpenCLIP puts behind it."""

    def __init__(self, visual: Any, dim: int) -> None:  # noqa: ANN401 (OpenCLIP's own)
        super().__init__()
        self.trunk, head, self.dim = visual.trunk, visual.head, dim
        own, last = self.trunk.get_classifier(), getattr(head, "proj", None)
        if not len(head) and isinstance(own, nn.Linear):  # the trunk's classifier stands in for a projection
            put(self.trunk, own, nn.Identity())
            last = own
        self.projection = last if isinstance(last, nn.Linear) else head
        self.pools = "pool" not in dict(head.named_children())
        if isinstance(last, nn.Linear):
            self.pooled_width = last.in_features
        else:
            self.pooled_width = self.trunk.num_features if len(head) and self.pools else dim
        self.depth = len(self.trunk.blocks) if "image.block.0" in trunk_points(self.trunk) else 0
        self.width = self.trunk.embed_dim if self.depth else self.pooled_width

    def pooled(self, pixels: Tensor) -> Tensor:
        """By the tower's own head."""
        return pooled_by(self.trunk, pixels)

    def forward(self, pixels: Tensor, project: bool = True) -> Tensor:
        """Raw embeddings; where the projection pools, too, there is nothing before it."""
        x = self.pooled(pixels)
        return self.projection(x) if project or not self.pools else x

    def points(self) -> dict[str, nn.Module]:
        """Those of the trunk."""
        own = {"image.projection": self.projection} if isinstance(self.projection, nn.Linear) else {}
        return {**trunk_points(self.trunk), **own}


def pooled_by(trunk: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 (timm's own)
    """What a tower of `timm` pools; tokens that a tap left alone count as if they filled the sequence."""
    x = trunk.forward_features(pixels)
    if x.dim() == 3 and x.shape[1] == 1:
        x = x.expand(-1, 1 + getattr(trunk, "num_prefix_tokens", 0), -1)  # pools may skip what comes before patches
    return trunk.forward_head(x)


def linear(matrix: Tensor) -> nn.Linear:
    """The map that multiplies by a matrix ``(W, D)`` from the right."""
    made = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
    made.weight.data = matrix.detach().mT.contiguous()
    return made


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """A module in the place of another, wherever it is."""
    for parent in [*model.modules()]:
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def image_tower(visual: Any, dim: int) -> ImageTower:  # noqa: ANN401 (OpenCLIP's own)
    """The tower of a model of OpenCLIP, taken apart in place."""
    if hasattr(visual, "trunk"):
        return TimmTower(visual, dim)
    return ResNetTower(visual) if hasattr(visual, "attnpool") else TransformerTower(visual)
