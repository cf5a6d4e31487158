"""``--report csv``: a line for each cell and metric in ``report.csv`` beside the records, as they come."""

import os

from filelock import FileLock

from adaptkit import hookimpl
from adaptkit.io.files import naming
from adaptkit.io.safe import csv_text
from adaptkit.io.shots import plain_shots
from adaptkit.runs.reporters import reporting_to

reporter = "csv"
HEAD = ["recipe", "dataset", "backbone", "method", "shots", "seed", "step", "tag", "metric", "value"]


@hookimpl
def report(result):
    told = reporting_to()
    path = told.folder / "report.csv"
    asked = [result.protocol.get(key, "") for key in ("dataset", "backbone")]
    where = [told.recipe, *asked, result.method, plain_shots(result.shots), result.seed, result.step, result.tag]
    rows = [[*where, metric, value] for metric, value in result.metrics.items()]
    with naming(path.parent), FileLock(f"{path}.lock"), open(path, "ab") as file:  # shards write to one
        text = csv_text([HEAD, *rows] if not file.tell() else rows)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
