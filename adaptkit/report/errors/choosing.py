"""Which results somebody asks for, by method, shots, seed and dataset."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.io.errors import must_be
from adaptkit.io.shots import plain_shots
from adaptkit.report.scores import heading
from adaptkit.runs.results import Result


def alike_results(results: Sequence[Result], shots: int | str | None, seed: int | None) -> list[Result]:
    """One result of each method, of the same shots and seed as far as all have them.

    Args:
        results: of one dataset.
        shots: default: the most that all have; methods that take no labelled images are taken as they are.
        seed: default: the first that all have.

    Raises:
        ValueError: where they have no shots in common, or one has none of those asked for.
    """
    by_method: dict[str, list[Result]] = {}
    for result in results:
        by_method.setdefault(result.method, []).append(result)
    learned = {m: own for m, own in by_method.items() if any(r.shots for r in own)}
    if shots is None and learned:
        common = set.intersection(*({r.shots for r in own if r.shots} for own in learned.values()))
        if not common:
            raise ValueError("methods must have a number of shots that all have; got none; run the missing cells")
        shots = plain_shots(max(common))
    asked = {m: shots if m in learned else 0 for m in by_method}
    cells = {m: [r for r in own if plain_shots(r.shots) == asked[m]] for m, own in by_method.items()}
    if seed is None:
        seeds = [r.seed for r in next(iter(cells.values()), [])]
        seed = next((s for s in seeds if all(s in [r.seed for r in own] for own in cells.values())), None)
    return [chosen_result(own, m, asked[m], seed, "") for m, own in by_method.items()]


def cell_title(results: Sequence[Result], test: str) -> str:
    """Which cells some results are of: datasets, shots, seeds and the test set."""
    shots = sorted({r.shots for r in results})
    parts = [*dict.fromkeys(dataset_names(results)), *map(heading, shots)]
    parts += [f"seed {seed}" for seed in dict.fromkeys(r.seed for r in results)]
    return ", ".join(filter(None, [*parts, test]))


def dataset_names(results: Sequence[Result]) -> list[str]:
    """The dataset of each result; "" where nobody said."""
    return [str(r.protocol.get("dataset", "")) for r in results]


def chosen_result(
    results: Sequence[Result], method: str, shots: int | str | None, seed: int | None, dataset: str, step: int = 0
) -> Result:
    """The result that is asked for; of a sequence the last step, unless another is.

    Raises:
        ValueError: where there is none, or more than one could be meant.
    """
    some = narrowed(results, "dataset", dataset, dataset_names(results))
    names = [r.method for r in some]
    if method not in ("", *names):
        names = [name.partition("(")[0] for name in names]
    some = narrowed(some, "method", method, names)
    most = plain_shots(max(r.shots for r in some))
    some = narrowed(some, "shots", most if shots is None else shots, [plain_shots(r.shots) for r in some])
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
