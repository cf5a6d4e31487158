"""Some results of runs, by what they are of: ``--where dataset=folder:photos``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaptkit.io.errors import must_be
from adaptkit.io.shots import plain_shots
from adaptkit.report.runs import Run
from adaptkit.runs.results import Result

OF_RECORDS = ("method", "shots", "seed", "step")  # of a record; all else is of its protocol
NAMED = 8  # values that an error shows


def where(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The results that meet every condition; of several about one key, any of them.

    Args:
        runs: as read.
        conditions: ``KEY=VALUE`` each; a key is ``method``, ``shots``, ``seed``, ``step``, ``setting`` (the hash of a
            protocol), ``domain`` (a further test set), or one of the protocol's.

    Raises:
        ValueError: for a key that no result has, or a value that none has there, with what there is.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise ValueError(f"--where must be KEY=VALUE; got {condition[:200]!r}")
        wanted.setdefault(key, []).append(value)
    results = [result for run in runs for result in run.results]
    known = list(dict.fromkeys([*OF_RECORDS, "setting", "domain", *(name for r in results for name in r.protocol)]))
    for key, values in wanted.items():
        if key not in known:
            raise ValueError(must_be("a key of --where", known, key))
        there = list(dict.fromkeys(text for result in results for text in texts(result, key)))
        for value in values:
            if value not in there:
                more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
                shown = f"{', '.join(there[:NAMED])}{more}" or "none"
                raise ValueError(f"--where {key} must be what some result has, {shown}; got {value!r}")
    met = [[r for r in run.results if all({*vs} & {*texts(r, k)} for k, vs in wanted.items())] for run in runs]
    if not any(met):
        raise ValueError(f"--where must leave some results; got {' and '.join(conditions)}, which none of them meets")
    return [replace(run, results=found) for run, found in zip(runs, met, strict=True) if found]


def texts(result: Result, key: str) -> list[str]:
    """What a result may be asked for by, under a key."""
    if key == "method":
        return [result.method, result.method.partition("(")[0]]
    if key == "setting":
        return [result.protocol_hash]
    if key == "domain":
        return [*result.protocol.get("tests", {})]
    value: Any = plain_shots(result.shots) if key == "shots" else getattr(result, key) if key in OF_RECORDS else None
    value = result.protocol.get(key) if key not in OF_RECORDS else value
    if isinstance(value, Mapping):
        return [*map(str, value)]  # a name with options
    return [] if value is None else [str(value)]
