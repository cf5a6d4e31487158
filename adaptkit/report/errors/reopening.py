"""A run's dataset opened again, for pictures of what was answered."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from adaptkit.features.items import Images
from adaptkit.io.jsons import read_json
from adaptkit.runs.evaluate import support_digest
from adaptkit.runs.folders import RECIPE_FILE
from adaptkit.runs.recipe import Recipe, build_recipe
from adaptkit.runs.results import Result

if TYPE_CHECKING:
    from adaptkit.runs.workspace import Workspace


@lru_cache(maxsize=2)
def reopened_workspace(run: Path, home: Path | None, dataset: str) -> Workspace:
    """The workspace of a run's recipe; its dataset may lie elsewhere by now.

    Raises:
        ValueError: when the recipe or what it names cannot be read.
        OSError: the same.
    """
    from adaptkit.runs.workspace import Workspace

    path = run / RECIPE_FILE
    known = {f.name for f in fields(Recipe)} - {"name", "folder", "inherited", "trust"}
    raw = {key: value for key, value in read_json(path).items() if key in known and value is not None}
    raw |= {"dataset": dataset} if dataset else {}
    return Workspace(build_recipe(raw, path).setting(), home=home)


def reopened_sets(run: Path, home: Path | None, dataset: str, result: Result, test: str) -> tuple[Images, Images]:
    """The images of a run's test set, in order, and the support of one of its results.

    Raises:
        ValueError: when there is no such test set any more.
        OSError: when the recipe cannot be read.
    """
    workspace = reopened_workspace(run, home, dataset)
    steps = workspace.steps()
    sets = {tested.name: tested for tested in steps[max(0, result.step - 1)]}
    if test not in sets:
        raise ValueError(f"the dataset has no test set {test!r} any more")
    support = workspace.tasks(result.shots, result.seed)[max(0, result.step - 1)].support
    if support_digest(support) != result.support:
        support = support[:0]  # another one by now
    return sets[test].images, support
