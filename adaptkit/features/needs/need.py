"""What a need is: one tensor per item, named by a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from adaptkit.io.errors import must_be
from adaptkit.io.ranges import Views, hold
from adaptkit.towers.preprocess import AUGMENTS, NO_AUGMENT

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone


HOW_READ = ("views", "plain_first", "fresh", "backbone", "of")  # not what a stored row is; digests say which
PIXELS = ("3", "H", "W")  # axes of one image as it enters the tower


@dataclass(frozen=True, kw_only=True)
class Need:
    """One tensor per item. Equal needs are the same tensor: computed once, shared by every method that asks.

    Attributes:
        views: 0 for the plain image; V for V views, which adds an axis: ``(N, V, ...)``.
        plain_first: the first of the V views is the plain image, and V - 1 are random.
        augment: how random views are drawn, a name in `adaptkit.towers.preprocess.AUGMENTS`; ``"none"`` draws none, and
            the one view is the plain image.
        fresh: draw the views anew at every reading, as most training scripts do, and never store them.
        backbone: "" for the task's own backbone, or another's name, e.g. ``"hf:facebook/dino-vitb16"``.
        of: "" for the item itself, or the name of a part, where items have parts; see `Composite`.
        stored: rows are kept on disk; what is not is computed at every reading.
        axes: of one row, as errors write them; as many as `shape` has.
        dtype: of stored rows; "" for what the setting says.
        batch: rows in one pass; 0 for what the setting says.
        visual: computed of pixels, which are decoded ahead, and which plugins' ``extract`` is offered first.

    Raises:
        ValueError: for an unknown `augment`, or a number of views that is no such number.

    >>> import adaptkit as ak
    >>> ak.Pooled(views=4) == ak.Pooled(views=4) != ak.Pooled()
    True
    >>> ak.Pooled(views=1, augment="none") == ak.Pooled(views=1, plain_first=True)
    True
    """

    views: int = 0
    plain_first: bool = False
    augment: str = "crop-flip"
    fresh: bool = False
    backbone: str = ""
    of: str = ""

    stored: ClassVar[bool] = True
    axes: ClassVar[tuple[str, ...]] = ("T", "D")
    dtype: ClassVar[str] = ""
    batch: ClassVar[int] = 0
    visual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.augment == NO_AUGMENT:
            self._be_plain()
        if self.augment not in AUGMENTS:
            raise ValueError(must_be("augment", (NO_AUGMENT, *AUGMENTS), self.augment))
        if self.views < (least := int(self.plain_first or self.fresh)):
            raise ValueError(f"views must be at least {least}; got {self.views}")
        hold(self.views or 1, Views, "views")

    def _be_plain(self) -> None:
        """Be the need that reads the plain image in place of its only view."""
        if self.views > 1:
            raise ValueError(f"views must be 1 with augment {NO_AUGMENT!r}, the plain image alone; got {self.views}")
        plain = {"plain_first": bool(self.views), "fresh": False, "augment": type(self).augment}
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def table(self, random: bool) -> Need:
        """The need whose rows are on disk: one view, unread. All readings and all counts of views share it."""
        return replace(self, views=int(random), plain_first=False, augment=self.augment if random else "crop-flip")

    def describe(self) -> dict[str, object]:
        """What determines the bytes of a stored row, for the table's key."""
        own = {name: value for name, value in asdict(self).items() if name not in HOW_READ}
        return {"need": f"{type(self).__module__}.{type(self).__qualname__}", **own}

    def made_with(self, backbone: Backbone) -> dict[str, object]:
        """What of the backbone determines what `prepare` and `collate` give, for the table's key."""
        return {"preprocess": backbone.preprocess.describe()}

    def prepare(self, item: Any, backbone: Backbone, view: int, seed: str) -> Any:  # noqa: ANN401 (an image to a tensor)
        """An item of a source as `compute` takes it: an image to ``(3, H, W)``, plain for view -1, else a random view.

        Args:
            item: what a source holds; here an image.
            backbone: whose preprocessing it gets.
            view: its number; -1 is the plain image.
            seed: what a random view is drawn from.
        """
        if not isinstance(item, Image.Image):
            raise ValueError(f"an item must be an image for {type(self).__name__}; got {type(item).__name__}")
        return backbone.preprocess(item) if view < 0 else backbone.preprocess.view(item, self.augment, seed)

    def collate(self, prepared: Sequence[Any], backbone: Backbone) -> Any:  # noqa: ANN401 (tensors to a tensor)
        """What `prepare` gave for B items as `compute` takes it, ``(B, ...)``."""
        return torch.stack(list(prepared))

    def blank(self, backbone: Backbone) -> Tensor:
        """What `prepare` gives, of nothing, ``(3, size, size)``: tells which plugin answers, and how wide rows are."""
        return torch.zeros(3, backbone.preprocess.size, backbone.preprocess.size)

    def compute(self, backbone: Backbone, pixels: Tensor) -> Tensor:
        """``(B, 3, H, W)`` pixels, or ``(B, ...)`` of what `prepare` gives, to ``(B, ...)`` rows as they are stored."""
        raise NotImplementedError

    def shape(self, backbone: Backbone) -> tuple[int, ...]:
        """Of one row as `compute` gives it, without the leading axis. A need that does not say it computes one row."""
        with torch.no_grad():
            return tuple(self.compute(backbone, self.blank(backbone)[None].to(backbone.device))[0].shape)

    def bytes(self, backbone: Backbone, dtype: str) -> int:
        """How many bytes one row takes where the setting stores rows as `dtype`, e.g. ``"float16"``."""
        return math.prod(self.shape(backbone)) * getattr(torch, self.dtype or dtype).itemsize

    def read(self, rows: Tensor) -> Tensor:
        """Stored rows, ``(N, ...)`` or ``(N, V, ...)``, as the method wants them."""
        return rows
