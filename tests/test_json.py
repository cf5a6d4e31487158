"""``--json``: standard output is JSON and nothing else, whatever the numbers are."""

import json
from pathlib import Path

import pytest
from PIL import Image

from adaptkit import cli
from adaptkit.io.jsons import strict_json


def strictly(text):
    """JSON as every reader takes it: no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with features of the toy, and a classifier."""
    home = tmp_path_factory.mktemp("home")
    some = ["toy", "--home", str(home), "--set", "methods=[zero-shot]", "--quiet"]
    assert cli.main(["extract", *some, "--shots", "1", "--seeds", "1"]) == 0, "there must be features"
    export = ["export", *some, "--method", "zero-shot", "--out", str(home / "classifier")]
    assert cli.main(export) == 0, "and a classifier"
    return home


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["list", "recipes"], {"name", "role", "about"}),
        (["plan", "toy", "--only", "gda"], {"recipe", "cells", "done", "device", "rows", "bytes_to_write", "trained"}),
        (["extract", "toy", "--only", "zero-shot", "--quiet"], {"recipe", "shard", "told"}),
        (["show", "gda"], {"name", "role", "card", "options", "needs", "grid", "recipes", "source"}),
        (["show", "coop"], {"options", "trained"}),
        (["show", "openmoji"], {"name", "role", "card"}),
        (["cache", "ls"], {"folder", "tables"}),
        (["cache", "verify", "--repair"], {"folder", "tables", "repaired", "problems"}),
        (["cache", "gc"], {"folder", "freed"}),
        (["data", "check", "toy"], {"good", "datasets"}),
        (["check", "zero-shot"], {"method", "passed", "failed"}),
    ],
)
def test_standard_output_is_json_alone(words, keys, home, capsys):
    code = cli.main([*words, "--json", "--home", str(home)])
    out, err = capsys.readouterr()
    assert code == 0, err
    found = strictly(out)
    assert found, "there must be something"
    first = found[0] if isinstance(found, list) else found
    assert keys is None or keys <= {*first}, f"it must say {keys}; got {[*first]}"


def test_a_check_that_fails_is_in_the_json_and_the_exit_code_is_1(tmp_path, capsys):
    text = (Path(cli.__file__).parent / "commands/new_method/stream.txt").read_text()
    wrong = (
        text.replace("$name", "wrong-one").replace("$Class", "Wrong").replace('scope = "stream"', 'scope = "sample"')
    )
    (tmp_path / "wrong_one.py").write_text(wrong)
    assert cli.main(["check", str(tmp_path / "wrong_one.py"), "--json"]) == 1, "a check failed"
    (found,) = strictly(capsys.readouterr().out)
    assert "scope" in found["failed"] and "output_shape" in found["passed"], f"each must be told; got {found}"
    from adaptkit.runs import plugins

    plugins.manager().unregister(name="wrong_one")
    plugins.table.cache_clear()


def test_a_dataset_that_is_not_there_is_json_too(tmp_path, capsys):
    assert cli.main(["data", "check", "dtd", "--json", "--home", str(tmp_path)]) == 1, "it is not there"
    found = strictly(capsys.readouterr().out)
    assert not found["good"] and "missing" in {f["status"] for f in found["datasets"][0]["findings"]}, f"got {found}"


def test_predictions_are_lines_of_json(home, tmp_path, capsys):
    for name in ("a.png", "b ü.png"):
        Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["predict", str(home / "classifier"), str(tmp_path), "--json", "--top", "2", "--home", str(home)]
    assert cli.main(words) == 1, "one could not be read"
    rows = [strictly(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b ü.png"], "one line for each that could"
    assert all(0 <= label["probability"] <= 1 for row in rows for label in row["labels"]), "with numbers"
    assert len(rows[0]["labels"]) == 2 and rows[0]["labels"][0]["label"], "and names, the likeliest first"
    assert cli.main([*words, "--out", str(tmp_path / "out.jsonl")]) == 1, "the same to a file"
    assert [strictly(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows, "line by line"


def test_what_json_has_no_word_for_is_null_or_text():
    odd = {1: float("nan"), "inf": (float("inf"), -1.5), "path": Path("a"), "none": None, "yes": True}
    assert strictly(strict_json(odd)) == {"1": None, "inf": [None, -1.5], "path": "a", "none": None, "yes": True}, "so"
    assert "\n" not in strict_json(odd, indent=None), "on one line where that is asked"
