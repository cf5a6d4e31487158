"""The predictions behind results: where they are kept, and which of them somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

from adaptkit.io.errors import must_be
from adaptkit.io.shots import plain_shots
from adaptkit.report.errors.agreement import Agreement, agreement
from adaptkit.report.errors.gallery import Gallery
from adaptkit.report.errors.predictions import Predictions, set_of
from adaptkit.report.scores import heading
from adaptkit.runs.results import Result
from adaptkit.runs.told import PREDICTIONS, Told, file_beside, read_told


class Keeper(Protocol):
    """What knows the predictions behind results."""

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set; nothing where it was not kept."""
        ...

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set."""
        ...


@dataclass
class HeldPredictions:
    """Predictions in memory, as `adaptkit.api.compare` has them.

    Attributes:
        pairs: results with what was told.
        galleries: by test set.
    """

    pairs: list[tuple[Result, list[Told]]] = field(default_factory=list)
    galleries: dict[str, Gallery] = field(default_factory=dict)

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set."""
        return next((told for own, told in self.pairs if own is result), [])

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set."""
        return self.galleries.get(told.name)


@dataclass(frozen=True)
class InFolders:
    """Predictions beside the records of runs.

    Attributes:
        folders: of the runs.
        home: where features are kept; ``None`` is the default.
        dataset: where the images are now, if not where the recipe says.
    """

    folders: Sequence[Path]
    home: Path | None = None
    dataset: str = ""

    def file(self, result: Result) -> Path | None:
        """The file of a record's predictions, if there is one."""
        name = Path(file_beside(f"*.{result.tag}", result.step)).name
        found = [path for f in self.folders for path in sorted((f / PREDICTIONS).glob(name))] if result.tag else []
        return found[0] if found else None

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set.

        Raises:
            ValueError: when the file is not as it was written, or another record's.
        """
        path = self.file(result)
        return [] if path is None else read_told(path, result)

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set, and of the support that is drawn again."""
        from adaptkit.report.errors.reopening import reopened_sets

        path = self.file(result)
        if path is None:
            return None
        run = path.parents[1]
        return Gallery(lambda: reopened_sets(run, self.home, self.dataset, result, told.name), told.asked["digests"])


class HasPredictions:
    """Results whose predictions can be asked for.

    Attributes:
        results: all of them.
        keeper: knows what is behind them; ``None`` knows nothing.
    """

    results: list[Result]
    keeper: Keeper | None = None

    def kept_by(self, keeper: Keeper | None) -> Self:
        """The same results, whose predictions are there."""
        self.keeper = keeper
        return self

    def predictions(
        self,
        method: str = "",
        *,
        shots: int | Literal["all"] | None = None,
        seed: int | None = None,
        test: str = "",
        dataset: str = "",
        step: int = 0,
    ) -> Predictions:
        """What a method answered about every image of a test set; see `Predictions`.

        Args:
            method: by its label or its name; may be left out where there is one.
            shots: default: the most.
            seed: default: the first.
            test: the test set, e.g. ``"new"`` or a domain; default: the task's own.
            dataset: of several.
            step: of a sequence of tasks, from 1; 0 is the last.

        Raises:
            ValueError: where there is no such result, or its predictions were not kept.
        """
        result = chosen_result(self.results, method, shots, seed, dataset, step)
        return of_result(self.keeper, result, test)

    def agreement(
        self, *, shots: int | Literal["all"] | None = None, seed: int | None = None, test: str = "", dataset: str = ""
    ) -> Agreement:
        """Whether the methods make the same errors; see `adaptkit.report.errors.agreement`.

        Args:
            shots: default: the most that all have.
            seed: default: the first.
            test: the test set; default: the task's own.
            dataset: of several.
        """
        return agreement_of(self.keeper, self.results, shots, seed, test, dataset)


def of_result(keeper: Keeper | None, result: Result, test: str = "") -> Predictions:
    """The predictions behind one result.

    Raises:
        ValueError: where they were not kept, with what to do.
    """
    title = ", ".join(filter(None, (result.method, heading(result.shots), f"seed {result.seed}")))
    told = keeper.told(result) if keeper else []
    if not told:
        raise ValueError(
            f"predictions of {title} must have been kept beside its record; got none; run the recipe again into "
            "another folder, without keep: none"
        )
    one = set_of(told, test)
    title += f", {test}" if test else ""
    return Predictions(one, title, keeper.gallery(result, one) if keeper else None)


def agreement_of(
    keeper: Keeper | None, results: Sequence[Result], shots: int | str | None, seed: int | None, test: str, dataset: str
) -> Agreement:
    """The agreement of all methods that answered a test set at some shots and with some seed."""
    methods = dict.fromkeys(r.method for r in results if not dataset or r.protocol.get("dataset") == dataset)
    found = {m: of_result(keeper, chosen_result(results, m, shots, seed, dataset), test) for m in methods}
    known = {m: p for m, p in found.items() if "predicted" in p.columns and not isinstance(p.labels, list)}
    if not known:
        raise ValueError("agreement must be of answers about classes; got scores, or several labels an image")
    first = next(iter(known.values()))
    if odd := [m for m, p in known.items() if list(p.images) != list(first.images)]:
        raise ValueError(f"methods must have answered the same images; got other ones of {odd[0]!r}; name a dataset")
    return agreement({m: p.predicted for m, p in known.items()}, first.labels)


def chosen_result(
    results: Sequence[Result], method: str, shots: int | str | None, seed: int | None, dataset: str, step: int = 0
) -> Result:
    """The result that is asked for; of a sequence the last step, unless another is.

    Raises:
        ValueError: where there is none, or more than one could be meant.
    """
    some = narrowed(results, "dataset", dataset, [str(r.protocol.get("dataset", "")) for r in results])
    names = [r.method for r in some]
    if method not in ("", *names):
        names = [name.partition("(")[0] for name in names]
    some = narrowed(some, "method", method, names)
    every = [plain_shots(r.shots) for r in some]
    most = plain_shots(max(r.shots for r in some))
    some = narrowed(some, "shots", most if shots is None else shots, every)
    seeds = [r.seed for r in some]
    some = narrowed(some, "seed", seeds[0] if seed is None else seed, seeds)
    if len({r.method for r in some}) > 1:
        raise ValueError(must_be("method", dict.fromkeys(r.method for r in some), method))
    if step:
        some = narrowed(some, "step", step, [r.step for r in some])
    return max(some, key=lambda r: r.step)


def narrowed(results: Sequence[Result], what: str, asked: object, values: Sequence[object]) -> list[Result]:
    """The results that have the value asked for; all where "" is asked for and they share one.

    Raises:
        ValueError: where none has it, or it must be asked for.
    """
    if not results:
        raise ValueError("predictions must be of results; got none")
    if asked == "" and len(set(values)) == 1:
        return list(results)
    found = [result for result, value in zip(results, values, strict=True) if value == asked]
    if not found:
        raise ValueError(must_be(what, dict.fromkeys(values), asked))
    return found
