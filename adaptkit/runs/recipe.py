"""Read a recipe: its keys and the types of its values. `adaptkit.runs.build.check` holds its names against plugins."""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.io import yamls
from adaptkit.io.errors import must_be
from adaptkit.io.paths import resolved
from adaptkit.io.ranges import Seed, Shots
from adaptkit.io.shots import ALL_SHOTS, plain_shots
from adaptkit.io.values import Spec, convert
from adaptkit.methods.trainer_options import trainer_options
from adaptkit.methods.widening import Widening
from adaptkit.runs.published import Published
from adaptkit.runs.setting import Setting, sentences_of
from adaptkit.runs.shelf import find_recipe, name_of


@dataclass(frozen=True, kw_only=True)
class Recipe(Setting):
    """A setting and what is compared in it.

    Attributes:
        name: of the file, without its suffix; one that comes with adaptkit has its folder before it.
        folder: that the file lies in.
        methods: that are compared, each a name with options; they may be given as recipes write them.
        defaults: options by method that hold where `methods` sets none: what its paper has in this setting alone.
        shots: labelled images per class; ``all`` of them, where recipes write so.
        seeds: of supports and of training.
        search: ``"widen"`` lets searches go on beyond the edge of their papers' grids, but for ``select: oracle``.
        trainer: options for `pytorch_lightning.Trainer`, of those that `trainer_options` allows.
        plugins: plugin files to load first, relative to the file that names them, where they are allowed.
        published: what papers report for these methods in this setting.
        keep: what is kept of answers beside a cell's record: ``"predictions"``, the likeliest classes and their
            probabilities; ``"logits"``, all logits or scores besides, as safetensors; or ``"none"``.
        keep_answers: another way to write ``keep: logits``.
        checkpoint: keep a training's state in the home after its epochs, until its cell is done; a killed one goes on.
        report: reporters that hear of each result, beside the records: csv, tensorboard, wandb, mlflow.
        inherited: test sets of a recipe below, where another dataset was put in the place of its own; no key.
        trust: whether its plugin files may run, in another process too; no key of a file.
    """

    name: str
    folder: Path
    methods: list[Spec]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shots: list[Shots] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    seeds: list[Seed] = field(default_factory=lambda: [1, 2, 3])
    trainer: Mapping[str, Any] = field(default_factory=dict)
    plugins: list[Path] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    keep: Literal["none", "predictions", "logits"] = "predictions"
    keep_answers: bool = False
    checkpoint: bool = False
    search: Widening = "paper"
    report: list[str] = field(default_factory=list)
    inherited: tuple[str, ...] = ()
    trust: bool = False

    def __post_init__(self) -> None:
        """Read methods as recipes write them, and hold the trainer's options to what a recipe may set."""
        super().__post_init__()
        asked = [Spec.of(spec) for spec in self.methods]
        methods = [replace(spec, below=self.defaults.get(spec.name) or {}) for spec in asked]
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "trainer", trainer_options(self.trainer))

    @property
    def keeping(self) -> str:
        """What is truly kept of answers: ``keep_answers`` asks for logits."""
        return "logits" if self.keep_answers else self.keep

    @property
    def searching(self) -> Widening:
        """How grids are truly searched: as their papers have them where test images decide."""
        return "paper" if self.select == "oracle" else self.search

    def setting(self) -> Setting:
        """The part that every cell shares."""
        return Setting(**{f.name: getattr(self, f.name) for f in fields(Setting)})

    def describe(self) -> str:
        """The whole recipe as JSON, without where it lies."""
        hidden = ("folder", "plugins", "inherited", "trust")
        values = {name: value for name, value in self.plain().items() if name not in hidden}
        values |= {"methods": [s.plain for s in self.methods], "published": [asdict(quote) for quote in self.published]}
        return json.dumps(values | {"shots": [*map(plain_shots, self.shots)]}, indent=1, default=str)

    def said(self) -> list[str]:
        """What was left out of a recipe below, in lines."""
        gone = ", ".join(map(repr, self.inherited))
        own = "name yours: --set 'domains={sketch: folder:sketches}'"
        return [f"left out: {gone}, of another dataset than {self.dataset}; {own}"] * bool(gone)

    def labels(self) -> dict[str, Spec]:
        """Each method's row name, e.g. ``coop(n=4)``, with what to build it from."""
        return {spec.label: spec for spec in self.methods}


def read_recipe(where: str, changes: Mapping[str, Any] | None = None, only: Sequence[str] = ()) -> Recipe:
    """A recipe from a file or, by name, from those that come with adaptkit.

    Args:
        where: a path, or a name in ``adaptkit list recipes``.
        changes: values that replace the file's, by key; ``schedule.epochs``-like dots reach into mappings.
        only: names of the methods to keep.

    Raises:
        ValueError: for any wrong key, name, type or path, in one line.
    """
    path = find_recipe(where)
    raw, inherited = read_chain(path)
    changes = changes or {}
    if "dataset" in changes:
        inherited = own_sets(raw, changes)
    for key, value in changes.items():
        change(raw, key, value)
    recipe = replace(build_recipe(raw, path), inherited=tuple(inherited))
    return only_methods(recipe, only, f"{path.name}: ")


