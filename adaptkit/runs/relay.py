"""The plugins' hooks, which a process can be sent: it loads the plugins itself, with the files that were asked for."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pluggy

from adaptkit.io.paths import resolved
from adaptkit.runs import plugins


def relay() -> pluggy.HookRelay:
    """The hooks of all plugins."""
    copyreg.dispatch_table[pluggy.HookRelay] = sent
    return plugins.manager().hook


def sent(_: pluggy.HookRelay) -> tuple[Any, ...]:
    """How another process gets them."""
    return relayed, (files_in_use(),)


def files_in_use() -> list[Path]:
    """The plugin files that were asked for and are registered now: another process must not load what was taken out."""
    there = {path: getattr(plugins.manager().get_plugin(path.stem), "__file__", None) for path in plugins.asked_for}
    return sorted(path for path, file in there.items() if file and resolved(file) == path)


def relayed(files: Sequence[Path]) -> pluggy.HookRelay:
    """The hooks, with some plugin files loaded."""
    for path in files:
        plugins.use_file(path)
    return relay()
