"""Datasets, backbones, devices and the cache, by the names that settings write."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

from adaptkit.features.cache import FeatureCache
from adaptkit.features.datasets import Splits
from adaptkit.features.decoding import cores
from adaptkit.features.store import Store
from adaptkit.io.home import home as default_home
from adaptkit.io.home import home_at
from adaptkit.io.notices import notice
from adaptkit.runs import plugins
from adaptkit.runs.arithmetic import images_at_once
from adaptkit.runs.relay import relay
from adaptkit.runs.setting import Setting
from adaptkit.towers.backbone import Backbone


def open_cache(
    backbone: Backbone, setting: Setting, *, home: Path | None = None, progress: bool = False
) -> FeatureCache:
    """The features that a backbone makes, stored as a setting asks."""
    return FeatureCache(
        backbone,
        Store(Path(home or default_home()) / "features"),
        hook=relay(),
        load=pick_backbone,
        dtype=setting.dtype,
        precision=setting.precision,
        batch_size=images_at_once(setting, backbone),
        progress=progress,
        decoders=decoders_of(setting),
    )


def decoders_of(setting: Setting) -> int:
    """Pictures decoded at once: as many as are asked for and there are cores; 0 for as many as these."""
    if setting.workers == "auto":
        return 0
    if setting.workers > (most := cores()):
        notice(f"workers {setting.workers} are more than the cores of this machine; {most} decode")
    return min(setting.workers, most)


def pick_dataset(name: str, home: Path | None = None, *, answered: bool = False, whole: bool = False) -> Splits:
    """A dataset by name, with a place after a colon where it takes one; what it keeps, it keeps in the home.

    Args:
        name: as settings write it.
        home: of the digests and what else the dataset keeps; by default the one of the process.
        answered: whether it is only answered, and needs no training images.
        whole: whether nothing is parted off the training images where its author parted nothing.
    """
    scheme, _, place = named_text(name, "dataset", "folder:photos").partition(":")
    load = plugins.pick("datasets", scheme)
    asked = {"answered": answered, "whole": whole}
    more = {name: True for name, wanted in asked.items() if wanted and name in inspect.signature(load).parameters}
    with home_at(home):
        return load(place, **more)


def pick_backbone(name: str) -> Backbone:
    """A backbone by scheme and name."""
    scheme, _, rest = named_text(name, "backbone", "hf:openai/clip-vit-base-patch16").partition(":")
    return plugins.pick("backbones", scheme)(rest)


def named_text(name: object, what: str, example: str) -> str:
    """A name as text.

    Raises:
        ValueError: for anything else, as a path is; it says how to write it.
    """
    if not isinstance(name, str):
        raise ValueError(f"{what} must be a name as text, e.g. {example!r}; got {name!r:.80}")
    return name


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" takes the first of cuda, mps and cpu that is there; cuda:1 is one of several."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {
        "cuda": cards > 0,
        **{f"cuda:{i}": True for i in range(cards)},
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(n for n, ok in there.items() if ok))
    if not there.get(name):
        raise ValueError(f"device must be one of auto, {', '.join(n for n, ok in there.items() if ok)}; got {name!r}")
    return torch.device(name)
