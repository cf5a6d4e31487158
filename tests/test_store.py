"""The store: what is read is what was appended, whatever happens to processes and files."""

import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from adaptkit.features.store import FORMAT, DamagedShardWarning, Store
from adaptkit.io import files
from adaptkit.io.files import canonical, digest

SPEC = {
    "format": FORMAT,
    "backbone": "0f1e2d3c",
    "need": {"kind": "Pooled", "views": 10, "projected": True},
    "preprocess": {"size": [224, 224], "mean": [0.48145466, 0.4578275, 0.40821073]},
    "dtype": "float16",
}


def ids_of(numbers):
    """The id of each number, ``(N, 16)``."""
    text = b"".join(hashlib.sha256(str(n).encode()).digest()[:16] for n in numbers)
    return np.frombuffer(text, np.uint8).reshape(-1, 16)


def rows_of(numbers, width=3):
    """The row of each number, ``(N, 2, width)``, exact in float16."""
    return (np.asarray(list(numbers), float)[:, None, None] + np.arange(2 * width).reshape(2, width) / 8).astype("f4")


def fill(table, *chunks, seconds=1.0):
    with table.writing():
        for numbers in chunks:
            table.append(ids_of(numbers), rows_of(numbers), seconds)
    return table


def check(table, numbers, width=3):
    found = table.read(ids_of(numbers))
    assert np.array_equal(found, rows_of(numbers, width)), "rows must be those that were appended, in the order asked"


