"""SMOTE: rare classes get new rows, between their images' embeddings and those of near ones, until all are as large.

Source: Chawla et al., SMOTE: Synthetic Minority Over-sampling Technique, arXiv:1106.1813. Draws are those of
imbalanced-learn with the same seed, bit for bit, which begins them anew for each class; it is not needed for them.
Deviations: like imbalanced-learn's, images to begin at are drawn, and a new row lies on a line, as the paper's words
have it; its pseudo-code takes the images in turn and goes another way along each axis. Of a class with no more than `k`
images all others are neighbours, and a single image is repeated, which imbalanced-learn refuses. Rows that a base reads
with views are mixed view by view, near ones by the mean over views.
Interactions: on a balanced support it changes nothing; support ``long-tailed`` is one that is not. New rows are not
brought back to unit norm. Graphs and caches of a base hold them like images.
"""

from dataclasses import field, replace

import numpy as np
import torch

from adaptkit import Images, Method, OverBase, Pooled, hookimpl, method
from adaptkit.features.items import InMemory
from adaptkit.io.ranges import Seed, Size


class SMOTE(OverBase):
    """Any method on embeddings, whose rare classes are filled up by rows between images."""

    base: Method = field(default_factory=lambda: method("linear-probe"))  # what is adapted to the balanced support
    k: Size = 5  # neighbours, within the class, that a new row may lie towards
    seed: Seed = 0  # of the draws

    def base_task(self, task):
        needs = {pair for m in self.base.modules() if isinstance(m, Method) for pair in m.support_needs().items()}
        if odd := [need for _, need in needs if not isinstance(need, Pooled) or need.fresh]:
            raise ValueError(f"base must read stored embeddings of the support for smote; got {odd[0]}; choose another")
        if not needs or not len(task.support):
            return task
        support = task.support
        held = {(name, need): getattr(support.bind({name: need}), name) for name, need in sorted(needs, key=str)}
        first = next(iter(held.values()))
        near = first.flatten(1, -2).mean(1) if first.dim() > 2 else first
        new, base, neighbour, step = drawn(near, support.labels, self.k, self.seed)
        mixed = {key: filled(rows, base, neighbour, step) for key, rows in held.items()}
        labels = torch.cat([support.labels, new])
        every = support[torch.cat([torch.arange(len(support)), base.cpu()])].label(labels)
        rows = Images(InMemory(mixed, every), torch.arange(len(labels)), labels, device=support.device)
        return replace(task, support=rows)

    def forward(self, batch):
        return self.base(batch)


def drawn(x, labels, k, seed):
    """Classes of new rows, ``(M,)``, rows of their bases and neighbours, likewise, and how far they lie between.

    Classes in order are brought to the size of the largest, with embeddings ``(S, D)``.
    """
    most, found = int(labels.bincount().max()), []
    for c in labels.unique().tolist():
        own = (labels == c).nonzero()[:, 0]
        if not (count := most - len(own)):
            continue
        rng, others = np.random.RandomState(seed), max(1, min(k, len(own) - 1))
        pick = torch.as_tensor(rng.randint(0, len(own) * others, count)).to(own)
        step = torch.as_tensor(rng.uniform(size=count)).to(x)
        rows = x[own] - x[own].mean(0)
        far = torch.cdist(rows, rows).fill_diagonal_(torch.inf if len(own) > 1 else 0)
        near = far.topk(others, largest=False).indices  # (n, k)
        base = pick // others
        found.append((torch.full_like(own[:1], c).expand(count), own[base], own[near[base, pick % others]], step))
    empty = labels[:0]
    return tuple(map(torch.cat, zip(*found, strict=True))) if found else (empty, empty, empty, x[:0, 0])


def filled(rows, base, neighbour, step):
    """Rows ``(S, ...)`` and new ones behind them, ``(S + M, ...)``."""
    step = step.view(-1, *[1] * (rows.dim() - 1)).to(rows)
    return torch.cat([rows, rows[base] + step * (rows[neighbour] - rows[base])])


@hookimpl
def methods():
    return {"smote": SMOTE}
