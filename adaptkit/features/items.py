"""Images as a method sees them: some rows, read through the cache or from arrays, one attribute per need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from adaptkit.features.ahead import Ahead
from adaptkit.features.arrays import Arrays as Arrays
from adaptkit.features.given import Array as Array
from adaptkit.features.given import hold_finite, whole_numbers
from adaptkit.features.needs import Need


class Source(Protocol):
    """Where images come from. ``key(i)`` must change whenever image ``i`` does: it is what the cache remembers."""

    @property
    def name(self) -> str:
        """As progress bars and tables show it."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """Class ids."""
        ...

    def __len__(self) -> int: ...
    def key(self, i: int) -> str:
        """Digest of everything that determines image ``i``."""
        ...

    def open(self, i: int) -> tuple[str, Any]:
        """The key and the item ``i`` (an image, decoded), both of the same bytes, which are read once."""
        ...


class Rows(Protocol):
    """What an `Images` reads from: the cache, or arrays in memory."""

    def read(self, name: str, need: Need, index: Tensor) -> Tensor:
        """One row per index, ``(N, ...)``."""
        ...


class Images:
    """Some images. Each need a method declares is an attribute: ``images.x`` is ``(N, ...)``, read when asked for.

    Attributes:
        labels: ``(N,)`` class ids, or ``None`` where a method must not see them; for other kinds than classification
            the `targets`, which are the same tensor.

    >>> import torch, adaptkit as ak
    >>> images = ak.Images.from_arrays(torch.randn(6, 4), labels=[0, 1, 2, 0, 1, 2])
    >>> images[images.labels < 2].bind({"x": ak.Pooled()}).x.shape
    torch.Size([4, 4])
    """

    part = 0, 0  # of a batch that several processes share: its length, and where these begin

    def __init__(
        self,
        rows: Rows,
        index: Tensor,
        labels: Tensor | None = None,
        needs: Mapping[str, Need] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows, self.index, self.labels, self.needs, self.device = rows, index, labels, dict(needs or {}), device
        if labels is not None:
            self.labels = labels.to(device)

    @property
    def targets(self) -> Tensor | None:
        """What an answer is compared with, N rows: for classification the labels; see `adaptkit.methods.evaluation`."""
        return self.labels

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Images:
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows).cpu()
            rows = rows if len(rows) else rows.long()
        labels = None if self.labels is None else self.labels[rows if isinstance(rows, slice) else rows.to(self.device)]
        return Images(self.rows, self.index[rows], labels, self.needs, self.device)

    def __getattr__(self, name: str) -> Tensor:
        needs = self.__dict__.get("needs", {})
        if name.startswith("__") or name not in needs:
            raise AttributeError(f"a feature must be one of the declared needs, {sorted(needs)}; got {name!r}")
        return self.rows.read(name, needs[name], self.index).to(self.device)

    def __repr__(self) -> str:
        return f"Images({len(self)}, needs={self.needs}, labelled={self.labels is not None})"

    def bind(self, needs: Mapping[str, Need]) -> Images:
        """The same images, read under other names."""
        return Images(self.rows, self.index, self.labels, needs, self.device)

    def blind(self) -> Images:
        """The same images without labels."""
        return Images(self.rows, self.index, None, self.needs, self.device)

    def label(self, labels: Tensor) -> Images:
        """The same images with these labels, ``(N,)``."""
        return Images(self.rows, self.index, labels, self.needs, self.device)

    def to(self, device: torch.device | str) -> Images:
        """The same images, read onto a device."""
        return Images(self.rows, self.index, self.labels, self.needs, device)

    def expect(self) -> list[Ahead]:
        """Let threads begin to decode these images, where they are stored nowhere: they are to be read next."""
        return [ahead for need in self.needs.values() if (ahead := expected(self.rows, need, self.index))]

    def fill(self) -> None:
        """Extract what several stored needs lack of these images, each image opened once for all that will be read."""
        wanted = dict.fromkeys(need for need in self.needs.values() if need.stored and not need.fresh)
        if len(wanted) > 1 and hasattr(self.rows, "fill"):
            self.rows.fill(wanted, self.index)

    def load(self) -> Images:
        """The same images with every stored need read into memory once: for loops that read them again and again."""
        wanted = {(n, need) for n, need in self.needs.items() if need.stored and not need.fresh}
        if isinstance(self.rows, InMemory) and wanted <= self.rows.held.keys() and self.rows.is_all(self.index):
            return self
        self.fill()
        held = {(name, need): getattr(self, name) for name, need in wanted}
        return Images(InMemory(held, self), torch.arange(len(self)), self.labels, self.needs, self.device)

    @classmethod
    def from_arrays(cls, x: Array | Mapping[str, Array], labels: Array | None = None, *, role: str = "") -> Images:
        """Images that exist as features only.

        Args:
            x: ``(N, D)`` features; ``(N, V, D)`` with views, of which the first also serves as the plain image;
                ``(N, 3, H, W)`` preprocessed pixels; or a mapping from the names a method reads to such arrays.
            labels: ``(N,)`` class ids, or whole numbers of another shape for other kinds than classification.
            role: what errors call these images, e.g. ``"support"``.

        Raises:
            ValueError: when arrays, or arrays and labels, are not of one length, or not of finite real numbers.
        """
        rows, what = Arrays.of(x, role), f"{role} features".strip()
        for name, array in rows.arrays.items():
            hold_finite(array, f"{what} {name!r}" if name else what)
        n = rows.count
        own = None if labels is None else whole_numbers(labels, f"{role} labels".strip())
        if own is not None and (not own.dim() or len(own) != n):
            got = len(own) if own.dim() else "one number"
            raise ValueError(f"{role} labels must be as many as the rows, {n}; got {got}".strip())
        rows.looked = True
        return cls(rows, torch.arange(n), own)


def expected(rows: Rows, need: Need, index: Tensor) -> Ahead | None:
    """What begins to be decoded where rows come from files, and are not held."""
    if isinstance(rows, InMemory):
        held = any(need == known for _, known in rows.held)
        return None if held else expected(rows.images.rows, need, rows.images.index[index])
    return rows.expect(need, index) if hasattr(rows, "expect") else None


@dataclass(frozen=True)
class InMemory:
    """Rows of some images, already read; what may not be held is read again from them."""

    held: Mapping[tuple[str, Need], Tensor]
    images: Images

    def is_all(self, index: Tensor) -> bool:
        """Whether an index is that of all the images, in their order."""
        return len(index) == len(self.images) and bool((index == torch.arange(len(index))).all())

    def read(self, name: str, need: Need, index: Tensor) -> Tensor:
        """Rows from memory."""
        rows = self.held.get((name, need))
        if rows is not None:
            return rows[index.to(rows.device)]
        return self.images.rows.read(name, need, self.images.index[index])
