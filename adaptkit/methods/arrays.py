"""What stands in a task made of arrays where the dataset and the towers would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from adaptkit.features.given import Array, features
from adaptkit.features.items import Images
from adaptkit.io.ranges import Range, hold
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
        self.rows = embeddings(text)
        counts = [len(rows) for rows in self.rows]
        self.classnames = as_texts(classnames, "classnames") or tuple(f"class {c}" for c in range(len(counts)))
        if len(self.classnames) != len(counts):
            got = len(self.classnames)
            raise ValueError(f"classnames must be as many as the classes in text, {len(counts)}; got {got}")
        if not isinstance(prompts, Iterable | None) or isinstance(prompts, str | Mapping):
            raise ValueError(f"prompts must be a list of texts for each class; got {prompts!r:.80}")
        given = tuple(as_texts(own, f"prompts of class {c}") for c, own in enumerate(prompts or ()))
        self.prompts = given or default_prompts(self.classnames, counts)
        if [len(sentences) for sentences in self.prompts] != counts:
            raise ValueError(f"prompts must be as many as the embeddings of each class in text; got {self.prompts}")
        if not isinstance(others, Mapping | None):
            raise ValueError(f"text_by must be a mapping of backbones to embeddings; got {type(others).__name__}")
        if not isinstance(backbone, Backbone | None):
            got = f"{backbone!r:.80}; ak.load(..., backbone=NAME) opens one by its name"
            raise ValueError(f"backbone must be an adaptkit.Backbone; got {got}")
        self.others = {name: features(rows, f"text_by {name!r}") for name, rows in (others or {}).items()}
        for name, rows in self.others.items():
            if rows.dim() != 2 or len(rows) != len(counts) or not rows.shape[1]:
                raise ValueError(f"text_by {name!r} must be ({len(counts)}, D); got shape {tuple(rows.shape)}")
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

    def labelled(self, pair: Any, role: str) -> Images:  # noqa: ANN401 (whatever stands for a pair)
        """Images and labels that came as one pair.

        Raises:
            ValueError: for what is no pair, and as `images`.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"{role} must be a pair, (features, labels); got {type(pair).__name__}")
        if pair[1] is None:
            raise ValueError(f"{role} labels must be given; got None; unlabelled features are pool=")
        return self.images(pair[0], pair[1], role)

    def images(self, x: Array | Mapping[str, Array], labels: Array | None = None, role: str = "") -> Images:
        """Images of these classes, from arrays; `role` is what errors call them.

        Raises:
            ValueError: for labels that are none of the classes', or features of another width than the text's.
        """
        images, last = Images.from_arrays(x, labels, role=role), len(self.classnames) - 1
        images.rows.backbone = self.backbone  # type: ignore[attr-defined]
        images.rows.check_width(self.dim, role)  # type: ignore[attr-defined]
        y = images.labels
        if y is not None and len(y) and y.dim() < 3 and not 0 <= int(y.min()) <= int(y.max()) <= last:
            raise ValueError(f"{role} labels must be from 0 to {last}; got {int(y.min())} to {int(y.max())}")
        return images


def embeddings(text: Array | Sequence[Array]) -> list[Tensor]:
    """The sentence embeddings of each class, C tensors ``(T_c, D)``, from what was given as `text`.

    Raises:
        ValueError: for what is neither ``(C, D)``, ``(C, T, D)`` nor C arrays ``(T_c, D)`` of one width.
    """
    forms = "text must be (C, D), or C arrays (T_c, D)"
    if isinstance(text, str | bytes | Mapping) or not hasattr(text, "__len__"):
        raise ValueError(f"{forms}; got {type(text).__name__}")
    if hasattr(text, "shape"):
        whole = features(text, "text")
        if whole.dim() not in (2, 3):
            raise ValueError(f"{forms}; got shape {tuple(whole.shape)}")
        rows = [each.reshape(-1, whole.shape[-1]) for each in whole]
    else:
        rows = [features(each, f"text of class {c}") for c, each in enumerate(text)]
        rows = [each[None] if each.dim() == 1 else each for each in rows]
    if not rows:
        raise ValueError("text must be the embeddings of at least one class; got none")
    for c, each in enumerate(rows):
        if each.dim() != 2 or 0 in each.shape:
            raise ValueError(f"{forms}; got shape {tuple(each.shape)} for class {c}")
        if each.shape[1] != rows[0].shape[1]:
            raise ValueError(f"text must have one width; got {rows[0].shape[1]} for class 0, {each.shape[1]} for {c}")
    return rows


def as_texts(names: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Names or sentences as a tuple.

    Raises:
        ValueError: for one text in place of several, and for what is no text.
    """
    listed = () if names is None else names
    good = isinstance(listed, Iterable) and not isinstance(listed, str | bytes | Mapping)
    if not good or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{what} must be a list of texts; got {names!r:.80}")
    return tuple(listed)


def default_prompts(names: Sequence[str], counts: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Sentences for classes whose embeddings came without any; all different, as embeddings are found by them."""
    plain = [f"a photo of a {name.replace('_', ' ')}" for name in names]
    unique = len(set(plain)) == len(plain) and max(counts) == 1
    return tuple(
        (f"{p}.",) if unique else tuple(f"{p}, class {c}, sentence {t}." for t in range(count))
        for c, (p, count) in enumerate(zip(plain, counts, strict=True))
    )


def one_number(value: object, what: str, least: float) -> float:
    """A number of at most a million, perhaps a tensor of one.

    Raises:
        ValueError: for what is none, or is out of range.
    """
    got = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    hold(got, Annotated[float, Range(least, 1_000_000)], what)
    return float(got)  # type: ignore[arg-type]


class NoTowers(Backbone):
    """Stands where the towers would: it scales logits, and says what is missing when asked to encode."""

    def __init__(self, dim: int, logit_scale: float, logit_bias: float) -> None:
        self.dim, self.points = dim, {}
        self.logit_scale = one_number(logit_scale, "logit_scale", 0.000_001)
        self.logit_bias = one_number(logit_bias, "logit_bias", -1_000_000)
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
