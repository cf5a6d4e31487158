"""Temperatures at which a model is as sure as it is right, or as another is, as several methods search them."""

from __future__ import annotations

from torch import Tensor


def confidence(logits: Tensor, heat: float = 1.0) -> float:
    """Mean largest probability of ``(N, C)`` logits divided by a temperature."""
    return float((logits / heat).softmax(-1).amax(-1).mean())


def heat_at(logits: Tensor, aim: float, *, low: float = 0.01, high: float = 100.0, steps: int = 50) -> float:
    """The temperature between `low` and `high` at which logits ``(N, C)`` have the confidence `aim`, by bisection."""
    for _ in range(steps):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if confidence(logits, middle) > aim else (low, middle)  # hotter is less sure
    return (low * high) ** 0.5


def interpolated_heat(logits: Tensor, aim: float, gap: float) -> float:
    """The first temperature within `gap` of the confidence `aim`, of those on the line between two, from 0.1 and 10.

    As GLA's release searches, which has no end where none is near enough; here the last of a thousand serves.
    """
    low, high, middle = 0.1, 10.0, 1.0
    for _ in range(1000):
        above, below = confidence(logits, low) - aim, confidence(logits, high) - aim
        share = abs(above) / max(abs(above) + abs(below), 1e-12)
        middle = low * (1 - share) + high * share
        if abs(confidence(logits, middle) - aim) <= gap:
            break
        if below > 0:
            high *= 1.1
        elif above < 0:
            low /= 1.1
        elif abs(above) < abs(below):
            high = middle
        else:
            low = middle
    return middle


def stepped_heat(logits: Tensor, aim: float, room: float = 0.1, step: float = 1.1) -> float:
    """The first temperature, in steps from 1, with the confidence `aim` within a share `room` of it.

    As Frolic's release searches; here at most a thousand steps.
    """
    heat = 1.0
    for _ in range(1000):
        sure = confidence(logits, heat)
        if abs(aim - sure) < room * aim:
            break
        heat = heat / step if aim >= sure else heat * step
    return heat


def fitted_heat(logits: Tensor, labels: Tensor, *, low: float = 0.01, high: float = 100.0, steps: int = 60) -> float:
    """The temperature at which logits ``(N, C)`` explain labels ``(N,)`` best, as if one answer more had been wrong.

    The likelihood is concave in the inverse temperature: bisection finds where its slope is zero. The one more keeps it
    finite where every answer is right.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599.
    """
    logits = logits.double()
    missed = 1 / (len(labels) + 1)
    own = logits.gather(1, labels[:, None])[:, 0]
    aim = (1 - missed) * own + missed * logits.mean(1)  # (N,)
    for _ in range(steps):
        middle = (low * high) ** 0.5
        slope = (aim - ((logits / middle).softmax(1) * logits).sum(1)).mean()  # in the inverse temperature
        low, high = (low, middle) if slope > 0 else (middle, high)  # colder explains more
    return (low * high) ** 0.5
