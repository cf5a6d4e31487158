"""What an adapted method answers: all at once, or batch by batch where that is more than memory holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from adaptkit.features.items import Array, Arrays, Images
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.method import Method
from adaptkit.methods.queries import asked_images, only_finite, solvable
from adaptkit.methods.unadapted import adapted_first

Asked = Images | Array | Mapping[str, Array]
Answered = tuple[slice, Tensor]  # which rows, and what is answered about them


@torch.no_grad()  # not inference_mode: test-time methods take gradients inside
def predict(method: Method, images: Asked, *, batch_size: int = 0) -> Tensor:
    """``(N, C)`` logits or ``(N,)`` scores. Never shows labels; never changes `method`.

    Args:
        method: adapted.
        images: `Images`, or features ``(N, D)`` or ``(N, V, D)``, or pixels ``(N, 3, H, W)``; see
            `Images.from_arrays`.
        batch_size: rows at a time, unless the `scope` is ``"set"``; 0 means 1024, or 32 through a tower.

    Returns:
        Logits, before the softmax, or scores, higher for in-distribution; on the method's device, without gradients.
        Where they are too many to hold, `predict_batches` gives them batch by batch.

    Raises:
        ValueError: for arrays of another shape than the method reads, for a row that is not of finite numbers, by which
            no other is spoilt, and for answers that are none, each naming the first row.

    >>> import torch, adaptkit as ak
    >>> x, y, text = torch.randn(8, 4), torch.arange(8) % 2, torch.randn(2, 4)
    >>> gda = ak.adapt(ak.method("gda"), ak.Task.from_arrays(support=(x, y), text=text))
    >>> ak.predict(gda, torch.randn(3, 4)).softmax(-1).shape
    torch.Size([3, 2])
    """
    with solvable(method):
        return only_finite(method, answered(method, asked_images(method, images), batch_size))


def predict_batches(method: Method, images: Asked | Iterator[Asked], *, batch_size: int = 0) -> Iterator[Answered]:
    """What `predict` returns, batch by batch, so that neither images nor answers are ever held at once.

    Args:
        method: adapted, of scope ``"sample"``, or of ``"stream"``, which meets the images in order.
        images: as in `predict`; an array may be a numpy memmap, which is read a batch at a time. Or an iterator of such
            parts, e.g. a generator, which is asked for the next one when the last is answered.
        batch_size: rows at a time; 0 means 1024, or 32 through a tower.

    Yields:
        Which rows, counted from the first one of all, and their ``(B, C)`` logits or ``(B,)`` scores.

    Raises:
        ValueError: for a method whose answers depend on all images; else as `predict`, when it comes to the row.

    >>> import torch, adaptkit as ak
    >>> x, y, text = torch.randn(8, 4), torch.arange(8) % 2, torch.randn(2, 4)
    >>> gda = ak.adapt(ak.method("gda"), ak.Task.from_arrays(support=(x, y), text=text))
    >>> for rows, logits in ak.predict_batches(gda, torch.randn(5, 4), batch_size=2):
    ...     print(rows.start, rows.stop, logits.argmax(-1).shape)
    0 2 torch.Size([2])
    2 4 torch.Size([2])
    4 5 torch.Size([1])
    """
    if method.scope == "set":
        raise ValueError(
            f"scope must be 'sample' or 'stream' to answer batch by batch; got {type(method).__name__}, "
            "whose answers depend on all images; call predict with all of them"
        )
    parts = images if isinstance(images, Iterator) else [asked_images(method, images, looked=False)]
    return finite_blocks(method, (asked_images(method, part, looked=False) for part in parts), batch_size)


@torch.no_grad()
def finite_blocks(method: Method, parts: Iterable[Images], batch_size: int = 0) -> Iterator[Answered]:
    """The answers to some images, one part after the other, each looked at: all are numbers."""
    blocks = blocks_of(method, parts, batch_size)
    while True:
        with solvable(method):
            found = next(blocks, None)
        if found is None:
            return
        yield found[0], only_finite(method, found[1], found[0].start)


@torch.no_grad()
def answered(method: Method, queries: Images, batch_size: int = 0) -> Tensor:
    """What `predict` returns, whatever numbers it holds: in a search some cells may answer nothing."""
    if not len(queries) and (shape := shape_of_none(method)):
        return torch.zeros(shape, device=queries.device)
    return in_one(blocks_of(method, [queries], batch_size), len(queries))


def shape_of_none(method: Method) -> tuple[int, ...] | None:
    """Shape of the answers to no queries, about which there is nothing to compute; ``None`` where it must be asked."""
    if not method._classes or method.evaluation.kind != "classification":
        return None
    return (0, method._classes) if method.output == "logits" else (0,)


def in_one(blocks: Iterable[Answered], count: int) -> Tensor:
    """Answers of all rows in one tensor, which is written block by block: nothing is held twice."""
    whole: Tensor | None = None
    for rows, answers in blocks:
        if whole is None:
            whole = answers.new_empty((count, *answers.shape[1:]))
        if answers.shape != (want := whole[rows].shape):
            raise ValueError(f"methods must answer alike for every batch, {tuple(want)}; got {tuple(answers.shape)}")
        whole[rows] = answers
    return torch.zeros(0) if whole is None else whole


@torch.no_grad()
def blocks_of(method: Method, parts: Iterable[Images], batch_size: int = 0) -> Iterator[Answered]:
    """The answers to some images, one part after the other, in blocks of rows; of scope ``"set"`` a part is a block.

    No images at all are asked about as well, where there are no others: a method may know the shape of its answer.
    """
    needs, done = method.needs(), 0
    rows = batch_size or (1024 if all(need.stored for need in method.all_needs()) else 32)
    if method.scope == "stream":
        method = copy.deepcopy(method)
    for part in parts:
        queries, count = part.blind().bind(needs), max(1, len(part))
        size = count if method.scope == "set" else rows
        for start in range(0, count, size):
            block = looked_at(queries[start : start + size], done)
            block.fill()
            if method.scope == "stream":
                with adapted_first(method):
                    answers = method.replay(block.load())
            else:
                answers = method(block)
            yield slice(done, done + len(block)), answers
            done += len(block)


def looked_at(block: Images, before: int) -> Images:
    """A block whose rows are of finite numbers: of arrays that nobody looked at yet."""
    if isinstance(block.rows, Arrays) and not block.rows.looked:
        return Images(
            block.rows.block(block.index, before), torch.arange(len(block)), block.labels, block.needs, block.device
        )
    return block


def accuracy(method: Method, images: Images) -> float:
    """Share of right answers among classes, between 0 and 1.

    Args:
        method: adapted; of logits, not of scores.
        images: N labelled images.

    Raises:
        ValueError: when the images have no labels.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> 0.2 < ak.accuracy(ak.adapt(ak.method("zero-shot"), task), test) <= 1.0
    True
    """
    if images.labels is None:
        raise ValueError("images must have labels to measure accuracy; got none")
    if (kind := method.evaluation.kind) != "classification":
        raise ValueError(f"methods must answer classification to measure accuracy; got {method}, of {kind}")
    right = evaluation("classification").right
    blocks = finite_blocks(method, [asked_images(method, images)]) if len(images) else ()
    parts = [right(answers, images.labels[rows]) for rows, answers in blocks]
    return float(torch.cat([torch.zeros(0, dtype=torch.bool, device=images.labels.device), *parts]).double().mean())
