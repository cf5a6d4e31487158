"""What methods share that tune towers on the queries themselves, anew for every set, and leave no trace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adaptkit.features.items import Images
from adaptkit.features.needs import Pooled
from adaptkit.methods.arrays import NoTowers
from adaptkit.methods.method import Method
from adaptkit.methods.schedule import Schedule
from adaptkit.towers.backbone import Backbone, unit

IMAGES_AT_ONCE = 32  # images read and encoded together


def tunable(backbone: Backbone, base: Method | None = None) -> bool:
    """Whether there are towers to tune; where a task was made of features alone there are none.

    Raises:
        ValueError: for towers that are no transformers, and for a base that reads more than `Pooled`, and so would not
            see that they are tuned.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.on_queries import tunable
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> tunable(task.backbone, ak.method("zero-shot"))
    True
    """
    if isinstance(backbone, NoTowers):
        return False
    if not {"image.block.0", "text.block.0"} <= {*backbone.points}:
        got = type(backbone).__name__
        raise ValueError(f"tune must be false where there are no two transformer towers; got {got}")
    if odd := [need for need in (base.all_needs() if base else ()) if need != Pooled()]:
        raise ValueError(
            f"tune must be false where the base reads more than embeddings; got {type(base).__name__}, of {odd[0]}"
        )
    return True


def tuned_on(queries: Images, answer: Callable[[Images], Tensor], seed: int = 0) -> Tensor:
    """What `answer` says of a set of queries, whatever their order: it trains on them, with gradients and a seed.

    It gets them in an order that their pixels alone give, and what it draws from torch's generator is the same each
    time; the generator is put back.

    Args:
        queries: N images, bound to ``pixels``.
        answer: trains, and returns N rows.
        seed: of all that it draws.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.on_queries import tuned_on
    >>> queries = ak.Images.from_arrays(torch.randn(5, 3, 8, 8)).bind({"pixels": ak.Pixels()})
    >>> means = tuned_on(queries, lambda images: images.pixels.mean((1, 2, 3)))
    >>> bool((means == queries.pixels.mean((1, 2, 3))).all())
    True
    """
    digests = [
        hashlib.sha256(pixels.contiguous().cpu().numpy().tobytes()).digest()
        for i in range(0, len(queries), IMAGES_AT_ONCE)
        for pixels in queries[i : i + IMAGES_AT_ONCE].pixels
    ]
    order = torch.tensor(sorted(range(len(digests)), key=digests.__getitem__), dtype=torch.long)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        rows = answer(queries[order]).detach()
    return torch.empty_like(rows).index_copy_(0, order.to(rows.device), rows)


@torch.no_grad()
def embedded_now(images: Images, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Unit-norm embeddings of all images, ``(N, D)``, as a tower sees them now; a few are read at a time.

    >>> import adaptkit as ak
    >>> from adaptkit.methods.on_queries import embedded_now
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> embedded_now(test.bind({"pixels": ak.Pixels()}), task.backbone.encode_image).shape
    torch.Size([60, 16])
    """
    parts = (images[i : i + IMAGES_AT_ONCE].pixels for i in range(0, len(images), IMAGES_AT_ONCE))
    return torch.cat([unit(encode(pixels)) for pixels in parts])


def positives(logits: Tensor, belong: Tensor) -> Tensor:
    """Contrastive loss where a row has several columns that belong to it, and a column several rows, nats.

    The mean over rows of the mean negative log-softmax of what belongs to each, and the same over columns, added up.

    Args:
        logits: ``(B, B')``.
        belong: which belong together, likewise.

    >>> import torch
    >>> from adaptkit.methods.on_queries import positives
    >>> float(positives(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool)).exp())
    4.0
    """
    each = [-(belong * logits.log_softmax(d)).sum(d) / belong.sum(d).clamp_min(1) for d in (1, 0)]
    return each[0].mean() + each[1].mean()


Round = Callable[[], tuple[Tensor, Callable[[Tensor], Tensor | None]]]


def train_in_rounds(
    begin: Round, groups: Sequence[Any], schedule: Schedule, rounds: int, *, anew: bool = False
) -> None:
    """Train in rounds of one epoch each, before each of which what the towers see now is looked at.

    Args:
        begin: a round: the numbers of what it learns from, and the loss of some of them, ``None`` for no step.
        groups: parameters, as torch's optimisers take them.
        schedule: ``steps`` ends the training in the middle of a round; ``epochs`` is not read.
        rounds: how many, unless the schedule says ``steps``.
        anew: start each round with an optimiser that remembers nothing.

    >>> import torch, adaptkit as ak
    >>> from adaptkit.methods.on_queries import train_in_rounds
    >>> w = torch.zeros(1, requires_grad=True)
    >>> schedule = ak.Schedule(lr=0.1, batch_size=2, optimizer="sgd", decay="constant")
    >>> train_in_rounds(lambda: (torch.arange(4), lambda rows: (w - 1).square().sum()), [w], schedule, rounds=5)
    >>> bool(w > 0.5)
    True
    """
    step, number = 0, 0
    optimizer = schedule.make(groups)
    while step < schedule.steps if schedule.steps else number < rounds:
        items, loss = begin()
        if anew:
            optimizer = schedule.make(groups)
        batches = items[torch.randperm(len(items))].split(schedule.batch_size)
        total = schedule.steps or rounds * len(batches)
        for rows in batches[: total - step if schedule.steps else None]:
            rate = schedule.rate(step, len(batches), total)
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("own_lr", group["lr"]) * rate / (schedule.lr or 1)
            optimizer.zero_grad()
            if (cost := loss(rows)) is not None:
                cost.backward()
                optimizer.step()
            step += 1
        number += 1
