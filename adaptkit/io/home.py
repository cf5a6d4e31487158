"""Where features and results live."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from platformdirs import user_cache_path

from adaptkit.io.paths import expanded, in_file_system

_chosen: ContextVar[Path | None] = ContextVar("home", default=None)


def home() -> Path:
    """The folder that was chosen by `home_at`; or else ``$ADAPTKIT_HOME``, or the platform's cache folder."""
    asked = _chosen.get() or os.environ.get("ADAPTKIT_HOME") or user_cache_path("adaptkit")
    return in_file_system(expanded(asked), "the home")


@contextmanager
def home_at(folder: Path | None) -> Iterator[None]:
    """Let everything that asks for the home, plugins too, be told this one; ``None`` changes nothing."""
    token = _chosen.set(folder or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)
