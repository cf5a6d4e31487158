"""Named reporters: plugins whose ``report`` hears of results only where a run asks for them by name.

Such a plugin is a module with the hook ``report(result)``, its name as ``reporter = "csv"`` and, if others must be
installed, ``requires = "wandb"``, which is a package and the extra of adaptkit that brings it. It asks `reporting_to`
where to write. A plugin without a name hears of every result, as ever.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from adaptkit.io.errors import must_be


@dataclass(frozen=True)
class Reporting:
    """What reporters are told of a run.

    Attributes:
        names: of the reporters that were asked for.
        folder: of the records.
        recipe: its name.
    """

    names: Sequence[str]
    folder: Path
    recipe: str


_told: ContextVar[Reporting | None] = ContextVar("reporting", default=None)


@contextmanager
def reporting(names: Sequence[str], folder: Path, recipe: str) -> Iterator[None]:
    """Let some named reporters hear of results."""
    token = _told.set(Reporting(names, folder, recipe))
    try:
        yield
    finally:
        _told.reset(token)


def reporting_to() -> Reporting:
    """The run that results come from; outside of one, the folder is this one."""
    return _told.get() or Reporting((), Path(), "")


def hears(plugin: object) -> bool:
    """Whether a plugin's ``report`` hears of results now."""
    name = getattr(plugin, "reporter", "")
    return not name or name in reporting_to().names


def check_reporters(names: Sequence[str], plugins: Iterable[object]) -> None:
    """Refuse names that are no reporter's, and reporters that lack their package.

    Raises:
        ValueError: naming the first.
    """
    known = {name: plugin for plugin in plugins if (name := getattr(plugin, "reporter", ""))}
    for name in names:
        if name not in known:
            raise ValueError(must_be("report", sorted(known), name))
        package = getattr(known[name], "requires", "")
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{package} must be installed for --report {name}; got none; pip install 'adaptkit-vlm[{package}]'"
            )
