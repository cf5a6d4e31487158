"""What a setting leaves to the machine: found out here, told in a line, and recorded by the name of what it became."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image

from adaptkit.features.datasets import Splits
from adaptkit.features.items import Source
from adaptkit.io.notices import notice
from adaptkit.runs.setting import Setting
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.batch import fitting_batch
from adaptkit.towers.precision import Precision, deviation, resolve

SAMPLES = 4  # images that a deviation is measured on


def settled(setting: Setting, backbone: Backbone, splits: Splits) -> Setting:
    """The setting with ``auto`` replaced by what it is on this machine, so that keys and records are as if by name."""
    if setting.precision == "auto":
        setting = replace(setting, precision=settled_precision(backbone, splits.test))
    if setting.batch_size == "auto":
        setting = replace(setting, batch_size=images_at_once(setting, backbone))
        notice(f"batch_size auto is {setting.batch_size} here, on {backbone.device.type}")
    if splits.gallery is not None and setting.select == "few-val":  # nobody asked: it is what stands there by default
        setting = replace(setting, select="none")
    return setting


def images_at_once(setting: Setting, backbone: Backbone) -> int:
    """Images in one pass of a tower: as many as are asked for, or as are good on its device."""
    if setting.batch_size == "auto":
        return fitting_batch(backbone, resolve(setting.precision, backbone.device))
    return setting.batch_size


def settled_precision(backbone: Backbone, source: Source) -> Precision:
    """What ``precision: auto`` is on this machine; a notice says so, and how far that is from ``32-true``."""
    precision, device = resolve("auto", backbone.device), backbone.device.type
    if precision == "32-true":
        notice(f"precision auto is 32-true here: {device} has no bfloat16 of its own")
    elif (pixels := some_pixels(source, backbone)) is None:
        notice(f"precision auto is {precision} here: {device} has bfloat16; items are no images to measure it on")
    else:
        off = deviation(backbone, pixels, precision)
        notice(
            f"precision auto is {precision} here: on {len(pixels)} images the cosine to 32-true is at least "
            f"{off.cosine:.6f}, and numbers differ by at most {off.largest:.2%} of an embedding's largest"
        )
    return precision


def some_pixels(source: Source, backbone: Backbone) -> torch.Tensor | None:
    """The first few images as they enter the tower, ``(B, 3, H, W)``; ``None`` where items are none."""
    items = [source.open(i)[1] for i in range(min(SAMPLES, len(source)))]
    if not items or not all(isinstance(item, Image.Image) for item in items):
        return None
    return torch.stack([backbone.preprocess(item) for item in items])
