"""Folders of results: one holds those of one dataset and one backbone, and its ``recipe.json`` says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptkit.io.files import canonical, digest
from adaptkit.io.jsons import parse_json, read_json
from adaptkit.io.paths import expanded, resolved
from adaptkit.runs.recipe import Recipe

RECIPE_FILE = "recipe.json"
READABLE = 40  # characters of a name


def described(recipe: Recipe) -> bytes:
    """The recipe as its folder keeps it, with a digest that tells two datasets or backbones of one name apart."""
    return json.dumps({**parse_json(recipe.describe()), "about": origin(recipe)}, indent=1).encode()


def origin(recipe: Recipe) -> str:
    """Digest of where the dataset and the backbone lie: equal names may mean two folders, from two places."""
    return digest(canonical([lies_at(recipe.dataset), lies_at(recipe.backbone)]))[:8]


def lies_at(name: str) -> str:
    """A name with the whole path of what it names, where that is a file or folder."""
    scheme, _, place = name.partition(":")
    try:
        path = expanded(place)
        return f"{scheme}:{resolved(path)}" if place and path.exists() else name
    except (OSError, ValueError):
        return name


def set_apart(folder: Path, recipe: Recipe) -> Path:
    """The folder, or one in it where results of another dataset or backbone lie there already."""
    kept = owner_of(folder)
    names = {"dataset": recipe.dataset, "backbone": recipe.backbone, "about": origin(recipe)}
    if kept is None or all(kept.get(key, value) == value for key, value in names.items()):
        return folder
    told = f"{recipe.dataset}-{recipe.backbone}"
    safe = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in told)[-READABLE:]
    return folder / f"{safe}.{digest(canonical(names))[:8]}"


def owner_of(folder: Path) -> dict[str, Any] | None:
    """What a folder's recipe says, if there is one that can be read."""
    try:
        kept = read_json(folder / RECIPE_FILE)
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None
