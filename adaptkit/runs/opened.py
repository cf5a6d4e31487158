"""A setting opened once in a process, for all of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from adaptkit.io import git
from adaptkit.io.paths import resolved
from adaptkit.methods.task import Task
from adaptkit.runs import plugins, shelf
from adaptkit.runs.build import check_elsewhere, check_outside, check_recipe, method
from adaptkit.runs.dataset_checks import check_parts
from adaptkit.runs.evaluate import check_able
from adaptkit.runs.evaluation_sets import EvaluationSet
from adaptkit.runs.guard import Guard
from adaptkit.runs.protocol import Cell, Codes, file_name, modules_of, participants, protocol
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.workspace import Workspace

HELD_OPEN = 2  # settings that a process holds open, with their towers
_open: dict[Any, Opened] = {}
_bare: dict[Any, tuple[Workspace, Sequence[EvaluationSet]]] = {}  # at most one


class Opened:
    """A workspace with its test sets and its protocol, and the tasks that were asked for last.

    Attributes:
        workspace: the dataset, the towers and the cache.
        tests: every test set, the task's own first.
        steps: the test sets after each task of a sequence; in one step where there is one task.
        fixed: the protocol.
        shared: the modules that take part in every cell.
        git: the commit of the recipe's repository; "" without one.
        guard: says what a cell has changed of this.
        listed: the images of test sets, as they are kept beside predictions.
    """

    def __init__(self, recipe: Recipe, home: Path, progress: bool = False) -> None:
        check_outside(recipe)
        if recipe.trainer:
            from adaptkit.methods.train import check_trainer  # brings Lightning, which takes seconds, for who trains

            check_trainer(recipe.trainer)
        self.workspace = Workspace(recipe.setting(), home=home, progress=progress)
        self.tests: Sequence[EvaluationSet] = self.workspace.evaluation_sets()
        if any(tested.task for tested in self.tests):
            check_elsewhere(recipe)
        built = {label: method(spec) for label, spec in recipe.labels().items()}
        check_able(built, self.workspace.splits.kind, recipe.sequence)
        if self.workspace.splits.kind == "ranking":
            check_parts(built, self.workspace.splits, self.workspace.backbone)
        if any(hasattr(each, "schedule") for one in built.values() for each in one.modules()):
            import_module("adaptkit.methods.train")  # now, or the first cell's record would count it as fitting
        self.steps = self.workspace.steps()
        self.fixed = protocol(recipe, self.workspace, self.tests)
        self.shared = participants(self.workspace)
        self.git = git.commit(Path() if resolved(recipe.folder).is_relative_to(shelf.folder()) else recipe.folder)
        self.guard = Guard(self.workspace.cache, [tested for sets in (self.tests, *self.steps) for tested in sets])
        self.listed: dict[int, tuple[EvaluationSet, bytes]] = {}
        self._tasks: dict[tuple[int, int], list[Task]] = {}
        self._names: dict[str, str] = {}
        self._codes: Codes = {}  # what runs is what was loaded, whatever becomes of the files

    def tasks(self, cell: Cell) -> list[Task]:
        """What a method may learn from in a cell, in turn; the last are kept, as methods vary fastest."""
        where = cell.shots, cell.seed
        if where not in self._tasks:
            self._tasks = {where: self.workspace.tasks(*where)}
        return self._tasks[where]

    def name(self, cell: Cell) -> str:
        """A cell's name on disk, with its tag at the end."""
        key = repr((cell.label, cell.spec, cell.shots, cell.seed))
        if key not in self._names:
            self._names[key] = file_name(cell, self.fixed, self.shared, self._codes)
        return self._names[key]

    def code(self, cell: Cell) -> Mapping[str, str]:
        """Digests of the modules that take part in a cell, by name."""
        return modules_of(cell, self.shared, self._codes)


def opened(recipe: Recipe, home: Path) -> Opened:
    """A recipe's setting, opened here before or now."""
    key = key_of(recipe, home)
    if key not in _open:
        keep_open(recipe, home, Opened(check_recipe(recipe), home))
    return _open[key]


def opened_bare(recipe: Recipe, home: Path) -> tuple[Workspace, Sequence[EvaluationSet]]:
    """A recipe's workspace and test sets, without the protocol, which has a digest of every image; one at a time."""
    if here := _open.get(key := key_of(recipe, home)):
        return here.workspace, here.tests
    if key not in _bare:
        _bare.clear()
        workspace = Workspace(check_recipe(recipe).setting(), home=home)
        _bare[key] = workspace, workspace.evaluation_sets()
    return _bare[key]


def keep_open(recipe: Recipe, home: Path, what: Opened) -> None:
    """Use this for the recipe's cells; of too many settings, the one opened first is closed."""
    close(recipe, home)
    _bare.clear()
    while len(_open) >= HELD_OPEN:
        _open.pop(next(iter(_open)))
    _open[key_of(recipe, home)] = what


def close(recipe: Recipe, home: Path) -> None:
    """Hold a recipe's setting open no longer."""
    _open.pop(key_of(recipe, home), None)


def reopen(recipe: Recipe, home: Path) -> None:
    """Open a setting anew, as a cell has spoiled it.

    Raises:
        ValueError: when its plugin hands out the same spoiled towers again.
    """
    before = _open.get(key_of(recipe, home))
    close(recipe, home)
    clean = Opened(check_recipe(recipe), home)
    tower = clean.workspace.backbone
    patched = before is not None and clean.guard.classes != before.guard.classes
    if tower.digest() != tower.fingerprint or tower.model.training or patched:
        owner = plugins.owner("backbones", recipe.backbone.partition(":")[0])
        raise ValueError(
            f"backbone {recipe.backbone} must be loaded anew after a cell changed it; got it as the cell left it "
            f"from plugin {owner!r}; run again: what is finished is kept"
        )
    keep_open(recipe, home, clean)


def key_of(recipe: Recipe, home: Path) -> Any:  # noqa: ANN401 (compared for equality only)
    """What cells that share a workspace share."""
    return repr(recipe.setting()), repr(recipe.trainer), str(home)
