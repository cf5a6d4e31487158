"""Plugin files that a recipe names: they can do anything, so they run only where whoever reads the recipe says so."""

from __future__ import annotations

from dataclasses import replace
from shlex import quote

from adaptkit.io.paths import regular, resolved
from adaptkit.runs import plugins
from adaptkit.runs.recipe import Recipe


def use_named(recipe: Recipe, *, trust: bool = False) -> Recipe:
    """The recipe, trusted, once the plugin files that it names are loaded, as each was by name or all are trusted.

    Raises:
        ValueError: for the first that is neither, before any of them has run.
    """
    files = [resolved(recipe.folder / file) for file in recipe.plugins]
    for file in files:
        if not regular(file, "a plugin").exists():
            raise ValueError(f"a plugin must be a Python file; got {str(file)!r}, which does not exist")
        if not trust and file not in plugins.asked_for:
            raise ValueError(
                f"a plugin file that a recipe names must be allowed, as its code can do anything; got {str(file)!r}; "
                f"read it, then give --plugin {quote(str(file))}, or --trust for all files that the recipe names"
            )
    for file in files:
        plugins.use_file(file)
    return replace(recipe, trust=True) if files else recipe
