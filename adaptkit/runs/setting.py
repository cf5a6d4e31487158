"""Everything a comparison holds fixed, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from adaptkit.io.errors import must_be
from adaptkit.io.ranges import Count, Size, Workers, hold
from adaptkit.io.values import Spec
from adaptkit.towers.precision import AskedPrecision

Sets = list[str] | Mapping[str, str]  # names, or names with what is behind them
TAKEN = ("new", "near", "far", "own", "harmonic")  # names that test sets and metrics have already
DEVICES = ("auto", "cpu", "cuda", "mps")  # and cuda:0, cuda:1, ...
Select = Literal["none", "few-val", "full-val", "oracle"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything a comparison holds fixed, by name.

    Attributes:
        dataset: a name in ``adaptkit list datasets``, with a place after a colon where it takes one.
        backbone: a scheme and a name, e.g. ``"hf:openai/clip-vit-base-patch16"``.
        prompts: who writes the sentences about classes; your own are ``{"templates": "a satellite photo of {}."}``.
            This, `support` and `stream` may be given as recipes write them: a name, or one name with options.
        support: who chooses the labelled images.
        select: the images hyperparameters are chosen on: ``"none"``, ``"few-val"`` (at most 4 a class), ``"full-val"``,
            or ``"oracle"`` (the test images; every table marks it).
        classes: that are learned: ``"all"``, or ``"base"``, the first half of them, rounded up; then the others are one
            more test set, ``new``, answered by name alone. The support is drawn before.
        domains: further test sets: the dataset's own domains, or other datasets, answered among classes of their own,
            or, where all of these are classes that are learned, by name, among those. ``{sketch: folder:sketches}``
            names a dataset, and says that it has such classes.
        near: images of other things, which scores must tell from the test images: as in `domains`, or ``new``.
        far: the same, of things that are less alike.
        stream: the order in which test images are met: ``"shuffled"``, ``"class-correlated"``, or all test sets
            together, ``"mixed"`` or ``"gradual"``.
        bins: two numbers of labelled images; accuracy is also given over the classes with fewer than the first
            (``few``), with more than the second (``many``), and with others (``medium``).
        sequence: tasks that come one after another: the classes are parted in so many groups, in their order, and after
            each a method answers among all classes seen so far.
        dtype: of stored features.
        precision: of the towers' arithmetic while extracting. ``"auto"`` is ``"bf16-mixed"`` where the machine has
            instructions for it, else ``"32-true"``; a line says which and how far it is off, and records name it.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and the like, or ``"mps"``.
        batch_size: images in one forward pass of a tower. ``"auto"`` is 16 on a processor, and on a GPU what half its
            free memory holds; a line says how many. Of a row only the last digits depend on it.
        workers: pictures decoded at once, by threads or, where many are to come, by processes; ``"auto"`` is as many as
            there are cores. No number depends on it.
    """

    dataset: str
    backbone: str
    prompts: Spec = field(default_factory=lambda: Spec("templates"))
    support: Spec = field(default_factory=lambda: Spec("few-shot"))
    select: Select = "few-val"
    classes: Literal["all", "base"] = "all"
    domains: Sets = field(default_factory=list)
    near: Sets = field(default_factory=list)
    far: Sets = field(default_factory=list)
    stream: Spec = field(default_factory=lambda: Spec("shuffled"))
    bins: tuple[Count, Count] | None = None
    sequence: Size = 1
    dtype: Literal["float16", "float32"] = "float16"
    precision: AskedPrecision = "32-true"
    device: str = "auto"
    batch_size: Size | Literal["auto"] = 32
    workers: Workers | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what no dataset, backbone or method could make sense of."""
        object.__setattr__(self, "prompts", sentences_of(self.prompts))
        for name in ("support", "stream"):
            object.__setattr__(self, name, Spec.of(getattr(self, name), name))
        for name, hint in get_type_hints(Setting, include_extras=True).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(must_be(name, get_args(hint), getattr(self, name)))
            hold(getattr(self, name), hint, name)
        check_device(self.device)
        for name in ("domains", "near", "far"):
            check_names(name, getattr(self, name))
        sets = [*self.domains, *self.near, *self.far]
        if twice := sorted({name for name in sets if sets.count(name) > 1}):
            raise ValueError(f"domains, near and far must name each set once; got {twice[0]!r} twice")
        if "new" in sets and self.classes == "all":
            raise ValueError("classes must be 'base' where the set 'new' is asked for; got 'all'")
        for name in ("domains", "near", "far", "bins", "classes"):
            if self.sequence > 1 and getattr(self, name) not in ([], {}, None, "all"):
                raise ValueError(f"{name} must be left out in a sequence of tasks; got {getattr(self, name)!r}")
        if self.bins and self.bins[0] >= self.bins[1]:
            raise ValueError(f"bins must be two numbers that rise; got {list(self.bins)}")

    def plain(self) -> dict[str, Any]:
        """Every field by name, as records and recipes write it."""
        return {f.name: v.plain if isinstance(v := getattr(self, f.name), Spec) else v for f in fields(self)}


def check_device(name: str) -> None:
    """A device must be one that torch could have, whether this machine has it or not."""
    if name not in DEVICES and not re.fullmatch(r"cuda:[0-9]{1,3}", name):
        raise ValueError(must_be("device", [*DEVICES, "cuda:0"], name))


def check_names(key: str, sets: Sets) -> None:
    """The names that test sets are given stand before a slash in records, and are none that means something there."""
    for name in sets if isinstance(sets, Mapping) else ():
        if not name or "/" in name or name in TAKEN:
            taken = ", ".join(TAKEN)
            raise ValueError(f"a name in {key} must be text without a slash, and none of {taken}; got {name!r}")


def named_sets(sets: Sets) -> dict[str, str]:
    """What stands behind each name of some test sets: in a list, the name itself."""
    return dict(sets) if isinstance(sets, Mapping) else {name: name for name in sets}


def sentences_of(value: object) -> Spec:
    """Who writes the sentences, from what a recipe says; one's own, ``{templates: "... {}."}``, need no further name.

    Raises:
        ValueError: when it is neither a name nor one name with options.
    """
    if isinstance(value, Mapping) and len(value) == 1:
        name, own = next(iter(value.items()))
        if isinstance(own, str | list | tuple):
            return Spec.of({name: {name: own}}, "prompts")
    return Spec.of(value, "prompts")
