"""What is asked of a caption: its embedding by the text tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.features.needs.need import Need
from adaptkit.towers.backbone import unit
from adaptkit.towers.sentences import by_token

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone, Tokens


@dataclass(frozen=True, kw_only=True)
class Sentence(Need):
    """Text embedding of a caption, ``(D,)`` per item, stored in single precision.

    Sentences are tokenised a batch at a time: a causal tower's batch ends with its longest sentence, a tokenizer pads
    as it was made to.

    Attributes:
        unit: scaled to unit norm, or as the tower gives it; one stored table serves both.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.Sentence().shape(task.backbone)
    (16,)
    """

    unit: bool = True

    axes: ClassVar[tuple[str, ...]] = ("D",)
    dtype: ClassVar[str] = "float32"
    batch: ClassVar[int] = 256
    visual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views:
            raise ValueError(f"views must be 0 for Sentence; got {self.views}")

    def table(self, random: bool) -> Need:
        """Raw embeddings are what is stored."""
        return replace(super().table(random), unit=False)  # type: ignore[call-arg]

    def made_with(self, backbone: Backbone) -> dict[str, object]:
        """The tokenizer."""
        return {"vocabulary": backbone.vocabulary}

    def prepare(self, item: Any, backbone: Backbone, view: int, seed: str) -> str:  # noqa: ANN401 (checked here)
        """The caption itself."""
        if not isinstance(item, str):
            raise ValueError(f"an item must be a caption for Sentence; got {type(item).__name__}")
        return item

    def collate(self, prepared: Sequence[str], backbone: Backbone) -> Tokens:
        """B captions to their tokens, ``(B, L)`` each."""
        return backbone.tokenize(prepared)

    def compute(self, backbone: Backbone, pixels: Tokens) -> Tensor:  # type: ignore[override]
        """Tokens to raw embeddings, ``(B, D)``."""
        return backbone.encode_text(pixels)

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(D,)``."""
        return (backbone.dim,)

    def read(self, rows: Tensor) -> Tensor:
        """Unit norm if asked for."""
        return unit(rows) if self.unit else rows


@dataclass(frozen=True, kw_only=True)
class SentenceTokens(Sentence):
    """Tokens of a caption in the joint space, ``(count, D)`` per item, zeros behind the last one.

    Each leaves the text tower as the one does that stands for the sentence: through the last norm and the projection.
    Of a longer caption the first tokens are kept and the last of these is the one that ends it.

    Attributes:
        count: of tokens, at most; those that a tokenizer puts around a sentence count, too.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.SentenceTokens(count=12).shape(task.backbone)
    (12, 16)
    """

    count: int = 32
    unit: bool = False

    axes: ClassVar[tuple[str, ...]] = ("L", "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count must be at least 1; got {self.count}")

    def compute(self, backbone: Backbone, pixels: Tokens) -> Tensor:  # type: ignore[override]
        """Tokens to their raw embeddings, ``(B, count, D)``."""
        whole, rows, ends = by_token(backbone, pixels)
        place = torch.arange(self.count, device=rows.device)
        rows = F.pad(rows, (0, 0, 0, max(0, self.count - rows.shape[1])))[:, : self.count]
        last = ends.clamp_max(self.count - 1)[:, None]
        rows = torch.where((place == last)[..., None], whole[:, None], rows)
        return rows * (place <= last)[..., None]

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(count, D)``."""
        return (self.count, backbone.dim)


@dataclass(frozen=True, kw_only=True)
class SentenceIds(Sentence):
    """Numbers of a caption's tokens, ``(count,)`` per item, for methods that tune the text tower.

    -1 stands behind the token at which the tower reads the caption: how far a tokenizer pads it depends on the others
    that it is given at once.

    Attributes:
        count: of tokens, at most.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.SentenceIds(count=12).shape(task.backbone)
    (12,)
    """

    count: int = 77
    unit: bool = False

    axes: ClassVar[tuple[str, ...]] = ("L",)

    def compute(self, backbone: Backbone, pixels: Tokens) -> Tensor:  # type: ignore[override]
        """Tokens to their numbers, ``(B, count)``."""
        if more := sorted(pixels.keys() - {"input_ids"}):
            raise ValueError(f"a tokenizer must give numbers alone for SentenceIds; got {', '.join(more)} as well")
        ids = pixels["input_ids"]
        ends = backbone.ends(ids).to(ids.device) % ids.shape[1]
        if (most := int(ends.max()) + 1) > self.count:
            raise ValueError(f"count must be at least the tokens of a caption, {most}; got {self.count}; raise it")
        ids = ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) > ends[:, None], -1)
        return F.pad(ids, (0, max(0, self.count - ids.shape[1])), value=-1)[:, : self.count].float()

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """``(count,)``."""
        return (self.count,)

    def read(self, rows: Tensor) -> Tensor:
        """Whole numbers."""
        return rows.long()