def only_methods(recipe: Recipe, only: Sequence[str], file: str = "") -> Recipe:
    """The recipe with some of its methods, by label or name, or all; a ValueError for one that it does not have."""
    known = [spec.name for spec in recipe.methods]
    for name in only:
        if name not in known and name not in recipe.labels():
            wrong = must_be(f"{file}a method of this recipe", dict.fromkeys(known), name)
            add = f"name it under methods: of the recipe or in --set 'methods={json.dumps([*known[:1], name])}'"
            raise ValueError(f"{wrong}; to add it, {add}, and load the file that brings it with --plugin FILE")
    some = [spec for spec in recipe.methods if {spec.name, spec.label} & {*only}]
    return replace(recipe, methods=some) if only else recipe


def read_chain(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The plain values of a recipe's file over those of the file that it extends, and so on up to one that does not.

    What the files quote as ``published`` is joined, the protocol's first; so are ``defaults``, by method. Beside the
    values: the test sets of a file below whose dataset another was put in the place of.

    Raises:
        ValueError: when a file cannot be read, or the chain comes back to one of its files, with the whole chain.
    """
    below, inherited, chain, quoted, met = dict[str, Any](), list[str](), "", list[Any](), set[Path]()
    while True:
        chain += f" > {path.name}" if chain else path.name
        if resolved(path) in met:
            raise ValueError(f"a recipe must not extend itself; got {chain}; take extends: out of one of them")
        met.add(resolved(path))
        try:
            raw = yamls.read_yaml(path)
            base = raw.pop("extends", None)
            own = raw.get("published") or []
            if isinstance(files := raw.get("plugins"), list):  # each is relative to the file that names it
                raw["plugins"] = [os.path.abspath(path.parent / f) if isinstance(f, str) else f for f in files]
            if not isinstance(base, str | None):
                raise ValueError(f"{path}: extends must be the path of a recipe's file; got {base!r}")
            if not isinstance(own, list):
                raise ValueError(f"{path}: published must be a list; got {own!r}")
        except ValueError as error:
            raise ValueError(f"{chain}: {error}" if len(met) > 1 else str(error)) from error
        quoted = [*own, *quoted]  # what a protocol quotes, its recipes do
        if "dataset" in below:
            inherited += own_sets(raw, below)
        both = {**defaults_of(raw, f"{path.name}: "), **defaults_of(below)}
        below = {**raw, **below, **({"published": quoted} if quoted else {}), **({"defaults": both} if both else {})}
        if base is None:
            return below, inherited
        path = path.parent / base


def defaults_of(raw: Mapping[str, Any], file: str = "") -> Mapping[str, Any]:
    """The options that a file, or a value set in its place, sets by method.

    Raises:
        ValueError: when they are no options.
    """
    found = raw.get("defaults") or {}
    if not isinstance(found, Mapping) or not all(isinstance(own, Mapping) for own in found.values()):
        raise ValueError(f"{file}defaults must be options by method, e.g. 'coop: {{n: 4}}'; got {found!r}")
    return found


def own_sets(raw: Mapping[str, Any], over: Mapping[str, Any]) -> list[str]:
    """Test sets that some values name and those over them do not, by what stands behind each."""
    sets = [raw[key] for key in ("domains", "near", "far") if key in raw and key not in over]
    lists = [[*own.values()] if isinstance(own, Mapping) else own for own in sets]
    return [str(name) for own in lists if isinstance(own, list) for name in own]


def build_recipe(raw: Mapping[str, Any], path: Path) -> Recipe:
    """A checked recipe from plain values."""
    declared = {f.name: f for f in fields(Recipe) if f.name not in ("name", "folder", "inherited", "trust")}
    hints = typing.get_type_hints(Recipe, include_extras=True)
    try:
        for key in raw:
            if key not in declared:
                raise ValueError(must_be("a key", declared, key))
        for key in ("dataset", "backbone", "methods"):
            if not raw.get(key):
                raise ValueError(f"{key} must be given; got none")
        values = {key: _value(key, value, hints[key], declared[key]) for key, value in raw.items()}
        recipe = Recipe(name=name_of(path), folder=path.parent, **values)
        _check_labels(recipe)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return recipe


def change(raw: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 (any YAML value)
    """Set one value, reaching into mappings at dots."""
    *outer, last = key.split(".")
    for part in outer:
        inner = raw.get(part) or {}
        if isinstance(inner, str) and part in ("prompts", "support", "stream"):
            inner = {inner: {}}  # a name without options
        if not isinstance(inner, Mapping):
            raise ValueError(f"{part} must be a mapping for --set {key}; got {inner!r}")
        raw[part] = raw = dict(inner)
    raw[last] = value


def _value(key: str, value: Any, kind: Any, declared: Any) -> Any:  # noqa: ANN401 (any YAML value)
    if key == "defaults":
        return defaults_of({key: value})
    if key == "trainer":
        return convert(value, Mapping, key)
    if key in ("prompts", "support", "stream"):
        return sentences_of(value) if key == "prompts" else Spec.of(value, key)
    if key in ("domains", "near", "far"):
        kind = Mapping[str, str] if isinstance(value, Mapping) else list[str]
    if key == "shots" and "all" in (listed := value if isinstance(value, list) else [value]):
        numbers = iter(convert([n for n in listed if n != "all"], kind, key, declared))
        return [ALL_SHOTS if n == "all" else next(numbers) for n in listed]
    out = convert(value, kind, key, declared)
    if key in ("shots", "seeds") and not out:
        raise ValueError(f"{key} must be a list of at least one number; got {value!r}")
    return out


def _check_labels(recipe: Recipe) -> None:
    labels = [spec.label for spec in recipe.methods]
    if twice := [name for name in labels if labels.count(name) > 1]:
        raise ValueError(f"methods must differ; got {twice[0]!r} twice")
