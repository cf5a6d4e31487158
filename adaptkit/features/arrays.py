"""Rows that were given as arrays, perhaps of a file that is mapped: nothing is copied before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.features.given import Array, as_tensor, hold_finite
from adaptkit.features.needs import PIXELS, Need
from adaptkit.towers.backbone import Backbone


@dataclass
class Arrays:
    """Rows given as arrays, in their own precision till they are read; "" serves every name without one of its own.

    Attributes:
        arrays: by name, as long as each other; a file that is mapped stays so.
        backbone: that encodes pixels.
        looked: whether all rows were seen to be of finite numbers.
    """

    arrays: Mapping[str, Tensor]
    backbone: Backbone | None = None
    looked: bool = True

    @classmethod
    def of(cls, x: Array | Mapping[str, Array], role: str = "") -> Arrays:
        """Arrays as they were given, nothing copied and nothing read; see `Images.from_arrays`.

        Raises:
            ValueError: for shapes that no method reads, or arrays that are not of one length.
        """
        what = f"{role} features".strip()
        if isinstance(x, Mapping) and not x:
            raise ValueError(f"{what} must be given under at least one name; got an empty mapping")
        named = {n: as_tensor(a, f"{what} {n!r}") for n, a in x.items()} if isinstance(x, Mapping) else {}
        rows = cls(named or {"": as_tensor(x, what)}, looked=False)  # type: ignore[arg-type]
        for name, array in rows.arrays.items():
            if array.dim() < (1 if name else 2) or 0 in array.shape[1:]:
                shape = "(N, D), (N, V, D) or pixels, (N, 3, H, W)"
                raise ValueError(f"{what} must be {shape}; got shape {tuple(array.shape)}")
        for name, array in rows.arrays.items():
            if len(array) != (n := rows.count):
                raise ValueError(f"arrays must have as many rows, {n}, under every name; got {len(array)} for {name!r}")
        return rows

    @property
    def count(self) -> int:
        """Of rows."""
        return len(next(iter(self.arrays.values())))

    def block(self, index: Tensor, before: int) -> Arrays:
        """Some rows, held, and seen to be of finite numbers; `before` which came others."""
        held = {name: array[index] for name, array in self.arrays.items()}
        for name, rows in held.items():
            hold_finite(rows, f"query features {name!r}" if name else "query features", before)
        return Arrays(held, self.backbone)

    def check_width(self, width: int, role: str = "") -> None:
        """Features that serve every name must have the width of the class embeddings; those by name may differ."""
        rows = self.arrays.get("")
        if rows is not None and rows.dim() in (2, 3) and rows.shape[-1] != width:
            what, got = f"{role} features".strip(), f"{rows.shape[-1]}, of shape {tuple(rows.shape)}"
            raise ValueError(f"{what} must have the width of text, {width}; got {got}; or give them by name")

    def read(self, name: str, need: Need, index: Tensor) -> Tensor:
        """Rows as the need reads them: a need with views gets all that were given, one without gets the first."""
        if name not in self.arrays and "" not in self.arrays:
            raise ValueError(f"arrays must be given for every need, here {name!r}; got {sorted(self.arrays)}")
        rows = self.arrays.get(name, self.arrays.get(""))[index].float()  # type: ignore[index]
        dims = len(need.axes) + 1 + bool(need.views)
        rows_already = rows.dim() == dims and rows.shape[-1] != rows.shape[-2]  # of three views, or three blocks
        if need.visual and need.axes != PIXELS and rows.dim() >= 4 and rows.shape[-3] == 3 and not rows_already:
            rows = self.computed(need, rows)
        with_views = rows.dim() > len(need.axes) + 1
        if need.views and not with_views:
            rows = rows[:, None]
        if not need.views and with_views:
            rows = rows[:, 0]
        if rows.dim() != dims:
            shape, got = f"(N, {', '.join(need.axes)})", tuple(rows.shape)
            raise ValueError(f"arrays must be {shape} for {name!r}, {need}; got {got}")
        return need.read(rows)

    def computed(self, need: Need, pixels: Tensor) -> Tensor:
        """Rows of a need, ``(N, ...)`` or ``(N, V, ...)``, where pixels are what was given."""
        if self.backbone is None or not hasattr(self.backbone, "preprocess"):
            raise ValueError("pixels must come with a backbone; got none; pass backbone= to Task.from_arrays")
        dims = need.blank(self.backbone).dim()
        with torch.no_grad(), self.backbone.unaltered():
            return need.compute(self.backbone, pixels.flatten(0, -1 - dims)).unflatten(0, pixels.shape[:-dims])
