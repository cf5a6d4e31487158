"""What methods of retrieval share: a gallery that is kept, and a loss over pairs that match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, PaddedFrames, Pooled, Sentence
from adaptkit.io.ranges import Views
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task

ASKED_TOGETHER = 2**24  # numbers of a gallery, for all queries that are answered together
LAST = -1e5  # what an item is given that is no answer


class Retriever(Method):
    """Ranks the items of a gallery for each query: cosine between a text and an image, unless `scores` says another.

    A query has parts, as `needs` names them. A pair to learn from has them, too, and the item that it is matched with,
    read under the same names as the gallery's. A subclass may say by `scores` what a pair is worth; what is learned is
    made in `build`.

    Attributes:
        both_ways: whether the loss also asks of each item which query is its own.

    >>> import torch, adaptkit as ak
    >>> class Halved(ak.Retriever):
    ...     "Half the cosine."
    ...
    ...     def scores(self, asked, items):
    ...         return super().scores(asked, items) / 2  # (N, G)
    >>> pairs = {"text": torch.randn(6, 4), "item": torch.randn(6, 4)}
    >>> task = ak.Task.from_pairs((pairs, range(6)), {"item": torch.randn(9, 4)})
    >>> ak.predict(ak.adapt(Halved(), task), {"text": torch.randn(3, 4)}).shape
    torch.Size([3, 9])
    """

    answers = ("ranking",)
    both_ways: ClassVar[bool] = True

    def needs(self) -> Mapping[str, Need]:
        """The text of a query, as the tower gives it."""
        return {"text": Sentence(unit=False, of="text")}

    def gallery_needs(self) -> Mapping[str, Need]:
        """An image, as the tower gives it."""
        return {"item": Pooled(unit=False)}

    def support_needs(self) -> Mapping[str, Need]:
        """The query of a pair, and the item that it is matched with; nothing where nothing is learned."""
        if type(self).build is Retriever.build:
            return {}
        return {**self.needs(), **{name: replace(need, of="item") for name, need in self.gallery_needs().items()}}

    def fit(self, task: Task) -> None:
        """Make what is learned, and keep the gallery."""
        self.backbone = task.backbone
        self.build(task)
        self.retarget(task)

    def build(self, task: Task) -> None:
        """Create what must be learned; nothing here."""

    def retarget(self, task: Task) -> None:
        """Search another gallery with what was learned."""
        if task.gallery is None:
            raise ValueError(f"{type(self).__name__} must have a gallery to search; got none; see Task.from_pairs")
        for name in self.gallery_needs():
            self.register_buffer(name, getattr(task.gallery, name).float().clone())

    def scores(self, asked: Any, items: Any) -> Tensor:  # noqa: ANN401 (whatever has the features as attributes)
        """Scores of N queries and G items, ``(N, G)``.

        Args:
            asked: has what `needs` names.
            items: has what `gallery_needs` names: the method itself, which keeps the gallery, or a batch of pairs.
        """
        return cosines(asked.text, items.item)

    def logits(self, asked: Any, items: Any) -> Tensor:  # noqa: ANN401 (as above)
        """Scores by the scale that the backbone was trained with, ``(N, G)``."""
        return self.backbone.logit_scale * self.scores(asked, items)

    def forward(self, batch: Images) -> Tensor:
        """Logits of the whole gallery, ``(B, G)``."""
        size = sum(getattr(self, name).numel() for name in self.gallery_needs())
        rows = torch.arange(len(batch)).split(max(1, ASKED_TOGETHER // max(1, size)))
        return torch.cat([self.logits(batch[some], self) for some in rows])  # no queries are one part, too

    def loss(self, batch: Images) -> Tensor:
        """Cross-entropy of finding a pair's item in the batch; the items of pairs with its label count as its own."""
        found, own = self.logits(batch, batch), matching(batch)  # (B, B)
        return finding_both_ways(found, own) if self.both_ways else finding(found, own)


def matching(batch: Images) -> Tensor:
    """Which pairs of a batch match each other, ``(B, B)`` booleans: those of one label."""
    return batch.labels[:, None].eq(batch.labels)  # type: ignore[index, arg-type]


def finding(logits: Tensor, own: Tensor) -> Tensor:
    """Cross-entropy of finding one of a row's own columns, which are marked, ``(B, B)`` both."""
    return -logits.log_softmax(-1).masked_fill(~own, float("-inf")).logsumexp(-1).mean()


