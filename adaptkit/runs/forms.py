"""Recipes in other forms than files: mappings, as Python has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptkit.runs.recipe import Recipe, build_recipe, own_sets, read_chain
from adaptkit.runs.shelf import find_recipe


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """A recipe from what its file would hold; ``extends`` names another, or the path of one."""
    own = dict(values)
    base, inherited = own.pop("extends", None), list[str]()
    if base is not None:
        raw, inherited = read_chain(find_recipe(str(base)))
        inherited = own_sets(raw, own) if "dataset" in own else inherited
        own = {**raw, **own}
    return replace(build_recipe(own, Path("recipe.yaml")), inherited=tuple(inherited))
