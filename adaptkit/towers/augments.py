"""What views change of an image beyond its crop: colours, sharpness, and the operations of RandAugment."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

FILL = (128, 128, 128)  # where an operation moves the image away


def jitter(image: Image.Image, rng: random.Random, saturation: float = 0.4, hue: float = 0.0) -> Image.Image:
    """Brightness and contrast by a factor from 0.6 to 1.4, saturation and the hue, in an order that is drawn."""
    kinds = ((ImageEnhance.Brightness, 0.4), (ImageEnhance.Contrast, 0.4), (ImageEnhance.Color, saturation))
    changes = [scaled(kind, rng.uniform(1 - most, 1 + most)) for kind, most in kinds]
    if hue:
        shift = round(255 * rng.uniform(-hue, hue))
        changes.append(lambda x: shifted_hue(x, shift))
    rng.shuffle(changes)
    for change in changes:
        image = change(image)
    return image


def scaled(kind: Callable[[Image.Image], ImageEnhance._Enhance], factor: float) -> Callable[[Image.Image], Image.Image]:
    """More or less of something, by a factor."""
    return lambda image: kind(image).enhance(factor)


def shifted_hue(image: Image.Image, shift: int) -> Image.Image:
    """The hue of every pixel moved by some of the circle's 256 steps."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(i + shift) % 256 for i in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def strong(image: Image.Image, rng: random.Random, saturation: float = 0.4) -> Image.Image:
    """As contrastive learners see images: colours jittered, at times grey, blurred."""
    if rng.random() < 0.8:
        image = jitter(image, rng, saturation, hue=0.1)
    if rng.random() < 0.2:
        image = ImageOps.grayscale(image).convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))


def randaugment(image: Image.Image, rng: random.Random, strength: float = 9.0) -> Image.Image:
    """Two operations of RandAugment, arXiv:1909.13719, each left out half the time, of a strength about 9 of 10."""
    for _ in range(2):
        operation = STRENGTHENED[int(rng.random() * len(STRENGTHENED))]
        part = min(1.0, max(0.0, rng.gauss(strength, 0.5) / 10))
        if rng.random() < 0.5:
            image = operation(image, part, 1 if rng.random() < 0.5 else -1)
    return image


def moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """An affine map of the image, its six numbers as Pillow takes them."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )


def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float, int], Image.Image]:
    """More or less of something, by a factor from 0.1 to 1.9."""
    return lambda image, part, sign: scaled(kind, 1 + 0.9 * part * sign)(image)


STRENGTHENED: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    lambda image, part, sign: ImageOps.autocontrast(image),
    lambda image, part, sign: ImageOps.equalize(image),
    lambda image, part, sign: ImageOps.invert(image),
    lambda image, part, sign: image.rotate(30 * part * sign, resample=Image.Resampling.BICUBIC, fillcolor=FILL),
    lambda image, part, sign: ImageOps.posterize(image, max(1, 4 - int(4 * part))),
    lambda image, part, sign: ImageOps.solarize(image, 256 - int(256 * part)),
    lambda image, part, sign: image.point([i if i >= 128 else min(255, i + int(110 * part)) for i in range(256)] * 3),
    enhanced(ImageEnhance.Color),
    enhanced(ImageEnhance.Contrast),
    enhanced(ImageEnhance.Brightness),
    enhanced(ImageEnhance.Sharpness),
    lambda image, part, sign: moved(image, (1, 0.3 * part * sign, 0, 0, 1, 0)),
    lambda image, part, sign: moved(image, (1, 0, 0, 0.3 * part * sign, 1, 0)),
    lambda image, part, sign: moved(image, (1, 0, 0.45 * part * sign * image.width, 0, 1, 0)),
    lambda image, part, sign: moved(image, (1, 0, 0, 0, 1, 0.45 * part * sign * image.height)),
)
"""Operations by a strength between 0 and 1, and a direction."""

CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "jitter": jitter,
    "strong": strong,
    "moco": partial(strong, saturation=0.2),
    "randaugment": randaugment,
}
"""What a random view changes beyond its crop and its mirror image, by the name of the augmentation."""