def finding_both_ways(logits: Tensor, own: Tensor) -> Tensor:
    """The mean of `finding` over rows and over columns."""
    return (finding(logits, own) + finding(logits.T, own)) / 2


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of rows, ``(..., N, D)`` and ``(..., G, D)``, to ``(..., N, G)``."""
    return nn.functional.normalize(one, dim=-1) @ nn.functional.normalize(other, dim=-1).transpose(-1, -2)


class SequenceRetriever(Retriever):
    """Ranks sequences of frames for a text; `pooled` makes embeddings of them, which may look at the text.

    >>> import torch, adaptkit as ak
    >>> class First(ak.SequenceRetriever):
    ...     "The first frame."
    ...
    ...     def pooled(self, text, frames, present):
    ...         return frames[:, 0]  # (G, D)
    >>> task = ak.Task.from_pairs(None, {"frames": torch.randn(9, 2, 4)})
    >>> ak.predict(ak.adapt(First(), task), {"text": torch.randn(3, 4)}).shape
    torch.Size([3, 9])
    """

    frames_read: Views = 12  # of a sequence at most, evenly spaced

    def gallery_needs(self) -> Mapping[str, Need]:
        """Frames, as the tower gives them, zeros where a sequence is shorter."""
        return {"frames": PaddedFrames(count=self.frames_read, unit=False)}

    def pooled(self, text: Tensor, frames: Tensor, present: Tensor) -> Tensor:
        """Embeddings of sequences, ``(G, D)``, or ``(N, G, D)`` where they depend on the text.

        Args:
            text: ``(N, D)``, not scaled.
            frames: ``(G, F, D)``, not scaled.
            present: which frames are there, ``(G, F)`` booleans, the first of each sequence among them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define pooled(text, frames, present)")

    def scores(self, asked: Any, items: Any) -> Tensor:  # noqa: ANN401 (as above)
        """Cosines of texts and sequences, ``(N, G)``."""
        return self.matched(asked.text, items.frames, items.frames.any(-1))

    def matched(self, text: Tensor, frames: Tensor, present: Tensor) -> Tensor:
        """Scores of texts and sequences, ``(N, G)``; shapes as in `pooled`."""
        video = self.pooled(text, frames, present)
        return cosines(text, video) if video.dim() == 2 else nn.functional.cosine_similarity(text[:, None], video, -1)


class ComposedRetriever(Retriever):
    """Ranks items for an image and a text that says what to change about it; `query` makes one embedding of both.

    The image itself is no answer: an item of the gallery with its very features comes last.

    >>> import torch, adaptkit as ak
    >>> class Added(ak.ComposedRetriever):
    ...     "Both embeddings added."
    ...
    ...     def query(self, asked):
    ...         return ak.unit(ak.unit(asked.text) + ak.unit(asked.reference))  # (N, D)
    >>> gallery = torch.randn(9, 4)
    >>> added = ak.adapt(Added(), ak.Task.from_pairs(None, {"item": gallery}))
    >>> found = ak.predict(added, {"text": torch.randn(3, 4), "reference": gallery[:3]})
    >>> found[0].argmin().item()
    0
    """

    both_ways = False

    def needs(self) -> Mapping[str, Need]:
        """The text and the image of a query, as the towers give them."""
        return {**super().needs(), "reference": Pooled(unit=False, of="image")}

    def query(self, asked: Any) -> Tensor:  # noqa: ANN401 (as in `scores`)
        """One embedding of a query's text and image, of unit norm, ``(N, D)``."""
        raise NotImplementedError(f"{type(self).__name__} must define query(asked)")

    def scores(self, asked: Any, items: Any) -> Tensor:  # noqa: ANN401 (as above)
        """Cosines of queries and items, ``(N, G)``."""
        return self.query(asked) @ nn.functional.normalize(items.item, dim=-1).T

    def forward(self, batch: Images) -> Tensor:
        """Logits of the whole gallery, ``(B, G)``, lowest for the query's own image."""
        found = super().forward(batch)
        rows = self.item.split(max(1, ASKED_TOGETHER // max(1, batch.reference.numel())))  # type: ignore[operator]
        own = torch.cat([(batch.reference[:, None] == some).all(-1) for some in rows], 1)  # (B, G)
        return found.masked_fill(own, LAST)
