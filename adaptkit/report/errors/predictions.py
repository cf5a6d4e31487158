"""What one method answered about the images of one test set: to look at, to count, and to hand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.io.errors import must_be
from adaptkit.report.errors.counts import NO_LABEL, ClassScores, class_scores, confusion_counts, macro_f1
from adaptkit.report.errors.frames import data_frame
from adaptkit.report.errors.gallery import Gallery
from adaptkit.report.errors.maps import maps_sections
from adaptkit.report.errors.mistakes import Mistake, mistakes_section, said
from adaptkit.report.errors.ranks import late_section, ranks_of
from adaptkit.report.errors.sections import classes_section, confusion_section, reliability_section, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from adaptkit.runs.told import Told

MAP_LABELS = ("normal", "anomalous")


class Predictions:
    """Answers to the N images of one test set. Shows itself in notebooks; plots need matplotlib, frames pandas.

    Attributes:
        title: the method, its shots and its seed.
        kind: what was asked of an image; see `Splits.kind`.
        names: of all classes.
        images: where each image is: its path from the dataset, or its number.
        labels: true class ids, ``(N,)``, -1 for images of no class; of several labels an image a list of them.
        columns: what was answered, a row for each image: ``predicted`` and its probability, ``confidence``; ``others``,
            the classes after it, and ``likely``, theirs; ``score`` where an answer is one number; of maps, ``map`` and
            what goes with it (see `small_maps`); of a search ``rank``; and ``met``, the place in a stream.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> told = ak.compare(task, test, ["gda"]).predictions("gda")
    >>> told.counts.shape, len(told.errors()) + int(told.right.sum())
    ((5, 5), 60)
    """

    def __init__(
        self, told: Told, title: str = "", gallery: Gallery | None = None, worth: str | Sequence[float] = ()
    ) -> None:
        self.title, self.columns, self.gallery = title, dict(told.columns), gallery
        self.kind: str = told.asked["kind"]
        self.names: Sequence[str] = told.asked["names"]
        self.images: Sequence[Any] = told.asked["images"]
        given = told.asked["labels"]
        self.labels: Any = np.full(len(self.images), NO_LABEL) if given is None else given
        if not len(self.labels) or not isinstance(self.labels[0], list):
            self.labels = np.asarray(self.labels, int)
        if self.kind == "ranking" and len(worth) == len(self):
            self.columns["rank"] = ranks_of(worth)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        wrong = f", {len(self.errors())} answered wrong" if "predicted" in self.columns else ""
        return f"Predictions({self.title}: {len(self)} images{wrong})"

    @property
    def predicted(self) -> np.ndarray:
        """The class that was answered, ``(N,)``."""
        if "predicted" not in self.columns:
            raise ValueError(f"answers must be about classes; got scores of {self.title}; frame() has them")
        return self.columns["predicted"].astype(int)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the answer, ``(N,)``, between 0 and 1."""
        if "confidence" not in self.columns:
            raise ValueError(f"answers must have probabilities; got none of {self.title}")
        return self.columns["confidence"]

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the answer is right, ``(N,)``: the class, or one of several; false where there is no right answer."""
        if isinstance(self.labels, list):
            return np.array([p in own for p, own in zip(self.predicted.tolist(), self.labels, strict=True)], bool)
        return self.predicted == self.labels

    @property
    def about_classes(self) -> bool:
        """Whether each image has one class at most and is answered by one: then there is a confusion matrix."""
        return "predicted" in self.columns and not isinstance(self.labels, list) and self.kind != "ranking"

    @cached_property
    def labelled(self) -> np.ndarray:
        """The images that have a right answer, by their places: of no labels at all none is."""
        if isinstance(self.labels, list):
            return np.flatnonzero([bool(own) for own in self.labels])
        return np.flatnonzero(self.labels != NO_LABEL)

    @property
    def counts(self) -> np.ndarray:
        """How many images of each class, in rows, were taken for each, in columns, ``(C, C)``."""
        if isinstance(self.labels, list) or self.kind == "ranking":
            raise ValueError(f"confusion must be of one class an image; got {self.kind}; frame() has its answers")
        return confusion_counts(self.labels, self.predicted, len(self.names))

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 over classes, between 0 and 1; ``None`` without labelled images."""
        return macro_f1(self.counts)

    def errors(self, most: int | None = None) -> np.ndarray:
        """The images that were answered wrong, by their places, the surest first; of a search the last found."""
        if "predicted" not in self.columns:
            return np.zeros(0, int)
        wrong = self.labelled[~self.right[self.labelled]]
        sure = self.columns.get("rank", self.columns.get("confidence", np.zeros(len(self))))[wrong]
        return wrong[np.argsort(-sure, kind="stable")][:most]

    def rows(self, places: Sequence[int] | np.ndarray | None = None) -> list[dict[str, Any]]:
        """Image, label, predicted, probability, right and others, of each image or of some by their places."""
        of = self.columns
        labelled, out = {*self.labelled.tolist()}, []
        for i in range(len(self)) if places is None else np.asarray(places).tolist():
            row: dict[str, Any] = {"image": self.images[i], "label": self.named(self.labels[i])}
            if "predicted" in of:
                row["predicted"] = self.named(int(of["predicted"][i]))
                row |= {"probability": float(of["confidence"][i])} if "confidence" in of else {}
                row["right"] = bool(self.right[i]) if i in labelled else None
                row["others"] = [self.named(c) for c in of["others"][i].tolist()]
            if "anomalous" in of:
                auroc = float(of["pixel_auroc"][i])
                row |= {"label": MAP_LABELS[int(of["anomalous"][i])], "pixel_auroc": auroc if isfinite(auroc) else None}
            row |= {name: of[name][i].item() for name in ("rank", "score", "met") if name in of}
            out.append(row)
        return out

    def named(self, label: Any) -> Any:  # noqa: ANN401 (a class id, or several)
        """The name of a class, or of an item that was searched; of several all; ``None`` where there is none."""
        if isinstance(label, list):
            return [self.named(each) for each in label]
        return None if label == NO_LABEL else self.names[label] if label < len(self.names) else int(label)

    def frame(self) -> DataFrame:
        """A pandas table with a row for each image; see `rows`."""
        return data_frame(self.rows())

    def per_class(self) -> list[ClassScores]:
        """Images, precision, recall and F1 of each class."""
        return class_scores(self.counts, self.names)

    def confusion(self) -> DataFrame:
        """The `counts` as a pandas table: true classes in rows, answers in columns."""
        names = list(self.names)
        return data_frame(self.counts, index=names, columns=names)

    def plot_confusion(self) -> Figure:
        """The confusion matrix, as shares of each true class's images."""
        from adaptkit.report.errors.plots import confusion_figure

        return confusion_figure(self.counts, self.names, self.title)

    def plot_reliability(self) -> Figure:
        """How often answers of a given confidence are right."""
        from adaptkit.report.errors.plots import reliability_figure

        return reliability_figure(self.confidence[self.labelled], self.right[self.labelled], self.title)

    def mistakes(self, n: int = 12, pictures: bool = True) -> list[Mistake]:
        """The surest errors, with what else is known about them.

        Args:
            n: how many at most.
            pictures: with pictures of the images and of their nearest neighbours among what was learned from.
        """
        places = self.errors(n)
        rows = self.rows(places)
        found = [Mistake(str(r["image"]), said(r["label"]), said(r["predicted"]), r.get("probability")) for r in rows]
        if not pictures or self.gallery is None:
            return found
        if isinstance(self.labels, list):  # an image of several classes has no nearest one of its own
            return self.gallery.beside(found, places.tolist(), [NO_LABEL] * len(found), [NO_LABEL] * len(found))
        labels, told = self.labels[places].tolist(), self.predicted[places].tolist()
        return self.gallery.beside(found, places.tolist(), labels, told)

    def show_errors(self, n: int = 12) -> AsHTML:
        """The surest errors as pictures, each with its nearest neighbours of the true and of the answered class.

        The neighbours are those among the labelled images that the method learned from, by the cosine of the pooled
        feature. Where there are no pictures, names stand alone. Of maps, the images that are told worst and best.
        """
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"n must be 0 or more errors; got {n!r}")
        if own := self.own_sections(n, pictures=True):
            return AsHTML(own)
        note = self.gallery.note() if self.gallery else "no pictures: images are known as features only"
        return AsHTML(mistakes_section(self.mistakes(n), note))

    def own_sections(self, n: int, pictures: bool) -> str:
        """What a page says of maps, or of a search, as HTML; nothing of answers of another kind."""
        if self.kind == "ranking":
            return late_section(self.rows(self.errors(n)))
        return maps_sections(self, n, pictures) if self.kind == "maps" else ""

    def sections(self, errors: int = 12, pictures: bool = False) -> str:
        """All sections of a page about these answers, as HTML."""
        if own := self.own_sections(errors, pictures):
            return own
        parts = []
        if self.about_classes:
            parts.append(confusion_section(self.labels, self.predicted, self.names))
            if "confidence" in self.columns:
                parts.append(reliability_section(self.confidence[self.labelled], self.right[self.labelled]))
            parts.append(classes_section(self.labels, self.predicted, self.names))
        if "predicted" in self.columns:
            note = self.gallery.note() if pictures and self.gallery else ""
            parts.append(mistakes_section(self.mistakes(errors, pictures), note))
        return "".join(parts)

    def _repr_html_(self) -> str:
        return AsHTML(self.sections())._repr_html_()


class AsHTML:
    """HTML that shows itself in notebooks."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        return f"<style>{style()}</style>{self.html}"


def set_of(told: Sequence[Told], test: str) -> Told:
    """One test set of several, by name.

    Raises:
        ValueError: when there is none of that name.
    """
    by_name: Mapping[str, Told] = {each.name: each for each in told}
    if test not in by_name:
        raise ValueError(must_be("test", [name or "''" for name in by_name], test))
    return by_name[test]
