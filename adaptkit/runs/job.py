"""Run a recipe: extract what is missing, measure every cell that is not done, remember each as it finishes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from adaptkit import __version__
from adaptkit.features.cache import CachedRows
from adaptkit.features.datasets import Splits, targets_of
from adaptkit.features.items import Images, Source
from adaptkit.features.needs import Need
from adaptkit.io.files import atomic_write, canonical, digest
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.runs import plugins, streams
from adaptkit.runs.build import check_elsewhere, method
from adaptkit.runs.evaluate import check_able, evaluate
from adaptkit.runs.evaluation_sets import EvaluationSet, requested
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.results import Result
from adaptkit.runs.workspace import Workspace


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
        "sampler": files_digest({workspace.choose.__module__}),
        "select": recipe.select,
        "classes": recipe.classes,
        "stream": {stream: options},
        "tests": {tested.name: set_digest(tested) for tested in tests if tested.name},
        "bins": recipe.bins,
        "dtype": recipe.dtype,
        "precision": recipe.precision,
        "trainer": dict(recipe.trainer),
        **workspace.asks(),
    }


def splits_digest(splits: Splits) -> str:
    """Digest of every image, label and class name of a dataset."""
    out = hashlib.sha256(canonical(list(splits.classnames)))
    for name, source in {"train": splits.train, "val": splits.val, "test": splits.test}.items():
        out.update(name.encode())
        for i, y in enumerate(targets_of(source).tolist() if source else []):
            out.update(f"{source.key(i)} {y}\n".encode())  # type: ignore[union-attr]
    return out.hexdigest()


def set_digest(tested: EvaluationSet) -> str:
    """Digest of a test set's images, labels and the sentences of its own classes, if it has any."""
    out = hashlib.sha256(canonical([tested.outside, [list(s) for s in tested.task.prompts] if tested.task else []]))
    for i, y in zip(tested.images.index.tolist(), tested.images.labels.tolist(), strict=True):  # type: ignore[union-attr]
        out.update(f"{tested.images.rows.source.key(i)} {y}\n".encode())  # type: ignore[attr-defined]
    return out.hexdigest()


def run(
    recipe: Recipe, *, home: Path, out: Path, say: Callable[[str], None] = print, progress: bool = True
) -> list[Result]:
    """Run what is not done yet and return every cell's result.

    Args:
        recipe: checked.
        home: where features are kept.
        out: folder for one JSON record per cell, and ``recipe.json``, which says what they are records of.
        say: told, in lines, what happens.
        progress: show bars.
    """
    workspace = Workspace(recipe.setting(), home=home, progress=progress)
    tests = workspace.evaluation_sets()
    if any(tested.task for tested in tests):
        check_elsewhere(recipe)
    check_able({label: method(spec) for label, spec in recipe.labels().items()}, workspace.splits.kind, recipe.sequence)
    steps = workspace.steps()
    fixed = protocol(recipe, workspace, tests)
    paths = {cell: out / f"{file_name(cell, fixed)}.json" for cell in cells(recipe)}
    todo = [cell for cell, path in paths.items() if not path.exists()]
    done = len(paths) - len(todo)
    say(f"{recipe.name}: {len(paths)} cells, {done} done already, {len(todo)} to run on {workspace.device}")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "recipe.json", recipe.describe().encode())
    for source, need, index in wanted(workspace, todo, tests):
        workspace.cache.fill(source, need, index)
    computed = sum(workspace.cache.computed.values())
    say(
        f"features: {computed:,} rows computed in {workspace.cache.seconds:.1f} s, "
        f"the rest found in {home / 'features'}"
    )
    tasks: dict[tuple[int, int], list[Task]] = {}
    for number, cell in enumerate(todo, 1):
        where = (cell.shots, cell.seed)
        if where not in tasks:
            tasks = {where: workspace.tasks(*where)}
        answers: dict[str, Tensor] = {}
        results = evaluate(
            method(cell.spec),
            tasks[where],
            steps,
            seed=cell.seed,
            trainer=recipe.trainer,
            bins=recipe.bins,
            keep=answers.__setitem__,
            where={"method": cell.label, "shots": cell.shots, "protocol": fixed, "oracle": recipe.select == "oracle"},
        )
        if recipe.keep_answers:  # before the record, which says that the cell is done
            atomic_write(
                paths[cell].with_suffix(".safetensors"), save({n or "own": a.contiguous() for n, a in answers.items()})
            )
        for path, result in zip(records(paths[cell], len(steps))[::-1], results[::-1], strict=True):
            result.save(path)
        for result in results:
            plugins.manager().hook.report(result=result)
        if progress:
            accuracy = results[-1].metrics.get("accuracy")
            shown = "" if accuracy is None else f"{100 * accuracy:.1f} %"
            print(
                f"\r{number}/{len(todo)} {cell.label} {cell.shots}-shot, seed {cell.seed}: {shown}\033[K",
                end="",
                file=sys.stderr,
            )
    if progress and todo:
        print(file=sys.stderr)
    return [Result.read(path) for first in paths.values() for path in records(first, len(steps))]


