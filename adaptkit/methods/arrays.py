"""What stands in a task made of arrays where the dataset and the towers would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adaptkit.features.items import Array, Images, tensor
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.reading import read_whole


class GivenText:
    """Sentences that came with their embeddings; called, it answers as a task's `encode` does.

    Attributes:
        classnames: C names.
        prompts: C tuples of sentences.
        rows: their raw embeddings, C tensors ``(T_c, D)``.
        others: class embeddings by other backbones, ``(C, D')`` each.
        backbone: the towers that encode further sentences, if there are any.
    """

    def __init__(
        self,
        text: Array | Sequence[Array],
        classnames: Sequence[str] | None = None,
        prompts: Sequence[Sequence[str]] | None = None,
        others: Mapping[str, Array] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        """See `adaptkit.methods.task.Task.from_arrays`."""
        self.rows = [tensor(t).reshape(-1, tensor(t).shape[-1]).float() for t in text]
        counts = [len(rows) for rows in self.rows]
        if not counts:
            raise ValueError("text must be the embeddings of at least one class; got none")
        self.classnames = tuple(classnames or (f"class {c}" for c in range(len(counts))))
        if len(self.classnames) != len(counts):
            got = len(self.classnames)
            raise ValueError(f"classnames must be as many as the classes in text, {len(counts)}; got {got}")
        self.prompts = tuple(map(tuple, prompts)) if prompts else default_prompts(self.classnames, counts)
        if [len(sentences) for sentences in self.prompts] != counts:
            raise ValueError(f"prompts must be as many as the embeddings of each class in text; got {self.prompts}")
        self.others = {name: tensor(rows).float() for name, rows in (others or {}).items()}
        self.backbone, self.dim = backbone, self.rows[0].shape[-1]
        self.all = [sentence for own in self.prompts for sentence in own]
        self.by_sentence = dict(zip(self.all, torch.cat(self.rows), strict=True))

    def __call__(self, sentences: Sequence[str], other: str = "") -> Tensor:
        """Raw embeddings of P sentences, ``(P, D)``; by another backbone where one is named, ``(P, D')``.

        Raises:
            ValueError: for a sentence that came without an embedding, where no tower is there to encode it.
        """
        if other:
            if other not in self.others or any(len(own) != 1 for own in self.prompts):
                raise ValueError(f"text_by must have one row a class for {other!r}; got {sorted(self.others)}")
            return torch.stack([self.others[other][self.prompts.index((s,))] for s in sentences])
        if list(sentences) == self.all:  # in place: equal sentences may have different embeddings
            return torch.cat(self.rows)
        if all(s in self.by_sentence for s in sentences):
            return torch.stack([self.by_sentence[s] for s in sentences])
        if self.backbone is None:
            raise ValueError("new sentences must have a text tower; got arrays only; pass backbone= to from_arrays")
        read_whole(self.backbone, [[s] for s in sentences])
        with torch.no_grad(), self.backbone.unaltered():
            return self.backbone.encode_text(list(sentences))

    def images(self, x: Array | Mapping[str, Array], labels: Array | None = None) -> Images:
        """Images of these classes, from arrays.

        Raises:
            ValueError: for labels that are none of the classes', or features of another width than the text's.
        """
        images, last = Images.from_arrays(x, labels), len(self.classnames) - 1
        images.rows.backbone = self.backbone  # type: ignore[attr-defined]
        images.rows.check_width(self.dim)  # type: ignore[attr-defined]
        y = images.labels
        if y is not None and len(y) and not 0 <= int(y.min()) <= int(y.max()) <= last:
            raise ValueError(f"labels must be from 0 to {last}; got {int(y.min())} to {int(y.max())}")
        return images


def default_prompts(names: Sequence[str], counts: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Sentences for classes whose embeddings came without any; all different, as embeddings are found by them."""
    plain = [f"a photo of a {name.replace('_', ' ')}" for name in names]
    unique = len(set(plain)) == len(plain) and max(counts) == 1
    return tuple(
        (f"{p}.",) if unique else tuple(f"{p}, class {c}, sentence {t}." for t in range(count))
        for c, (p, count) in enumerate(zip(plain, counts, strict=True))
    )


class NoTowers(Backbone):
    """Stands where the towers would: it scales logits, and says what is missing when asked to encode."""

    def __init__(self, dim: int, logit_scale: float, logit_bias: float) -> None:
        self.dim, self.logit_scale, self.logit_bias, self.points = dim, float(logit_scale), float(logit_bias), {}
        self.width, self.depth, self.fingerprint = {}, {}, "arrays"

    @property
    def device(self) -> torch.device:
        """There are no weights to be anywhere."""
        return torch.device("cpu")

    def encode_image(self, pixels: Tensor, *, project: bool = True) -> Tensor:
        """There is no tower."""
        raise ValueError("pixels must come with a backbone; got none; pass backbone= to Task.from_arrays")

    def tokenize(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """There is no tokenizer."""
        raise ValueError("this method needs the towers themselves; got a task made from arrays; pass backbone= to it")

    def require(self, *points: str) -> None:
        """There is nothing to tap."""
        self.tokenize(points)
