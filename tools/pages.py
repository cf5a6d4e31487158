"""Pages of the docs that are made of what adaptkit knows about itself: methods, public names, results."""

from __future__ import annotations

import ast
import html
import inspect
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from textwrap import dedent, indent
from typing import Any

from adaptkit.io import yamls
from adaptkit.io.shots import plain_shots
from adaptkit.report import cards
from adaptkit.report.scores import heading, option_notes, score, short_names, unit_of
from adaptkit.runs import plugins, shelf
from tools import results

ROOT = Path(__file__).parent.parent
CODE = "https://github.com/adaptkit/adaptkit/blob/main"
STALE = "measured with other code than is here"
MANY = 12  # rows of a table that is folded where it has more
GROUPS = {  # of public names: each page's title, and whose modules' names it has
    "Verbs": ("api", "automatic", "methods.adapt", "methods.predicting", "runs.build", "report"),
    "Tasks and images": ("methods.task", "features.captions", "features.datasets", "features.items"),
    "Needs": ("features.needs",),
    "Methods": ("methods", "io.ranges"),
    "Saved classifiers": ("saving",),
    "Towers": ("towers",),
    "Hooks": ("runs.hooks",),
    "Further": ("",),
}
FOR_PLUGINS = {  # page: its title, and the modules that it documents
    "ops": ("Tensors", ("methods.ops", "methods.class_moments", "methods.class_scatters")),
    "search": ("Searching hyperparameters", ("methods.search", "methods.explore", "methods.candidates")),
    "graph": ("Neighbours and graphs", ("methods.graph", "methods.label_steps")),
    "kernels": ("Kernels", ("methods.kernels",)),
    "logistic": ("Softmax regression", ("methods.logistic",)),
    "streams": ("Streams", ("methods.class_cache", "methods.running_gaussian", "methods.queries")),
    "prompts": (
        "Learned prompts and tuned towers",
        ("methods.prompt_learner", "methods.tower_adapter", "methods.adapter"),
    ),
    "options": ("Options and their ranges", ("io.ranges",)),
    "testing": ("Testing a plugin", ("testing.checks", "testing.toy")),
}
OF_MODULES = """      show_root_full_path: true
      filters: ["!^_", "!^Range$"]
"""  # the latter is public, and has its place there


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; columns whose head begins with ``>`` are aligned to the right."""
    rule = "|".join("---:" if cell.startswith(">") else "---" for cell in head)
    lines = ["| " + " | ".join(cell.lstrip(">") for cell in head) + " |", f"|{rule}|"]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)])


def prose(text: str) -> str:
    """A docstring as Markdown: no tag in it is one, and addresses of papers are links."""
    parts = re.split(r"(``.*?``|`.*?`)", html.escape(text, quote=False).replace("&amp;", "&"), flags=re.DOTALL)
    plain = [html.unescape(part) if part.startswith("`") else part.replace("*", "\\*") for part in parts]
    return linked("".join(plain))


def linked(text: str) -> str:
    """Text whose arXiv numbers are links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def methods_table(link: str) -> str:
    """The table of all methods; `link` says where a method's page is, with ``{}`` for its name, or is empty."""
    rows = []
    for name in plugins.table("methods"):
        entry = cards.entry("methods", name)
        arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", entry["source"])
        paper = f"[{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else ""
        called = f"[`{name}`]({link.format(name)})" if link else f"`{name}`"
        rows.append((called, entry["about"], entry["scope"], "trained" if entry["trained"] else "", paper))
    return table(("method", "what it does", "scope", "trained", "source"), rows) + "\n"


def method_page(name: str) -> str:
    """All that is known about a method: card, options, code, published numbers, ours, and what they cost."""
    cls, entry = plugins.table("methods")[name], cards.entry("methods", name)
    file = Path(inspect.getsourcefile(cls) or "").relative_to(ROOT).as_posix()
    made = cls()
    facts = [
        ("scope", f"`{cls.scope}`: an answer may depend on {SCOPES[cls.scope]}"),
        ("output", cls.output),
        ("trained", "by gradient descent" if entry["trained"] else "no"),
        ("reads of each query", needs(made.needs())),
        ("reads of each support image", needs(made.support_needs())),
        ("reads of each unlabelled image", needs(made.pool_needs())),
        ("reads of each item of a gallery", needs(made.gallery_needs())),
        (
            "chosen on validation images",
            ", ".join(f"`{k}`, {len(v)} values" for k, v in made.grid().items()) or "nothing",
        ),
        ("in recipes", ", ".join(f"`{recipe}`" for recipe in cards.recipes_with(name)) or "none"),
        ("code", f"[{file}]({CODE}/{file})"),
    ]
    return "\n\n".join(
        [
            f"# {name}",
            prose(entry["about"]) + ".",
            "\n".join(f"- **{what}**: {says}" for what, says in facts),
            "## Card",
            re.sub(r"^(Source|Deviations):", r"\n**\1.**", prose(cards.module_doc(cls)), flags=re.MULTILINE),
            "## Options",
            options(cls),
            "## Equations, as code",
            "What turns a batch into answers; the whole file, with what is learned, is linked above.",
            f"```python\n{dedent(inspect.getsource(cls.forward)).strip()}\n```",
            "## Published numbers",
            published(name),
            "## Our numbers, and what they cost",
            measured(name),
        ]
    )


