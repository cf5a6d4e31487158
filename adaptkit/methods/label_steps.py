"""Labels that take some steps over a graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit.methods.graph import Graph


def label_steps(
    given: Tensor, to: Tensor, weight: Tensor, start: tuple[Tensor, Tensor], alpha: float, steps: int
) -> Tensor:
    """Scores after ``y = alpha (given + W y) + (1 - alpha) start``, again and again.

    The start has one class a node, so that the first step needs no product with a matrix of all classes.

    Args:
        given: what nodes get at each step from where labels are known, ``(N, C)``.
        to: nodes that each is linked to, ``(N, K)``; links go both ways, and those between the same two add up.
        weight: of the links, ``(N, K)``: W.
        start: scores of the first nodes and the classes that have them, both ``(M,)``, M at most N.
        alpha: share of what travels.
        steps: how many.

    Returns:
        ``(N, C)``.

    >>> import torch
    >>> from adaptkit.methods.label_steps import label_steps
    >>> to, start = torch.tensor([[1], [0]]), (torch.tensor([0.5]), torch.tensor([1]))
    >>> label_steps(torch.eye(2), to, torch.ones(2, 1), start, alpha=1.0, steps=1)
    tensor([[1., 0.],
            [0., 2.]])
    """
    nodes = len(given)
    score, label = (F.pad(part, (0, nodes - len(part))) for part in start)
    own = torch.arange(nodes, device=given.device)
    source, to = own[:, None].expand_as(to).flatten(), to.flatten()
    edge, weight = torch.stack([torch.cat([source, to]), torch.cat([to, source])]), weight.flatten().repeat(2)
    if not steps:
        return torch.zeros_like(given).index_put_((own, label), score)
    y = given.clone().index_put_((edge[0], label[edge[1]]), weight * score[edge[1]], accumulate=True)
    graph = Graph(edge, weight, nodes) if steps > 1 else None
    for step in range(steps):
        if step and graph is not None:
            y = (graph @ y).add_(given)
        if alpha < 1:
            y.mul_(alpha).index_put_((own, label), (1 - alpha) * score, accumulate=True)
    return y
