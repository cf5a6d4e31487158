"""The order in which test images are met; it is part of a protocol. Methods that answer each image alone do not care.

An order may depend on the labels, as the world's does; no method sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from adaptkit.io.errors import must_be
from adaptkit.io.ranges import Positive
from adaptkit.io.values import Spec, convert

Order = Callable[[int], np.ndarray]  # a seed to the positions of all images, as they are met


def shuffled(labels: np.ndarray, part: np.ndarray, draw: Generator) -> np.ndarray:
    """At random; every test set is a stream of its own."""
    return draw.permutation(len(labels))


def class_correlated(
    labels: np.ndarray, part: np.ndarray, draw: Generator, *, concentration: Positive = 0.1
) -> np.ndarray:
    """As many slots of time as there are classes; each class spreads over them by a Dirichlet draw.

    Near 0 one class follows another; far above 1 the order is as good as shuffled. After Gong et al., NOTE,
    arXiv:2208.05117.
    """
    classes = np.unique(labels)
    time = draw.random(len(labels))  # within a slot
    for c in classes:
        share = draw.dirichlet(np.full(len(classes), concentration))
        time[labels == c] += draw.choice(len(classes), (labels == c).sum(), p=share)
    return time.argsort()


def gradual(labels: np.ndarray, part: np.ndarray, draw: Generator) -> np.ndarray:
    """All test sets in one stream, one after the other; each fades out while the next fades in."""
    return (part + draw.random((2, len(labels))).sum(0)).argsort()  # a triangle from 0 to 2


STREAMS: Mapping[str, Callable[..., np.ndarray]] = {
    "shuffled": shuffled,
    "class-correlated": class_correlated,
    "mixed": shuffled,
    "gradual": gradual,
}
JOINED = ("mixed", "gradual")
"""Streams that all test sets flow into together."""


def named(spec: Spec) -> tuple[str, Mapping[str, Any]]:
    """A stream's name and options, checked.

    Raises:
        ValueError: for an unknown name or option, or a value of the wrong type.
    """
    name = spec.name
    if name not in STREAMS:
        raise ValueError(must_be("stream", STREAMS, name))
    known = {"concentration": Positive} if name == "class-correlated" else {}
    for key in spec.options:
        if key not in known:
            raise ValueError(must_be(f"an option of {name}", known or ["none"], key))
    options = {key: convert(value, known[key], f"{name}.{key}") for key, value in spec.options.items()}
    STREAMS[name](np.zeros(1), np.zeros(1), default_rng(), **options)  # what is wrong with a value shows here
    return name, options


def order(spec: Spec | str | Mapping[str, Any], labels: Sequence[int], parts: Sequence[int] = ()) -> Order:
    """How a stream meets some images.

    Args:
        spec: the stream, perhaps as a recipe writes it.
        labels: N class ids.
        parts: which test set each image is of, from 0; none where there is one.
    """
    name, options = named(Spec.of(spec, "stream"))
    each, part = np.asarray(labels), np.asarray(parts if len(parts) else [0] * len(labels))
    return lambda seed: STREAMS[name](each, part, default_rng(seed), **options)
