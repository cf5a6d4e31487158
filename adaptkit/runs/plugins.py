"""Find plugins, merge their tables, explain what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

import pluggy

from adaptkit.io.errors import must_be
from adaptkit.io.paths import regular, resolved
from adaptkit.runs import hooks
from adaptkit.runs.reporters import hears

ROLES = ("methods", "prompts", "supports", "datasets", "backbones")
GROUP = "adaptkit"  # the entry-point group of third parties


class Core:
    """What the kit itself answers: a need knows how to compute itself."""

    @hooks.hookimpl(trylast=True)
    def extract(self, need: Any, backbone: Any, pixels: Any) -> Any:  # noqa: ANN401 (typed by the hook)
        """Let the need compute itself."""
        return need.compute(backbone, pixels)


broken: dict[str, str] = {}
"""Plugins that could not be loaded, by name, with the last lines of their traceback."""
asked_for: set[Path] = set()
"""Files that the command line or a program has loaded by name, or tried to."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager, with every plugin that could be loaded. A broken one is kept in `broken`, not raised."""
    pm = pluggy.PluginManager("adaptkit")
    pm.add_hookspecs(hooks)
    pm.register(Core(), "adaptkit")
    for name, load in _candidates():
        _register(pm, name, load)
    return pm


def add_file(path: Path) -> str:
    """Load one plugin file from anywhere, and return the name it is registered under.

    Raises:
        ValueError: when there is no such file, or it cannot be imported.
    """
    path = regular(resolved(path), "a plugin")
    if not path.exists():
        raise ValueError(f"a plugin must be a Python file; got {str(path)!r}, which does not exist")
    asked_for.add(path)
    name = path.stem
    there = manager().get_plugin(name)
    if there is None:
        broken.pop(name, None)  # it may have been mended since
        _register(manager(), name, lambda: _import_file(path))
        table.cache_clear()
        for role in ROLES:
            for impl in getattr(manager().hook, role).get_hookimpls():
                if impl.plugin_name == name:
                    _brought(impl, role)
    elif resolved(getattr(there, "__file__", "")) != path:
        raise ValueError(f"plugin names must be unique; got {name!r} from {there} and from {str(path)!r}; rename one")
    if name in broken and not manager().has_plugin(name):  # one whose report failed is still in use
        raise ValueError(f"plugin {str(path)!r} could not be loaded:\n{broken[name]}")
    return name


def use_file(path: Path) -> None:
    """Load one plugin file; one that fails is named among the `broken`, and the others go on.

    Raises:
        ValueError: when there is no such file, or its name is another plugin's.
    """
    try:
        add_file(path)
    except ValueError:
        if Path(path).stem not in broken:
            raise


@cache
def table(role: str) -> dict[str, Any]:
    """One merged table, e.g. ``table("methods")["gda"]``, sorted by name.

    Raises:
        ValueError: when two plugins bring the same name.
    """
    return {name: thing for name, (thing, _) in sorted(_entries(role).items())}


def owner(role: str, name: str) -> str:
    """The plugin that brings an entry."""
    return _entries(role)[name][1]


def pick(role: str, name: str) -> Any:  # noqa: ANN401 (what a table holds depends on the role)
    """One entry of a table, or a ``ValueError`` that lists the choices, the nearest first, and broken plugins."""
    known = table(role)
    if name in known:
        return known[name]
    causes = [f"{plugin}, {trace.strip().splitlines()[-1]}" for plugin, trace in sorted(broken.items())]
    hint = f"; failed to load: {'; '.join(causes)} (see 'adaptkit list')" if broken else ""
    raise ValueError(f"{must_be(role.removesuffix('s'), known, name)}{hint}")


def announce(result: Any) -> dict[str, str]:  # noqa: ANN401 (typed by the hook)
    """Tell every plugin's ``report`` of a result, and return why it failed, by plugin, where it did."""
    failed = {}
    for impl in manager().hook.report.get_hookimpls():
        if not hears(impl.plugin):
            continue
        try:
            impl.function(*[result for _ in impl.argnames])
        except (Exception, SystemExit) as error:
            failed[impl.plugin_name] = _last_line(error)
            broken[impl.plugin_name] = traceback.format_exc(limit=-3)
    return failed


def complaints() -> list[str]:
    """A line for each plugin that could not be used."""
    return [
        f"plugin {name!r} could not be loaded: {trace.strip().splitlines()[-1]}; the others go on; see 'adaptkit list'"
        for name, trace in sorted(broken.items())
    ]