SCOPES = {
    "sample": "that sample alone",
    "stream": "the samples before it",
    "set": "the whole set of queries",
}


def needs(asked: Any) -> str:
    """What is read, by its names, shortly: what is as by default is left out."""
    told = []
    for name, need in asked.items():
        plain = {f: getattr(need, f) for f in need.__dataclass_fields__}
        given = [f"{f}={v!r}" for f, v in plain.items() if v != need.__dataclass_fields__[f].default]
        told.append(f"`{name} = {type(need).__name__}({', '.join(given)})`")
    return ", ".join(told) or "nothing"


def options(cls: Any) -> str:
    """The table of a method's options."""
    rows = [
        (f"`{o.name}`", f"`{o.kind}`", f"`{brief(o.default)}`", "; ".join(o.ranges), prose(o.note))
        for o in cards.options_of(cls)
    ]
    return table(("option", "type", "default", "range", "meaning"), rows) if rows else "None."


def brief(default: Any) -> str:
    """A default as recipes would write it, without what is as everywhere."""
    if not hasattr(default, "__dataclass_fields__") or isinstance(default, type):
        return repr(default)
    known = default.__dataclass_fields__
    given = {name: getattr(default, name) for name in known if hasattr(default, name)}
    return f"{type(default).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items() if v != known[k].default)})"


UNSAID = {"backbone": "", "datasets": 1, "shots": "", "metric": "accuracy"}  # of a published number


@cache
def quoted() -> dict[str, list[tuple[str, Any]]]:
    """Every number that a recipe quotes, by method."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for recipe in shelf.names():
        raw = yamls.read_yaml(shelf.find_recipe(recipe))
        for quote in raw.get("published", []):
            found.setdefault(quote["method"].partition("(")[0], []).append((recipe, {**UNSAID, **quote}))
    return found


def published(name: str) -> str:
    """The numbers that others report, with their sources."""
    rows = [
        (
            f"`{recipe}`" + f", mean of {quote['datasets']} data sets" * (quote["datasets"] > 1),
            quote["backbone"].rpartition("/")[2] or "the recipe's",
            quote["shots"] and plain_shots(quote["shots"]),
            quote["metric"],
            f"{quote['value']:.2f}",
            prose(quote["source"]),
        )
        for recipe, quote in quoted().get(name, [])
    ]
    if not rows:
        return "No recipe quotes any."
    rows = [tuple(map(str, row)) for row in rows]
    return folded(table(("recipe", "backbone", ">shots", "metric", ">%", "source"), rows), len(rows), "numbers")


def folded(text: str, rows: int, what: str) -> str:
    """A table that opens on a click, where it is long."""
    return text if rows <= MANY else f'??? note "{rows} {what}"\n\n' + indent(text, "    ")


@cache
def committed() -> list[results.Kept]:
    """Every committed file of results."""
    return [results.read(name) for name in results.names()]


def measured(name: str) -> str:
    """A method's rows in the committed results."""
    rows = []
    for kept in committed():
        stale, found = kept.stale_of(name), kept.rows_of(name)
        for label, shots in dict.fromkeys((r.method, r.shots) for r in found):
            cells = [r for r in found if (r.method, r.shots) == (label, shots)]
            fit, predict = (mean(r.seconds.get(key, 0.0) for r in cells) for key in ("fit", "predict"))
            said = f"{label} ({STALE})" if stale else label
            costs = f"{max(r.parameters for r in cells):,}", f"{fit:.1f}", f"{predict:.1f}"
            rows.append((f"`{kept.name}`", prose(said), plain_shots(shots), value(cells), *costs))
    if not rows:
        return "None is committed; `adaptkit run` with a recipe that names it makes some."
    head = ("results", "as", ">shots", ">%", ">trained numbers", ">s to fit", ">s to answer")
    return (
        table(head, [tuple(map(str, row)) for row in rows])
        + "\n\nMeans over seeds, with the 95 % interval where there are several. On drawings in 23 classes and small "
        "backbones: they say what runs and what it costs, and no order of methods on photographs."
    )


