"""Where recipes lie: in a file, or among those that come with adaptkit."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from adaptkit.io.errors import must_be
from adaptkit.io.paths import regular, resolved


def find_recipe(where: str) -> Path:
    """The file of a recipe, by path or by name."""
    path = Path(where)
    if path.suffix in (".yaml", ".yml"):
        if not regular(path, "a recipe").exists():
            raise ValueError(
                f"a recipe must be a file, or one of {', '.join(names())}; got {where!r}, which does not exist"
            )
        return path
    if where not in names():
        raise ValueError(must_be("a recipe", names(), where))
    return folder() / f"{where}.yaml"


def names() -> list[str]:
    """The recipes that come with adaptkit."""
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml"))


def name_of(path: Path) -> str:
    """What a recipe is called: ``few_shot/dtd``, or ``mine`` for one that lies elsewhere."""
    path = resolved(path)
    if path.is_relative_to(folder()):
        return path.relative_to(folder()).with_suffix("").as_posix()
    if not path.stem.strip(". "):
        raise ValueError(f"a recipe's file must have a name, as its results' folder is called so; got {str(path)!r}")
    return path.stem


def folder() -> Path:
    """The folder of the recipes that come with adaptkit."""
    return resolved(str(resources.files("adaptkit_recipes")))
