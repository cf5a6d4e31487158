"""A frozen two-tower backbone: one way in (encode), and two to interfere (points, which are tapped, and weights)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.towers import threads
from adaptkit.towers.points import Point, Tap, as_points
from adaptkit.towers.preprocess import Preprocess
from adaptkit.towers.weights import Slot, at_slots, cast_once, ensure_finite, find_slot, find_slots, swapped, unswapped

Tokens = Mapping[str, Tensor]


class Backbone:
    """Frozen image and text towers that share a space.

    Deliberately not an `nn.Module`: a method may keep a reference without the backbone's weights entering its
    `parameters()`, its `state_dict()` or its `deepcopy`. A subclass sets the attributes and writes `tokenize`,
    `image` and `text`.

    Attributes:
        model: holds every weight; frozen, in evaluation mode.
        preprocess: how the image tower wants its images.
        points: where the towers can be tapped; a subclass may give modules. Always ``text.tokens`` (word embeddings,
            ``(P, L, W)``) and ``text.block.I``; with a transformer image tower also ``image.tokens`` (``(B, T, W)``,
            positions added, class token first) and ``image.block.I``. Blocks count from 0 and, negative, from the end.
            Their linear maps are ``text.block.I.q``, ``.k``, ``.v``, ``.out``, ``.fc1`` and ``.fc2``, their norms
            ``.norm1`` and ``.norm2``. Where there are any: ``image.projection`` and ``text.projection`` to the joint
            space, ``image.norm`` and ``text.norm`` behind the last block, ``image.prenorm`` before the first,
            ``image.head`` that pools, and ``text.positions``.
        dim: width D of the joint space.
        width: width W of each tower's tokens, by ``"image"`` and ``"text"``.
        pooled_width: of what the image tower pools, before the projection; 0 where it is that of its tokens.
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
    dim: int
    width: dict[str, int]
    depth: dict[str, int]
    pooled_width: int = 0
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    vocabulary: str = ""
    prefix: int = 1
    takes_packs: bool = False  # whether `text` takes rows of sentences that share a beginning; see `Packs`

    _points: Mapping[str, Point] = MappingProxyType({})
    _slots: Mapping[str, Slot] | None = None

    @property
    def points(self) -> Mapping[str, Point]:
        """Where the towers can be tapped."""
        return self._points

    @points.setter
    def points(self, given: Mapping[str, Point | nn.Module]) -> None:
        self._points, self._slots = as_points(given), None

    def freeze(self) -> None:
        """Freeze the weights, all finite, and take their digest: the last line of a subclass's constructor."""
        self.model.eval().requires_grad_(False)
        ensure_finite(self.model)
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

    def ends(self, ids: Tensor) -> Tensor:
        """Where each of P sentences is read, ``(P,)``, by token ids ``(P, L)``; -1 is the last token.

        Raises:
            ValueError: when the tower reads a sentence in another way.
        """
        raise ValueError(f"the text tower must read a sentence at one token; got {type(self).__name__}; choose another")

    def encode_image(self, pixels: Tensor, *, project: bool = True) -> Tensor:
        """``(B, 3, H, W)`` preprocessed pixels to raw embeddings, ``(B, D)``; gradients pass."""
        threads.tower()
        with cast_once(self.slots(), self.device):
            return self.image(pixels.to(self.device), project)

    def encode_text(self, text: Sequence[str] | Tokens) -> Tensor:
        """P sentences, or their tokens, to raw embeddings, ``(P, D)``; gradients pass through taps."""
        threads.tower()
        tokens = text if isinstance(text, Mapping) else self.tokenize(text)
        with cast_once(self.slots(), self.device):
            return self.text({name: value.to(self.device) for name, value in tokens.items()})

    def logits(self, x: Tensor, text: Tensor) -> Tensor:
        """Unit-norm images ``(B, D)``, or ``(B, V, D)``, and classes ``(C, D)`` or ``(B, C, D)`` to ``(B, ..., C)``."""
        x = self.logit_scale * x  # scaled before the product, as the papers' code does: the same rounding
        one_each = text.dim() == 3 and x.dim() == 2
        out = torch.einsum("bd,bcd->bc", x, text) if one_each else x @ text.mT
        return out + self.logit_bias if self.logit_bias else out

    def words(self, tokens: Tokens) -> Tensor:
        """Word embeddings of tokenised sentences, ``(P, L, W)``, before positions are added."""
        return self.points["text.tokens"](tokens["input_ids"].to(self.device))

    @contextlib.contextmanager
    def taps(self, fns: Mapping[str, Tap]) -> Iterator[None]:
        """Rewrite what leaves named points of the towers, inside a ``with`` block only.

        Each tap gets a point's ``(input, output)`` and returns the output to use; see `Point.attach`.

        Raises:
            ValueError: for a point that this backbone does not have, with those it has.
        """
        for name in fns:
            if name not in self.points:
                raise ValueError(f"a tap point must be one of {', '.join(self.points)}; got {name!r}")
        with contextlib.ExitStack() as stack:
            for name, fn in fns.items():
                stack.enter_context(self.points[name].attach(fn))
            yield

    def weight_names(self) -> list[str]:
        """Names of all weights, in the model's order, e.g. ``image.block.0.q.weight``, ``text.norm.bias``.

        A point's weights have its name and ``.weight``, ``.bias`` or what they are called inside it; all others
        ``model.`` and their name in the model. The factor from cosine to logit is a number, and not among them.
        """
        return [*self.slots()]

    def weight(self, name: str) -> Tensor:
        """The weight in effect, as it is in memory; clone it to start from it. ``.weight`` may be left out."""
        return self._slot(name).get().detach()

    @contextlib.contextmanager
    def weights(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Compute with other weights inside a ``with`` block only; gradients reach them, and the model stays frozen.

        Blocks may be nested; then the inner one's weights are in effect. What the cache computes meanwhile, it computes
        with the frozen ones. A backward pass may come after the block, unless it computes a part again.

        Args:
            values: by name, as in `weight_names`; ``.weight`` may be left out, and ``block.-1`` is the last.

        Raises:
            ValueError: for an unknown name, a weight given twice, and what is no tensor of its shape, type and device.
        """
        with swapped(at_slots(values, self._slot)):
            yield

    @contextlib.contextmanager
    def unaltered(self) -> Iterator[None]:
        """Compute with the frozen weights, whatever is swapped in around: for what is kept beyond the block."""
        with swapped(unswapped()):
            yield

    def slots(self) -> Mapping[str, Slot]:
        """The places of all weights, by name."""
        if self._slots is None:
            self._slots = find_slots(self.points, self.model) if hasattr(self, "model") else {}
        return self._slots

    def _slot(self, name: str) -> Slot:
        return find_slot(name, self.slots(), getattr(self, "depth", {}))

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

    Where no gradient is asked for, rows that have it up to rounding, eight times the smallest step of their type at 1,
    stay as they are, bit for bit; so what was scaled once is not scaled again. Rows of zeros stay.

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
    rounding = min(8 * torch.finfo(x.dtype).eps, 1e-3)  # of half precision, only rows whose norm is 1
    return x / norm.clamp_min(1e-12).masked_fill((norm - 1).abs() <= rounding, 1)  # divided by one, nothing changes
