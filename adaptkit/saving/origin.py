"""Where the towers of a saved classifier lie now, and where they lay when it was saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adaptkit.io.paths import expanded, resolved
from adaptkit.methods.task import NoTowers
from adaptkit.runs.loading import pick_backbone
from adaptkit.towers.backbone import Backbone

ANEW = "name it as it lies now: --backbone hf:FOLDER, or load_classifier(..., backbone='hf:FOLDER')"


def folder_of(name: str) -> str:
    """The folder that a backbone's name leads to from here, in full; "" where it leads to none."""
    rest = name.partition(":")[2]
    try:
        place = expanded(rest)
        return str(resolved(place)) if rest and place.is_dir() else ""
    except (OSError, ValueError):  # a name like no path
        return ""


def lay(config: Mapping[str, Any], name: str) -> str:
    """``", which lay in '/checkpoints/mine' when this was saved"``, or "" where that is not known."""
    places = config.get("lay")
    place = places.get(name) if isinstance(places, Mapping) else None
    return f", which lay in {place!r} when this was saved" if isinstance(place, str) else ""


def open_backbone(config: Mapping[str, Any], given: str) -> Backbone:
    """The towers of a classifier, by the name that is given, or else by the one it was saved with.

    Raises:
        ValueError: when they cannot be loaded, with where they lay, and how to name them anew.
    """
    name = given or config["backbone"]
    known = lay(config, name)
    if known and not folder_of(name):  # a folder's name must not be looked up on a hub
        raise ValueError(f"a classifier's backbone must be found; got {name!r}{known}, and no such folder here; {ANEW}")
    try:
        return pick_backbone(name)
    except ValueError as error:
        if given:
            raise
        raise ValueError(f"a classifier's backbone must load; got {name!r}{known}; {ANEW}: {error}") from None


def ensure_towers(config: Mapping[str, Any], loaded: Mapping[str, Backbone], backbone: str) -> None:
    """Refuse towers, by their names, that are not those that were adapted."""
    for tower, towers in loaded.items():
        for what, got in identity(towers).items():
            if got != (want := config["towers"][tower].get(what)):
                known = (tower == config["backbone"] and backbone) or f"{tower}{lay(config, tower)}"
                raise ValueError(f"{what} of backbone {known!r} must be {want!r}, as adapted; got {got!r}")


def identity(backbone: Backbone) -> dict[str, Any]:
    """What a backbone must have in common with the one that was adapted."""
    if isinstance(backbone, NoTowers):
        return {"dim": backbone.dim, "logit_scale": backbone.logit_scale, "logit_bias": backbone.logit_bias}
    preprocess = json.loads(json.dumps(backbone.preprocess.describe()))
    return {"fingerprint": backbone.fingerprint, "vocabulary": backbone.vocabulary, "preprocess": preprocess}
