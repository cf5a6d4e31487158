"""What was found of a dataset as one HTML file with small pictures, which needs nothing else and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from adaptkit.features.datasets import Splits
from adaptkit.io.safe import in_html
from adaptkit.report.looking.found import Alike, Look, Place, telling_first
from adaptkit.report.thumbnails import THUMBNAIL_SIDE, small_picture

PICTURED = 60  # groups, and doubtful labels, that are shown as pictures
OF_GROUP = 12  # pictures of a group


def looking_page(found: Look, splits: Splits) -> str:
    """The page."""
    page = Page(found, splits)
    parts = {
        "title": in_html(f"A look at {found.dataset}"),
        "summary": "".join(f"<li>{in_html(told)}</li>" for told in summary(found)),
        "labels": page.doubts(),
        "copies": page.groups(found.copies),
        "near": page.groups(found.near),
        "threshold": f"{found.threshold:.3f}",
        "judged": f"{found.judged:,}",
        "classes": page.classes(),
    }
    template = (Path(__file__).parent / "looking.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: parts[hole[1]], template)


def summary(found: Look) -> list[str]:
    """The lines of a look that are no list."""
    return [told.strip() for told in found.lines() if not told.startswith("  ")]


class Page:
    """Parts of the page, with pictures out of the dataset."""

    def __init__(self, found: Look, splits: Splits) -> None:
        self.found, self.sources = found, {"train": splits.train, "val": splits.val, "test": splits.test}

    def doubts(self) -> str:
        """Likely wrong labels, as pictures."""
        names = self.found.classnames
        return self.shelf(
            self.figure(doubt.place, f"{names[doubt.label]} → {names[doubt.likely]}", f"margin {doubt.margin:.2f}")
            for doubt in self.found.doubts[:PICTURED]
        ) + more(self.found.doubts)

    def groups(self, groups: Sequence[Alike]) -> str:
        """Groups of images, as pictures, those across parts or under several labels first."""
        rows = []
        for alike in telling_first(groups)[:PICTURED]:
            names = ", ".join(self.found.classnames[c] for c in alike.labels)
            odd = ' class="odd"' if len(alike.labels) > 1 or len(alike.parts) > 1 else ""
            said = f"<p{odd}>cosine {alike.cosine:.3f}{f', labelled {in_html(names)}' if names else ''}</p>"
            rows.append(said + self.shelf(self.figure(place) for place in alike.places[:OF_GROUP]))
        return ("".join(rows) or "<p>none</p>") + more(groups)

    def classes(self) -> str:
        """Images of each class in each part whose labels were read."""
        parts = [part for part, counts in self.found.counts.items() if counts]
        head = "".join(f"<th>{in_html(part)}</th>" for part in parts)
        rows = [
            f"<tr><td>{in_html(name)}</td>{''.join(f'<td>{self.found.counts[part][c]:,}</td>' for part in parts)}</tr>"
            for c, name in enumerate(self.found.classnames)
        ]
        return f"<table><thead><tr><th>class</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def shelf(self, figures: Iterable[str]) -> str:
        """Pictures side by side."""
        return f'<div class="shelf">{"".join(figures)}</div>'

    def figure(self, place: Place, *said: str) -> str:
        """A picture with its place."""
        told = "".join(f"<b>{in_html(one)}</b>" for one in said)
        image = f'<img src="{self.thumbnail(place)}" alt="" width="{THUMBNAIL_SIDE}">'
        return f"<figure>{image}<figcaption>{told}{in_html(self.found.where(place))}</figcaption></figure>"

    def thumbnail(self, place: Place) -> str:
        """A small picture as text."""
        part, i = place
        return small_picture(self.sources[part].open(i)[1])  # type: ignore[union-attr]


def more(items: Sequence[object]) -> str:
    """How many are not shown."""
    return f"<p>and {len(items) - PICTURED:,} more; see --out look.csv</p>" if len(items) > PICTURED else ""
