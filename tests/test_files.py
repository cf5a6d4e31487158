"""Atomic files, logs, safetensors headers, digests of files."""

import json
import os
import resource
import stat
import struct
import time
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import save

from adaptkit.io import files
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import Tensors, atomic_write, canonical, digest, open_tensors
from adaptkit.io.logs import Log


@contextmanager
def full_disk(limit):
    """Files of this process cannot grow beyond ``limit`` bytes: writes fail half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_atomic_write_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new", "the second write counts"
    assert os.listdir(tmp_path) == ["file"], "no temporary file stays"


def test_a_written_file_may_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "file", b"shared")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644, "a shared store must be readable by others"


def test_a_full_disk_leaves_the_old_file_and_names_the_folder(tmp_path):
    atomic_write(tmp_path / "file", b"old")
    with full_disk(1000), pytest.raises(OSError, match="cannot write") as caught:
        atomic_write(tmp_path / "file", bytes(5000))
    assert str(tmp_path) in str(caught.value), "the message must name the folder"
    assert (tmp_path / "file").read_bytes() == b"old", "the old file must stay whole"
    assert os.listdir(tmp_path) == ["file"], "the temporary file must go"


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file", b"data")
    assert os.listdir(tmp_path) == [], "neither the file nor a part of it may stay"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor):
        events.append("flush folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "flush file")
        fsync(descriptor)

    def renamed(source, target):
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    atomic_write(tmp_path / "file", b"data")
    assert events == ["flush file", "rename", "flush folder"], "any other order may lose the file in a power cut"


def test_canonical_json_depends_on_the_value_alone():
    assert canonical({"b": (1, 2.5), "a": {"é": None}}) == b'{"a":{"\\u00e9":null},"b":[1,2.5]}', "golden bytes"
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1}), "the order of keys must not matter"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2, "1": 3}, {"a": b"bytes"}])
def test_what_has_no_json_form_is_refused(value):
    with pytest.raises(ValueError, match="must be JSON"):
        canonical({"field": value})


def numbers(log):
    return [record["n"] for record in log.records]


def test_a_log_gives_back_its_complete_lines(tmp_path):
    log = Log(tmp_path / "log", "n")
    log.append({"n": 1})
    log.refresh()
    log.append({"n": 2}, {"n": 3})
    again = Log(tmp_path / "log", "n")
    again.refresh()
    assert numbers(again) == [1, 2, 3], "every appended record must be there"
    assert again.flaws == [], "a sound log has no flaws"


def test_a_torn_line_is_ignored_by_readers_and_cut_off_by_a_writer(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"n":1}\n{"n":2')
    log = Log(path, "n")
    log.refresh()
    assert numbers(log) == [1], "half a line does not count"
    assert path.read_bytes() == b'{"n":1}\n{"n":2', "a reader changes nothing"
    log.heal()
    assert path.read_bytes() == b'{"n":1}\n', "the writer cuts it off"
    log.append({"n": 3})
    log.refresh()
    assert numbers(log) == [1, 3], "and goes on behind"
    assert log.flaws == [], "nothing is wrong any more"


def test_a_line_that_failed_half_way_is_overwritten_by_the_next(tmp_path):
    path = tmp_path / "log"
    log = Log(path, "n")
    log.append({"n": 1})
    log.refresh()
    with full_disk(path.stat().st_size + 3), pytest.raises(OSError, match="cannot write"):
        log.append({"n": 2222})
    assert path.stat().st_size > 8, "the disk took a part of the line; without that this tests nothing"
    log.append({"n": 3})
    log.refresh()
    assert numbers(log) == [1, 3], "the part must not spoil the next line"


def test_a_garbled_line_is_named_and_costs_only_itself(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"n":1}\n\xff\x00{\n[5]\n{"m":4}\n{"n":2}\n')
    log = Log(path, "n")
    log.refresh()
    assert numbers(log) == [1, 2], "the lines around it still count"
    assert [flaw.split(" is ")[0] for flaw in log.flaws] == [f"{path}: line {n}" for n in (2, 3, 4)], "each is named"


def entry_of(path):
    return {"shard": path.name, "bytes": path.stat().st_size, "sha256": digest(path.read_bytes())}


def tensors_file(path, header, data=bytes(64)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return open_tensors(path.parent, entry_of(path))


def test_tensors_are_read_as_the_library_wrote_them(tmp_path):
    given = {"a": np.float16([[1, 2], [3, 4], [5, 6]]), "b": np.arange(5, dtype=np.uint8), "c": np.float32([[7]])}
    path = tmp_path / "t.safetensors"
    path.write_bytes(save(given, metadata={"note": "ignored"}))
    found = open_tensors(tmp_path, entry_of(path))
    assert isinstance(found, Tensors), found
    for name, value in given.items():
        assert found[name].dtype == value.dtype, f"dtype of {name}"
        assert np.array_equal(found[name], value), f"values of {name}"


F16 = {"dtype": "F16", "shape": [4, 8], "data_offsets": [0, 64]}


def test_a_sound_header_is_accepted(tmp_path):
    assert isinstance(tensors_file(tmp_path / "t", {"rows": F16}), Tensors), "the tests below change one thing each"


@pytest.mark.parametrize(
    "header",
    [
        {"rows": {**F16, "data_offsets": [0, 66], "shape": [33]}},  # behind the end
        {"rows": {**F16, "data_offsets": [-64, 0]}},  # before the start
        {"rows": {**F16, "data_offsets": [64, 0]}},
        {"rows": {**F16, "shape": [4, 9]}},
        {"rows": {**F16, "shape": [-4, -8]}},
        {"rows": {**F16, "shape": "48"}},
        {"rows": {**F16, "dtype": "I64"}},
        {"rows": {"dtype": "F16"}},
        {"rows": None},
        ["rows"],
        b"not json",
        b"",
    ],
)
def test_a_header_that_misleads_is_refused(tmp_path, header):
    found = tensors_file(tmp_path / "t", header)
    assert isinstance(found, str), "must not be opened"
    assert str(tmp_path / "t") in found, "the sentence must name the file"


@pytest.mark.parametrize("length", [200_000_000, 2**63, 57])
def test_a_header_longer_than_the_file_or_the_limit_is_refused(tmp_path, length):
    (tmp_path / "t").write_bytes(struct.pack("<Q", length) + bytes(56))
    found = open_tensors(tmp_path, entry_of(tmp_path / "t"))
    assert isinstance(found, str), "must not be opened"
    assert "header" in found, "the sentence must say what is wrong"


@pytest.fixture
def later(monkeypatch):
    """Ten seconds later: files written by the test are no longer too fresh to be remembered."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10_000_000_000)


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are hashed."""
    names, original = [], files.hashlib.file_digest

    def counted(file, kind):
        names.append(os.path.basename(file.name))
        return original(file, kind)

    monkeypatch.setattr(files.hashlib, "file_digest", counted)
    return names


def test_an_unchanged_file_is_read_once_even_by_the_next_process(tmp_path, later, reads):
    (tmp_path / "a.png").write_bytes(b"image")
    digests = FileDigests(tmp_path / "cache" / "index")
    assert digests.of(tmp_path / "a.png") == digest(b"image"), "sha256 of the bytes"
    assert digests.of(str(tmp_path / "a.png")) == digest(b"image"), "as text, too"
    digests.save()
    assert FileDigests(tmp_path / "cache" / "index").of(tmp_path / "a.png") == digest(b"image"), "from the index"
    assert reads == ["a.png"], "one read in all"


def test_a_change_that_keeps_size_and_mtime_is_noticed(tmp_path, later):
    path, index = tmp_path / "a.png", tmp_path / "index"
    path.write_bytes(b"one")
    before = path.stat()
    digests = FileDigests(index)
    digests.of(path)
    digests.save()
    time.sleep(0.05)  # longer than a tick of the file system's clock
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert digests.of(path) == digest(b"two"), "noticed in this process"
    assert FileDigests(index).of(path) == digest(b"two"), "and in the next"


def test_a_file_touched_just_now_is_not_remembered(tmp_path, reads):
    (tmp_path / "a.png").write_bytes(b"one")
    digests = FileDigests(tmp_path / "index")
    for _ in range(3):
        digests.of(tmp_path / "a.png")
    digests.save()
    assert reads == ["a.png"] * 3, "it may change again within the same tick"
    assert not (tmp_path / "index").exists(), "nothing to save"


def test_a_file_with_an_old_mtime_but_a_new_ctime_is_not_remembered(tmp_path, reads):
    (tmp_path / "a.png").write_bytes(b"one")
    os.utime(tmp_path / "a.png", (1, 1))
    digests = FileDigests(tmp_path / "index")
    digests.of(tmp_path / "a.png")
    digests.of(tmp_path / "a.png")
    assert reads == ["a.png"] * 2, "an unpacked archive has old mtimes"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, later, monkeypatch):
    path, original = tmp_path / "a.png", files.hashlib.file_digest
    path.write_bytes(b"one")

    def slow(file, kind):
        found = original(file, kind)
        path.write_bytes(b"three")
        return found

    digests = FileDigests(tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(files.hashlib, "file_digest", slow)
        digests.of(path)
    assert digests.of(path) == digest(b"three"), "what was read is not what is there"


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b"[]", b"{", None])
def test_a_damaged_index_only_costs_time(tmp_path, later, damage):
    path, index = tmp_path / "a.png", tmp_path / "index"
    path.write_bytes(b"one")
    digests = FileDigests(index)
    digests.of(path)
    digests.save()
    if damage is None:  # one character of the digest itself
        text = index.read_bytes()
        at = text.rindex(digest(b"one").encode())
        index.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
    else:
        index.write_bytes(damage)
    again = FileDigests(index)
    assert again.of(path) == digest(b"one"), "the file is read again"
    again.save()
    assert FileDigests(index)._known, "and the index is written anew"


def test_two_processes_that_save_keep_what_both_learned(tmp_path, later, reads):
    one, two = FileDigests(tmp_path / "index"), FileDigests(tmp_path / "index")
    for name, digests in (("a", one), ("b", two)):
        (tmp_path / name).write_bytes(name.encode())
        digests.of(tmp_path / name)
        digests.save()
    third = FileDigests(tmp_path / "index")
    assert [third.of(tmp_path / name) for name in "ab"] == [digest(b"a"), digest(b"b")]
    assert reads == ["a", "b"], "the third reads neither"


def test_a_digest_that_reading_proves_wrong_is_forgotten(tmp_path, later, monkeypatch):
    path, index = tmp_path / "a.png", tmp_path / "index"
    path.write_bytes(b"one")
    digests = FileDigests(index)
    digests.of(path)
    digests.save()
    seen = files.signature(path)
    path.write_bytes(b"two")
    monkeypatch.setattr("adaptkit.io.digests.signature", lambda _: seen)  # a file system that hides the change
    assert digests.of(path) == digest(b"one"), "what looks unchanged is not read"
    assert digests.read(path) == (digest(b"two"), b"two"), "digest and bytes of one reading"
    assert digests.of(path) == digest(b"two"), "the wrong digest is forgotten"
    digests.save()
    assert FileDigests(index).of(path) == digest(b"two"), "in the index, too"


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileDigests(tmp_path / "index").of(tmp_path / "none.png")