def snapshot(folder):
    """Everything a folder holds, and when it last changed."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, files.signature(path), path.read_bytes()) for path in paths]


def shards(table):
    return sorted((table.folder / "shards").iterdir())


# ---- what goes in comes out


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_back_in_the_order_asked_and_as_often(tmp_path, dtype):
    table = fill(Store(tmp_path).table({**SPEC, "dtype": dtype}), range(5), range(5, 12), range(12, 13))
    for numbers in ([12, 0, 7, 7, 3, 0, 11], range(13), [4], [], [6] * 5):
        check(table, numbers)
    assert table.read(ids_of([1])).dtype == dtype, "rows have the dtype of the spec"
    assert type(table.read(ids_of([1]))) is np.ndarray, "a copy in memory, not a map of the file"
    check(Store(tmp_path).table({**SPEC, "dtype": dtype}), [12, 0, 7])


def test_missing_tells_which_ids_are_not_stored(tmp_path):
    table = Store(tmp_path).table(SPEC)
    assert table.missing(ids_of(range(3))).all(), "an empty table lacks everything"
    fill(table, [0, 2])
    assert table.missing(ids_of([0, 1, 2, 1])).tolist() == [False, True, False, True]
    assert table.missing(ids_of([])).shape == (0,), "no ids, no answers"


def test_a_missing_id_is_an_error_that_counts_them(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(3))
    with pytest.raises(ValueError, match="got 2 that are not; append what `missing` reports"):
        table.read(ids_of([0, 8, 9]))


def test_ids_that_differ_little_or_end_in_zeros_are_told_apart(tmp_path):
    bits = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.uint8)
    ids = np.concatenate([np.zeros((256, 4), np.uint8), bits, np.zeros((256, 4), np.uint8)], 1)
    order = np.random.default_rng(0).permutation(256)
    table = Store(tmp_path).table(SPEC)
    with table.writing():
        for part in np.split(order[:200], 4):
            table.append(ids[part], part[:, None].astype("f4"), 0.0)
    assert set(np.flatnonzero(table.missing(ids))) == set(order[200:]), "only those left out are missing"
    assert table.read(ids[order[:200]])[:, 0].tolist() == order[:200].tolist(), "each id has its own row"


def test_ids_already_stored_are_dropped(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), [0, 1, 2], [2, 3, 3, 0], [0, 1])
    assert table.rows == 4, "each id is stored once"
    assert len(shards(table)) == 2, "an append of nothing new writes nothing"
    check(table, range(4))


def test_the_totals_are_those_of_the_log(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(5), range(5, 8), seconds=2.5)
    assert (table.rows, table.seconds) == (8, 5.0), "rows, and what computing them took"
    assert table.bytes == sum(path.stat().st_size for path in shards(table)), "the size of the shards"
    assert [other.spec for other in Store(tmp_path).tables()] == [SPEC], "found on disk, with its spec"


def test_rows_that_are_not_contiguous_are_stored_as_they_look(tmp_path):
    table = Store(tmp_path).table(SPEC)
    rows = rows_of(range(8))
    with table.writing():
        table.append(np.asfortranarray(ids_of(range(4))), np.asfortranarray(rows[:4]), 0.0)
        table.append(ids_of(range(8))[4:][::-1], rows[4:][::-1].astype("f8"), 0.0)
    check(table, range(8))


def test_any_row_shape_is_kept_but_only_one_per_table(tmp_path):
    table = Store(tmp_path).table(SPEC)
    with table.writing():
        table.append(ids_of([0]), np.float32([5]), 0.0)
        with pytest.raises(ValueError, match=r"must be floating point \(2,\); got float32 \(2, 1\)"):
            table.append(ids_of([1, 2]), np.ones((2, 1), "f4"), 0.0)
    assert table.read(ids_of([0, 0])).tolist() == [5, 5], "a row may be one number"


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (np.zeros((2, 15), np.uint8), np.ones((2, 3))),
        (np.zeros((2, 16), np.int64), np.ones((2, 3))),
        (np.zeros(16, np.uint8), np.ones((1, 3))),
        (ids_of([0, 1]), np.ones((3, 3))),
        (ids_of([0, 1]), np.ones((2, 3), int)),
        (ids_of([0, 1]), np.ones((2, 0))),
        (ids_of([0]), np.float32(1)),
    ],
)
def test_ids_and_rows_of_another_kind_are_refused(tmp_path, ids, rows):
    table = Store(tmp_path).table(SPEC)
    with table.writing(), pytest.raises(ValueError, match="must be"):
        table.append(ids, rows, 0.0)
    assert table.rows == 0, "nothing is stored"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 70000.0])
def test_what_float16_cannot_hold_is_refused(tmp_path, value):
    rows = rows_of(range(4))
    rows[2, 1, 0] = value
    half, single = Store(tmp_path).table(SPEC), Store(tmp_path).table({**SPEC, "dtype": "float32"})
    with half.writing(), pytest.raises(ValueError, match=r"finite as float16.*at \(2, 1, 0\); use dtype float32"):
        half.append(ids_of(range(4)), rows, 0.0)
    assert half.rows == 0, "not even the sound rows are stored"
    with single.writing():
        if np.isfinite(value):
            single.append(ids_of(range(4)), rows, 0.0)
            assert single.read(ids_of([2]))[0, 1, 0] == value, "float32 holds it"
        else:
            with pytest.raises(ValueError, match="finite as float32"):
                single.append(ids_of(range(4)), rows, 0.0)


def test_appending_needs_the_lock(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), [0])
    with pytest.raises(RuntimeError, match="must be called inside"):
        table.append(ids_of([1]), rows_of([1]), 0.0)


# ---- names and bytes that may not change


def test_the_folder_of_a_spec_never_changes(tmp_path):
    assert Store(tmp_path).table(SPEC).folder == tmp_path / "c7bb91709b149aa62dbe8eb3ad3df34f", "golden"


def test_the_bytes_of_a_table_never_change(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(4))
    header = b'{"__metadata__":{"table":"c7bb91709b149aa62dbe8eb3ad3df34f"},"rows":{"dtype":"F16","shape":[4,2,3],'
    header += b'"data_offsets":[0,48]},"ids":{"dtype":"U8","shape":[4,16],"data_offsets":[48,112]}}  '
    data = bytes([184]) + bytes(7) + header + rows_of(range(4)).astype("<f2").tobytes() + ids_of(range(4)).tobytes()
    sha256 = "93bc7cf2f47f6604259c15c47e1562db99ff3c00674a5a07ee919511bd704be2"
    name = f"{sha256[:16]}.safetensors"
    line = f'{{"bytes":304,"rows":4,"seconds":1.0,"sha256":"{sha256}","shape":[2,3],"shard":"{name}"}}\n'
    assert hashlib.sha256(data).hexdigest() == sha256, "golden"
    assert [path.name for path in shards(table)] == [name], "named by its content"
    assert shards(table)[0].read_bytes() == data, "the shard, byte for byte"
    assert (table.folder / "log.jsonl").read_text() == line, "its log line"
    assert (table.folder / "spec.json").read_bytes() == canonical(SPEC), "its sha256 starts with the folder's name"


def test_a_shard_is_a_safetensors_file_that_names_its_rows(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(4))
    found = load_file(shards(table)[0])
    assert np.array_equal(found["ids"], ids_of(range(4))), "the ids lie beside the rows"
    assert np.array_equal(found["rows"], rows_of(range(4))), "in the order appended"


def test_the_order_of_keys_does_not_matter_and_the_format_is_part_of_the_spec(tmp_path):
    store = Store(tmp_path)
    turned = dict(reversed(SPEC.items()))
    del turned["format"]
    assert store.table(turned) is store.table(SPEC), "one table, hashed once"


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "0f1e2d3d"},
        {"need": {**SPEC["need"], "views": 11}},
        {"need": {**SPEC["need"], "projected": False}},
        {"need": {**SPEC["need"], "kind": "Patches"}},
        {"preprocess": {**SPEC["preprocess"], "size": [224, 225]}},
        {"preprocess": {**SPEC["preprocess"], "mean": [0.48145466, 0.4578275, 0.40821074]}},
        {"dtype": "float32"},
        {"seed": None},
    ],
)
def test_every_field_of_a_spec_makes_another_table(tmp_path, change):
    store = Store(tmp_path)
    fill(store.table(SPEC), [0])
    other = store.table({**SPEC, **change})
    assert other.folder != store.table(SPEC).folder, "another folder"
    assert other.missing(ids_of([0])).all(), "which knows nothing of the first"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype of a spec must be one of float16, float32; got 'bfloat16'"),
        ({"size": float("nan")}, "must be JSON with finite numbers"),
        ({"size": np.float32(1)}, "must be JSON with finite numbers"),
        ({"format": FORMAT + 1}, f"must be {FORMAT}; got {FORMAT + 1}; update adaptkit"),
    ],
)
def test_a_spec_that_cannot_be_kept_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Store(tmp_path).table({**SPEC, **change})


# ---- reading changes nothing


def test_opening_and_asking_create_nothing(tmp_path):
    store = Store(tmp_path / "none")
    table = store.table(SPEC)
    assert table.missing(ids_of([1])).all(), "an empty table lacks everything"
    assert (table.read(ids_of([])).shape, table.rows, store.tables(), store.verify()) == ((0,), 0, [], [])
    table.refresh()
    assert not (tmp_path / "none").exists(), "nothing is created before rows are appended"


def test_a_read_only_store_is_readable_and_stays_as_it_is(tmp_path):
    folder = fill(Store(tmp_path).table(SPEC), range(4)).folder
    (folder / ".lock").unlink()
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = snapshot(folder)
        store = Store(tmp_path)
        check(store.table(SPEC), [3, 0])
        assert (store.verify(), len(store.tables())) == ([], 1), "verify and ls read only"
        assert snapshot(folder) == before, "no file is created or touched, a lock least of all"
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def test_a_reader_sees_what_another_object_appends(tmp_path):
    reader, writer = Store(tmp_path).table(SPEC), Store(tmp_path).table(SPEC)
    for n in range(3):
        fill(writer, [n])
        reader.refresh()
        check(reader, range(n + 1))
        assert reader.rows == n + 1, "the log is read again when it has grown"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_file_stays_open(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), *([n] for n in range(20)))
    check(table, range(20))
    held = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    assert [path for path in held if str(tmp_path) in path] == [], "thousands of shards must not use up the descriptors"


def test_a_shard_is_hashed_once(tmp_path, monkeypatch):
    hashed, original = [], files.hashlib.file_digest

    def counted(file, kind):
        hashed.append(Path(file.name))
        return original(file, kind)

    monkeypatch.setattr(files.hashlib, "file_digest", counted)
    store = Store(tmp_path)
    table = fill(store.table(SPEC), range(4), range(4, 8), range(8, 12))
    for _ in range(3):
        check(store.table(SPEC), range(12))
        assert not table.missing(ids_of(range(12))).any(), "all are there"
    assert sorted(hashed) == shards(table), "asking again must be cheap"


# ---- damage: noticed, named, and healed


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


DAMAGE = {"flip": (flip, "sha256"), "truncate": (truncate, "bytes; got"), "lengthen": (lengthen, "bytes; got")}
DAMAGE["remove"] = (Path.unlink, "is missing")


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("touched", [False, True], ids=["before the first read", "after it"])
@pytest.mark.parametrize("cure", ["same shard", "other shards", "gc"])
def test_a_damaged_shard_is_named_and_never_read_and_heals(tmp_path, how, touched, cure):
    damage, message = DAMAGE[how]
    table = fill(Store(tmp_path).table(SPEC), range(4), range(4, 8))
    _, line = (table.folder / "log.jsonl").read_text().splitlines()
    victim = table.folder / "shards" / json.loads(line)["shard"]
    reader = Store(tmp_path).table(SPEC)
    if touched:
        check(reader, range(8))
        time.sleep(0.02)  # a tick of the file system's clock
    damage(victim)
    (flaw,) = Store(tmp_path).verify()
    assert str(victim) in flaw, "verify must name the file"
    assert message in flaw, "and what is wrong with it"
    with pytest.warns(DamagedShardWarning, match=victim.name) as caught:
        assert reader.missing(ids_of(range(8))).tolist() == [False] * 4 + [True] * 4, "its rows count as missing"
    assert len(caught) == 1, "one warning"
    assert reader.missing(ids_of([5])).all(), "and no second one (warnings are errors here)"
    check(reader, range(4))
    with pytest.raises(ValueError, match="got 1 that are not"):
        reader.read(ids_of([0, 4]))
    if cure == "gc":
        size = victim.stat().st_size if victim.exists() else 0
        assert Store(tmp_path).gc() == size, "gc removes the shard"
        assert (reader.rows, victim.exists()) == (4, False), "and its log line"
    else:
        fill(reader, *([range(4, 8)] if cure == "same shard" else [[4, 5], [6, 7]]))
        check(reader, range(8))
        assert victim.exists() == (cure == "same shard" or how != "remove"), "equal content has the same name"
        Store(tmp_path).gc()
        check(Store(tmp_path).table(SPEC), range(8))
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"


def test_a_shard_that_comes_back_counts_again(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(4))
    (path,) = shards(table)
    path.rename(tmp_path / "away")
    with pytest.warns(DamagedShardWarning, match="is missing"):
        assert table.missing(ids_of(range(4))).all(), "gone"
    (tmp_path / "away").rename(path)
    check(Store(tmp_path).table(SPEC), range(4))
    check(fill(table, [4]), range(5))


def test_a_shard_copied_from_another_table_is_refused_by_name(tmp_path):
    mine, other = Store(tmp_path).table(SPEC), fill(Store(tmp_path).table({**SPEC, "backbone": "other"}), range(4))
    fill(mine, range(4, 6))
    (foreign,) = shards(other)
    shutil.copy(foreign, mine.folder / "shards")
    with open(mine.folder / "log.jsonl", "ab") as log:
        log.write((other.folder / "log.jsonl").read_bytes())
    reader = Store(tmp_path).table(SPEC)
    message = f"{foreign.name} must be of table {mine.folder.name}; got {other.folder.name}"
    with pytest.warns(DamagedShardWarning, match=message):
        assert reader.missing(ids_of(range(6))).tolist() == [True] * 4 + [False] * 2, "its rows count as missing"
    (flaw,) = Store(tmp_path).verify()
    assert message in flaw, "verify must name it"
    check(fill(reader, range(4)), range(6))
    assert Store(tmp_path).gc() == foreign.stat().st_size, "gc removes it"
    assert Store(tmp_path).verify() == [], "and nothing else is wrong"


@pytest.mark.parametrize("tail", [b'{"shard":"ab', b"\0\0\0\0", b"{}"])
def test_a_torn_log_line_is_named_and_healed(tmp_path, tail):
    table = fill(Store(tmp_path).table(SPEC), range(4))
    log = table.folder / "log.jsonl"
    sound = log.read_bytes()
    log.write_bytes(sound + tail)
    (flaw,) = Store(tmp_path).verify()
    assert (str(log) in flaw, "torn" in flaw) == (True, True), "named by verify"
    table = Store(tmp_path).table(SPEC)
    check(table, range(4))
    assert log.read_bytes() == sound + tail, "a reader changes nothing"
    with table.writing():
        assert log.read_bytes() == sound, "the next writer cuts it off"
    check(fill(table, [7]), [7, 0])
    assert Store(tmp_path).verify() == [], "nothing is wrong any more"


def test_a_garbled_log_line_costs_its_shard_alone(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), [0], [1], [2])
    log = table.folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"\xff" + lines[1] + lines[2])
    (flaw,) = Store(tmp_path).verify()
    assert (str(log) in flaw, "line 2" in flaw) == (True, True), "named by verify"
    assert table.missing(ids_of(range(3))).tolist() == [False, True, False]
    check(fill(table, [1]), range(3))
    Store(tmp_path).gc()
    assert (Store(tmp_path).verify(), log.read_bytes()) == ([], lines[0] + lines[2] + lines[1]), "as good as new"


@pytest.mark.parametrize("how", ["altered", "another", "garbled", "a list", "missing"])
def test_a_spec_that_is_not_its_folders_is_an_error_that_names_it(tmp_path, how):
    spec = fill(Store(tmp_path).table(SPEC), [0]).folder / "spec.json"
    altered = canonical({**SPEC, "backbone": "0f1e2d3d"})
    texts = {"altered": altered, "another": b"{}", "garbled": b'\xff{"', "a list": b"[]"}
    spec.unlink() if how == "missing" else spec.write_bytes(texts[how])
    (flaw,) = Store(tmp_path).verify()
    assert str(spec) in flaw, "verify must name the file"
    assert Store(tmp_path).tables() == [], "it is no table"
    if how == "missing":
        fill(Store(tmp_path).table(SPEC), [1])
        assert Store(tmp_path).verify() == [], "the next append writes it again"
    else:
        with pytest.raises(ValueError, match=str(spec.parent)):
            Store(tmp_path).table(SPEC)
        Store(tmp_path).gc(older_than_days=0)
        assert len(list(spec.parent.glob("shards/*"))) == 1, "what cannot be understood is not collected"


def test_a_table_of_a_later_format_is_left_alone(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), [0])
    text = canonical({**SPEC, "format": FORMAT + 1})
    later = table.folder.rename(tmp_path / digest(text)[:32])
    (later / "spec.json").write_bytes(text)
    (flaw,) = Store(tmp_path).verify()
    assert "update adaptkit" in flaw, "verify must say so"
    before = snapshot(later / "shards")
    assert (Store(tmp_path).gc(older_than_days=0), snapshot(later / "shards")) == (0, before), "gc must not judge it"


def test_a_table_of_an_older_format_is_named_never_read_and_collected(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), [0])
    text = canonical({**SPEC, "format": FORMAT - 1})
    older = table.folder.rename(tmp_path / digest(text)[:32])
    (older / "spec.json").write_bytes(text)
    (said,) = Store(tmp_path).verify()
    assert "made by an older version" in said and "gc" in said, "verify must say what it is and what to do"
    assert Store(tmp_path).tables() == [], "it is no table that could be read"
    assert Store(tmp_path).gc() > 0, "gc must remove it, whatever its age"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"], "and leave the lock alone"
    assert Store(tmp_path).verify() == [], "nothing is left to say"


# ---- collecting garbage


def test_gc_removes_what_does_not_count_and_nothing_else(tmp_path):
    table = fill(Store(tmp_path).table(SPEC), range(4))
    before = snapshot(table.folder / "shards")
    unfinished = tmp_path / ("ab" * 16)
    unfinished.mkdir()
    litter = ["shards/0123456789abcdef.safetensors", "shards/x.safetensors.1-ab.tmp", "log.jsonl.1-ab.tmp"]
    for path in [*(table.folder / name for name in litter), unfinished / "spec.json.1-ab.tmp"]:
        path.write_bytes(b"12345")
    (tmp_path / "notes.tmp").write_text("not ours")
    assert Store(tmp_path).verify() == [], "litter is no damage"
    assert Store(tmp_path).gc() == 20, "bytes freed"
    assert list(tmp_path.rglob("*.tmp")) == [tmp_path / "notes.tmp"], "only folders of the store are swept"
    assert snapshot(table.folder / "shards") == before, "logged shards are not touched"
    assert Store(tmp_path).gc() == 0, "nothing is left to do"
    check(Store(tmp_path).table(SPEC), range(4))


def age(table, days):
    log = table.folder / "log.jsonl"
    os.utime(log, (time.time() - days * 86400,) * 2)


def test_gc_removes_whole_tables_by_age_but_those_kept(tmp_path):
    store = Store(tmp_path)
    old, kept, fresh = (fill(store.table({**SPEC, "seed": n}), range(4)) for n in range(3))
    size = sum(path.stat().st_size for path in old.folder.rglob("*") if path.is_file())
    age(old, 9)
    age(kept, 9)
    assert store.gc(older_than_days=10) == 0, "none is so old"
    assert store.gc(keep=[kept], older_than_days=8) == size, "one is, and not kept"
    assert {table.folder for table in Store(tmp_path).tables()} == {kept.folder, fresh.folder}
    assert Store(tmp_path).verify() == [], "nothing is wrong with what is left"
    assert old.missing(ids_of(range(4))).all(), "an open table notices"
    check(fill(old, range(4)), range(4))


def test_a_full_disk_stores_nothing_and_names_the_folder(tmp_path, monkeypatch):
    table = fill(Store(tmp_path).table(SPEC), [0])
    before = snapshot(table.folder / "shards")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with table.writing():
        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="free some space") as caught:
            table.append(ids_of([1]), rows_of([1]), 0.0)
        monkeypatch.undo()
        assert str(table.folder) in str(caught.value), "the message must name the folder"
        assert snapshot(table.folder / "shards") == before, "no temporary file stays"
        table.append(ids_of([2]), rows_of([2]), 0.0)
    assert table.missing(ids_of(range(3))).tolist() == [False, True, False], "the failed rows are missing"


# ---- several processes, and processes that die

# adaptkit itself is not imported, only the two modules: a child must start quickly, and they must not need torch.
CHILD = f"""
import hashlib, os, random, sys, time, types, warnings
import numpy as np
warnings.simplefilter("error")
package = types.ModuleType("adaptkit"); package.__path__ = [{str(Path(files.__file__).parents[1])!r}]
sys.modules["adaptkit"] = package
from adaptkit.features.store import Store
assert "torch" not in sys.modules
SPEC = {SPEC!r}
WIDTH = 2000

