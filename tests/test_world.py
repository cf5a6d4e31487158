"""What the machine and strangers' files can do: every command ends in one line and code 2, and leaves no half file."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adaptkit as ak
from adaptkit import cli
from adaptkit.features.store import Store
from adaptkit.io import files, yamls
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import atomic_write, ensure_writable
from adaptkit.io.home import home, home_at
from adaptkit.io.jsons import parse_json
from adaptkit.io.safe import Shown
from adaptkit.runs.results import Result
from tests.fuzz import recipes as fuzz_recipes
from tests.fuzz import records as fuzz_records

PLACE = ("a home, folder or file that cannot be used", "one line that names it, exit code 2")
FULL = ("a disk that is full, or a write that is cut", "one line, exit code 2, the old file whole")
TEXT = ("YAML or JSON that is too deep, too large or no plain value", "one line that says what is wrong")
FIELD = ("a record, log, spec or digest with a field of another type", "named in one line, or counted as missing")
MACHINE = ("a trainer that does not fit the machine", "refused before anything runs")
OUTSIDE = ("a method that scores, and no images of other things", "refused before anything runs")
READ_ONLY = ("a home that can only be read", "serves what it has, and says where to write what it has not")
LOST = ("a spec of a table of features that is lost or garbled", "named, and written again by cache verify --repair")

RECIPE = "{dataset: toy, backbone: toy:0, select: none, shots: [1, 2], seeds: [1], methods: [zero-shot, gda]}"


def say(*words):
    """A command in this process: exit code, what it printed, what it complained of."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as left:
            code = left.code
    return code, out.getvalue(), error.getvalue()