def value(cells: Sequence[Any]) -> str:
    """The headline number of some cells."""
    metric = next(m for m in ("accuracy", "auroc", "near/auroc", *cells[0].metrics) if m in cells[0].metrics)
    found = score([cells], metric)
    return (found.text(metric) if found else "-") + ("" if metric == "accuracy" else f" ({metric})")


def results_table(name: str, metric: str = "accuracy", short: bool = False) -> str:
    """A committed file as a table: shots in columns where there are several; `short` without options and costs."""
    kept = results.read(name)
    stale, labels = set(kept.stale()), list(dict.fromkeys(r.method for r in kept.results))
    some = bool(set(labels) - stale)  # are as they were
    names = short_names(labels) if short else {label: label for label in labels}
    counts = sorted({r.shots for r in kept.results})
    heads = [f">{heading(k)}" for k in counts] if len(counts) > 1 else [f">{unit_of(metric)}"]
    rows = []
    for label in labels:
        own = [r for r in kept.results if r.method == label]
        cells = [score([[r for r in own if r.shots == k]], metric) for k in counts]
        fit, predict = (mean(r.seconds.get(key, 0.0) for r in own) for key in ("fit", "predict"))
        costs = [f"{max(r.parameters for r in own):,}", f"{fit:.1f}", f"{predict:.1f}"]
        told = [found.text(metric) if found else "-" for found in cells]
        rows.append([f"`{names[label]}`" + "\\*" * (label in stale and some), *told, *costs[: 0 if short else None]])
    costs = [">trained numbers", ">s to fit", ">s to answer"]
    out = table(["method", *heads, *costs[: 0 if short else None]], rows)
    notes = "; ".join(html.escape(note, quote=False) for note in option_notes(labels)) if short else ""
    out += f"\n\n{notes}." if notes else ""
    if not stale:
        return out
    return out + (f"\n\n\\* {STALE}." if some else f"\n\nAll rows: {STALE}.")


def origin(name: str) -> str:
    """A sentence on where a committed file comes from."""
    about = results.read(name).about
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items() if package != "git")
    says = f"`{about['command']}`; {about['machine']}" + (f"; {versions}" if versions else "")
    return f"From [results/{name}.json]({CODE}/results/{name}.json): {says}. {about['note']}".strip()


def public() -> dict[str, str]:
    """Each public name and the module that defines it, by the stub."""
    tree = ast.parse((ROOT / "adaptkit" / "__init__.pyi").read_text())
    return {
        alias.name: f"adaptkit.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def api_pages() -> dict[str, str]:
    """The pages of the public names, by their place."""
    left, pages, lines = public(), {}, []
    for title, modules in GROUPS.items():
        starts = tuple(f"adaptkit.{module}".rstrip(".") for module in modules)
        own = [name for name, module in left.items() if module.startswith(starts)]
        if not own:
            continue
        place = f"api/{title.lower().replace(' ', '_')}.md"
        pages[place] = f"# {title}\n\n" + "\n\n".join(f"::: {left[name]}.{name}" for name in own) + "\n"
        lines.append(f"- [{title}]({place.partition('/')[2]}): {', '.join(f'`{name}`' for name in own)}")
        left = {name: module for name, module in left.items() if name not in own}
    index = "# Public names\n\nEach is `adaptkit.NAME`; `import adaptkit as ak` brings it when it is first used.\n\n"
    return {"api/index.md": index + "\n".join(lines) + "\n", **pages}


def plugin_pages() -> dict[str, str]:
    """The pages for whoever writes plugins, by their place."""
    pages, lines = {}, []
    for name, (title, modules) in FOR_PLUGINS.items():
        parts = [f"::: adaptkit.{module}\n    options:\n{OF_MODULES}" for module in modules]
        pages[f"plugin_api/{name}.md"] = f"# {title}\n\n" + "\n\n".join(parts) + "\n"
        lines.append(f"- [{title}]({name}.md): {', '.join(f'`adaptkit.{module}`' for module in modules)}")
    index = "# For plugins\n\nTools that methods share. What is public is on [another page](../api/index.md).\n\n"
    return {"plugin_api/index.md": index + "\n".join(lines) + "\n", **pages}


def filled(text: str) -> str:
    """A page whose blocks that quote, ``<!-- results NAME METRIC -->`` and ``<!-- origin NAME -->``, are made anew."""

    def block(found: re.Match[str]) -> str:
        what, asked = found[1], found[2].split()
        made = results_table(asked[0], asked[1], "short" in asked) if what == "results" else origin(asked[0])
        return f"<!-- {what} {found[2]} -->\n\n{made}\n\n<!-- /{what} -->"

    return re.sub(r"<!-- (results|origin) ([^>]*?) -->.*?<!-- /\1 -->", block, text, flags=re.DOTALL)
