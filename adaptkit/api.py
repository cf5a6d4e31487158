"""A task from the names of its parts, several methods side by side on one task, and a whole recipe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.features.items import Images
from adaptkit.io.home import home as default_home
from adaptkit.io.ranges import Seed, Shots, hold
from adaptkit.io.shots import ALL_SHOTS, read_shots
from adaptkit.io.values import Spec
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.methods.widening import Widening
from adaptkit.report.errors.gallery import Gallery
from adaptkit.report.errors.keepers import HeldPredictions, InFolders
from adaptkit.report.table import Table
from adaptkit.runs.build import AnyMethod, check_recipe, method
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.folders import set_apart
from adaptkit.runs.forms import recipe_of
from adaptkit.runs.kept import Finished
from adaptkit.runs.recipe import Recipe, only_methods, read_recipe
from adaptkit.runs.results import Result
from adaptkit.runs.setting import Setting
from adaptkit.runs.told import Telling
from adaptkit.runs.workspace import Workspace


def quiet(text: str) -> None:
    """Say nothing."""


def load(
    dataset: str,
    *,
    backbone: str = "hf:openai/clip-vit-base-patch16",
    shots: int | Literal["all"] = 16,
    seed: int = 1,
    home: Path | None = None,
    **setting: Any,  # noqa: ANN401 (the fields of Setting)
) -> tuple[Task, Images]:
    """A task and its labelled test images, from the names of its parts.

    Args:
        dataset: e.g. ``"openmoji"`` or ``"folder:my_photos"``.
        backbone: e.g. ``"packaged:lite0-minilm"``.
        shots: labelled images per class, or ``"all"`` of them.
        seed: which of them.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        setting: further fields of `Setting`, e.g. ``select="none"``; `prompts` and `support` as recipes write them,
            e.g. ``support={"indices": {"path": "mine.json"}}``.

    Returns:
        The task, and the N test images of its classes; features are computed when they are first read.

    Raises:
        ValueError: for a name or an option that no plugin has, with the nearest that one has.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> len(task.classnames), len(task.support), len(test)
    (5, 10, 60)
    """
    count = ALL_SHOTS if isinstance(shots, str) and shots == "all" else shots
    if count != ALL_SHOTS:
        hold(count, Shots, "shots")
    hold(seed, Seed, "seed")
    workspace = Workspace(Setting(dataset=dataset, backbone=backbone, **setting), home=home)
    for note in workspace.others.notes:
        warnings.warn(note, stacklevel=2)
    return workspace.task(count, seed), workspace.test()


def compare(
    task: Task,
    test: Images,
    methods: Iterable[AnyMethod],
    *,
    seed: int = 0,
    trainer: Mapping[str, object] | None = None,
    search: Widening = "paper",
) -> Table:
    """Adapt each method to the task, choose its hyperparameters on ``task.val``, and measure it on the test images.

    Args:
        task: what is learned from.
        test: labelled images.
        methods: each a name, a name with options, or a method, which is left as it is.
        seed: of training, and of the order in which streams meet the images.
        trainer: options for `pytorch_lightning.Trainer`, passed on unchanged.
        search: ``"widen"`` lets searches go on beyond the edges of their grids; see `adapt`.

    Returns:
        A table with a row for each method; ``table.frame()`` is a pandas table, with accuracy between 0 and 1, and
        ``table.predictions("gda")`` what a method answered about each image.

    >>> import adaptkit as ak
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> table = ak.compare(task, test, ["zero-shot", {"gda": {"alpha": 2.0}}])
    >>> [result.method for result in table]
    ['zero-shot', 'gda(alpha=2.0)']
    """
    if not isinstance(methods, Iterable) or isinstance(methods, str | Mapping):
        raise ValueError(f"methods must be a list, e.g. ['zero-shot', 'gda']; got {methods!r:.80}")
    rows = [(spec, {} if isinstance(spec, Method) else {"method": Spec.of(spec).label}) for spec in methods]
    how, held = dict[str, Any](seed=seed, trainer=trainer, search=search), HeldPredictions()
    for spec, where in rows:
        telling = Telling()
        found: Any = as_list(evaluate(method(spec), task, test, where=where, note=telling.note, **how))
        held.pairs += [(result, telling.told(step)) for step, result in enumerate(found, 1)]
    if isinstance(test, Images) and isinstance(task, Task):
        held.galleries[""] = Gallery(lambda: (test, task.support))
    return Table([result for result, _ in held.pairs]).kept_by(held)


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    only: str | Sequence[str] = (),
    shots: int | str | Sequence[int | Literal["all"]] = (),
    seeds: int | Sequence[int] = (),
    home: Path | str | None = None,
    out: Path | str | None = None,
    progress: bool = False,
    say: Callable[[str], None] = quiet,
) -> Table:
    """Run a recipe as ``adaptkit run`` does, cells that are done already excepted, and return its table.

    Args:
        recipe: a name in ``adaptkit list recipes``, a file, or what one holds; plugin files that it names do not run.
        only: names of the methods to keep.
        shots: in place of the recipe's; ``"all"`` is all images.
        seeds: in place of the recipe's.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        out: folder for the records; default ``results/RECIPE`` in the home.
        progress: show bars.
        say: told, in lines, what happens.

    Returns:
        A table of all cells; `Table.failures` says which failed.

    Raises:
        ValueError: for a recipe that is wrong as a whole.

    >>> import tempfile, adaptkit as ak
    >>> table = ak.run("toy", only="gda", shots=4, seeds=1, home=tempfile.mkdtemp())
    >>> len(table.predictions("gda"))
    60
    """
    from adaptkit.runs.job import run_recipe  # it brings Lightning, which nothing else here needs

    asked = requested_recipe(recipe, as_list(only), {"shots": as_list(shots), "seeds": as_list(seeds)})
    place = Path(home or default_home())
    folder = set_apart(Path(out or place / "results" / asked.name), asked)
    return told_of(run_recipe(asked, home=place, out=folder, say=say, progress=progress), folder, place)


def told_of(found: Finished, folder: Path, home: Path) -> Table:
    """A table of what a run found, which knows where its predictions are kept."""
    return Table(found, failures=found.failures).kept_by(InFolders([folder.absolute()], home))


def requested_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe, only: Sequence[str], changes: Mapping[str, Any]
) -> Recipe:
    """A recipe in any of its forms, changed and checked against the plugins."""
    changes = {key: value for key, value in changes.items() if value}
    if isinstance(recipe, Recipe):
        counts = {"shots": [*map(read_shots, changes["shots"])]} if "shots" in changes else {}
        return check_recipe(only_methods(replace(recipe, **(dict(changes) | counts)), only))
    if isinstance(recipe, Mapping):
        return check_recipe(only_methods(recipe_of({**recipe, **changes}), only))
    if not isinstance(recipe, str | Path):
        raise ValueError(f"a recipe must be a name, a file, a mapping or a Recipe; got {recipe!r:.80}")
    return check_recipe(read_recipe(str(recipe), changes, only))


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 (one value or several)
    """Several values, from one or several."""
    return [value] if isinstance(value, str | int | Result) else [*value]
