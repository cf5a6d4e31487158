"""Sections about errors as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from adaptkit.io.safe import in_html
from adaptkit.report.errors.sections import style

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str, rules: str = "") -> str:
    """A whole page: without scripts, without a network.

    Args:
        title: as text.
        body: sections, as HTML.
        rules: for them, besides those of the sections about errors.
    """
    rules = (Path(__file__).parent / "page.css").read_text(encoding="utf-8") + style() + rules
    shown = in_html(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<link rel="icon" href="data:,">\n'
        f"<title>{shown}</title>\n<style>{rules}</style>\n</head>\n<body>\n<main>\n<h1>{shown}</h1>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )
