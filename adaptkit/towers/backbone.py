"""A frozen two-tower backbone: one way in (encode), and one way to interfere (taps)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.towers import threads
from adaptkit.towers.preprocess import Preprocess

Tap = Callable[[Tensor, Tensor], Tensor]
Tokens = Mapping[str, Tensor]


class Backbone:
    """Frozen image and text towers that share a space.

    Deliberately not an `nn.Module`: a method may keep a reference without the backbone's weights entering its
    `parameters()`, its `state_dict()` or its `deepcopy`. A subclass sets the attributes and writes `tokenize`,
    `image` and `text`.

    Attributes:
        model: holds every weight; frozen, in evaluation mode.
        preprocess: how the image tower wants its images.
        points: modules that can be tapped. Always ``text.tokens`` (word embeddings, ``(P, L, W)``) and
            ``text.block.I``; with a transformer image tower also ``image.tokens`` (``(B, T, W)``, positions added,
            class token first) and ``image.block.I``. Blocks count from 0 and, negative, from the end. Their linear maps
            are ``text.block.I.q``, ``.k``, ``.v``, ``.out``, ``.fc1`` and ``.fc2``.
        dim: width D of the joint space.
        width: width W of each tower's tokens, by ``"image"`` and ``"text"``.
        depth: number of blocks of each tower.
        logit_scale: factor from cosine to logit, as the checkpoint was trained.
        logit_bias: added to every logit (SigLIP); 0 elsewhere.
        vocabulary: digest of the tokenizer, part of the key of stored sentences.
        prefix: special tokens in front of a sentence's first word; 1 for CLIP's start-of-text, 0 for SigLIP.

    >>> import torch, adaptkit as ak
    >>> backbone = ak.load("toy", backbone="toy:0", shots=2, seed=1)[0].backbone
    >>> x = ak.unit(backbone.encode_image(torch.zeros(3, 3, 32, 32)))  # (B, D)
    >>> text = ak.unit(backbone.encode_text(["a photo of a cat.", "a photo of a dog."]))  # (C, D)
    >>> backbone.logits(x, text).shape
    torch.Size([3, 2])
    """

    model: nn.Module
    preprocess: Preprocess
    points: dict[str, nn.Module]
    dim: int
    width: dict[str, int]
    depth: dict[str, int]
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    vocabulary: str = ""
    prefix: int = 1

    def freeze(self) -> None:
        """Freeze the weights and take their digest: the last line of a subclass's constructor."""
        self.model.eval().requires_grad_(False)
        self.fingerprint = self.digest()

    def __deepcopy__(self, memo: dict) -> Backbone:
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> Backbone:
        """Move the weights."""
        self.model.to(device)
        return self

    def tokenize(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """P sentences to tokens: a mapping of ``(P, L)`` tensors, ``input_ids`` among them, on the CPU."""
        raise NotImplementedError

    def image(self, pixels: Tensor, project: bool) -> Tensor:
        """``(B, 3, H, W)`` to raw embeddings, ``(B, D)``, or ``(B, W)`` before the projection."""
        raise NotImplementedError

    def text(self, tokens: Tokens) -> Tensor:
        """Tokens of P sentences to raw embeddings, ``(P, D)``."""
        raise NotImplementedError

    def encode_image(self, pixels: Tensor, *, project: bool = True) -> Tensor:
        """``(B, 3, H, W)`` preprocessed pixels to raw embeddings, ``(B, D)``; gradients pass."""
        threads.tower()
        return self.image(pixels.to(self.device), project)

    def encode_text(self, text: Sequence[str] | Tokens) -> Tensor:
        """P sentences, or their tokens, to raw embeddings, ``(P, D)``; gradients pass through taps."""
        threads.tower()
        tokens = text if isinstance(text, Mapping) else self.tokenize(text)
        return self.text({name: value.to(self.device) for name, value in tokens.items()})

    def logits(self, x: Tensor, text: Tensor) -> Tensor:
        """Image embeddings ``(B, D)`` and class embeddings ``(C, D)`` or ``(B, C, D)``, unit-norm, to ``(B, C)``."""
        x = self.logit_scale * x  # scaled before the product, as the papers' code does: the same rounding
        out = x @ text.T if text.dim() == 2 else torch.einsum("bd,bcd->bc", x, text)
        return out + self.logit_bias if self.logit_bias else out

    def words(self, tokens: Tokens) -> Tensor:
        """Word embeddings of tokenised sentences, ``(P, L, W)``, before positions are added."""
        return self.points["text.tokens"](tokens["input_ids"].to(self.device))

    @contextlib.contextmanager
    def taps(self, fns: Mapping[str, Tap]) -> Iterator[None]:
        """Rewrite what leaves named points of the towers, inside a ``with`` block only.

        Each tap gets a point's ``(input, output)`` and returns the output to use; it runs after the module.

        Raises:
            ValueError: for a point that this backbone does not have, with those it has.
        """
        for name in fns:
            if name not in self.points:
                raise ValueError(f"a tap point must be one of {', '.join(self.points)}; got {name!r}")
        handles = [
            self.points[name].register_forward_hook(lambda _m, args, out, fn=fn: fn(args[0], out))
            for name, fn in fns.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def require(self, *points: str) -> None:
        """Say at once, not after an hour, that a tower lacks what a method taps.

        Raises:
            ValueError: naming the first missing point.
        """
        for name in points:
            if name not in self.points:
                raise ValueError(
                    f"the backbone must have tap point {name!r} for this method; got {type(self).__name__}, which "
                    "has none; choose a backbone with transformer towers, e.g. hf:openai/clip-vit-base-patch16"
                )

    def architecture(self) -> str:
        """What the weights do not say: layers, activations, and whatever else a subclass knows."""
        return repr(self.model)

    def digest(self) -> str:
        """Digest of architecture and weights: equal before and after any method, or it has broken the rule."""
        digest = hashlib.sha256(self.architecture().encode())
        for name, p in sorted(self.model.state_dict().items()):
            digest.update(f"{name}{p.dtype}{tuple(p.shape)}".encode())
            digest.update(p.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to unit norm.

    Where no gradient is asked for, rows that have it up to rounding stay as they are, bit for bit. Rows of zeros stay.

    Args:
        x: ``(..., D)``.

    >>> import torch, adaptkit as ak
    >>> ak.unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if x.requires_grad:
        return F.normalize(x, dim=-1)
    norm = x.norm(dim=-1, keepdim=True)
    return x / norm.clamp_min(1e-12).masked_fill((norm - 1).abs() < 1e-6, 1)  # what is divided by one does not change
