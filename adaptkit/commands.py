"""What each command of the command line does."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptkit import plugins, recipe, yamls
from adaptkit.home import home as default_home
from adaptkit.results import Table, columns


def command_run(options: Namespace) -> int:
    """Run recipes and print their tables."""
    from adaptkit import runner
    from adaptkit.plot import plot

    for asked in _recipes(options):
        out = _out(options, asked)
        table = runner.run(asked, home=_home(options), out=out, progress=not options.quiet)
        for domain in ("", *asked.domains):
            metric = f"{domain}/accuracy" if domain else "accuracy"
            where = asked.dataset + (f", domain {domain}" if domain else "")
            print(f"\n{where}: {metric}, %, mean ± 95 % interval over seeds\n")
            print(Table(table.results, metric).text())
        print(
            "\nextract: what computing a method's features costs, whoever asked first; fit and predict: mean per cell"
        )
        print(f"results: {out}")
        picture = out / "accuracy.svg"
        if plot(table, picture, f"{asked.dataset}, {asked.backbone}"):
            print(f"plot: {picture}")
        else:
            print("plot: none, matplotlib is not installed; pip install 'adaptkit[demo]'")
    return 0


def command_plan(options: Namespace) -> int:
    """Say what running would compute."""
    from adaptkit.plan import plan as describe

    for asked in _recipes(options):
        print(describe(asked, home=_home(options), out=_out(options, asked)))
    return 0


def command_list(options: Namespace) -> int:
    """Print tables of plugins."""
    _load_files(options)
    tables = {role: _entries(role) for role in _roles(options)}
    if options.json:
        print(json.dumps([entry for entries in tables.values() for entry in entries], indent=1))
    for role, entries in tables.items() if not options.json else ():
        keys = [k for k in entries[0] if k != "role"] if entries else []
        print(f"{role} ({len(entries)})")
        print(columns([keys, *([_cell(e[k]) for k in keys] for e in entries)]) + "\n")
    for name, trace in plugins.broken.items():
        print(f"plugin {name!r} could not be loaded:\n{trace}", file=sys.stderr)
    return 0


def command_show(options: Namespace) -> int:
    """Print a card."""
    from adaptkit.cards import card

    _load_files(options)
    print(card(options.name))
    return 0


def command_check(options: Namespace) -> int:
    """Run the contract."""
    from adaptkit.testing.report import check_methods

    _load_files(options)
    what = Path(options.what)
    if what.suffix == ".py":
        owner = plugins.add_file(what)
        names = [n for n in plugins.table("methods") if plugins.owner("methods", n) == owner]
        if not names:
            raise ValueError(f"a plugin to check must bring methods; got {options.what!r}, which brings none")
    else:
        plugins.pick("methods", options.what)
        names = [options.what]
    return check_methods(names)


def command_data(options: Namespace) -> int:
    """Say what is there of a dataset, or what a sampler draws from a split file."""
    from adaptkit import data

    if options.action == "check":
        _load_files(options)
        lines, good = data.check(options.name)
        print("\n".join(lines))
        return 0 if good else 1
    draw = (options.shots, options.seed, options.sampler)
    if options.action == "supports":
        print("\n".join(data.supports(options.split, *draw, val=options.val)))
    else:
        print(f"sha256 of the training images: {data.export(options.split, options.out, *draw)}")
    return 0


def command_cache(options: Namespace) -> int:
    """Look after the feature cache."""
    from adaptkit.store import Store

    store = Store(_home(options) / "features")
    if options.action == "ls":
        head = ["table", "need", "backbone", "dtype", "rows", "MB"]
        rows = [
            [
                t.folder.name[:12],
                _need(t.spec),
                str(t.spec.get("fingerprint", ""))[:12],
                str(t.spec.get("dtype", "")),
                f"{t.rows:,}",
                f"{t.bytes / 1e6:.1f}",
            ]
            for t in store.tables()
        ]
        print(columns([head, *rows]))
        print(f"in {store.root}")
        return 0
    if options.action == "gc":
        freed = store.gc(older_than_days=options.older_than)
        print(f"freed {freed / 1e6:.1f} MB in {store.root}")
        return 0
    problems = store.verify()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in {len(store.tables())} tables of {store.root}")
    return 1 if problems else 0


def _need(spec: Mapping[str, object]) -> str:
    words = [str(spec.get("need", "?")).rpartition(".")[2]] + ["views", str(spec.get("augment"))] * bool(
        spec.get("random")
    )
    return " ".join(words + [f"{k}={spec[k]}" for k in ("projected", "block") if k in spec])


def _recipes(options: Namespace) -> list[recipe.Recipe]:
    _load_files(options)
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


def _out(options: Namespace, asked: recipe.Recipe) -> Path:
    folder = options.out or _home(options) / "results"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder; got {str(folder)!r}, a file")
    return folder / asked.name if len(options.recipes) > 1 or not options.out else folder


def _home(options: Namespace) -> Path:
    home = options.home or default_home()
    if home.exists() and not home.is_dir():
        raise ValueError(f"the home must be a folder; got {str(home)!r}, a file")
    return home


def _load_files(options: Namespace) -> None:
    for file in options.plugin:
        plugins.add_file(file)


def _roles(options: Namespace) -> tuple[str, ...]:
    return (options.role,) if options.role else (*plugins.ROLES, "recipes")


def _entries(role: str) -> list[dict[str, Any]]:
    from adaptkit.cards import entry

    return [entry(role, name) for name in (recipe.names() if role == "recipes" else plugins.table(role))]


def _cell(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
