"""Digests of code, by its syntax: of some definitions and what they reach, or of whole modules and what they import.

Docstrings, comments and layout are left out: they change no answer. Only code of ours and of plugins is followed; other
people's packages are told by their versions.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from adaptkit.io.files import canonical, digest, signature

OURS = ("adaptkit", "adaptkit_plugins")  # packages that are always followed
FILE = "adaptkit_file_"  # how the names of modules begin that were plugin files


def of_modules(names: Iterable[str], apart: Iterable[str] = ()) -> str:
    """Digest of some modules and of all that they import, directly or not, inside functions too; see `by_module`."""
    return digest_of_modules(by_module(names, apart))


def digest_of_modules(found: Mapping[str, str]) -> str:
    """One digest of the digests of modules, by name."""
    return digest(canonical(sorted(found.items())))


def by_module(names: Iterable[str], apart: Iterable[str] = ()) -> dict[str, str]:
    """Digests of some modules and of each that they import, directly or not, inside functions too, by name.

    Args:
        names: of modules, e.g. ``{"adaptkit_plugins.training_free.gda"}``. Ours, those of plugins, and any that lie
            beside a named module's file are followed; of the others the name counts.
        apart: modules and packages that make no answer, and are not followed.
    """
    never = tuple(f"{name}." for name in apart)
    seen, looked, queue = dict[str, str](), set[str](), [*names]
    while queue:
        if (name := queue.pop()) in looked:
            continue
        looked.add(name)
        if (file := _file(name)) is None:  # a class or a function of a module
            continue
        seen[name], imports = _module(name, file, signature(file))
        queue += [i for i in imports if _followed(i, name) and not f"{i}.".startswith(never)]
    return seen


def of(*things: object) -> str:
    """Digest of some functions and classes, with their bases, and of all definitions that they name, directly or not.

    Definitions are followed into our code, that of plugins, and the packages of the things themselves. What is called
    through an argument cannot be followed: give its class, too.
    """
    seen, queue = dict[str, str](), [*things]
    own = {str(getattr(thing, "__module__", "")).partition(".")[0] for thing in things}
    while queue:
        thing = queue.pop()
        thing = inspect.unwrap(thing) if callable(thing) else thing
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            continue
        if not _ours(module) and module.partition(".")[0] not in own:
            continue
        key = f"{module}:{name}"
        file = _file(module)
        if key in seen or file is None:
            continue
        node = _definition(_tree(file, signature(file)), name.replace(".<locals>", ""))
        seen[key] = _text(node) if node else ""
        queue += [base for base in getattr(thing, "__mro__", ())[1:]]
        queue += _named(node, sys.modules.get(module)) if node else []
        seen |= {f"{module}:{n}": v for n, v in _constants(node, sys.modules.get(module))}
    return digest(canonical(sorted(seen.items())))


@cache
def _module(name: str, file: Path, changed: object) -> tuple[str, list[str]]:
    """Digest of one module's own code, and what it imports."""
    tree = _tree(file, changed)
    return digest(_text(tree).encode()), sorted(set(_imports(tree, name)))


def _followed(name: str, importer: str) -> bool:
    """Whether an imported module is code that could change: ours, or one beside the plugin that imports it."""
    if _ours(name):
        return True
    if importer.partition(".")[0] in OURS:
        return False  # ours need other people's packages only
    mine, its = _file(importer), _file(name)
    return mine is not None and its is not None and its.is_relative_to(mine.parent)


def _ours(module: str) -> bool:
    top = module.partition(".")[0]
    return top in OURS or top.startswith(FILE)


def _file(module: str) -> Path | None:
    """The source of a module, without importing it; ``None`` where there is none."""
    there = getattr(sys.modules.get(module), "__file__", None)
    parent, _, leaf = module.rpartition(".")
    if there is None and module not in sys.modules and parent:  # `find_spec` would import the parent
        package = _file(parent)
        if package is None or package.name != "__init__.py":
            return None
        choices = package.with_name(f"{leaf}.py"), package.parent / leaf / "__init__.py"
        return next((file for file in choices if file.is_file()), None)
    if there is None and module not in sys.modules:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        there = spec.origin if spec else None
    return Path(there) if there and there.endswith(".py") and Path(there).is_file() else None


@cache
def _tree(file: Path, _: object) -> ast.Module:
    """The syntax tree of a file; read again when it has changed."""
    return ast.parse(file.read_bytes())


def _text(node: ast.AST) -> str:
    """A syntax tree as text, without docstrings and places; fields that are empty are left out, as Pythons add some."""

    def walk(value: object) -> object:
        if isinstance(value, ast.AST):
            held = [[name, walk(v)] for name, v in ast.iter_fields(value) if name not in ("kind", "type_comment")]
            return [type(value).__name__, *(pair for pair in held if pair[1] not in (None, []))]
        if isinstance(value, list):
            return [walk(v) for v in value if not (isinstance(v, ast.Expr) and isinstance(v.value, ast.Constant))]
        return None if value is None else repr(value)

    return canonical(walk(node)).decode()


def _imports(tree: ast.Module, importer: str) -> Iterator[str]:
    """Modules that a module imports, but for type checkers only; a public name of ours counts as where it lies."""
    package = importer if (sys.modules.get(importer) and hasattr(sys.modules[importer], "__path__")) else None
    parent = package or importer.rpartition(".")[0]
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            queue += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*parent.split(".")[: len(parent.split(".")) - node.level + 1], *filter(None, [base])])
            yield base
            for alias in node.names:
                found = public().get(alias.name) if base == "adaptkit" else None
                yield found or f"{base}.{alias.name}"
        queue += ast.iter_child_nodes(node)


@cache
def public() -> dict[str, str]:
    """The module that each public name of adaptkit comes from, by the stub."""
    spec = importlib.util.find_spec("adaptkit")
    tree = ast.parse(Path(str(spec and spec.origin)).with_suffix(".pyi").read_bytes())
    return {
        alias.name: f"adaptkit.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _definition(tree: ast.Module, qualname: str) -> ast.AST | None:
    """The definition of a class or function, by its dotted name."""
    node: ast.AST = tree
    for part in qualname.split("."):
        inner = [n for n in ast.walk(node) if isinstance(n, _DEFINING) and n.name == part and n is not node]
        if not inner:
            return tree if node is tree else node  # a lambda, or made otherwise: all of where it lies counts
        node = inner[-1]
    return node


_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _names(node: ast.AST | None) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else set()


def _named(node: ast.AST | None, module: ModuleType | None) -> list[object]:
    """What the names in a definition stand for in its module, and, of modules, the attributes that it reads."""
    if node is None or module is None:
        return []
    found = [thing for name in _names(node) if (thing := vars(module).get(name)) is not None]
    read = [
        getattr(owner, n.attr, None)
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
        if isinstance(owner := vars(module).get(n.value.id), ModuleType) and _ours(owner.__name__)
    ]
    return [t for t in (*found, *read) if inspect.isclass(t) or inspect.isfunction(t)]


def _constants(node: ast.AST | None, module: ModuleType | None) -> list[tuple[str, str]]:
    """Names in a definition that its module assigns, with the text of what is assigned."""
    file = _file(module.__name__) if module else None
    if node is None or file is None:
        return []
    wanted, found = _names(node), []
    for statement in _tree(file, signature(file)).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in wanted:
                found.append((target.id, _text(statement)))
    return found
