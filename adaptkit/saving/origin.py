"""Where the towers of a saved classifier lie now, and where they lay when it was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.io.paths import expanded, resolved
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
