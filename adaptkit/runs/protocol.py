"""What a comparison holds fixed, and the keys of its cells: what made a number changes them, a docstring does not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptkit import __version__
from adaptkit.features.datasets import Splits, targets_of
from adaptkit.io import code
from adaptkit.io.files import canonical, digest
from adaptkit.io.shots import plain_shots
from adaptkit.methods.method import Method
from adaptkit.runs import plugins, streams
from adaptkit.runs.build import arguments, method
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.workspace import Workspace

TAKES_PART = ("adaptkit.runs.evaluate", "adaptkit.runs.workspace")  # and all they import, in every cell
APART = ("adaptkit.report", "adaptkit.commands", "adaptkit.cli", "adaptkit.api", "adaptkit.saving", "adaptkit.sklearn")
"""What only shows or keeps the numbers."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One method, shots and seed of a recipe."""

    label: str
    spec: Any
    shots: int
    seed: int


def cells(recipe: Recipe) -> list[Cell]:
    """Every cell, in the order they run: methods vary fastest, so that a task is made once."""
    specs = recipe.labels().items()
    return [Cell(name, spec, k, s) for k in recipe.shots for s in recipe.seeds for name, spec in specs]


def protocol(recipe: Recipe, workspace: Workspace, tests: Sequence[EvaluationSet]) -> dict[str, Any]:
    """Everything that a comparison must hold fixed, by name."""
    stream, options = streams.named(recipe.stream)
    return {
        "dataset": recipe.dataset,
        "images": splits_digest(workspace.splits),
        "backbone": recipe.backbone,
        "fingerprint": workspace.backbone.fingerprint,
        "preprocess": workspace.backbone.preprocess.describe(),
        "prompts": digest(canonical([list(s) for s in workspace.sentences])),
        "support": {recipe.support.name: workspace.support_options},
        "sampler": code.of(definition(workspace.choose)),
        "select": workspace.setting.select,
        "classes": recipe.classes,
        "stream": {stream: options},
        "tests": {tested.name: set_digest(tested) for tested in tests if tested.name},
        "bins": recipe.bins,
        "dtype": recipe.dtype,
        "precision": workspace.setting.precision,
        "trainer": dict(recipe.trainer),
        **({} if recipe.searching == "paper" else {"search": recipe.searching}),
        **workspace.asks(),
    }


def splits_digest(splits: Splits) -> str:
    """Digest of every image, label and class name of a dataset."""
    out = hashlib.sha256(canonical(list(splits.classnames)))
    pool = {} if splits.pool is None else {"pool": splits.pool}
    for name, source in {"train": splits.train, "val": splits.val, "test": splits.test, **pool}.items():
        out.update(name.encode())
        for i, y in enumerate(targets_of(source).tolist() if source else []):
            out.update(f"{source.key(i)} {y}\n".encode())  # type: ignore[union-attr]
    for i in range(0 if splits.gallery is None else len(splits.gallery)):
        out.update(f"gallery {splits.gallery.key(i)}\n".encode())  # type: ignore[union-attr]
    return out.hexdigest()


def set_digest(tested: EvaluationSet) -> str:
    """Digest of a test set's images, labels and the sentences of its own classes, if it has any."""
    out = hashlib.sha256(canonical([tested.outside, [list(s) for s in tested.task.prompts] if tested.task else []]))
    for i, y in zip(tested.images.index.tolist(), tested.images.labels.tolist(), strict=True):  # type: ignore[union-attr]
        out.update(f"{tested.images.rows.source.key(i)} {y}\n".encode())  # type: ignore[attr-defined]
    return out.hexdigest()


def participants(workspace: Workspace) -> set[str]:
    """The modules that take part in every cell of a setting: with what they import, all code but the methods' own."""
    asked = workspace.setting
    things = [
        workspace.choose,
        arguments("prompts", asked.prompts)[0],
        plugins.pick("datasets", asked.dataset.partition(":")[0]),
        plugins.pick("backbones", asked.backbone.partition(":")[0]),
        *type(workspace.backbone).__mro__,
    ]
    return {*TAKES_PART, *(module for thing in things if (module := getattr(definition(thing), "__module__", None)))}


def definition(thing: Any) -> Any:  # noqa: ANN401 (whatever can be called)
    """The function or class behind what a table holds: a partial's, or an object's."""
    while isinstance(thing, partial):
        thing = thing.func
    return thing if hasattr(thing, "__qualname__") else type(thing)


Codes = dict[frozenset[str], Mapping[str, str]]
"""Digests of code that are known, of each module, by the modules that were asked for."""


def tag(cell: Cell, fixed: Mapping[str, Any], shared: set[str], codes: Codes | None = None) -> str:
    """A cell's key: twelve digits that differ when anything that made its numbers does.

    Args:
        cell: of a recipe.
        fixed: its protocol.
        shared: the modules that take part in every cell, see `participants`.
        codes: digests of code that are known, by modules, to which this one's is added: following imports takes long.
    """
    built, found = method(cell.spec), code.digest_of_modules(modules_of(cell, shared, {} if codes is None else codes))
    key = {"protocol": fixed, "method": repr(built), "code": found, "version": __version__}
    return digest(canonical({**key, "shots": cell.shots, "seed": cell.seed}))[:12]


def modules_of(cell: Cell, shared: set[str], codes: Codes) -> Mapping[str, str]:
    """Digests of all modules that take part in a cell, by name; looked up in `codes`, or added to them."""
    modules = frozenset({*shared, *method_modules(method(cell.spec))})
    if modules not in codes:
        codes[modules] = code.by_module(modules, APART)
    return codes[modules]


def file_name(cell: Cell, fixed: Mapping[str, Any], shared: set[str], codes: Codes | None = None) -> str:
    """A cell's name on disk: readable, with its tag at the end; see `tag`."""
    safe = "".join(c if c.isalnum() or c in "-=" else "_" for c in cell.label)[:60]
    return f"{safe}.{plain_shots(cell.shots)}-shot.seed-{cell.seed}.{tag(cell, fixed, shared, codes)}"


def tag_in(name: str) -> str:
    """The tag in a cell's name on disk."""
    return name.rpartition(".")[2]


def method_modules(built: Method) -> set[str]:
    """The modules that a method's class, its bases and the methods below it come from."""
    own = {cls.__module__ for cls in type(built).__mro__ if issubclass(cls, Method)}
    return own.union(*map(method_modules, built.children_methods()))
