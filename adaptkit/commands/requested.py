"""What the command line asks for, read and checked."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from adaptkit.commands.parsing.machine import machine_changes
from adaptkit.io import yamls
from adaptkit.io.home import home as default_home
from adaptkit.io.paths import in_file_system
from adaptkit.runs import plugins, recipe
from adaptkit.runs.folders import set_apart


def recipes(options: Namespace) -> list[recipe.Recipe]:
    """The recipes, with ``--set``, ``--only``, ``--shots`` and ``--seeds`` applied, checked against the plugins."""
    load_files(options)
    changes: dict[str, Any] = {}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE; got {setting[:200]!r}")
        try:
            changes[key] = yamls.parse_yaml(value)
        except ValueError as error:
            raise ValueError(f"--set {setting if setting.isprintable() else repr(setting)}: {error}") from error
    if getattr(options, "backbone", ""):
        changes["backbone"] = options.backbone
    for key in ("shots", "seeds"):
        if getattr(options, key):
            changes[key] = yamls.parse_yaml(f"[{getattr(options, key)}]")
    changes |= machine_changes(options)
    if getattr(options, "report", ""):
        changes["report"] = [name for name in options.report.split(",") if name]
    only = [name for name in options.only.split(",") if name]
    from adaptkit.runs.build import check_recipe

    return [check_recipe(recipe.read_recipe(where, changes, only), trust=options.trust) for where in options.recipes]


def out(options: Namespace, requested: recipe.Recipe) -> Path:
    """The folder for results."""
    folder = in_file_system(options.out, "--out") if options.out else home_folder(options) / "results"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder; got {str(folder)!r}, a file")
    named = len(options.recipes) > 1 or not options.out
    return set_apart(folder / requested.name if named else folder, requested)


def home_folder(options: Namespace) -> Path:
    """The folder for features and results."""
    folder = in_file_system(options.home or default_home(), "the home")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the home must be a folder; got {str(folder)!r}, a file")
    return folder


def load_files(options: Namespace) -> None:
    """Load the files of ``--plugin``."""
    for file in options.plugin:
        plugins.use_file(file)
