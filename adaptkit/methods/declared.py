"""What a method's class says of itself, held to what may be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.io.errors import must_be
from adaptkit.methods.evaluation.kinds import EVALUATIONS

CHOICES = {"scope": ("sample", "stream", "set"), "output": ("logits", "score")}
"""What a class may say of itself; a property says it of each instance."""


def kinds_answered(method: Any) -> tuple[str, ...]:  # noqa: ANN401 (a method; no circle)
    """The kinds of tasks that a method answers: what it says and, of classifiers, grades, classes in an order."""
    said: tuple[str, ...] = method.answers
    classifies = method.output == "logits" and "classification" in said and "ordinal" not in said
    return (*said, "ordinal") if classifies else said


def check_choices(cls: Any) -> None:  # noqa: ANN401 (a class of methods; no circle)
    """Hold what a class says of itself to what may be said.

    Raises:
        ValueError, TypeError: naming the class, the attribute and the choices.
    """
    for name, allowed in CHOICES.items():
        said = getattr(cls, name)
        if said not in allowed and not isinstance(said, property):
            raise ValueError(must_be(f"{cls.__name__}.{name}", allowed, said))
    if not isinstance(cls.answers, tuple) or not cls.answers or not set(cls.answers) <= {*EVALUATIONS}:
        raise TypeError(f"{cls.__name__}.answers must be a tuple of {', '.join(EVALUATIONS)}; got {cls.answers!r}")
    exempt = cls.exempt
    if not isinstance(exempt, Mapping) or not all(isinstance(why, str) and why.strip() for why in exempt.values()):
        raise ValueError(
            f"{cls.__name__}.exempt must be a mapping from checks to reasons, {{'class_order': 'why'}}; got {exempt!r}"
        )
