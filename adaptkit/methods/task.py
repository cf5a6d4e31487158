"""Datasets, and the task a method is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from adaptkit.features.items import Array, Images, tensor
from adaptkit.features.needs import Need
from adaptkit.towers.backbone import Backbone, unit


class Reader(Protocol):
    """What a task must know of a method: which features it reads, under which names."""

    def needs(self) -> Mapping[str, Need]:
        """Of queries."""
        ...

    def support_needs(self) -> Mapping[str, Need]:
        """Of support images."""
        ...


Encode = Callable[..., Tensor]


@dataclass(frozen=True)
class Task:
    """What a method may learn from. There is no test set here, so `fit` cannot look at it.

    Attributes:
        backbone: the frozen towers.
        classnames: C names.
        prompts: C tuples of sentences.
        encode: sentences to raw embeddings, ``(P, D)``, each encoded once; a second argument names another backbone.
        support: labelled images.
        val: labelled images for choosing hyperparameters, or ``None``.
        pool: unlabelled training images, or ``None``.
    """

    backbone: Backbone
    classnames: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    encode: Encode
    support: Images
    val: Images | None = None
    pool: Images | None = None

    @cached_property
    def text_per_prompt(self) -> list[Tensor]:
        """Unit-norm sentence embeddings, C tensors ``(T_c, D)``."""
        rows = unit(self.encode([s for sentences in self.prompts for s in sentences]))
        return list(rows.to(self.support.device).split([len(sentences) for sentences in self.prompts]))

    @cached_property
    def text(self) -> Tensor:
        """Class embeddings, ``(C, D)``: the unit-norm mean over each class's unit-norm sentences."""
        return unit(torch.stack([rows.mean(0) for rows in self.text_per_prompt]))

    def text_by(self, backbone: str) -> Tensor:
        """Class embeddings by another backbone, ``(C, D')``."""
        rows = unit(self.encode([s for sentences in self.prompts for s in sentences], backbone))
        parts = rows.to(self.support.device).split([len(sentences) for sentences in self.prompts])
        return unit(torch.stack([part.mean(0) for part in parts]))

    def bind(self, method: Reader) -> Task:
        """The task as one method reads it."""
        needs = method.needs()
        return replace(
            self,
            support=self.support.bind(method.support_needs()),
            val=None if self.val is None else self.val.bind(needs),
            pool=None if self.pool is None else self.pool.bind(needs).blind(),
        )

    def to(self, device: torch.device | str) -> Task:
        """The task, read onto a device."""
        sets = {n: s.to(device) for n in ("support", "val", "pool") if (s := getattr(self, n)) is not None}
        return replace(self, **sets)

    @classmethod
    def from_arrays(
        cls,
        support: tuple[Array | Mapping[str, Array], Array],
        text: Array | Sequence[Array],
        *,
        val: tuple[Array | Mapping[str, Array], Array] | None = None,
        pool: Array | Mapping[str, Array] | None = None,
        logit_scale: float = 100.0,
        logit_bias: float = 0.0,
        classnames: Sequence[str] | None = None,
        prompts: Sequence[Sequence[str]] | None = None,
        text_by: Mapping[str, Array] | None = None,
        backbone: Backbone | None = None,
    ) -> Task:
        """A task from features, with no dataset and no towers: for notebooks and for parity tests.

        Args:
            support: features and labels: ``(S, D)`` or, with views, ``(S, V, D)``; and ``(S,)``.
            text: class embeddings ``(C, D)``, or C arrays ``(T_c, D)`` of sentence embeddings.
            val: features and labels to choose hyperparameters by.
            pool: unlabelled features.
            logit_scale: factor from cosine to logit; ignored when `backbone` is given.
            logit_bias: added to every logit; ignored when `backbone` is given.
            classnames: C names; default ``"class 0"`` and on.
            prompts: the sentences that `text` embeds, for methods that read them; default ``"a photo of a NAME."``,
                with a number behind it where a class has several.
            text_by: class embeddings by other backbones, ``(C, D')`` each, for methods that ask a second one.
            backbone: towers, for methods that need them; the features may then be pixels, ``(S, 3, H, W)``.

        Raises:
            ValueError: when lengths or widths do not fit.
        """
        per_class = [tensor(t).reshape(-1, tensor(t).shape[-1]).float() for t in text]
        names = tuple(classnames or (f"class {c}" for c in range(len(per_class))))
        if len(names) != len(per_class):
            raise ValueError(f"classnames must be as many as the classes in text, {len(per_class)}; got {len(names)}")
        written = tuple(map(tuple, prompts)) if prompts else default_prompts(names, [len(rows) for rows in per_class])
        if [len(sentences) for sentences in written] != [len(rows) for rows in per_class]:
            raise ValueError(f"prompts must be as many as the embeddings of each class in text; got {written}")
        given = {
            key: row for keys, rows in zip(written, per_class, strict=True) for key, row in zip(keys, rows, strict=True)
        }

        everything = [s for sentences in written for s in sentences]
        others = {name: tensor(rows).float() for name, rows in (text_by or {}).items()}

        def encode(sentences: Sequence[str], other: str = "") -> Tensor:
            if other:
                if other not in others or any(len(sentences) != 1 for sentences in written):
                    raise ValueError(f"text_by must have one row a class for {other!r}; got {sorted(others)}")
                return torch.stack([others[other][written.index((s,))] for s in sentences])
            if list(sentences) == everything:  # in place: equal sentences may have different embeddings
                return torch.cat(per_class)
            if all(s in given for s in sentences):
                return torch.stack([given[s] for s in sentences])
            if backbone is None:
                raise ValueError("new sentences must have a text tower; got arrays only; pass backbone= to from_arrays")
            with torch.no_grad(), backbone.unaltered():
                return backbone.encode_text(list(sentences))

        towers = backbone or NoTowers(per_class[0].shape[-1], logit_scale, logit_bias)
        sets = {
            "support": Images.from_arrays(*support),
            "val": None if val is None else Images.from_arrays(*val),
            "pool": None if pool is None else Images.from_arrays(pool),
        }
        for images in filter(None, sets.values()):
            images.rows.backbone = backbone  # type: ignore[attr-defined]
            images.rows.check_width(per_class[0].shape[-1])  # type: ignore[attr-defined]
            y = images.labels
            if y is not None and len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(names):
                raise ValueError(f"labels must be from 0 to {len(names) - 1}; got {int(y.min())} to {int(y.max())}")
        return cls(towers, names, written, encode, **sets)  # type: ignore[arg-type]


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
