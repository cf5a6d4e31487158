"""The store of features against plain files: rows looked up and read, a table opened, rows appended.

``python -m benchmarks.store 10000000 FOLDER`` prints a table of any size in seconds of the wall, which is what waiting
for the disk shows in; it needs a kibibyte and a bit for each row in the folder, twice, and leaves the table there.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from adaptkit.features.store import Store, StoredTable
from benchmarks.frame import Row, Size, case, gemm_rate, timed

SPEC = {"need": "benchmark", "dtype": "float16"}
ROWS = {
    "small": 2000,
    "C100": 100_000,
    "C1000": 1_000_000,
}  # in a table
STEP = 125_000  # rows that are appended at once to fill a table
READ, MORE = 1000, 256  # rows of a reading, and of an append


def ids_of(start: int, count: int) -> np.ndarray:
    """Ids like those of digests, uint8 ``(count, 16)``."""
    return np.random.default_rng(start).integers(0, 256, (count, 16), np.uint8)


def rows_of(count: int, width: int) -> np.ndarray:
    """Rows that do not compress, float16 ``(count, width)``."""
    return np.random.default_rng(count).standard_normal((count, width), np.float32).astype(np.float16)


@contextmanager
def filled(size: Size, step: int) -> Iterator[tuple[StoredTable, np.ndarray, np.ndarray]]:
    """A table on disk, the ids in it, and the rows that `step` of them share with every other `step`."""
    count = next(ROWS[name] for name in ROWS if name == ("small" if size.D < 100 else f"C{size.C}"))
    rows = rows_of(step, size.D)
    with tempfile.TemporaryDirectory() as folder:
        table = Store(Path(folder)).table(SPEC)
        parts = [ids_of(start, step) for start in range(0, count, step)]
        with table.writing():
            for part in parts:
                table.append(part, rows, 1.0)
        yield table, np.concatenate(parts), rows


@case("store read", C100=0.1, C1000=0.1)
def reading(size: Size) -> Row:
    """1,000 scattered rows, looked up by id and held against their sums; plain: a gather from one mapped array."""
    step = ROWS["small"] if size.D < 100 else 50_000
    with filled(size, step) as (table, ids, rows), tempfile.NamedTemporaryFile() as file:
        for _ in range(len(ids) // step):
            file.write(rows.tobytes())
        file.flush()
        array = np.memmap(file.name, rows.dtype, "r", shape=(len(ids), size.D))
        some = np.random.default_rng(1).integers(0, len(ids), READ)
        plain, wanted = timed(lambda: array[some], 5)
        fresh = iter([Store(table.folder.parent).table(SPEC) for _ in range(5)])
        opened = [next(fresh) for _ in range(5)]
        for one in opened:
            one.missing(ids[:1])  # opening is measured elsewhere
        left = iter(opened)
        ours, found = timed(lambda: next(left).read(ids[some]), 5)
        if not np.array_equal(found, wanted):
            raise ValueError("rows must be the same both ways")
    return Row(plain, ours, f"{len(ids):,} rows", plain * gemm_rate())


@case("store append", C100=0.2, C1000=0.2)
def appending(size: Size) -> Row:
    """Appends of 256 rows with all merging they bring; plain: the same bytes written to files, each flushed to disk."""
    step = ROWS["small"] if size.D < 100 else 50_000
    rows, times = rows_of(MORE, size.D), 8 if size.D < 100 else 64
    with filled(size, step) as (table, ids, _):
        flushed = table.folder / "plain"
        flushed.mkdir()

        def plain() -> None:
            for n in range(times):
                with open(flushed / str(n), "wb") as file:
                    file.write(rows.tobytes())
                    file.flush()
                    os.fsync(file.fileno())

        def ours() -> None:
            for n in range(times):
                with table.writing():
                    table.append(ids_of(10**9 + n, MORE), rows, 1.0)

        one, other = timed(plain)[0], timed(ours)[0]
        if table.rows != len(ids) + times * MORE:
            raise ValueError("every row must be stored")
    return Row(one, other, f"{times} x {MORE} rows", one * gemm_rate())


@case("store small appends", C100=1.0, C1000=1.0)
def growing(size: Size) -> Row:
    """A table made of appends of 128 rows, the last tenth against the first: no slower however large it is."""
    count, step = (2000, 20) if size.D < 100 else (ROWS["C100"] if size.C == 100 else ROWS["C1000"], 128)
    rows, took = rows_of(step, size.D), []
    with tempfile.TemporaryDirectory() as folder:
        table = Store(Path(folder)).table(SPEC)
        for start in range(0, count, step):
            ids = ids_of(start, step)

            def append(ids: np.ndarray = ids) -> None:
                with table.writing():
                    table.append(ids, rows, 1.0)

            took.append(timed(append)[0])
        if table.missing(np.concatenate([ids_of(start, step) for start in range(0, count, step)])).any():
            raise ValueError("every row must be stored")
    tenth = len(took) // 10
    return Row(sum(took[:tenth]), sum(took[-tenth:]), f"{count:,} rows by {step}", sum(took[:tenth]) * gemm_rate())


def waited(work: Callable[[], object]) -> float:
    """Milliseconds of the wall."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def some_ids(count: int, seed: int) -> np.ndarray:
    """The ids of 1,000 rows of a table that was filled by steps."""
    numbers = np.random.default_rng(seed).integers(0, count, READ)
    found = np.empty((READ, 16), np.uint8)
    for part in np.unique(numbers // STEP):
        mine = numbers // STEP == part
        found[mine] = ids_of(int(part) * STEP, STEP)[numbers[mine] % STEP]
    return found


def measure(root: Path, spec: dict[str, object], count: int) -> None:
    """Print what a table of so many rows takes."""
    readings = [some_ids(count, seed) for seed in range(5)]
    for ids in readings:
        Store(root).table(spec).read(ids)  # from now on these lie in memory, as far as there is room
    opening, looking, reading_, again = [], [], [], []
    for ids in readings:
        table = Store(root).table(spec)
        opening.append(waited(lambda t=table: t.missing(np.zeros((1, 16), np.uint8))))
        reading_.append(waited(lambda t=table, i=ids: t.read(i)))
        looking.append(waited(lambda t=table, i=ids: t.missing(i)))
        again.append(waited(lambda t=table, i=ids: t.read(i)))
    rows, claims, appends, plain = rows_of(MORE, 512), [], [], []
    for _ in range(400):
        ids = ids_of(time.time_ns() % 2**62, MORE)
        claims.append(waited(lambda i=ids: table.claim(i[:32])))
        table.release(ids[:32])

        def append(ids: np.ndarray = ids) -> None:
            with table.writing():
                table.append(ids, rows, 1.0)

        appends.append(waited(append))
        with open(root / "plain.tmp", "ab") as file:
            plain.append(waited(lambda f=file: (f.write(rows.tobytes()), f.flush(), os.fsync(f.fileno()))))
    (root / "plain.tmp").unlink()
    print(f"{count:,} rows in {len(list((table.folder / 'shards').iterdir()))} shards; least of five, milliseconds")
    print(
        f"open {min(opening):.0f}; first reading {min(reading_):.1f}, again {min(again):.1f}; lookup {min(looking):.1f}"
    )
    worst = f"largest {max(appends):.0f}; claim of 32 {np.median(claims):.2f}"
    print(f"append of {MORE}: median {np.median(appends):.1f}, mean {np.mean(appends):.1f}, {worst}")
    print(f"plain write and fsync of as many bytes: median {np.median(plain):.1f}, largest {max(plain):.0f}")


def main() -> None:
    """Fill a table, or use the one that is there, and measure."""
    count, root = int(sys.argv[1]), Path(sys.argv[2])
    table = Store(root).table(SPEC)
    rows = rows_of(STEP, 512)
    for start in range(0, count, STEP):
        if table.missing(ids_of(start, STEP)[:1]).any():
            with table.writing():
                table.append(ids_of(start, STEP), rows, 1.0)
    measure(root, SPEC, count)


if __name__ == "__main__":
    main()
