"""Small shards become large ones: nothing is lost, nobody is disturbed, and an append costs what it appends."""

import errno
import os
import shutil
import tracemalloc
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from adaptkit.features import entries, merging, shards, tables
from adaptkit.features.contents import Contents
from adaptkit.features.places import read_places
from adaptkit.features.store import DamagedShardWarning, Store
from tests import test_store
from tests.test_store import DAMAGE, check, fill, flip, ids_of, rows_of, snapshot

SPEC = {**test_store.SPEC, "dtype": "float32"}  # which holds each of the numbers below


class Killed(BaseException):
    """What no code of ours catches: afterwards only the files are left."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Shards are full at two kilobytes, and nothing waits for the disk: the steps are those of large tables."""
    for module in (entries, merging, shards, tables):
        monkeypatch.setattr(module, "CAP", 4096)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def grown(root, appends, size=4):
    """A table of many small appends."""
    return fill(Store(root).table(SPEC), *(range(n, n + size) for n in range(0, appends * size, size)))


def files_of(table, kind="shards"):
    return sorted((table.folder / kind).glob("*"))


def entry_of(table, path):
    return table._contents.told().live[path.name]


def merged_shard(table):
    """The largest merged shard, and the numbers of its rows."""
    path = max(files_of(table), key=lambda path: path.stat().st_size)
    assert "merged" in entry_of(table, path), "it must be a merged one, or this tests nothing"
    found = shards.Shard(path.parent, entry_of(table, path), np.dtype("f4"))
    assert not found.open(), found.flaw
    held = {row.tobytes() for row in found.ids()[0]}
    return path, [n for n in range(table.rows) if ids_of([n]).tobytes() in held]


# ---- what goes in comes out


@pytest.mark.parametrize("appends", [1, 7, 8, 9, 64, 150])
def test_rows_are_the_same_however_often_they_were_merged(tmp_path, appends):
    table, count = grown(tmp_path, appends), appends * 4
    assert len(files_of(table)) <= 8 + 7 * 2 + count * 36 // 2048, (
        f"small shards must not stay; got {len(files_of(table))}"
    )
    for reader in (table, Store(tmp_path).table(SPEC)):
        check(reader, [*range(count)][::-1])
        assert (reader.rows, reader.seconds) == (count, appends), "totals are those of what was appended"
        assert reader.bytes == sum(path.stat().st_size for path in files_of(table)), "files that were merged are gone"
        assert reader.missing(ids_of([count, 0])).tolist() == [True, False], "what was not appended is missing"
    assert Store(tmp_path).verify() == [], "nothing is wrong"
    assert Store(tmp_path).gc() == 0, "nothing is left over"


def test_a_large_append_is_written_as_if_merged(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(1000), range(1000, 1003), seconds=2.0)
    assert all(path.stat().st_size <= 4096 + 500 for path in files_of(table)), "in shards of the largest size"
    assert table.seconds == pytest.approx(4.0, rel=1e-12), "the time is that of all"
    check(Store(tmp_path).table(SPEC), range(1003))


def test_a_row_that_is_larger_than_a_shard_should_be_is_stored_all_the_same(tmp_path):
    table, rows = Store(tmp_path).table(SPEC), np.arange(9000, dtype="f4").reshape(3, 3000)
    with table.writing():
        table.append(ids_of(range(2)), rows[:2], 0.0)
        table.append(ids_of([2]), rows[2:], 0.0)
    assert np.array_equal(Store(tmp_path).table(SPEC).read(ids_of(range(3))), rows), "in a shard of its own"


def test_rows_that_were_appended_twice_are_merged_to_one(tmp_path):
    one = fill(Store(tmp_path).table(SPEC), range(4))
    (path,) = files_of(one)
    path.rename(tmp_path / "away")
    with pytest.warns(DamagedShardWarning, match="is missing"):
        fill(one, range(2, 6))  # two of them again
    (tmp_path / "away").rename(path)
    fill(one, *([n] for n in range(6, 20)))
    assert any("merged" in line for line in one._log.records), "there must be a merged shard, or this tests nothing"
    check(Store(tmp_path).table(SPEC), range(20))
    assert Store(tmp_path).verify() == [], "nothing is wrong"


