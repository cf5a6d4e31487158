"""What a reader of numbers must know of the backbone that they were made with."""

from __future__ import annotations

import re

from adaptkit.report.cards import module_doc
from adaptkit.runs import plugins


def backbone_line(backbone: str) -> str:
    """A backbone's name and, where its plugin's card says so, that it is no CLIP or what else it is.

    A card says it in a line that begins with ``Beside numbers:``, or ``Beside numbers (PLACE):`` for one of several.

    >>> backbone_line("toy:0")
    'backbone toy:0: no CLIP, but two small random towers; its numbers say nothing of any other backbone'
    """
    scheme, _, place = backbone.partition(":")
    known = plugins.table("backbones")
    found = (
        re.findall(r"^Beside numbers(?: \((.+?)\))?: (.+)$", module_doc(known[scheme]), re.M) if scheme in known else []
    )
    said = [text for of, text in found if of in ("", place)]
    return f"backbone {backbone}{f': {said[0]}' if said else ''}"
