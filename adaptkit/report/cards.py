"""What is known about a plugin without running it: its card, its options, where it is used."""

from __future__ import annotations

import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any

from adaptkit.io import yamls
from adaptkit.io.errors import alike
from adaptkit.io.ranges import hints, ranges_in, written
from adaptkit.io.values import default
from adaptkit.methods.declared import kinds_answered
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import Schedule
from adaptkit.runs import plugins, shelf


def entry(role: str, name: str) -> dict[str, Any]:
    """One line of ``adaptkit list``."""
    if role == "recipes":
        return {"name": name, "role": role, "about": first_comment(name)}
    owner = plugins.owner(role, name)
    thing = plugins.table(role)[name]
    if role != "methods":
        return {"name": name, "role": role, "about": first_sentence(module_doc(thing)), "plugin": owner}
    trained = any(isinstance(default(f), Schedule) for f in fields(thing))
    return {
        "name": name,
        "role": role,
        "about": first_sentence(about(thing)),
        "scope": thing.scope,
        "trained": trained,
        "plugin": owner,
        "source": source(module_doc(thing)),
    }


def card(name: str) -> str:
    """Everything worth knowing about one name, in whichever table it is.

    Raises:
        ValueError: when no table has it, with the nearest match.
    """
    role = role_of(name)
    thing = plugins.table(role)[name]
    head = f"{name}: one of the {role}, from plugin {plugins.owner(role, name)!r}\n\n{module_doc(thing)}"
    return head if role != "methods" else f"{head}\n\n{method_card(name, thing)}"


def role_of(name: str) -> str:
    """The table that has a name.

    Raises:
        ValueError: when none has it, with the nearest match.
    """
    for role in plugins.ROLES:
        if name in plugins.table(role):
            return role
    every = [n for role in plugins.ROLES for n in plugins.table(role)]
    raise ValueError(f"a name must be in one of the tables of 'adaptkit list'; got {name!r}{alike(name, every)}")


def facts(name: str) -> dict[str, Any]:
    """The card as plain values: the entry of the list, the text, and of a method options, needs, grid and recipes."""
    role = role_of(name)
    thing = plugins.table(role)[name]
    found = {**entry(role, name), "card": module_doc(thing)}
    if role != "methods":
        return found
    made = thing()
    return found | {
        "class": thing.__name__,
        "output": thing.output,
        "answers": kinds_answered(made),
        "options": [option.facts() for option in options_of(thing)],
        "needs": {key: str(need) for key, need in made.needs().items()},
        "support_needs": {key: str(need) for key, need in made.support_needs().items()},
        "pool_needs": {key: str(need) for key, need in made.pool_needs().items()},
        "gallery_needs": {key: str(need) for key, need in made.gallery_needs().items()},
        "grid": {key: list(values) for key, values in made.grid().items()},
        "recipes": recipes_with(name),
    }


def method_card(name: str, cls: type[Method]) -> str:
    """A method's class, options, needs, grid and recipes."""
    made = cls()
    lines = [
        f"{cls.__name__}: {inspect.getdoc(cls) or ''}",
        "",
        f"scope: {cls.scope}; output: {cls.output}",
        "",
        "options:",
    ]
    for option in options_of(cls):
        says = "; ".join(filter(None, [option.note, *option.ranges]))
        lines.append(f"  {option.name}: {option.kind} = {option.default!r}" + (f"  # {says}" if says else ""))
    lines += [
        "",
        "reads of each query: " + _needs(made.needs()),
        "reads of each support image: " + _needs(made.support_needs()),
    ]
    seldom = {"unlabelled image": made.pool_needs(), "item of a gallery": made.gallery_needs()}
    lines += [f"reads of each {what}: {_needs(needs)}" for what, needs in seldom.items() if needs]
    grid = made.grid()
    if grid:
        told = (f"{k} ({len(v)} values from {min(v):.4g} to {max(v):.4g})" for k, v in grid.items())
        lines.append("chosen on validation images: " + ", ".join(told))
    lines.append(f"in recipes: {', '.join(recipes_with(name)) or 'none'}")
    return "\n".join(lines)


def recipes_with(name: str) -> list[str]:
    """The recipes that come with adaptkit and compare a method."""
    return [recipe for recipe in shelf.names() if name in _methods_of(recipe)]


@dataclass(frozen=True)
class Option:
    """One hyperparameter of a method.

    Attributes:
        name: as recipes write it.
        kind: its type, as people write it.
        default: its value where nobody sets it.
        note: what it means.
        ranges: what its numbers may be, in words.
    """

    name: str
    kind: str
    default: Any
    note: str = ""
    ranges: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """It as plain values; a default that is none as text."""
        plain = isinstance(self.default, int | float | str | tuple | None)
        return {**asdict(self), "default": self.default if plain else repr(self.default)}


def options_of(cls: type[Method]) -> list[Option]:
    """A method's hyperparameters, in their order."""
    notes = {k: v for base in reversed(cls.__mro__[:-1]) for k, v in comments(base).items()}
    found = []
    for f in fields(cls):
        kind = hints(cls).get(f.name, f.type)
        note, ranges = notes.get(f.name, ""), tuple(dict.fromkeys(ranges_in(kind)))
        found.append(Option(f.name, written(kind), default(f), note, ranges))
    return found


def module_doc(thing: Any) -> str:  # noqa: ANN401 (a class or a function)
    """The card: the docstring of the module a thing comes from."""
    return inspect.cleandoc(sys.modules[thing.__module__].__doc__ or "(no docstring)")


def about(cls: type[Method]) -> str:
    """What a method does: its class's own docstring, or the card of its module."""
    own = vars(cls).get("__doc__")
    return inspect.cleandoc(own) if own and not own.startswith(f"{cls.__name__}(") else module_doc(cls)


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    joined = " ".join(text.split("\n\n")[0].split())
    return joined.split(". ")[0].rstrip(".")


def source(text: str) -> str:
    """The ``Source:`` paragraph of a card."""
    _, _, after = text.partition("Source:")
    return " ".join(after.partition("Deviations:")[0].split()).rstrip(".")


@cache
def comments(cls: type) -> Mapping[str, str]:
    """The comment behind each annotated attribute of a class, which is read once: many methods share their bases."""
    try:
        code = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    notes, name = {}, ""
    tokens = [*tokenize.generate_tokens(io.StringIO(code).readline)]
    for token, following in pairwise(tokens):
        if token.type == tokenize.NAME and following.string == ":" and token.start[1] == 4:
            name = token.string
        if token.type == tokenize.COMMENT and name and token.line.lstrip().startswith(name):
            notes[name] = token.string.lstrip("# ")
    return notes


def first_comment(name: str) -> str:
    """The first line of a recipe's comment."""
    first = shelf.find_recipe(name).read_text(encoding="utf-8").splitlines()[:1]
    return first[0].lstrip("# ") if first and first[0].startswith("#") else ""


def _needs(needs: Any) -> str:  # noqa: ANN401 (a mapping of needs)
    return ", ".join(f"{name} = {need}" for name, need in needs.items()) or "nothing"


@cache
def _methods_of(name: str) -> list[str]:
    raw = yamls.read_yaml(shelf.find_recipe(name))
    return [spec if isinstance(spec, str) else next(iter(spec)) for spec in raw.get("methods", [])]