def test_a_shard_that_is_merged_while_it_is_looked_at_is_found_where_it_went(tmp_path, monkeypatch):
    writer, opened = grown(tmp_path, 5), shards.Shard.open

    def open_and_lose(self, whole=False):
        said = opened(self, whole)
        monkeypatch.setattr(shards.Shard, "open", opened)
        fill(writer, *(range(n, n + 4) for n in range(20, 400, 4)))  # whoever writes goes on meanwhile
        assert not self.path.exists(), "it must be merged by now, or this tests nothing"
        return said

    monkeypatch.setattr(shards.Shard, "open", open_and_lose)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(Store(tmp_path).table(SPEC), range(400))


def test_two_writers_that_take_turns_merge_each_others_shards(tmp_path):
    two = [Store(tmp_path).table(SPEC) for _ in range(2)]
    for n in range(120):
        fill(two[n % 2], [n])
    for table in two:
        check(table, range(120))
    assert len(files_of(two[0])) < 30 and two[0].rows == 120, "rows are stored once, in few shards"


# ---- an append costs what it appends


@contextmanager
def counting(counts):
    """Bytes that were read and written, and calls."""
    before = Path("/proc/self/io").read_text()
    yield
    after = Path("/proc/self/io").read_text()
    both = ([int(line.split()[1]) for line in text.splitlines()[:4]] for text in (before, after))
    counts.append(np.subtract(*[*both][::-1]))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc")
def test_an_append_a_claim_and_a_reading_cost_the_same_in_a_table_of_any_size(tmp_path):
    table, counts = Store(tmp_path).table(SPEC), []
    for n in range(0, 1600, 4):
        with counting(counts):
            table.claim(ids_of(range(n, n + 4)))
            fill(table, range(n, n + 4))
            table.release(ids_of(range(n, n + 4)))
            table.read(ids_of([0, n]))
    early, late = np.mean(counts[100:200], 0), np.mean(counts[300:400], 0)
    names = ("bytes read", "bytes written", "calls that read", "calls that write")
    for name, one, other in zip(names, early, late, strict=True):
        assert other < 1.5 * one, f"{name} for an append must not grow with the table; got {one:.0f}, later {other:.0f}"
    assert counts[-1].max() < 60_000 and np.max(counts, 0)[1] < 60_000, f"nor may one of them; got {np.max(counts, 0)}"
    assert len(table._contents.runs) < 30, f"nor places to look for ids; got {len(table._contents.runs)}"
    check(Store(tmp_path).table(SPEC), range(1600))


def test_the_log_is_shortened_before_it_tells_of_more_that_is_gone_than_of_what_is_there(tmp_path):
    table = grown(tmp_path, 300, 1)
    assert len(table._log.records) < 2 * (len(files_of(table)) + merging.DEAD), "lines that say no more must go"
    check(Store(tmp_path).table(SPEC), range(300))


def test_reading_batch_after_batch_holds_no_more_than_a_batch(tmp_path):
    table = grown(tmp_path, 1, 2000)
    reader = Store(tmp_path).table(SPEC)
    check(reader, range(10))
    held = sum(run.size for run in reader._contents.runs)
    tracemalloc.start()
    try:
        for start in range(0, 2000, 40):
            check(reader, range(start, start + 40))
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(run.size for run in reader._contents.runs) == held, "no more is known than before"
    assert left < 100_000 and most < 400_000, f"one byte a row may stay, and headers; got {left}, at most {most}"
    assert table.rows == 2000, "of many more"


# ---- killed at any step, and readers at any step


STEPS = [(os, "replace"), (os, "fsync"), (Path, "unlink"), (os, "open")]


@contextmanager
def at_each_step(monkeypatch, do):
    """Call `do` before each call that changes a file or that a change begins with."""
    with monkeypatch.context() as patch:
        for owner, name in STEPS:
            original = getattr(owner, name)

            def call(*given, original=original, **named):
                do()
                return original(*given, **named)

            patch.setattr(owner, name, call)
        yield


