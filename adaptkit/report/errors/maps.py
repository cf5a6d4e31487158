"""The images whose maps are worst and best: which they are, and a gallery of image, mask and map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from adaptkit.io.safe import in_html
from adaptkit.report.errors.gallery import Gallery
from adaptkit.report.errors.mistakes import image_of
from adaptkit.report.errors.sections import percentage, section
from adaptkit.report.heat import heat_picture, mask_picture
from adaptkit.report.thumbnails import small_picture

GROUPS = 3  # worst, best, false alarms: each has a third of the images that are shown
WORST, BEST, ALARMS = "Anomalous images told worst", "Anomalous images told best", "Normal images that score highest"
SAID = {
    WORST: "by the area under the curve of the image's own pixels, the lowest first",
    BEST: "by the same, the highest first",
    ALARMS: "by the image's own score: false alarms, if anomalous images score lower",
}


class MapAnswers(Protocol):
    """Predictions that are maps."""

    title: str
    columns: dict[str, np.ndarray]
    gallery: Gallery | None

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def rows(self, places: Sequence[int] | np.ndarray | None = None) -> list[dict[str, Any]]:
        """What is known of images, by their places."""
        ...


def own_scores(told: MapAnswers) -> None:
    """Maps have what tells their images apart.

    Raises:
        ValueError: for those of a run that kept less.
    """
    if not {"anomalous", "pixel_auroc"} <= told.columns.keys():
        raise ValueError(
            f"predictions of maps must hold how well each image is told; got scores alone of {told.title}; "
            "run the recipe again into another folder"
        )


def worst_first(told: MapAnswers) -> np.ndarray:
    """The anomalous images, by their places, those whose own pixels are told worst first."""
    own_scores(told)
    places = np.flatnonzero(told.columns["anomalous"])
    return places[np.argsort(told.columns["pixel_auroc"][places], kind="stable")]  # those without come last


def alarms_first(told: MapAnswers) -> np.ndarray:
    """The normal images, by their places, those that score highest first."""
    own_scores(told)
    places = np.flatnonzero(~told.columns["anomalous"])
    return places[np.argsort(-told.columns["score"][places], kind="stable")]


def shown_groups(told: MapAnswers, most: int) -> dict[str, list[int]]:
    """The images of a gallery, so many in all, by their places: none stands in it twice."""
    count = -(-most // GROUPS)
    known = [i for i in worst_first(told).tolist() if np.isfinite(told.columns["pixel_auroc"][i])]
    best = known[count:][::-1][:count]
    return {WORST: known[:count], BEST: best, ALARMS: alarms_first(told)[:count].tolist()}


def maps_sections(told: MapAnswers, most: int, pictures: bool = False) -> str:
    """A gallery: of the worst and best anomalous images, and of the loudest normal ones, mask and map.

    Args:
        told: answers that are maps.
        most: images that are shown, about.
        pictures: with the images themselves, below the maps.
    """
    if not {"anomalous", "pixel_auroc"} <= told.columns.keys():
        return section("Maps", "not kept by the version that wrote this run; run the recipe again into another folder")
    parts, notes = list[str](), list[str]()
    if "map" not in told.columns:
        notes.append(f"{len(told):,} maps are too many to be kept")
    else:
        notes.append("mask, and map from black, the least number of all images here, to pale yellow, the largest")
    if pictures and told.gallery and (note := told.gallery.note()):
        notes.append(in_html(note))
    for title, places in shown_groups(told, most).items():
        if places:
            items = "".join(f"<li>{shown_map(told, place, pictures)}</li>" for place in places)
            said = "; ".join([SAID[title], *notes])
            parts.append(section(title, said, f'<ul class="pictures maps">{items}</ul>'))
            notes = []
    return "".join(parts) or section("Maps", "of no image")


def shown_map(told: MapAnswers, place: int, pictures: bool) -> str:
    """One image of a gallery: itself where it is there, its mask, its map, and its numbers."""
    row = told.rows([place])[0]
    auroc = f"pixel AUROC {percentage(row['pixel_auroc'])} %, " if row["pixel_auroc"] is not None else ""
    numbers, figures = f"{auroc}score {row['score']:.3g}", list[tuple[str, str]]()
    image = told.gallery.picture(place) if pictures and told.gallery else None
    if image is not None:
        figures.append((small_picture(image), "image"))
    if "map" in told.columns:
        values = told.columns["map"][place]
        if told.columns["anomalous"][place]:
            figures.append((small_picture(mask_picture(told.columns["mask"][place], values.shape[1])), "mask"))
        figures.append((small_picture(heat_picture(values, image)), "map"))
    shown = "".join(f"<figure>{image_of(data, what)}<figcaption>{what}</figcaption></figure>" for data, what in figures)
    return f"<div>{shown}</div>{in_html(row['image'])}: {numbers}"


def map_tables(told: MapAnswers, most: int) -> list[list[list[str]]]:
    """Heads and rows for a terminal: anomalous images told worst, normal ones that score highest."""
    worst, alarms = told.rows(worst_first(told)[:most]), told.rows(alarms_first(told)[:most])
    rows = [[str(r["image"]), percentage(r["pixel_auroc"]), f"{r['score']:.4g}"] for r in worst]
    tables = [[["anomalous, told worst first", "own pixel AUROC, %", "score"], *rows]] if rows else []
    rows = [[str(r["image"]), f"{r['score']:.4g}"] for r in alarms]
    return tables + ([[["normal, highest score first", "score"], *rows]] if rows else [])


def plain_maps(told: MapAnswers, most: int) -> dict[str, Any]:
    """What a program may want to know of maps: anomalous images told worst, normal ones that score highest."""
    worst, alarms = worst_first(told), alarms_first(told)
    found: dict[str, Any] = {"anomalous": len(worst), "errors": told.rows(worst[:most])}
    return {**found, "alarms": told.rows(alarms[:most])}


def by_worth(told: MapAnswers) -> Sequence[int]:
    """All images, by their places: anomalous ones told worst first, then normal ones that score highest."""
    return [*worst_first(told).tolist(), *alarms_first(told).tolist()]
