"""The predictions behind results, for those who ask a table of results for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from adaptkit.report.errors.agreement import Agreement, agreement
from adaptkit.report.errors.choosing import alike_results, cell_title, chosen_result, dataset_names, narrowed
from adaptkit.report.errors.keepers import Keeper
from adaptkit.report.errors.predictions import Predictions, set_of
from adaptkit.report.scores import heading
from adaptkit.runs.results import Result

AGREED = {"ranking": "rankings of a gallery", "maps": "anomaly maps", "multi-label": "several labels an image"}


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
            shots: default: the most that all have; methods that take no labelled images are asked as they are.
            seed: default: the first that all have.
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
    return Predictions(one, title, keeper.gallery(result, one) if keeper else None, result.right.get(test, ()))


def agreement_of(
    keeper: Keeper | None, results: Sequence[Result], shots: int | str | None, seed: int | None, test: str, dataset: str
) -> Agreement:
    """The agreement of all methods that answered a test set at some shots and with some seed.

    Raises:
        ValueError: where no answers can be held against each other.
    """
    chosen = alike_results(narrowed(results, "dataset", dataset, dataset_names(results)), shots, seed)
    found = {result.method: of_result(keeper, result, test) for result in chosen}
    known = {m: p for m, p in found.items() if p.about_classes}
    if not known:
        kinds = ", ".join(sorted({AGREED.get(p.kind, "scores") for p in found.values()}))
        raise ValueError(f"agreement must be of answers that are one class an image; got {kinds}")
    first = next(iter(known.values()))
    if odd := [m for m, p in known.items() if list(p.images) != list(first.images)]:
        raise ValueError(f"methods must have answered the same images; got other ones of {odd[0]!r}; name a dataset")
    return agreement({m: p.predicted for m, p in known.items()}, first.labels, cell_title(chosen, test))
