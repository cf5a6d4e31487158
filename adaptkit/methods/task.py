"""Datasets, and the task a method is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from adaptkit.features.items import Array, Images
from adaptkit.features.needs import Need
from adaptkit.io.text import distinct
from adaptkit.methods.arrays import GivenText, NoTowers
from adaptkit.towers.backbone import Backbone, unit


class Reader(Protocol):
    """What a task must know of a method: which features it reads, under which names."""

    def needs(self) -> Mapping[str, Need]:
        """Of queries."""
        ...

    def support_needs(self) -> Mapping[str, Need]:
        """Of support images."""
        ...

    def pool_needs(self) -> Mapping[str, Need]:
        """Of unlabelled images."""
        ...

    def gallery_needs(self) -> Mapping[str, Need]:
        """Of what is searched."""
        ...


ROUNDING = 1e-5  # that cosines of one text may be below 1
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
        kind: what is asked about an image; see `Splits.kind`.
        labelnames: what answers call the classes, C names that all differ; see `Splits.labelnames`.
        gallery: what a ranking searches, C items; ``None`` where that is the classes' sentences.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> task.text.shape, task.support.bind({"x": ak.Pooled()}).x.shape
    (torch.Size([5, 16]), torch.Size([10, 16]))

    Or from features that are there already:

    >>> import torch
    >>> x, y, text = torch.randn(8, 4), torch.arange(8) % 2, torch.randn(2, 4)
    >>> ak.Task.from_arrays(support=(x, y), text=text, classnames=["cat", "dog"]).prompts
    (('a photo of a cat.',), ('a photo of a dog.',))
    """

    backbone: Backbone
    classnames: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    encode: Encode
    support: Images
    val: Images | None = None
    pool: Images | None = None
    kind: str = "classification"
    labelnames: tuple[str, ...] = ()
    gallery: Images | None = None

    def __post_init__(self) -> None:
        """Names that tell all classes apart."""
        fit = self.labelnames if len(self.labelnames) == len(self.classnames) else self.classnames
        object.__setattr__(self, "labelnames", distinct(fit))

    @cached_property
    def text_per_prompt(self) -> list[Tensor]:
        """Unit-norm sentence embeddings, C tensors ``(T_c, D)``."""
        rows = unit(self.encode([s for sentences in self.prompts for s in sentences]))
        return list(rows.to(self.support.device).split([len(sentences) for sentences in self.prompts]))

    @cached_property
    def text(self) -> Tensor:
        """Class embeddings, ``(C, D)``: the unit-norm mean over each class's unit-norm sentences."""
        return unit(torch.stack([rows.mean(0) for rows in self.text_per_prompt]))

    @cached_property
    def alike(self) -> list[list[str]]:
        """Groups of classes, by their `labelnames`, that have one text between them: no text tells them apart.

        Only where towers read the text, and images are of one class.
        """
        if isinstance(self.backbone, NoTowers) or self.kind != "classification":
            return []
        same = (self.text @ self.text.T > 1 - ROUNDING).float()  # (C, C)
        groups = [row.nonzero()[:, 0].tolist() for row in same[same.argmax(1).unique()]]
        return [[self.labelnames[c] for c in group] for group in groups if len(group) > 1]

    def text_by(self, backbone: str) -> Tensor:
        """Class embeddings by another backbone, ``(C, D')``."""
        rows = unit(self.encode([s for sentences in self.prompts for s in sentences], backbone))
        parts = rows.to(self.support.device).split([len(sentences) for sentences in self.prompts])
        return unit(torch.stack([part.mean(0) for part in parts]))

    def bind(self, method: Reader) -> Task:
        """The task as one method reads it.

        Raises:
            ValueError: for labels that are not one class each, where a class is what is asked.
        """
        for role, images in (("support", self.support), ("val", self.val)):
            y = None if images is None or self.kind != "classification" else images.labels
            if y is not None and y.dim() != 1:
                hint = "; pass labels.argmax(-1) where they are one-hot" if y.dim() == 2 else ""
                raise ValueError(f"{role} labels must be ({len(y)},), one class each; got shape {tuple(y.shape)}{hint}")
        needs = method.needs()
        return replace(
            self,
            support=self.support.bind(method.support_needs()),
            val=None if self.val is None else self.val.bind(needs),
            pool=None if self.pool is None else self.pool.bind(method.pool_needs()).blind(),
            gallery=None if self.gallery is None else self.gallery.bind(method.gallery_needs()).blind(),
        )

    def require_support(self, name: str) -> None:
        """Say that a method has nothing to learn from.

        Raises:
            ValueError: when there are no support images, naming the method.
        """
        if not len(self.support):
            raise ValueError(f"{name} must have support images; got none")

    def require_pool(self, name: str) -> Images:
        """The unlabelled images.

        Raises:
            ValueError: when there are none, naming the method.
        """
        if self.pool is None or not len(self.pool):
            raise ValueError(f"pool must have unlabelled images for {name} to learn from; got none; pass pool=")
        return self.pool

    def to(self, device: torch.device | str) -> Task:
        """The task, read onto a device."""
        sets = {n: s.to(device) for n in ("support", "val", "pool", "gallery") if (s := getattr(self, n)) is not None}
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
            support: features and labels: ``(S, D)`` or, with views, ``(S, V, D)``; and ``(S,)``, the place of each
                row's class, from 0. Labels that are one-hot are refused; pass their ``argmax``.
            text: class embeddings ``(C, D)``, or C arrays ``(T_c, D)`` of sentence embeddings.
            val: features and labels to choose hyperparameters by.
            pool: unlabelled features.
            logit_scale: factor from cosine to logit; ignored when `backbone` is given.
            logit_bias: added to every logit; ignored when `backbone` is given.
            classnames: C names; default ``"class 0"`` and on.
            prompts: the sentences that `text` embeds; default ``"a photo of a NAME."``, numbered where there are more.
            text_by: class embeddings by other backbones, ``(C, D')`` each, for methods that ask a second one.
            backbone: towers, for methods that need them; the features may then be pixels, ``(S, 3, H, W)``.

        Raises:
            ValueError: when lengths or widths do not fit, or an array holds anything but finite real numbers, naming
                the array, its shape, the row and the value.
        """
        given = GivenText(text, classnames, prompts, text_by, backbone)
        towers = backbone or NoTowers(given.dim, logit_scale, logit_bias)
        unlabelled = None if pool is None else given.images(pool, role="pool")
        held_out = None if val is None else given.labelled(val, "val")
        learned = given.labelled(support, "support")
        return cls(towers, given.classnames, given.prompts, given, learned, held_out, unlabelled)

    @classmethod
    def from_pairs(
        cls,
        pairs: tuple[Mapping[str, Array], Array] | None,
        gallery: Mapping[str, Array],
        *,
        classnames: Sequence[str] | None = None,
        logit_scale: float = 100.0,
        backbone: Backbone | None = None,
    ) -> Task:
        """A task of retrieval from features: what a query is matched with is found in a gallery.

        Args:
            pairs: features by the names that a method reads, e.g. ``{"text": (S, D), "item": (S, D)}``, and ``(S,)``
                whole numbers, the same for pairs that match each other; ``None`` where nothing is learned.
            gallery: features of G items by name, e.g. ``{"item": (G, D)}``.
            classnames: G names; default ``"item 0"`` and on.
            logit_scale: factor from cosine to logit; ignored when `backbone` is given.
            backbone: towers, for methods that need them.

        Raises:
            ValueError: when lengths do not fit, or an array holds anything but finite real numbers.
        """
        items = Images.from_arrays(gallery, role="gallery")
        rows = items.rows.arrays  # type: ignore[attr-defined]
        names = tuple(classnames or (f"item {i}" for i in range(len(items))))
        if len(names) != len(items):
            raise ValueError(f"classnames must be one for each item of the gallery, {len(items)}; got {len(names)}")
        towers = backbone or NoTowers(next(iter(rows.values())).shape[-1], logit_scale, 0.0)
        width = towers.dim
        none = {name: torch.zeros(0, *array.shape[1:]) for name, array in rows.items()} | {
            "text": torch.zeros(0, width)
        }
        learned = Images.from_arrays(*((none, torch.zeros(0).long()) if pairs is None else pairs), role="pairs")
        prompts = tuple((name,) for name in names)
        return cls(towers, names, prompts, towers.encode_text, learned, kind="ranking", gallery=items)