def _last_line(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())


def _entries(role: str) -> dict[str, tuple[Any, str]]:
    merged: dict[str, tuple[Any, str]] = {}
    for impl in getattr(manager().hook, role).get_hookimpls():
        for name, thing in _brought(impl, role).items():
            if name in merged:
                raise ValueError(
                    f"names in {role} must be unique; got {name!r} from both {merged[name][1]!r} and "
                    f"{impl.plugin_name!r}; rename one"
                )
            merged[name] = (thing, impl.plugin_name)
    return merged


def _brought(impl: Any, role: str) -> dict[str, Any]:  # noqa: ANN401 (pluggy's)
    """What one plugin brings to a table; nothing, if it fails to say: then no half of it is in use."""
    try:
        return dict(impl.function())
    except (Exception, SystemExit) as error:
        frames, _, _ = own_frames(error).rstrip().rpartition("\n")
        said = f"{role}() must return a mapping from names; {_last_line(error)}"
        broken[impl.plugin_name] = f"{frames}\nValueError: {said}\n"
        manager().unregister(name=impl.plugin_name)
        table.cache_clear()
        if os.environ.get("ADAPTKIT_STRICT_PLUGINS"):
            raise ValueError(said) from error
    return {}


def _candidates() -> Iterator[tuple[str, Any]]:
    """Name and loader of every plugin: the files of ``plugins/``, then the entry points of other distributions.

    Names in ``ADAPTKIT_PLUGINS`` restrict the latter, an empty one to none; files in it are loaded besides.
    """
    package = importlib.import_module("adaptkit_plugins")
    root = Path(package.__path__[0])
    for path in sorted(root.rglob("*.py")):
        if path.name != "__init__.py":
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            yield name, lambda name=name: importlib.import_module(f"adaptkit_plugins.{name}")
    installed = {e.name: e.load for e in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name)}
    said = os.environ.get("ADAPTKIT_PLUGINS")
    named = dict.fromkeys(filter(None, map(str.strip, re.split(f"[,{os.pathsep}]", said or ""))))
    files = [name for name in named if name.endswith(".py")]
    only = None if said is None or (files and len(files) == len(named)) else [n for n in named if n not in files]
    for name in installed if only is None else only:
        yield name, installed.get(name, lambda name=name: _unknown(name, [*installed]))
    for file in files:
        yield Path(file).stem, lambda file=file: _import_file(regular(Path(file), "a plugin"))


def _unknown(name: str, installed: Sequence[str]) -> NoReturn:
    raise ValueError(must_be("a name in ADAPTKIT_PLUGINS", installed or ["none, as no plugin is installed"], name))


def _register(pm: pluggy.PluginManager, name: str, load: Any) -> None:  # noqa: ANN401 (a loader)
    try:
        if pm.has_plugin(name):
            raise ValueError(f"plugin names must be unique; got {name!r} twice; rename one")
        plugin = _loaded(load)
        pm.register(plugin, name)
        try:
            pm.check_pending()  # a misspelt hook is an error, not a plugin that silently does nothing
        except pluggy.PluginValidationError as error:
            pm.unregister(plugin)
            raise ValueError(f"{error}; the hooks are {', '.join((*ROLES, 'extract', 'report'))}") from error
    except Exception as error:
        broken[name] = own_frames(error)
        if os.environ.get("ADAPTKIT_STRICT_PLUGINS"):
            raise


def own_frames(error: BaseException) -> str:
    """The last lines of a traceback, without frames of the kit's core and of Python's import."""
    told = traceback.TracebackException.from_exception(error)
    core = str(Path(__file__).parent.parent)
    own = [f for f in told.stack if not f.filename.startswith((core, "<frozen"))]
    told.stack = traceback.StackSummary.from_list(own[-3:])
    return "".join(told.format(chain=False))


def _loaded(load: Any) -> Any:  # noqa: ANN401 (a loader)
    """A plugin; one that ends the process while it is imported has failed, as others do."""
    try:
        return load()
    except SystemExit as error:
        raise ImportError(f"a plugin must not end the process; got SystemExit: {error}") from error


class _FromSource(SourceFileLoader):
    """Runs a file as it stands; compiled code that Python keeps is told from an edit by whole seconds only."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(path: Path) -> ModuleType:
    name = f"adaptkit_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise ValueError(f"a plugin must be a Python file; got {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