def test_killed_at_any_step_of_merging_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "DEAD", 4)
    first, count = range(336, 364, 4), 364
    grown(tmp_path / "before", 84)
    for dies in range(1, 2000):
        root, left, done = tmp_path / "now", [dies], False
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "before", root)
        table = Store(root).table(SPEC)

        def step(left=left):
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        try:
            with at_each_step(monkeypatch, step):
                fill(table, *(range(n, n + 4) for n in first))
            done = True
        except Killed:
            table._lock.release(force=True)
        again = Store(root).table(SPEC)
        stored = ~again.missing(ids_of(range(count)))
        assert stored[:336].all(), f"killed at step {dies}, rows are lost that were stored"
        assert stored.sum() % 4 == 0 and (np.diff(stored.astype(int)) <= 0).all(), "only whole appends, in their order"
        assert Store(root).verify() == [], f"killed at step {dies}, nothing is wrong"
        check(fill(again, *(range(n, n + 4) for n in first)), range(count))
        Store(root).gc()
        table = Store(root).table(SPEC)
        check(table, range(count))
        assert (table.rows, len(files_of(table))) == (count, len(table._entries())), "all once, and nothing left over"
        if done:
            break
    assert 40 < dies < 1999, f"every step must have been tried; got {dies}"


def test_a_reader_at_any_step_of_merging_finds_every_row(tmp_path, monkeypatch):
    table, seen = grown(tmp_path, 30), []
    old, busy = Store(tmp_path).table(SPEC), []
    check(old, range(120))

    def look():
        if not busy:  # its own calls are steps, too
            busy.append(1)
            check(old, range(120))
            if len(seen) % 7 == 0:
                check(Store(tmp_path).table(SPEC), range(120))
            seen.append(1)
            busy.clear()

    with at_each_step(monkeypatch, look):
        fill(table, *(range(n, n + 4) for n in range(120, 320, 4)))
    assert len(seen) > 200, "the readers must have looked, or this tests nothing"


def test_files_that_vanish_while_a_reader_opens_them_are_looked_for_again(tmp_path, monkeypatch):
    table, count = grown(tmp_path, 7), 28
    reader, told = Store(tmp_path).table(SPEC), Contents.told

    def late(self, surely=False):
        found = told(self, surely)
        if self is reader._contents and not surely and table.rows == count:
            fill(table, range(count, count + 4))  # merged, and the old ones are gone, before the reader opens any
        return found

    monkeypatch.setattr(Contents, "told", late)
    check(reader, range(count))
    assert len(files_of(table)) == 1, "they must have been merged, or this tests nothing"


