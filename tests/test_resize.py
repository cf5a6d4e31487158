"""Images of any shape become the tower's square: as Pillow resizes and crops them, in the time of the square."""

import time

import numpy as np
import pytest
from PIL import Image

from adaptkit import Preprocess
from adaptkit.towers import resize
from adaptkit.towers.resize import crop_of_resized

FILTERS = [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR]
huge = pytest.mark.fault("an image of any shape", "is cropped as if it had been resized, at once")


def noise(rng, width, height, hard):
    shape = height, width, 3
    return Image.fromarray((rng.integers(0, 2, shape) * 255 if hard else rng.integers(0, 256, shape)).astype(np.uint8))


@pytest.mark.parametrize("seed", range(8))
def test_a_part_of_a_resized_image_is_pillows_to_the_bit(seed, monkeypatch):
    monkeypatch.setattr(resize, "OBLONG", 0)  # even what would be made whole
    rng = np.random.default_rng(seed)
    for i in range(60):
        width, height = (int(x) for x in np.exp(rng.uniform(0, 5.5, 2)))
        short, size = min(width, height), int(rng.integers(1, 80))
        edge = min(short + int(rng.integers(1, 120)), 2_000_000 * short // (width * height) + short + 1)
        grown = width * edge // short, height * edge // short
        left, top = (rng.integers(-size, grown[axis] + 1) for axis in (0, 1))
        if i % 2 or left + size <= 0 or top + size <= 0 or left >= grown[0] or top >= grown[1]:
            left, top = (grown[0] - size) // 2, (grown[1] - size) // 2
        box = int(left), int(top), int(left) + size, int(top) + size
        image = noise(rng, width, height, hard=i % 3 == 0)
        for resample in FILTERS:
            whole, part = image.resize(grown, resample).crop(box), crop_of_resized(image, grown, box, resample)
            what = f"{width} x {height} to {grown[0]} x {grown[1]}, {box}, {resample.name}"
            assert part.size == whole.size and (np.asarray(part) == np.asarray(whole)).all(), f"{what} must be Pillow's"


@huge
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(
    "shape", [(1, 20_000), (20_000, 1), (3, 60_000), (60_000, 3), (1, 1), (2, 89_000), (1, 500_000)]
)
def test_an_oblong_image_is_read_at_once(shape, fit):
    image = noise(np.random.default_rng(0), *shape, hard=False)
    preprocess = Preprocess(size=224, edge=256, fit=fit, mean=(0.5,) * 3, std=(0.5,) * 3)
    began = time.perf_counter()
    for pixels in (preprocess(image), preprocess.view(image, "wide-crop-flip", "seed")):
        assert pixels.shape == (3, 224, 224) and pixels.isfinite().all(), f"{shape} must become the tower's square"
    assert time.perf_counter() - began < 2, f"{shape} must not take longer than an ordinary image"


def test_an_oblong_image_is_what_its_middle_is():
    """Far from both ends, pixels do not know how long the image is: the cheap way equals the whole one."""
    preprocess = Preprocess(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    middle = noise(np.random.default_rng(1), 2, 100, hard=False)
    long = Image.fromarray(
        np.concatenate([np.zeros((30_000, 2, 3), np.uint8), middle, np.zeros((30_000, 2, 3), np.uint8)])
    )
    assert 64 * (long.height * 64 // 2) > resize.OBLONG, "the long one must be too large to be made whole"
    assert (preprocess(long) == preprocess(middle)).all(), "the middle must be the same"
