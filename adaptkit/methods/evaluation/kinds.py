"""Kinds of evaluation by name."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.io.errors import must_be
from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.classification import Classification
from adaptkit.methods.evaluation.detection import Detection
from adaptkit.methods.evaluation.maps import Maps
from adaptkit.methods.evaluation.multi_label import MultiLabel
from adaptkit.methods.evaluation.ordinal import Ordinal
from adaptkit.methods.evaluation.ranking import Ranking

EVALUATIONS: Mapping[str, Evaluation] = {
    each.kind: each for each in (Classification(), Detection(), MultiLabel(), Ranking(), Maps(), Ordinal())
}


def evaluation(kind: str) -> Evaluation:
    """A kind of evaluation, by name.

    Raises:
        ValueError: for a name that is none.
    """
    if kind not in EVALUATIONS:
        raise ValueError(must_be("kind", EVALUATIONS, kind))
    return EVALUATIONS[kind]
