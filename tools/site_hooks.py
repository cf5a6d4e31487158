"""Hooks of mkdocs: pages that are made while the site is built, none of which is committed.

A page for each method from its card, pages of public names from docstrings, notebooks as pages (executed ones from the
folder in ``$ADAPTKIT_NOTEBOOKS``, where there are any), and the files at the root that are pages, too.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)  # mkdocs alone does not put the current folder there

from tools import command_line, pages  # noqa: E402 (needs the line above)

AT_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
AWAITED = {
    "auto.md",
    "look.md",
    "tables.md",
    "errors.md",
    "backbones.md",
    "data.md",
    "command_line.md",
}  # in the nav once they are there


def on_config(config: Any) -> Any:
    """Leave out of the navigation what is not there, and add the pages of the API."""
    there = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    config.nav = [*trimmed(config.nav, AWAITED - there)]
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference[0] = {"Public names": [*pages.api_pages()]}
    reference[1] = {"For plugins": [*pages.plugin_pages()]}
    methods = next(entry for entry in config.nav if "Methods" in entry)
    methods["Methods"] = ["methods.md", *(f"methods/{name}.md" for name in pages.plugins.table("methods"))]
    return config


def trimmed(nav: list[Any], missing: set[str]) -> Iterator[Any]:
    """Entries of a navigation, without those that are missing."""
    for entry in nav:
        title, what = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(what, list):
            yield {title: [*trimmed(what, missing)]}
        elif what not in missing:
            yield entry


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    made = {**pages.api_pages(), **pages.plugin_pages()}
    made |= {f"methods/{name}.md": pages.method_page(name) for name in pages.plugins.table("methods")}
    made |= {place: moved((ROOT / name).read_text(encoding="utf-8")) for name, place in AT_THE_ROOT.items()}
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for place, data in notebook_pages(notebook):
            files.append(File.generated(config, place, content=data))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill what quotes results, and link the table of methods to their pages."""
    if page.file.src_uri == "methods.md":
        return re.sub(r"^\| `([\w-]+)` \|", r"| [`\1`](methods/\1.md) |", markdown, flags=re.MULTILINE)
    if page.file.src_uri == "command_line.md":
        return f"{markdown}\n{command_line.commands()}"
    return markdown


def moved(text: str) -> str:
    """A file of the root as a page: links into docs lose that folder, links to other files lead to the repository."""

    def link(found: re.Match[str]) -> str:
        where, _, anchor = found[1].partition("#")
        if where in AT_THE_ROOT:
            where = AT_THE_ROOT[where]
        elif where.startswith("docs/"):
            where = where.removeprefix("docs/")
        elif where.startswith("notebooks/"):
            where = where.replace("notebooks/", "tutorials/").replace(".ipynb", ".md")
        elif where:
            where = f"{pages.CODE}/{where}"
        return f"]({where}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\((?!https?:)([^)\s]+)\)", link, text)


def notebook_pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """A notebook as a page, with its pictures; executed, where somebody has left it so."""
    import nbformat
    from nbconvert import MarkdownExporter

    executed = Path(os.environ.get("ADAPTKIT_NOTEBOOKS", "")) / path.name
    notebook = nbformat.reads((executed if executed.is_file() else path).read_text(encoding="utf-8"), as_version=4)
    text, found = MarkdownExporter().from_notebook_node(notebook)
    for name, data in found["outputs"].items():
        yield f"tutorials/{path.stem}/{name}", data
        text = text.replace(f"]({name})", f"]({path.stem}/{name})")
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
    text = re.sub(r"\]\(\.\./README\.md\)", "](../index.md)", text)
    text = re.sub(r"\]\(\.\./docs/([^)]+)\)", r"](../\1)", text)
    text = re.sub(r"\]\(\.\./((?:plugins|recipes)/[^)]+)\)", rf"]({pages.CODE}/\1)", text)
    where = f"[notebooks/{path.name}]({pages.CODE}/notebooks/{path.name})"
    note = "" if executed.is_file() else " Outputs are not shown: it was not run for this build."
    head, _, rest = text.partition("\n\n")
    yield f"tutorials/{path.stem}.md", f"{head}\n\n*This page is the notebook {where}.*{note}\n\n{rest}"