def refused(*words, naming=""):
    code, _, error = say(*words)
    assert (code, error.count("\n")) == (2, 1), f"{words} must end in one line and code 2; got {code}, {error!r}"
    assert naming in error, f"which names {naming!r}; got {error!r}"
    return error


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run that is finished in ``home``, a saved classifier, a picture, and things that are in the way."""
    root = tmp_path_factory.mktemp("world")
    (root / "x.yaml").write_text(RECIPE)
    assert say("--home", root / "home", "run", root / "x.yaml", "--quiet")[0] == 0, "it must run"
    task, _ = ak.load("toy", backbone="toy:0", shots=1, seed=1, home=root / "home")
    ak.save_classifier(root / "saved", ak.adapt(ak.method("gda"), task), task, backbone="toy:0")
    Image.new("RGB", (32, 32)).save(root / "p.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "file").write_text("x")
    return root


BAD = {
    "unwritable": "/proc/adaptkit",
    "loop": "{}/loop",
    "long": "{}/" + "x" * 300,
    "file": "{}/file",
    "nul": "{}/a\0b",
}
BAD |= {"below a file": "{}/file/x", "below a loop": "{}/loop/x"}


@pytest.fixture(params=BAD)
def bad(request, world):
    return BAD[request.param].format(world)


WRITING = {
    "run --out": lambda w, bad: ("--home", w / "home", "run", w / "x.yaml", "--quiet", "--out", bad),
    "run --home": lambda w, bad: ("--home", bad, "run", w / "x.yaml", "--quiet"),
    "export --out": lambda w, bad: ("--home", w / "home", "export", w / "x.yaml", "--method", "gda", "--out", bad),
    "predict --out": lambda w, bad: (
        "--home",
        w / "home",
        "predict",
        w / "saved",
        w / "p.png",
        "--out",
        f"{bad}/o.csv",
    ),
    "compare --out": lambda w, bad: ("--home", w / "home", "compare", "x", "--out", f"{bad}/page.html"),
    "data export": lambda w, bad: ("data", "export", w / "s.json", "--shots=1", "--seed=1", "--out", f"{bad}/o.json"),
}


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("what", WRITING)
def test_what_cannot_be_written_is_said_in_one_line(world, what, bad):
    rows = [[f"{c}{i}.png", c, "ab"[c]] for c in (0, 1) for i in range(3)]
    (world / "s.json").write_text(json.dumps({part: rows for part in ("train", "val", "test")}))
    error = refused(*WRITING[what](world, bad))
    if bad.startswith("/proc"):
        assert "/proc/adaptkit" in error, f"the folder must be named; got {error!r}"
        assert all(way in error for way in ("--out", "--home", "ADAPTKIT_HOME")), f"and how to choose; got {error!r}"


READING = {
    "a run": lambda w, bad: ("compare", bad),
    "a recipe": lambda w, bad: ("plan", f"{bad}.yaml"),
    "a plugin": lambda w, bad: ("--plugin", f"{bad}/x.py", "list", "prompts"),
    "a method": lambda w, bad: ("check", f"{bad}/x.py"),
    "a classifier": lambda w, bad: ("predict", bad, w / "p.png"),
    "a picture": lambda w, bad: ("--home", w / "home", "predict", w / "saved", f"{bad}/x.png"),
    "a dataset": lambda w, bad: ("plan", w / "x.yaml", "--set", f"dataset=folder:{bad}".replace("\0", "0")),
    "sentences": lambda w, bad: (
        "plan",
        w / "x.yaml",
        "--set",
        f"prompts={{llm: {{file: '{bad}/x'}}}}".replace("\0", "0"),
    ),
    "a split file": lambda w, bad: ("data", "supports", bad, "--shots", "1", "--seed", "1"),
}


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("what", READING)
def test_what_cannot_be_read_is_said_in_one_line(world, what, bad):
    refused(*READING[what](world, bad))


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize(
    "key", ["dataset=folder:{}", "dataset=csv:{}", "backbone=hf:{}", "support={{indices: {{path: {}}}}}"]
)
def test_the_home_of_nobody_is_no_folder_and_no_bug(world, key):
    refused(
        "--home", world / "home", "run", world / "x.yaml", "--out", world / "o", "--set", key.format("~nobody-at-all/x")
    )


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder"])
def test_a_record_that_is_no_file_is_named(tmp_path, kind):
    path = tmp_path / "x.json"
    {"pipe": os.mkfifo, "loop": lambda p: p.symlink_to(p), "folder": Path.mkdir}[kind](path)
    refused("compare", tmp_path, naming="x.json")


@pytest.mark.fault(*PLACE)
def test_a_screen_that_is_full_is_one_line():
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "adaptkit", "list", "recipes"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), f"in one line; got {done}"


@pytest.mark.fault(*FULL)
@pytest.mark.parametrize("what", ["compare.html", "compare.csv", "compare.tex", "compare.md", "predict", "export"])
def test_a_full_disk_leaves_the_old_file_whole(world, tmp_path, monkeypatch, what):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "old.csv" if what == "predict" else tmp_path / what
    command = {
        "predict": ("predict", world / "saved", world / "p.png", "--out", out),
        "export": ("export", world / "x.yaml", "--method", "gda", "--out", tmp_path / "new", "--quiet"),
    }.get(what, ("compare", "x", "--out", out))
    out.write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    refused("--home", world / "home", *command, naming="free some space")
    assert out.read_text() == "old", "the old file must be whole"
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "and nothing beside it"


@pytest.mark.fault(*FULL)
def test_a_run_on_a_full_disk_is_one_line(world, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    refused("--home", tmp_path / "new", "run", world / "x.yaml", "--quiet", naming="free some space")


def test_a_device_is_written_to_and_a_link_stays_one(tmp_path):
    atomic_write(Path("/dev/null"), b"x")
    assert not Path("/dev/null").is_file(), "a device must stay one"
    (tmp_path / "link").symlink_to(tmp_path / "there")
    atomic_write(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_bytes() == b"x", "what it leads to is written"


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_a_place_for_a_file_that_is_none_is_refused_at_once(world, tmp_path, kind):
    path = tmp_path / "x.html"
    {"pipe": os.mkfifo, "loop": lambda p: p.symlink_to(p), "folder": Path.mkdir}[kind](path)
    refused("--home", world / "home", "compare", "x", "--out", path, naming=str(tmp_path))


A_FILE = {
    "predict": lambda w, out: ("predict", w / "saved", w / "p.png", "--out", out),
    "compare": lambda w, out: ("compare", "x", "--out", out),
    "data export": lambda w, out: ("data", "export", w / "s.json", "--shots=1", "--seed=1", "--out", out),
}


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("place", ["void", "void.csv", "link", ""])
@pytest.mark.parametrize("what", A_FILE)
def test_a_folder_where_a_file_is_meant_is_named_as_one(world, tmp_path, monkeypatch, what, place):
    rows = [[f"{c}{i}.png", c, "ab"[c]] for c in (0, 1) for i in range(3)]
    (world / "s.json").write_text(json.dumps({part: rows for part in ("train", "val", "test")}))
    monkeypatch.chdir(tmp_path)
    [(tmp_path / name).mkdir() for name in ("void", "void.csv")], (tmp_path / "link").symlink_to("void")
    error = refused("--home", world / "home", *A_FILE[what](world, place), naming=repr(place or "."))
    assert "to a folder; it must be the path of a file" in error, error
    assert not [*(tmp_path / "void").iterdir()] and len([*tmp_path.iterdir()]) == 3, "nothing may be left behind"


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
@pytest.mark.parametrize("name", ["log.jsonl", "spec.json", "shards"])
def test_a_part_of_a_table_that_cannot_be_read_is_named_by_verify(table, tmp_path, name, kind):
    (table / name).rename(table / "away")
    {"pipe": os.mkfifo, "loop": lambda p: p.symlink_to(p), "folder": Path.mkdir}[kind](table / name)
    code, out, error = say("--home", tmp_path, "cache", "verify")
    assert (code, error) == (1, "") and str(table) in out, f"it must be named; got {code}, {out}, {error}"


def test_a_terminal_of_few_characters_shows_what_it_can():
    held = io.BytesIO()
    terminal = io.TextIOWrapper(held, "ascii", newline="\n", write_through=True)
    print("1 ± 2 é", file=Shown(terminal))
    assert held.getvalue() == b"1 +/- 2 \\xe9\n", f"the rest must not be lost; got {held.getvalue()}"


def test_asking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    ensure_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir()), "neither folders nor files"
    (tmp_path / "a").mkdir()
    ensure_writable(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and not list((tmp_path / "a").iterdir()), "as it was"


DEEP = {
    "[": "[" * 50_000,
    "mappings": '{"a":' * 5_000,
    "closed": "[" * 5_000 + "]" * 5_000,
    "few": "[" * 300 + "]" * 300,
}
TWICE = {"a key": '{"a": 1, "a": 1}', "one deep inside": '[{"b": {"a": 1, "c": 2, "a": 3}}]'}
LARGE = {"400 digits": "9" * 400, "5000 digits": "9" * 5000, "2**63": str(2**63)}


@pytest.mark.fault(*TEXT)
@pytest.mark.parametrize("read", [parse_json, yamls.parse_yaml])
@pytest.mark.parametrize("text", {**DEEP, **LARGE}.values(), ids=[*DEEP, *LARGE])
def test_a_text_that_is_too_deep_or_large_is_a_value_error(read, text):
    with pytest.raises(ValueError, match=r"deep|bits|digits|Exceeds|at most") as caught:
        read(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300, f"in one line; got {caught.value}"


@pytest.mark.fault(*TEXT)
@pytest.mark.parametrize("read", [parse_json, yamls.parse_yaml])
@pytest.mark.parametrize("text", TWICE.values(), ids=TWICE)
def test_a_key_that_is_given_twice_is_a_value_error(read, text):
    with pytest.raises(ValueError, match=r"'a'.* twice"):
        read(text)


ODD_YAML = [
    "!!timestamp x",
    "!!int ''",
    "!!int x",
    "!!float x",
    "!!float ''",
    "!!bool x",
    "!!null [a]",
    "!!set {a}",
    "!!omap [x]",
]
ODD_YAML += [
    "!!pairs [x]",
    "!!pairs [a: 1]",
    "!!binary x",
    "!!binary é",
    "2024-01-01",
    "2024-13-45",
    "2001-12-14t21:59:43.10-05:00",
]
ODD_YAML += [
    "{[a]: 1}",
    "{{a: 1}: 1}",
    "? [a]",
    "<<: 1",
    "{<<: [1]}",
    "=: 1",
    "&a [*a]",
    "*a",
    "a: &a b\nc: *a",
    "\x00",
    "\x1b",
    "a: b: c",
]
ODD_YAML += [
    "a: 1\na: 2",
    "--- 1\n--- 2",
    "%YAML 9.9\n--- a",
    "!!python/object:os.system x",
    "!x y",
    "0o",
    "!!int 0x",
    "!!int 0b2",
    "- !!int",
    "'",
    "|9x",
]
ODD_YAML += [
    "190:20:30:!!int",
    "!!timestamp 2024-99-01",
    "!!map [a]",
    "!!seq {a: 1}",
    "!!str [a]",
    "0b" + "1" * 400,
    "!!int 1:9:9:" + "9:" * 90,
]


@pytest.mark.fault(*TEXT)
@pytest.mark.parametrize("text", ODD_YAML)
def test_yaml_is_plain_or_refused_by_the_file_and_by_set(world, text, tmp_path):
    with contextlib.suppress(ValueError):
        assert json.dumps(yamls.parse_yaml(text)) is not None, "what is read must be plain"
    path = tmp_path / "x.yaml"
    path.write_text(f"{RECIPE[1:-1].replace(', methods', chr(10) + 'methods')}\nbins: {text}".replace(", ", "\n"))
    refused("plan", path)
    refused("--home", world / "home", "plan", world / "x.yaml", "--set", f"bins={text}")


@pytest.mark.fault(*TEXT)
@pytest.mark.parametrize("data", [b"\xff\xfea\0", b"\xc3", b"\xef\xbb\xbf[", b"a: \xff", b"\0", b"{", b"", b"[]", b"x"])
@pytest.mark.parametrize("name", ["x.yaml", "x.json", "config.json", "split.json"])
def test_bytes_that_are_no_text_are_one_line(data, name, tmp_path, world):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(
        *{
            "x.yaml": ("plan", tmp_path / name),
            "x.json": ("compare", tmp_path),
            "config.json": ("predict", tmp_path, world / "p.png"),
            "split.json": ("data", "supports", tmp_path / name, "--shots=1", "--seed=1"),
        }[name]
    )


def test_a_file_with_a_mark_of_its_byte_order_is_read(tmp_path, world):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + RECIPE.encode())
    assert say("--home", world / "home", "plan", tmp_path / "x.yaml")[0] == 0, "editors write it"


TYPES = [None, True, -1, 1.5, "x", [], {}, [[1]], float("nan"), 10**400]


@pytest.mark.fault(*FIELD)
@pytest.mark.parametrize("name", Result.__dataclass_fields__)
@pytest.mark.parametrize("value", TYPES, ids=str)
def test_a_record_with_a_field_of_another_type_is_read_or_named(name, value, tmp_path):
    sound = {"method": "gda", "shots": 1, "seed": 1, "metrics": {"accuracy": 0.5}}
    (tmp_path / "x.json").write_text(json.dumps({**sound, name: value}))
    code, _, error = say("compare", tmp_path)
    assert code == 0 or (code == 2 and error.count("\n") == 1), f"got {code}, {error!r}"


@pytest.mark.fault(*FIELD)
@pytest.mark.parametrize("name", ["method", "shots", "seed", "protocol", "tag", "cause", "file"])
def test_a_failure_with_a_field_of_another_type_does_not_count(name, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"method": "gda", "metrics": {"accuracy": 0.5}}))
    (tmp_path / "failed").mkdir()
    sound = {"method": "gda", "shots": 1, "seed": 1, "protocol": {}, "tag": "", "cause": "", "file": ""}
    for value in (*TYPES, "[" * 9):
        (tmp_path / "failed" / "x.json").write_text(json.dumps({**sound, name: value}))
        code, _, error = say("compare", tmp_path)
        assert code == 0, f"{name} {value!r} must not be in the way of the others; got {error!r}"


@pytest.fixture
def table(tmp_path):
    """A table with one shard."""
    made = Store(tmp_path / "features").table({"need": "x", "dtype": "float16"})
    with made.writing():
        made.append(np.zeros((1, 16), np.uint8), np.zeros((1, 3), "f4"), 1.0)
    return made.folder


@pytest.mark.fault(*FIELD)
@pytest.mark.parametrize("name", ["shard", "rows", "shape", "bytes", "sha256", "seconds"])
@pytest.mark.parametrize("value", [*TYPES, "/dev/zero", "../x.safetensors"], ids=str)
def test_a_log_with_a_field_of_another_type_is_named(table, name, value, tmp_path):
    entry = json.loads((table / "log.jsonl").read_text())
    (table / "log.jsonl").write_text(json.dumps({**entry, name: value}) + "\n")
    code, out, error = say("--home", tmp_path, "cache", "verify")
    assert not error and code in (0, 1), f"it is damage or it is sound; got {code}, {out}, {error}"
    assert say("--home", tmp_path, "cache", "ls")[0] == 0, "the others are listed"
    with contextlib.suppress(UserWarning):
        Store(tmp_path / "features").table({"need": "x", "dtype": "float16"}).missing(np.zeros((1, 16), np.uint8))


@pytest.mark.fault(*FIELD)
@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"a":1}', b'{"a":[1,"x"]}', b'{"a":[[1,2],"x"]}', b"[" * 9000, b'{"a":[["x",1,2,3],"x"]}']
)
def test_an_index_of_digests_of_another_shape_only_costs_time(body, tmp_path):
    (tmp_path / "index").write_bytes(files.digest(body).encode() + b"\n" + body)
    (tmp_path / "f").write_bytes(b"x")
    assert FileDigests(tmp_path / "index").of(tmp_path / "f") == files.digest(b"x"), "the file is read"


@pytest.mark.fault(*LOST)
@pytest.mark.parametrize("text", [None, b"", b"{}", b"[]", b"\xff", b"[" * 9000, b'{"format": 2, "dtype": "float16"}'])
def test_a_lost_spec_is_named_and_written_again(table, text, tmp_path):
    path = table / "spec.json"
    sound = path.read_bytes()
    path.unlink() if text is None else path.write_bytes(text)
    code, out, _ = say("--home", tmp_path, "cache", "verify")
    assert code == 1 and str(path) in out and "--repair" in out, f"named, with what to do; got {out}"
    code, out, _ = say("--home", tmp_path, "cache", "verify", "--repair")
    assert code == 0 and f"written again: {path}" in out, f"healed; got {out}"
    assert path.read_bytes() == sound, "as it was"
    assert say("--home", tmp_path, "cache", "verify")[:2] == (0, f"0 problems in 1 tables of {tmp_path / 'features'}\n")


@pytest.mark.fault(*LOST)
@pytest.mark.parametrize("place", ["/dev/zero", "nowhere", "spec.json"])
def test_a_link_in_the_place_of_a_spec_is_not_written_through(table, place, tmp_path):
    path = table / "spec.json"
    sound = path.read_bytes()
    path.unlink()
    path.symlink_to(place)
    code, out, _ = say("--home", tmp_path, "cache", "verify", "--repair")
    assert code == 0 and f"written again: {path}" in out, f"healed; got {out}"
    assert path.read_bytes() == sound and not path.is_symlink(), "a file as it was"


@pytest.mark.fault("a number of days that is none", "refused in one line, nothing is removed")
@pytest.mark.parametrize("days", ["-1", "nan", "-inf", "x", ""])
def test_an_age_that_is_none_removes_nothing(table, days, tmp_path):
    refused("--home", tmp_path, "cache", "gc", f"--older-than={days}", naming="--older-than")
    assert (table / "spec.json").exists(), "a table must stay"


@pytest.mark.fault(*LOST)
def test_a_copy_that_is_another_tables_heals_nothing(table, tmp_path):
    (table / "spec.json").unlink()
    (table / "spec.copy.json").write_text("{}")
    assert say("--home", tmp_path, "cache", "verify", "--repair")[0] == 1, "a spec is known by its digest"
    assert not (table / "spec.json").exists(), "and nothing is written"


@pytest.mark.fault(*PLACE)
@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_a_shard_that_cannot_be_read_is_named_and_counts_as_missing(table, kind, tmp_path):
    (path,) = (table / "shards").iterdir()
    path.unlink()
    {"pipe": os.mkfifo, "loop": lambda p: p.symlink_to(p), "folder": Path.mkdir}[kind](path)
    code, out, error = say("--home", tmp_path, "cache", "verify")
    assert (code, error) == (1, "") and path.name in out, f"named by verify; got {out} {error}"
    with pytest.warns(UserWarning, match=path.name):
        opened = Store(tmp_path / "features").table({"need": "x", "dtype": "float16"})
        assert opened.missing(np.zeros((1, 16), np.uint8)).all(), "its rows are computed again"


@pytest.fixture
def read_only(monkeypatch):
    """Let nothing be written below a folder: to root, no mode of a folder is in the way."""

    def shut(folder):
        real = {"open": os.open, "mkdir": os.mkdir}

        def guarded(name):
            def call(path, *more, **named):
                writing = name == "mkdir" or more[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if writing and str(path).startswith(str(folder)):
                    raise OSError(errno.EROFS, "Read-only file system", str(path))
                return real[name](path, *more, **named)

            return call

        def write(path, data, write=atomic_write):
            if str(path).startswith(str(folder)):
                raise OSError(errno.EROFS, "cannot write: Read-only file system; choose another by --out", str(path))
            return write(path, data)

        for name in real:
            monkeypatch.setattr(os, name, guarded(name))
        for module in list(sys.modules.values()):
            if getattr(module, "atomic_write", None) is atomic_write:
                monkeypatch.setattr(module, "atomic_write", write)

    return shut


@pytest.mark.fault(*READ_ONLY)
def test_a_home_that_can_only_be_read_serves_what_it_has(world, read_only, tmp_path):
    read_only(world / "home")
    command = ("--home", world / "home", "run", world / "x.yaml", "--quiet")
    code, out, error = say(*command)
    assert code == 0 and "4 done already" in out and "gda" in out, f"results that are there; got {out} {error}"
    code, out, error = say(*command, "--out", tmp_path / "o")
    assert code == 0 and "0 rows" in out, f"features that are there; got {out} {error}"
    assert say("--home", world / "home", "plan", world / "x.yaml")[0] == 0, "and plans"
    refused(*command, "--seeds", "2", naming="--out")
    refused(*command, "--set", "backbone=toy:1", "--out", tmp_path / "p", naming="Read-only file system")


def photos(root):
    for name, shade in (("cat", 0), ("dog", 100)):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (32, 32), (shade, 20 * i, 7)).save(root / "photos" / name / f"{i}.png")
    return root / "photos"


def test_the_home_that_is_chosen_is_obeyed_by_all(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("adaptkit.io.digests.RACY", -(10**18))
    text = f"{{dataset: 'folder:{photos(tmp_path)}', backbone: toy:0, select: none, shots: [1], seeds: [1], "
    (tmp_path / "x.yaml").write_text(text + "methods: [gda]}")
    assert say("--home", tmp_path / "mine", "run", tmp_path / "x.yaml", "--quiet")[0] == 0, "it must run"
    ak.load(f"folder:{tmp_path / 'photos'}", backbone="toy:0", shots=1, home=tmp_path / "third")
    assert (tmp_path / "mine" / "digests").is_file() and (tmp_path / "third" / "digests").is_file(), "digests, too"
    assert not (tmp_path / "other").exists(), "and nothing lies elsewhere"


def test_a_home_may_be_given_as_text(tmp_path):
    _, test = ak.load("toy", backbone="toy:0", shots=1, home=str(tmp_path))
    assert test[:1].bind({"x": ak.Pooled()}).x.isfinite().all(), "features must be there"
    assert (tmp_path / "features").is_dir(), "as people write it"


def test_a_home_is_chosen_for_as_long_as_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path))
    with home_at(tmp_path / "a"), home_at(None):
        assert home() == tmp_path / "a", "nothing chosen changes nothing"
    assert home() == tmp_path, "afterwards it is as before"


TRAINED = ("--set", "methods=[zero-shot, {task-res: {schedule: {epochs: 1}}}]")


@pytest.mark.fault(*MACHINE)
@pytest.mark.parametrize("options", ["{accelerator: gpu}", "{accelerator: mps}", "{accelerator: cuda}"])
@pytest.mark.parametrize("command", ["run", "export"])
def test_a_trainer_that_does_not_fit_the_machine_is_refused_before_anything_runs(world, options, command, tmp_path):
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("the machine has one")
    more = ("--method", "task-res", "--out", tmp_path / "o") if command == "export" else ("--out", tmp_path / "o")
    words = (command, world / "x.yaml", "--quiet", *TRAINED, "--set", f"trainer={options}", *more)
    error = refused("--home", world / "home", *words, naming="trainer must fit")
    assert options[1:-1].split()[1] in error, f"what was asked for must be named; got {error!r}"
    assert not (tmp_path / "o").exists(), "nothing must have run"


@pytest.mark.fault(*OUTSIDE)
@pytest.mark.parametrize("method", ["energy", "entropy", "max-logit", "mcm", "mahalanobis", "{mcm: {base: gda}}"])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_scores_without_images_of_other_things_are_refused(world, method, command, tmp_path):
    words = ("--set", f"methods=[zero-shot, {method}]", "--out", tmp_path / "o")
    refused("--home", tmp_path / "h", command, world / "x.yaml", *words, naming="near or far must name images")
    assert not list(tmp_path.iterdir()), "nothing must have been extracted or written"


def test_paths_json_and_yaml_are_read_in_one_place_each():
    """`Path.resolve` and `Path.expanduser` raise a RuntimeError, and the readers of JSON and YAML a RecursionError."""
    root = Path(__file__).parents[1]
    wrong = []
    for path in (file for top in ("adaptkit", "plugins") for file in (root / top).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.parent.name != "io" and re.search(r"\.expanduser\(|\.resolve\(\)|yaml\.(safe_)?load\(", text):
            wrong.append(path.name)
        own = re.findall(r"json\.loads?\((.*)", text)
        if path.parent.name != "io" and any(
            "with_suffix" not in arg and "dumps" not in arg and "files(" not in arg for arg in own
        ):
            wrong.append(path.name)
    assert set(wrong) <= {"waffle_clip.py"}, f"use adaptkit.io.paths, jsons and yamls; got {wrong}"


@pytest.mark.fault("damaged records and index files, by chance", "no traceback")
@pytest.mark.parametrize("seed", range(2))
def test_damage_by_chance_is_never_a_bug(tmp_path, seed):
    line, wrong = fuzz_records.fuzz(50, tmp_path, seed)
    assert not wrong, f"{line}: {wrong}"


@pytest.mark.fault("damaged recipes and settings, by chance", "no traceback")
@pytest.mark.parametrize("seed", range(2))
def test_recipes_by_chance_are_never_a_bug(tmp_path, seed):
    line, wrong = fuzz_recipes.fuzz(50, tmp_path, seed)
    assert not wrong, f"{line}: {wrong}"
