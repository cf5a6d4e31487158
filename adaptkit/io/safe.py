"""Names and texts of strangers, made safe where they go: one function for each target, used by every writer."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from html import escape
from typing import TextIO

_UNSEEN = (  # controls, marks that turn the direction of text, what has no width, halves of characters, and tags
    r"\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f"
)
_CONTROL = re.compile(rf"[\x00-\x1f{_UNSEEN}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSEEN}]")  # all but tab and line feed
_MARKDOWN = re.compile(
    r"[\\|`*$]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|&(?=#?\w+;)|\](?=[(\[:])|(?<=\])[(\[]|<(?=\S)"
)
_BLOCK = "#>+-=~"  # at the start of a line of Markdown
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)|-", re.IGNORECASE)
_TEX = {
    **{c: "\\" + c for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "•": r"$^\bullet$", "▼": r"$^\bigtriangledown$", "▲": r"$^\bigtriangleup$"},
}
_SPELLED = str.maketrans({"±": "+/-", "•": "*", "▼": "<", "▲": ">", "─": "-", "━": "-", "…": "..."})


def line(text: str) -> str:
    r"""Text on one line: characters that steer a terminal or cannot be seen stand there as Python writes them.

    >>> line("photos" + chr(27) + "[2J" + chr(10) + "done")
    'photos\\x1b[2J\\ndone'
    """
    return _CONTROL.sub(_escaped, text)


def in_lines(text: str) -> str:
    """Text of several lines for a terminal; those after the first stand back, so that none passes for another's."""
    return _IN_LINES.sub(_escaped, text).replace("\n", "\n  ")


def in_markdown(text: str) -> str:
    """Text inside a line of Markdown: neither markup, HTML, a link nor the end of a cell of a table."""
    return _MARKDOWN.sub(lambda found: "&lt;" if found[0] == "<" else f"\\{found[0]}", line(text))


def in_html(text: object) -> str:
    r"""Text that HTML takes literally, in an element or an attribute, in one line.

    >>> in_html("a < b" + chr(10))
    'a &lt; b\\n'
    """
    return escape(line(str(text)))


def item(text: str) -> str:
    """Text that begins a block of Markdown, e.g. what stands behind a list's dash: no heading, quote, rule or list."""
    text = in_markdown(text).strip()
    numbered = re.sub(r"^(\d+)(?=[.)](\s|$))", r"\1\\", text)
    return f"\\{text}" if text[:1] in {*_BLOCK} else numbered


def code(text: str) -> str:
    """Text as code in Markdown, or as plain text where it could leave the code."""
    return in_markdown(text) if re.search(r"[`<]|\]\(", text) or not text.strip() else f"`{line(text)}`"


def in_latex(text: str) -> str:
    """Text that LaTeX takes literally, in one line; the marks of tables become symbols."""
    text = "".join(_TEX.get(c, c) for c in line(text))
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in {"[", "*"} else text  # behind a row's end they would be options


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV: text that a spreadsheet would take for a formula has an apostrophe before it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(_literal, row) for row in rows)
    return out.getvalue()


def _literal(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = line(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plotted(text: str) -> str:
    """Text for matplotlib, which takes dollars for mathematics and hides names that begin with an underscore."""
    text = line(text).replace("$", r"\$")
    return f"\u200a{text}" if text.startswith("_") else text


def spelled(text: str, encoding: str) -> str:
    """Text in the characters of an encoding: the marks of tables as others, the rest as Python writes it.

    >>> spelled("70.0 ± 2.1 •", "ascii")
    '70.0 +/- 2.1 *'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_SPELLED)
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Shown:
    """A stream for a terminal: characters that steer one are written as Python writes them, lines stay."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text, in the characters that the stream has; says how much was given, as streams do."""
        has = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(spelled(_IN_LINES.sub(_escaped, text), has))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode() if found[0] < "\ud800" or found[0] > "\udfff" else _half(found[0])


def _half(character: str) -> str:
    """Half a character is a byte of a file's name that is no text."""
    return f"\\x{ord(character) - 0xDC00:02x}" if 0xDC80 <= ord(character) <= 0xDCFF else f"\\u{ord(character):04x}"