def ids_of(numbers):
    text = b"".join(hashlib.sha256(str(n).encode()).digest()[:16] for n in numbers)
    return np.frombuffer(text, np.uint8).reshape(-1, 16)

def fill(root, journal, count, pause, size=4):
    '''Append what is missing, chunk by chunk, and write down every row just before it is computed.'''
    table, starts = Store(root).table(SPEC), list(range(0, count, size))
    random.Random(os.path.basename(journal)).shuffle(starts)  # processes that kept step would hide a conflict
    journal = os.open(journal, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    print("ready", flush=True)
    sys.stdin.readline()
    for start in starts:
        numbers = np.arange(start, start + size)
        with table.writing():
            numbers = numbers[table.missing(ids_of(numbers))]
            os.write(journal, "".join(f"{{n}}\\n" for n in numbers).encode())
            rows = numbers[:, None, None] + np.arange(2 * WIDTH).reshape(1, 2, WIDTH) / 8
            table.append(ids_of(numbers), (rows % 256).astype("f4"), 0.0)
        time.sleep(pause)  # in which another process gets its turn

fill(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
"""
WIDTH = 2000


def start(root, journal, count, pause=0.005):
    """A child that has imported everything and waits for `go`."""
    command = [sys.executable, "-c", CHILD, str(root), str(journal), str(count), str(pause)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n", "the child must start"
    return child


def go(child):
    child.stdin.write(b"\n")
    child.stdin.close()
    child.stdout.close()


def computed(journal):
    return [int(line) for line in journal.read_text().split()] if journal.exists() else []


def check_children(table, count):
    rows = np.arange(count)[:, None, None] + np.arange(2 * WIDTH).reshape(1, 2, WIDTH) / 8
    assert np.array_equal(table.read(ids_of(range(count))), (rows % 256).astype("f2")), "content must be exact"


def test_killing_the_writer_at_any_moment_loses_at_most_the_shard_in_hand(tmp_path):
    count, root, journal, dice = 800, tmp_path / "store", tmp_path / "journal", random.Random(0)
    stored = np.zeros(count, bool)
    for _ in range(15):
        begun = len(computed(journal))
        child = start(root, journal, count, pause=0)
        go(child)
        goal = begun + 4 * dice.randint(0, 5)
        while len(computed(journal)) < goal:
            time.sleep(0.0002)
        time.sleep(dice.uniform(0, 0.008))  # somewhere within an append, which takes a few milliseconds
        child.kill()
        assert child.wait() == -9, "the child must have been at work when it was killed"
        assert not stored[computed(journal)[begun:]].any(), "no row is computed again after it was logged"
        now = ~Store(root).table(SPEC).missing(ids_of(range(count)))
        assert (now >= stored).all(), "what was logged stays"
        stored = now
    assert 0 < stored.sum() < count, "the kills must have come in the middle, or this tests nothing"
    begun = len(computed(journal))
    child = start(root, journal, count, pause=0)
    go(child)
    assert child.wait() == 0, "the last one finishes"
    assert sorted(computed(journal)[begun:]) == np.flatnonzero(~stored).tolist(), "it computes just what was missing"
    litter, again = len(list(root.rglob("*.tmp"))), len(computed(journal)) - count
    Store(root).gc()
    assert list(root.rglob("*.tmp")) == [], "no temporary file is left"
    assert Store(root).verify() == [], "nothing is wrong"
    assert Store(root).table(SPEC).rows == count, "every row is stored once"
    check_children(Store(root).table(SPEC), count)
    print(f"15 kills, {litter} temporary files collected, {again} unlogged rows computed again")


def test_two_processes_fill_one_table_and_compute_every_row_once(tmp_path):
    children = [start(tmp_path / "store", tmp_path / name, 240) for name in ("one", "two")]
    for child in children:
        go(child)
    assert [child.wait() for child in children] == [0, 0], "both finish"
    one, two = computed(tmp_path / "one"), computed(tmp_path / "two")
    assert sorted(one + two) == list(range(240)), "every row is computed once"
    assert min(len(one), len(two)) > 0, "by both of them, or this tests nothing"
    check_children(Store(tmp_path / "store").table(SPEC), 240)


def test_a_reader_sees_only_whole_rows_while_another_process_writes(tmp_path):
    count, seen = 240, []
    table = Store(tmp_path / "store").table(SPEC)
    child = start(tmp_path / "store", tmp_path / "journal", count)
    go(child)
    while child.poll() is None:
        here = np.flatnonzero(~table.missing(ids_of(range(count))))
        rows = here[:, None, None] + np.arange(2 * WIDTH).reshape(1, 2, WIDTH) / 8
        if len(here):
            assert np.array_equal(table.read(ids_of(here)), (rows % 256).astype("f2")), "rows must be whole"
        seen.append(len(here))
    assert child.returncode == 0, "reading does not disturb the writer"
    assert seen == sorted(seen), "rows never vanish"
    assert len(set(seen)) > 5, "the reader must have watched, or this tests nothing"
    check_children(table, count)


def test_a_writer_waits_for_the_other_and_says_so_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "adaptkit.features.tables")
    one, two = Store(tmp_path).table(SPEC), Store(tmp_path).table(SPEC)
    inside, done = threading.Event(), []

    def second():
        inside.wait()
        with two.writing():
            done.append(two.missing(ids_of(range(4))).any())

    thread = threading.Thread(target=second)
    with one.writing():
        thread.start()
        inside.set()
        time.sleep(0.3)
        assert done == [], "the second waits"
        with one.writing():  # the holder may enter again
            one.append(ids_of(range(4)), rows_of(range(4)), 0.0)
    thread.join()
    assert done == [False], "and then finds what the first one stored"
    said = [record.getMessage() for record in caplog.records if record.name == "adaptkit.features.tables"]
    assert said == [f"waiting for the process that writes to {one.folder}"], "one line, naming the folder"


# ---- size


def test_a_million_rows_are_indexed_and_looked_up_quickly(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (1_000_000, 16), np.uint8)
    numbers = np.arange(1_000_000, dtype="f4")[:, None]
    table = Store(tmp_path).table({**SPEC, "dtype": "float32"})
    with table.writing():
        for part in np.array_split(np.arange(1_000_000), 4):
            table.append(ids[part], numbers[part], 0.0)
    some = np.random.default_rng(1).integers(0, 1_000_000, 10_000)
    table = Store(tmp_path).table({**SPEC, "dtype": "float32"})
    times = [time.process_time()]
    assert not table.missing(ids[some]).any(), "all are there"
    times.append(time.process_time())
    assert not table.missing(ids[some]).any(), "all are there"
    times.append(time.process_time())
    assert table.read(ids[some])[:, 0].tolist() == some.tolist(), "each id has its own row"
    times.append(time.process_time())
    first, again, read = np.diff(times)
    print(f"open, hash, index and look up {first:.3f} s; look up again {again:.3f} s; read {read:.3f} s")
    assert first < 3, "well under a second on a free core"
    assert again < 0.5, "a few hundredths on a free core"
    shutil.rmtree(tmp_path)