def test_a_merged_line_that_is_torn_anywhere_is_as_if_it_were_not_there(tmp_path, monkeypatch):
    table = grown(tmp_path, 7)

    original = Path.unlink

    def killed(path, missing_ok=False):
        if path.suffix == ".safetensors":
            raise Killed
        original(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", killed)  # what was merged is still there
        fill(table, range(28, 32))
    log = table.folder / "log.jsonl"
    whole = log.read_bytes()
    assert b'"merged":["' in whole.splitlines()[-1], "the last line must be that of a merged shard"
    for end in range(whole.rindex(b"\n", 0, -1) + 1, len(whole), 7):
        log.write_bytes(whole[:end])
        check(Store(tmp_path).table(SPEC), range(32))
    check(fill(Store(tmp_path).table(SPEC), [32]), range(33))
    Store(tmp_path).gc()
    check(Store(tmp_path).table(SPEC), range(33))
    assert Store(tmp_path).verify() == [], "nothing is wrong"


def test_a_merge_that_cannot_be_written_does_not_spoil_the_append(tmp_path, monkeypatch):
    table = grown(tmp_path, 7)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(merging, "atomic_write", full)
        check(fill(table, range(28, 32), range(32, 36)), range(36))
    assert len(files_of(table)) == 9, "they stay as they are"
    check(fill(Store(tmp_path).table(SPEC), range(36, 40)), range(40))
    assert len(files_of(table)) < 9, "until another process can write"


# ---- damage of merged shards


def part_of(path, name, at):
    """The first byte of a row of a tensor in a shard."""
    from adaptkit.io.files import safetensors_layout

    with open(path, "rb") as file:
        (_, shape, start), width = safetensors_layout(file, path.stat().st_size)[0][name], 0
    width = int(np.prod(shape[1:])) * (4 if name == "rows" else 1)
    return start + at * width


@pytest.mark.parametrize("part", ["rows", "sums"])
@pytest.mark.parametrize("touched", [False, True], ids=["before the first read", "after it"])
@pytest.mark.parametrize("cure", ["append", "gc", "merge"])
def test_a_damaged_row_of_a_merged_shard_costs_itself_alone(tmp_path, part, touched, cure):
    table = grown(tmp_path, 9)
    path, numbers = merged_shard(table)
    reader = Store(tmp_path).table(SPEC)
    if touched:
        check(reader, range(36))
    data = bytearray(path.read_bytes())
    data[part_of(path, part, 5)] ^= 1
    path.write_bytes(data)
    (flaw,) = Store(tmp_path).verify()
    assert path.name in flaw and "sha256" in flaw, f"verify must name it; got {flaw}"
    with pytest.warns(DamagedShardWarning, match=path.name) as caught:
        lost = reader.missing(ids_of(range(36)))
    assert (len(caught), lost.sum(), set(np.flatnonzero(lost)) <= set(numbers)) == (1, 1, True), "one row, one warning"
    there = [n for n in range(36) if not lost[n]]
    check(reader, there)
    with pytest.raises(ValueError, match="got 1 that are not"):
        reader.read(ids_of(range(36)))
    if cure == "append":
        check(fill(reader, range(36)), range(36))
        check(Store(tmp_path).table(SPEC), range(36))
    if cure == "merge":
        with pytest.warns(DamagedShardWarning, match="left out"):
            fill(reader, *([n] for n in range(36, 110)))
        check(Store(tmp_path).table(SPEC), there)
    assert Store(tmp_path).gc() > 0 or cure == "merge", "gc removes the shard"
    check(Store(tmp_path).table(SPEC), there)
    assert Store(tmp_path).table(SPEC).missing(ids_of(range(36))).sum() == (cure != "append"), "and keeps its rows"
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"
    check(fill(Store(tmp_path).table(SPEC), range(36)), range(36))


@pytest.mark.parametrize("at", range(0, 400, 29))
def test_a_bit_that_flips_anywhere_in_the_head_of_a_merged_shard_yields_no_false_row(tmp_path, at):
    table = grown(tmp_path, 8)
    path, _ = merged_shard(table)
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    reader = Store(tmp_path).table(SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedShardWarning)  # of some places nobody reads anything
        there = np.flatnonzero(~reader.missing(ids_of(range(32)))).tolist()
        assert not there or np.array_equal(reader.read(ids_of(there)), rows_of(there)), "what is there must be true"
    assert len(Store(tmp_path).verify()) == 1, "verify must name it"
    check(fill(reader, range(32)), range(32))
    Store(tmp_path).gc()
    check(Store(tmp_path).table(SPEC), range(32))
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"


@pytest.mark.parametrize("how", [*DAMAGE, "another table's"])
def test_a_damaged_merged_shard_is_named_and_its_rows_are_computed_again(tmp_path, how):
    table = grown(tmp_path, 60)
    path, numbers = merged_shard(table)
    reader = Store(tmp_path).table(SPEC)
    check(reader, range(240))
    if how == "another table's":
        other = fill(Store(tmp_path).table({**SPEC, "seed": 1}), numbers)
        path.write_bytes(files_of(other)[0].read_bytes())
    else:
        DAMAGE[how][0](path)
    with pytest.warns(DamagedShardWarning, match=path.name):
        lost = np.flatnonzero(reader.missing(ids_of(range(240)))).tolist()
    assert set(lost) <= set(numbers) and lost, "its rows, or some of them, are missing"
    check(reader, [n for n in range(240) if n not in lost])
    assert any(path.name in flaw for flaw in Store(tmp_path).verify()), "verify must name it"
    check(fill(reader, lost), range(240))
    Store(tmp_path).gc()
    check(Store(tmp_path).table(SPEC), range(240))
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"


# ---- files that tell where rows are


def indexed(tmp_path):
    table = grown(tmp_path, 5, 400)
    (path, *_) = files_of(table, "index")
    assert len(read_places(path).names) >= 2, "it must tell of several shards, or this tests nothing"
    return table, path


def scrambled(path):
    data = bytearray(path.read_bytes())
    data[-3000:] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)


