"""Retrieval: for each query, the items of a gallery in the order of their scores."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.condensed import Condensed, likeliest


class Ranking(Evaluation):
    """Scores ``(N, G)`` of queries and a gallery against ``(N,)`` places in it, or ``(N, G)`` zeros and ones.

    A query's rank is that of the first of its items; items that score the same as it stand before it, so that ties
    help nobody.
    """

    kind = "ranking"
    shape = "(N, G) scores and (N,) places in the gallery or (N, G) zeros and ones"
    headline = ("recall@1", "recall@5", "recall@10", "median_rank")
    paired = "mrr"
    unscaled = frozenset({"median_rank", "mrr"})
    falling = frozenset({"median_rank"})

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the gallery; with several items to a query, of finding one of them."""
        own = answers.masked_fill(~self._relevant(answers, targets), float("-inf"))
        return (answers.logsumexp(-1) - own.logsumexp(-1)).mean()

    def right(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Reciprocal ranks, ``(N,)`` doubles."""
        return 1 / self.ranks(answers, targets).double()

    def objective(self, answers: Tensor, targets: Tensor) -> float:
        """Mean reciprocal rank."""
        return float(self.right(answers, targets).mean())

    def metrics(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """How early queries find their items.

        Returns:
            ``recall@1``, ``recall@5`` and ``recall@10`` (of galleries that are larger), the shares of queries with an
            item among so many first; ``median_rank``, from 1; and ``mrr``, the mean reciprocal rank.
        """
        ranks = self.ranks(answers, targets).double()
        found = {
            f"recall@{k}": float((ranks <= k).double().mean()) for k in (1, 5, 10) if k in (1,) or k < answers.shape[1]
        }
        return {**found, "median_rank": float(ranks.quantile(0.5)), "mrr": float((1 / ranks).mean())}

    def ranks(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Each query's rank, ``(N,)``, from 1."""
        relevant = self._relevant(answers, targets)
        best = answers.masked_fill(~relevant, float("-inf")).amax(-1, keepdim=True)
        return 1 + ((answers >= best) & ~relevant).sum(-1)

    def kept_of(self, items: Condensed) -> dict[str, Tensor]:
        """The five first items of the gallery."""
        answers = items.columns["answers"]
        return likeliest(answers, answers.argmax(-1))

    def fits(self, answers: Tensor, targets: Tensor) -> bool:
        """Rows over a gallery, and places or marks in it."""
        return answers.dim() == 2 and (targets.dim() == 1 or answers.shape == targets.shape)

    def _relevant(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Which items of the gallery are a query's, ``(N, G)`` booleans, one at least."""
        self.check(answers, targets)
        size = answers.shape[1]
        if targets.dim() == 1:
            if not 0 <= int(targets.min()) <= int(targets.max()) < size:
                got = f"{int(targets.min())} to {int(targets.max())}"
                raise ValueError(f"targets must be places from 0 to {size - 1}; got {got}")
            return torch.arange(size, device=targets.device) == targets[:, None]
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError(f"targets must be 0 or 1; got {targets.unique()[:5].tolist()}")
        if lost := int((~targets.bool().any(-1)).sum()):
            raise ValueError(f"every query must have an item in the gallery; got {lost} without one")
        return targets.bool()
