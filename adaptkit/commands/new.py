"""``adaptkit new``: a file to start from, which passes ``adaptkit check`` as it is."""

from __future__ import annotations

import importlib.util
import keyword
import re
from argparse import Namespace
from pathlib import Path
from string import Template

from adaptkit.commands.requested import load_files
from adaptkit.io.files import atomic_write, refuse_folder
from adaptkit.runs import plugins

TEMPLATES = Path(__file__).parent / "new_method"  # a file for each kind


def command(options: Namespace) -> int:
    """Write a method's file."""
    load_files(options)
    name = free_name(options.name)
    out = options.out or Path(f"{name.replace('-', '_')}.py")
    refuse_folder(out)
    if out.suffix != ".py":
        raise ValueError(f"--out must be a Python file, e.g. my_method.py; got {str(out)!r}")
    if out.exists():
        raise ValueError(f"--out must be a new file; got {str(out)!r}, which exists; name another")
    if out.stem.isidentifier() and importlib.util.find_spec(out.stem):
        raise ValueError(f"--out must not be called as a module is; got {str(out)!r}; name another")
    if plugins.manager().has_plugin(out.stem):
        raise ValueError(f"--out must have a stem that is no plugin's; got {str(out)!r}; name another")
    atomic_write(out, method_text(name, options.kind).encode())
    print(f"written: {out}; next: adaptkit check {out}; then adaptkit run RECIPE --plugin {out}")
    return 0


def free_name(text: str) -> str:
    """A method's name in kebab-case, which no method has.

    Raises:
        ValueError: for one that is taken, or that makes no identifier.
    """
    name = text.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"a method's name must be words in lower case with dashes, e.g. my-method; got {text!r}")
    if name in plugins.table("methods"):
        raise ValueError(f"a method's name must be new; got {name!r}, of plugin {plugins.owner('methods', name)!r}")
    return name


def method_text(name: str, kind: str) -> str:
    """The file of a method of one kind."""
    words = "".join(word[:1].upper() + word[1:] for word in name.split("-"))
    text = (TEMPLATES / f"{kind}.txt").read_text(encoding="utf-8")
    words += "Method" * bool(re.search(rf"\b{words}\b", text))  # it would hide what the file imports
    return Template(text).substitute(name=name, Class=words)
