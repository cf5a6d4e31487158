"""``adaptkit errors``: what stands behind a run's numbers."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from adaptkit.commands.requested import home_folder, load_files
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write, refuse_folder
from adaptkit.io.jsons import strict_json

if TYPE_CHECKING:
    from adaptkit.report.errors.predictions import Predictions
    from adaptkit.report.table import Table

WRITTEN_AS = (".csv", ".html")


def command(options: Namespace) -> int:
    """Print what a method got wrong, or write it in the formats that are asked for."""
    from adaptkit.report.errors import written

    check_files(options)
    load_files(options)
    table = results_of(options)
    if options.agreement:
        return tell_agreement(table, options)
    told = table.predictions(options.method or best_method(table, options), step=options.step, **which(options))
    for path in options.out:
        atomic_write(path, contents(told, path.suffix, options).encode())
    if options.confusion:
        atomic_write(options.confusion, written.confusion_csv(told).encode())
    if options.json:
        print(strict_json(written.plain_answers(told, options.most)))
        return 0
    for path in (*options.out, *([options.confusion] if options.confusion else [])):
        print(path)
    if not (options.out or options.confusion):
        print(written.answers_text(told, options.most))
    return 0


def check_files(options: Namespace) -> None:
    """Refuse what could not be written or counted, before anything is read."""
    for path in options.out:
        refuse_folder(path)
        if path.suffix not in WRITTEN_AS:
            raise ValueError(must_be(f"the suffix of --out {path}", WRITTEN_AS, path.suffix))
    if options.confusion:
        refuse_folder(options.confusion)
        if options.confusion.suffix != ".csv" or options.confusion in options.out:
            raise ValueError(f"--confusion must be a .csv that --out does not name; got {str(options.confusion)!r}")
    for name in ("most", "thumbnails"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} must be 0 or more; got {getattr(options, name)}")


def results_of(options: Namespace) -> Table:
    """The run's results, with what is behind them."""
    from adaptkit.report.errors.keepers import InFolders
    from adaptkit.report.runs import read_results

    home = home_folder(options)
    folder = options.run if options.run.exists() else home / "results" / options.run
    return read_results(folder).kept_by(InFolders([folder], home, options.dataset))


def which(options: Namespace) -> dict[str, Any]:
    """Which results are asked for."""
    shots = options.shots if options.shots in (None, "all") else int(options.shots)
    return {"shots": shots, "seed": options.seed, "test": options.test}


def best_method(table: Table, options: Namespace) -> str:
    """The method with the best headline metric, on average over all cells, as the table shows it."""
    from adaptkit.report.scores import falling, score

    results: dict[str, list[Any]] = {}
    for result in table:
        results.setdefault(result.method, []).append(result)
    metric = f"{options.test}/{table.metric}".lstrip("/")
    means = {m: found.mean for m, own in results.items() if (found := score([own], metric))}
    return (min if falling(metric) else max)(means, key=lambda m: means[m]) if means else next(iter(results), "")


def contents(told: Predictions, suffix: str, options: Namespace) -> str:
    """What is written to a file."""
    from adaptkit.report.errors.written import answers_csv
    from adaptkit.report.page.document import document

    if suffix == ".csv":
        return answers_csv(told, options.all)
    count = options.thumbnails or options.most
    return document(f"Errors of {told.title}", told.sections(count, options.thumbnails > 0))


def tell_agreement(table: Table, options: Namespace) -> int:
    """Print, or write, whether the methods of a run make the same errors."""
    from adaptkit.report.errors.sections import agreement_section
    from adaptkit.report.errors.written import agreement_text, plain_agreement
    from adaptkit.report.page.document import document
    from adaptkit.report.scores import short_names

    found = table.agreement(**which(options))
    names = [*short_names(list(found.methods)).values()]
    for path in options.out:
        if path.suffix != ".html":
            raise ValueError(
                f"--out of --agreement must be an .html file; got {str(path)!r}; --json prints the numbers"
            )
        atomic_write(path, document("Agreement between methods", agreement_section(found, names)).encode())
    if options.json:
        print(strict_json(plain_agreement(found)))
    else:
        print("\n".join(map(str, options.out)) or agreement_text(found, names))
    return 0
