"""What the command line asks for, read and checked."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from adaptkit import plugins, recipe, yamls
from adaptkit.home import home as default_home


def recipes(options: Namespace) -> list[recipe.Recipe]:
    """The recipes, with ``--set``, ``--only``, ``--shots`` and ``--seeds`` applied, checked against the plugins."""
    load_files(options)
    changes: dict[str, Any] = {}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE; got {setting!r}")
        try:
            changes[key] = yamls.parse(value)
        except ValueError as error:
            raise ValueError(f"--set {setting}: {error}") from error
    for key in ("shots", "seeds"):
        if getattr(options, key):
            changes[key] = yamls.parse(f"[{getattr(options, key)}]")
    only = [name for name in options.only.split(",") if name]
    from adaptkit.options import check

    return [check(recipe.read(where, changes, only)) for where in options.recipes]


def out(options: Namespace, asked: recipe.Recipe) -> Path:
    """The folder for results."""
    folder = options.out or home(options) / "results"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder; got {str(folder)!r}, a file")
    return folder / asked.name if len(options.recipes) > 1 or not options.out else folder


def home(options: Namespace) -> Path:
    """The folder for features and results."""
    folder = options.home or default_home()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the home must be a folder; got {str(folder)!r}, a file")
    return folder


def load_files(options: Namespace) -> None:
    """Load the files of ``--plugin``."""
    for file in options.plugin:
        plugins.add_file(file)