def records(first: Path, steps: int) -> list[Path]:
    """Where the results of a cell lie, one after each step; the first is written last, and says that all are there."""
    return [first, *(first.with_name(f"{first.stem}.step-{k}.json") for k in range(2, steps + 1))]


def file_name(cell: Cell, fixed: Mapping[str, Any]) -> str:
    """A cell's name on disk: readable, and different when anything that made its numbers is."""
    built = method(cell.spec)
    key = {"protocol": fixed, "method": repr(built), "code": code_digest(built), "version": __version__}
    tag = digest(canonical({**key, "shots": cell.shots, "seed": cell.seed}))[:12]
    safe = "".join(c if c.isalnum() or c in "-=" else "_" for c in cell.label)[:60]
    return f"{safe}.{cell.shots}-shot.seed-{cell.seed}.{tag}"


def code_digest(built: Method) -> str:
    """Digest of the files that a method's class, its bases and the methods below it come from."""
    modules = {cls.__module__ for cls in type(built).__mro__ if issubclass(cls, Method)}
    below = [code_digest(child) for child in built.children_methods()]
    return digest(f"{files_digest(modules)}{below}".encode())


def files_digest(modules: set[str]) -> str:
    """Digest of the files that some modules come from."""
    files = sorted(file for name in modules if (file := getattr(sys.modules.get(name), "__file__", None)))
    return digest(b"".join(Path(file).read_bytes() for file in files))


def wanted(
    workspace: Workspace, todo: list[Cell], tests: Sequence[EvaluationSet]
) -> Iterator[tuple[Source, Need, list[int]]]:
    """Rows that the cells will read, by source and need, each once."""
    rows: dict[tuple[int, Need], tuple[Source, dict[int, None]]] = {}

    def want(images: Images | None, needs: list[Need]) -> None:
        if images is None or not isinstance(images.rows, CachedRows):
            return
        for need in needs:
            if need.stored and not need.fresh:
                _, index = rows.setdefault((id(images.rows.source), need), (images.rows.source, {}))
                index.update(dict.fromkeys(images.index.tolist()))

    tasks = {(c.shots, c.seed): None for c in todo}
    built = {name: method(spec) for name, spec in {c.label: c.spec for c in todo}.items()}
    for where in tasks:
        task = workspace.task(*where)
        for name in {c.label for c in todo if (c.shots, c.seed) == where}:
            m = built[name]
            want(task.support, m.all_needs(of_support=True))
            want(task.val if m.grid() or any(c.grid() for c in m.children_methods()) else None, m.all_needs())
    for m in built.values():
        for tested in requested(tests, m.output):
            want(tested.images, m.all_needs())
    for (_, need), (source, index) in rows.items():
        yield source, need, list(index)
