"""Maps of a saved classifier as pictures, beside the table of ``adaptkit predict``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.io.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from adaptkit.saving.classifier import Classifier


class MapFiles:
    """A folder of maps, 8 bits of grey each: black is the least number in maps of the test images, white the largest.

    Where no test images were known when the classifier was saved, the first maps that are written say what these are.

    Attributes:
        folder: that they are written to; the n-th picture's is called by its number and its own name.
    """

    def __init__(self, folder: Path, classifier: Classifier) -> None:
        if (kind := classifier.method.evaluation.kind) != "maps":
            raise ValueError(f"--maps must be left out where answers are no maps; got a classifier of {kind}")
        self.folder, self.written = folder, 0
        self.ends: tuple[float, float] | None = tuple(classifier.config.get("map_range", ())) or None

    def write(self, answers: Tensor, paths: Sequence[Path]) -> None:
        """Write the maps among answers, in the order of the pictures."""
        for path, data in zip(paths, self.pictures(answers), strict=True):
            self.written += 1
            atomic_write(self.folder / f"{self.written:05}-{path.stem}.png", data)

    def pictures(self, answers: Tensor) -> Iterator[bytes]:
        """Each map as the bytes of a PNG file."""
        from PIL import Image

        from adaptkit.methods.evaluation.maps import map_of

        maps = map_of(answers).float().cpu()
        self.ends = self.ends or (float(maps.amin()), float(maps.amax()))
        low, high = self.ends
        for each in ((maps - low) / max(high - low, 1e-12)).clamp(0, 1).mul(255).round().byte().numpy():
            out = io.BytesIO()
            Image.fromarray(each).save(out, format="PNG")
            yield out.getvalue()