def turned(path):
    """Every id is told to be where another is."""
    data = path.read_bytes()
    rows = len(read_places(path).where)
    places = np.frombuffer(data[-8 * rows :], "<i8")
    path.write_bytes(data[: -8 * rows] + np.roll(places, 1).tobytes())


WRONG = {
    "flip": flip,
    "turned": turned,
    "scrambled": scrambled,
    "truncate": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no index at all"),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "remove": Path.unlink,
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_file_of_places_costs_time_and_never_truth(tmp_path, how):
    _, path = indexed(tmp_path)
    WRONG[how](path)
    reader = Store(tmp_path).table(SPEC)
    found = np.flatnonzero(~reader.missing(ids_of(range(2000))))
    check(reader, found.tolist())
    assert len(found) >= 2000 - 400, f"few rows may be thought missing; got {2000 - len(found)}"
    flaws = Store(tmp_path).verify()
    assert [path.name in flaw for flaw in flaws] == [True] * (how != "remove"), f"verify must name it; got {flaws}"
    if how == "folder":
        path.rmdir()
    Store(tmp_path).gc()
    assert how == "remove" or not path.exists(), "gc removes it"
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"
    check(Store(tmp_path).table(SPEC), range(2000))
    again = Store(tmp_path).table(SPEC)
    check(fill(again, [2000], [2001], [2002]), range(2003))
    assert files_of(again, "index"), "the writer makes it anew"


def test_a_file_of_places_of_another_table_tells_nothing(tmp_path):
    table, _ = indexed(tmp_path / "one")
    _, path = indexed(tmp_path / "two")
    for shard in files_of(table, "index"):
        shard.unlink()
    path.rename(files_of(table)[0].parents[1] / "index" / path.name)
    check(Store(tmp_path / "one").table(SPEC), range(2000))


def test_ids_of_which_many_have_the_same_first_half_are_found(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (2000, 16), np.uint8)
    ids[:1500, :8] = ids[0, :8]
    table = Store(tmp_path).table(SPEC)
    with table.writing():
        for part in np.split(np.arange(2000), 5):
            table.append(ids[part], part[:, None].astype("f4"), 0.0)
    assert files_of(table, "index"), "there must be an index, or this tests nothing"
    for reader in (table, Store(tmp_path).table(SPEC)):
        assert reader.read(ids)[:, 0].tolist() == list(range(2000)), "each id has its own row"
    ids[:, 15] ^= 1
    assert table.missing(ids).all(), "and another has none"


# ---- tables from before


def test_a_table_of_many_small_shards_from_before_is_read_and_merged_by_the_next_writer(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tables, "tidy", lambda contents: False)
        table = grown(tmp_path, 200)
        assert len(files_of(table)) == 200, "as before there was merging"
    reader = Store(tmp_path).table(SPEC)
    check(reader, range(800))
    assert len(reader._contents.runs) == 1, "ids of many shards are sorted together"
    fill(Store(tmp_path).table(SPEC), *([n] for n in range(800, 830)))
    assert len(files_of(reader)) < 60, f"an append merges as many as fit; got {len(files_of(reader))}"
    check(reader, range(830))
    check(Store(tmp_path).table(SPEC), range(830))
    assert Store(tmp_path).verify() == [], "nothing is wrong"


def test_a_large_shard_without_sums_from_before_gets_some(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tables, "CAP", 2**40)
        patch.setattr(tables, "tidy", lambda contents: False)
        table = grown(tmp_path, 1, 1000)
    (before,) = files_of(table)
    fill(Store(tmp_path).table(SPEC), [1000])
    assert not before.exists() and len(files_of(table)) > 5, "it is written again, in shards that are not too large"
    check(table, range(1001))
    check(Store(tmp_path).table(SPEC), range(1001))
    assert (Store(tmp_path).verify(), table.rows, table.seconds) == ([], 1001, 2.0), "nothing is wrong"


def test_reading_changes_nothing_in_a_table_with_an_index(tmp_path):
    table, _ = indexed(tmp_path)
    before = snapshot(table.folder)
    reader = Store(tmp_path).table(SPEC)
    check(reader, range(2000))
    assert (Store(tmp_path).verify(), snapshot(table.folder) == before) == ([], True), "readers write nothing"
