"""Images that were answered wrong, as a section of a page: with pictures where there are some, else by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.io.safe import in_html
from adaptkit.report.errors.sections import data_table, percentage, section


@dataclass(frozen=True)
class Mistake:
    """An image that was answered wrong; pictures are addresses of data, "" where there is none.

    Attributes:
        image: where it is.
        label: its class.
        predicted: what it was taken for.
        probability: of that answer, if there is one.
        picture: of the image.
        near_label: its nearest neighbour of its own class.
        near_predicted: its nearest neighbour of the class that it was taken for.
    """

    image: str
    label: str
    predicted: str
    probability: float | None = None
    picture: str = ""
    near_label: str = ""
    near_predicted: str = ""


def mistakes_section(found: Sequence[Mistake], note: str = "") -> str:
    """The images, the surest errors first.

    Args:
        found: what is shown.
        note: what a reader must know, e.g. why there are no pictures.
    """
    title = "Surest errors"
    if not found:
        return section(title, "no labelled image was answered wrong")
    told = in_html(note)
    if not any(each.picture for each in found):
        rows = [[m.image, m.label, m.predicted, percentage(m.probability)] for m in found]
        head = ["image", "true", "answered", "probability, %"]
        return section(title, told, data_table(head, rows, 3, title))
    items = "".join(f"<li>{pictured(each)}</li>" for each in found)
    what = "image, and its nearest neighbours among what was learned from: of its own class, of the class answered"
    return section(title, f"{what}{'; ' * bool(told)}{told}", f'<ul class="pictures">{items}</ul>')


def pictured(found: Mistake) -> str:
    """One image with its neighbours."""
    sure = f", {percentage(found.probability)} %" if found.probability is not None else ""
    three = [
        (found.picture, f"answered {found.predicted}{sure}"),
        (found.near_label, f"true: {found.label}"),
        (found.near_predicted, found.predicted),
    ]
    shown = "".join(
        f"<figure>{image_of(picture, said)}<figcaption>{in_html(said)}</figcaption></figure>" for picture, said in three
    )
    return f'<div title="{in_html(found.image)}">{shown}</div>{in_html(found.image)}'


def image_of(picture: str, said: str) -> str:
    """A picture, or an empty place where there is none."""
    return f'<img src="{in_html(picture)}" alt="{in_html(said)}">' if picture else '<div class="none"></div>'


def said(label: object) -> str:
    """A class, or several, as text; nothing where there is none."""
    if isinstance(label, list):
        return ", ".join(map(str, label))
    return "" if label is None else str(label)
