"""Results that are committed: small files in ``results/``, which README and docs quote.

``python -m tools.results NAME FOLDER [--command ...] [--note ...]`` makes ``results/NAME.json`` of a run's folder, with
``--part`` of its methods alone, beside the rows that are there; ``python -m tools.results --stale`` names the rows that
were measured with other code than is here.
A file says the command, the versions, the machine, the protocol, and for each method a digest of its code: of the
module that it lives in and of the tools for methods that this imports. Towers, caches and metrics are held by tests.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adaptkit.io import code
from adaptkit.io.jsons import read_json
from adaptkit.io.shots import plain_shots, read_shots
from adaptkit.report.runs import read_run
from adaptkit.runs import plugins
from adaptkit.runs.protocol import method_modules
from adaptkit.runs.results import Result

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "results"
NO_ANSWER = ("io", "towers", "features", "runs", "report", "commands", "saving", "cli", "methods.evaluation")
APART = tuple(f"adaptkit.{wing}" for wing in NO_ANSWER)
OF_A_CELL = ("code", "git", "processor", "threads")  # of a record's versions, not of a table's
KEPT = ("dataset", "backbone", "support", "select", "search", "classes", "stream", "bins", "precision")  # of a protocol


@dataclass(frozen=True)
class Kept:
    """One committed file of results.

    Attributes:
        name: of the file, without its suffix.
        about: command, note, machine, versions and protocol.
        code: by method, the digest of the code that made its rows; a method that is not there was not recorded.
        results: one for each cell, without what only the full record has.
    """

    name: str
    about: dict[str, Any]
    code: dict[str, str]
    results: list[Result]

    def rows_of(self, method: str) -> list[Result]:
        """The rows of one method, whatever is set beside its name."""
        return [result for result in self.results if result.method.partition("(")[0] == method]

    def stale_of(self, method: str) -> bool:
        """Whether one method's code is known not to be what made its rows."""
        return self.code.get(method, digest_of(method)) != digest_of(method)

    def stale(self) -> list[str]:
        """Labels whose code, or that of a method below them, is known not to be what made the numbers."""
        labels = dict.fromkeys(result.method for result in self.results)
        return [label for label in labels if any(map(self.stale_of, methods_in(label)))]


def methods_in(label: str) -> list[str]:
    """The methods that a label names: its own, and those below it."""
    return [name for name in dict.fromkeys(re.findall(r"[a-z0-9-]+", label)) if name in plugins.table("methods")]


@cache
def digest_of(name: str) -> str:
    """Digest of a method's code: its modules, and the tools for methods that they import."""
    return code.of_modules(method_modules(plugins.table("methods")[name]()), APART)[:12]


def read(name: str) -> Kept:
    """One committed file."""
    raw = read_json(FOLDER / f"{name}.json")
    protocol = raw["protocol"]
    results = [Result(**{**row, "shots": read_shots(row["shots"]), "protocol": protocol}) for row in raw["rows"]]
    return Kept(name, {k: v for k, v in raw.items() if k not in ("rows", "code")}, raw["code"], results)


def names() -> list[str]:
    """All committed files."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def machine() -> str:
    """What kind of machine this is, and no more: not its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores, {model.strip()}, shared with other work"


def write(name: str, folder: Path, command: str, note: str, *, part: bool = False) -> None:
    """Summarise the records of a folder.

    Args:
        name: of the file.
        folder: with records.
        command: that made them.
        note: what else there is to say.
        part: they are of some methods; their rows replace those of the file, of which all others stay.
    """
    results = read_run(folder).results
    used = sorted({method for result in results for method in methods_in(result.method)})
    head = {
        "command": command,
        "note": note,
        "machine": machine(),
        "versions": {key: value for key, value in results[0].versions.items() if key not in OF_A_CELL},
        "protocol": {key: results[0].protocol[key] for key in KEPT if key in results[0].protocol},
        "code": {method: digest_of(method) for method in used},
    }
    rows = [row(result) for result in results]
    if part:
        head, rows = joined(read(name), head, rows)
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "rows": [\n'
    text += ",\n".join(json.dumps(each, ensure_ascii=False) for each in rows) + "\n]}\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def joined(
    known: Kept, head: dict[str, Any], rows: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A file's head and rows, with those of some methods in place of its own or behind them.

    Raises:
        ValueError: when they were measured otherwise.
    """
    for key in ("versions", "protocol"):
        if head[key] != known.about[key]:
            raise ValueError(f"{key} must be those of the file to join it; got {head[key]}, not {known.about[key]}")
    new = {each["method"] for each in rows}
    kept = [row(result) for result in known.results if result.method not in new]
    return {**known.about, "code": {**known.code, **head["code"]}}, [*kept, *rows]


def row(result: Result) -> dict[str, Any]:
    """What is kept of one record."""
    return {
        "method": result.method,
        "shots": plain_shots(result.shots),
        "seed": result.seed,
        **({"step": result.step} if result.step else {}),
        "metrics": {metric: round(value, 5) for metric, value in result.metrics.items()},
        "parameters": result.parameters,
        "seconds": {key: round(value, 3) for key, value in result.seconds.items()},
    }


def main() -> None:
    """Write a file, or say which rows are stale."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--command", default="")
    parser.add_argument("--note", default="")
    parser.add_argument("--part", action="store_true", help="replace the rows of the folder's methods alone")
    parser.add_argument("--stale", action="store_true")
    asked = parser.parse_args()
    if asked.stale:
        for name in names():
            stale = read(name).stale()
            print(f"{name}: {', '.join(stale) or 'every row was measured with the code that is here'}")
    elif asked.name and asked.folder:
        write(asked.name, asked.folder, asked.command or f"adaptkit run {asked.name}", asked.note, part=asked.part)
    else:
        parser.error("give a name and a folder of records, or --stale")


if __name__ == "__main__":
    main()
