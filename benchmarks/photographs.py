"""Files like those of a camera, for benchmarks that read some."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

DISTINCT = 64  # pictures that are drawn; others have the same pixels and other bytes


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 500 x 375 pixels: smooth colours and a camera's noise."""
    draw, made = np.random.default_rng(0), list[bytes]()
    y, x = np.mgrid[0:375, 0:500] / 100
    for _ in range(min(count, DISTINCT)):
        waves = [np.sin(x * a + y * b + c) for a, b, c in draw.uniform((0.5, 0.5, 0), (3, 3, 6), (3, 3))]
        pixels = 128 + 90 * np.stack(waves, -1) + draw.normal(0, 12, (375, 500, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
        image.save(buffer := io.BytesIO(), "JPEG", quality=90)
        made.append(buffer.getvalue())
    paths = [folder / f"{i:07}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(made[i % len(made)] + i.to_bytes(4))  # what follows a JPEG's end is not read
    return paths
