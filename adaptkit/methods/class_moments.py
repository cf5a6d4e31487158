"""What each image that enters a cache of the surest changes: its class's mean, and a few columns of the scatter."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from adaptkit.methods.class_cache import Entered
from adaptkit.towers.backbone import unit


@dataclass(frozen=True)
class Changes:
    """M changes of a stream's Gaussians, one after another, each of one class.

    Attributes:
        number: of the image that made each, among those that came together.
        label: the class of each.
        mean: of that class from then on, ``(M, D)``.
        column: of the scatter of all deviations from the means, which grows by ``weight column column^T``, ``(R, D)``.
        weight: ``(R,)``; below 0 where something leaves.
        of: the change that each column belongs to, ``(R,)``; none comes before those of an earlier one.
        drift: how much each change adds to the sum of all deviations, ``(M, D)``.
        taken: how many images of its class are held from then on.
        more: whether that is one more than before.
    """

    number: list[int]
    label: list[int]
    mean: Tensor
    column: Tensor
    weight: Tensor
    of: Tensor
    drift: Tensor
    taken: list[int]
    more: list[bool]


def changes(entered: Entered, text: Tensor, least: int, slots: int = 0, unit_means: bool = False) -> Changes:
    """What images that entered a cache change, in double precision.

    Args:
        entered: as `ClassCache.enter` says it.
        text: a class's mean while it has few images, ``(C, D)``.
        least: images from which on the mean is theirs.
        slots: what their sum is divided by; 0 for their number.
        unit_means: whether their mean is brought to unit norm.
    """
    moves, states = walk(entered)
    rows = torch.cat([entered.pool["keys"], text[entered.classes]]).double()  # (P + T, D)
    of_text = len(entered.pool["keys"])
    average = mixed([[(i, 1 / len(ids)) for i in ids] for _, ids in states], rows)
    count = [len(ids) for _, ids in states]
    own = [k >= least for k in count]
    share = rows.new_tensor([k / (slots or max(k, 1)) for k in count])[:, None]
    mean = unit(average * share) if unit_means else average * share
    mean = mean.where(torch.tensor(own, device=rows.device)[:, None], rows[[of_text + t for t, _ in states]])
    off = average - mean  # of a class's images, on average
    apart = [k > 0 and (not o or unit_means or k != (slots or k)) for k, o in zip(count, own, strict=True)]
    columns = [(i, *c) for i, move in enumerate(moves) for c in move.columns(states[move.before][1])]
    ends = [(i, s, sign * count[s]) for i, m in enumerate(moves) for s, sign in ((m.before, -1.0), (m.after, 1.0))]
    ends = [end for end in ends if apart[end[1]]]
    shifted = off[[state for _, state, _ in ends]]
    weight = rows.new_tensor([w for _, _, w in columns] + [w for _, _, w in ends])
    at = torch.tensor([i for i, *_ in columns] + [i for i, *_ in ends], dtype=torch.long, device=rows.device)
    drift = rows.new_zeros(len(moves), rows.shape[1])
    drift.index_add_(0, at[len(columns) :], shifted * weight[len(columns) :, None])
    order = at.argsort(stable=True)
    column = torch.cat([mixed([mix for _, mix, _ in columns], rows), shifted])[order]
    labels, after = entered.classes.tolist(), [move.after for move in moves]
    taken, more = [count[i] for i in after], [count[move.after] > count[move.before] for move in moves]
    of_class = [labels[states[i][0]] for i in after]
    number = [entered.number[move.entering] for move in moves]
    return Changes(number, of_class, mean[after], column, weight[order], at[order], drift, taken, more)


@dataclass(frozen=True)
class Move:
    """An image that came into a cache: its number, rows of the pool that came and left, and its class's states."""

    entering: int
    come: int
    gone: int | None
    before: int
    after: int

    def columns(self, ids: list[int]) -> list[tuple[list[tuple[int, float]], float]]:
        """Mixtures of rows and weights, by which the scatter around the images' own mean changes."""
        k, rest, out = len(ids), [i for i in ids if i != self.gone], []
        if self.gone is not None and rest:
            out.append(([(self.gone, 1.0), *((i, -1 / k) for i in ids)], -k / (k - 1)))
        if rest:
            n = len(rest)
            out.append(([(self.come, 1.0), *((i, -1 / n) for i in rest)], n / (n + 1)))
        return out


def walk(entered: Entered) -> tuple[list[Move], list[tuple[int, list[int]]]]:
    """Moves, and the states between them: of which of the classes, and who was held."""
    slots, new = len(entered.ranks[0]), len(entered.of)
    old = slots * len(entered.ranks)
    states = [(t, [slots * t + i for i, h in enumerate(row) if h < inf]) for t, row in enumerate(entered.ranks)]
    left = {i: row for row, i in enumerate(entered.last) if i < new and row != old + i}
    now, moves = [*range(len(states))], []
    for i, t in enumerate(entered.of):
        if entered.last[old + i] == i:
            continue  # it was not sure enough
        ids = [row for row in states[now[t]][1] if row != left.get(i)]
        states.append((t, [*ids, old + i]))
        moves.append(Move(i, old + i, left.get(i), now[t], len(states) - 1))
        now[t] = len(states) - 1
    return moves, states


def mixed(mixes: list[list[tuple[int, float]]], rows: Tensor) -> Tensor:
    """Weighted sums of rows ``(P, D)``, one for each mixture."""
    flat = [(j, i, weight) for j, mix in enumerate(mixes) for i, weight in mix]
    at = torch.tensor([(j, i) for j, i, _ in flat], dtype=torch.long, device=rows.device).view(-1, 2)
    share = rows.new_zeros(len(mixes), len(rows))
    share.index_put_((at[:, 0], at[:, 1]), rows.new_tensor([weight for *_, weight in flat]), accumulate=True)
    return share @ rows
