"""Several labels for an image that nobody labelled: the classes that it, and those that the class, are sure of."""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_bounds(p: Tensor, sure: float, top: float) -> tuple[Tensor, Tensor]:
    """What makes a class a candidate, from the probabilities that some images have, ``(N, C)``.

    Args:
        p: probabilities.
        sure: quantile of the images' largest probabilities, between 0 and 1.
        top: quantile of the images' probabilities of each class, between 0 and 1.

    Returns:
        The sum of an image's likeliest classes that its candidates reach, a scalar; and the least probability of a
        class among its candidates, ``(C,)``.

    >>> import torch
    >>> from adaptkit.methods.candidates import candidate_bounds
    >>> total, least = candidate_bounds(torch.tensor([[0.7, 0.3], [0.4, 0.6]]), 1.0, 0.0)
    >>> total.item(), least.tolist()  # doctest: +ELLIPSIS
    (0.69..., [0.40..., 0.30...])
    """
    return p.amax(1).quantile(sure), torch.stack([own.quantile(top) for own in p.unbind(1)])


def among_likeliest(p: Tensor, total: Tensor) -> Tensor:
    """Classes of each image by descending probability, up to and with the one that takes the sum past `total`.

    Args:
        p: probabilities, ``(N, C)``.
        total: a scalar; one class is a candidate at least.

    Returns:
        ``(N, C)``, true for candidates.
    """
    ordered, order = p.sort(-1, descending=True)
    before = torch.cat([torch.zeros_like(p[:, :1]), ordered.cumsum(-1)[:, :-1]], 1)  # summed so far
    return torch.zeros_like(p, dtype=torch.bool).scatter(1, order, before <= total)


def candidates(p: Tensor, total: Tensor, least: Tensor) -> Tensor:
    """The classes that each image may be of, ``(N, C)``: among its likeliest, and it among the class's images.

    >>> import torch
    >>> from adaptkit.methods.candidates import candidates
    >>> candidates(torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor(0.5), torch.tensor([0.5, 0.5, 0.5])).tolist()
    [[True, False, False]]
    """
    return among_likeliest(p, total) & (p >= least)
