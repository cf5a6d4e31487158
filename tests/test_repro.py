"""Stored records run again: equal bit for bit, or the input that differs is named."""

import json
import shutil

import pytest

from adaptkit import cli
from adaptkit.runs import circumstances, work
from adaptkit.runs.results import Result

TOY = "methods=[zero-shot, {gda: {views: 2}}, tda]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A home and a folder of records in it."""
    home = tmp_path_factory.mktemp("home")
    words = ["run", "toy", "--home", str(home), "--quiet", "--set", TOY, "--shots", "1,2", "--seeds", "1"]
    assert cli.main([*words, "--out", str(home / "results" / "mine")]) == 0, "there must be records"
    return home


@pytest.fixture
def copied(ran, tmp_path):
    """The records, copied elsewhere, with what tells of them."""

    def run(*words, home=ran):
        return cli.main(["repro", "check", str(tmp_path / "there"), "--home", str(home), *words])

    shutil.copytree(ran / "results" / "mine", tmp_path / "there")
    return tmp_path / "there", run


def changed(path, without=(), **fields):
    """Write other values into a record, as a run of before would have written them, without some metrics."""
    record = json.loads(path.read_text())
    record["metrics"] = {name: value for name, value in record["metrics"].items() if name not in without}
    shots = record["shots"]
    for name, value in fields.items():
        record[name] = {**record[name], **value} if isinstance(value, dict) else value
    from dataclasses import fields as declared

    known = {f.name for f in declared(Result)}
    assert isinstance(shots, int), "of a number of shots"
    Result(**{name: value for name, value in record.items() if name in known}).save(path)


def test_records_of_a_folder_from_elsewhere_come_out_bit_for_bit(copied, capsys):
    folder, run = copied
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run() == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "6 cells, of which 6 are run again" in said and "6 equal, 0 different, 0 not run" in said, f"got {said}"
    assert "equal      gda(views=2), 2-shot, seed 1" in said.splitlines(), "each must be told"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, "nothing is written"


def test_a_metric_that_a_record_never_had_is_no_difference(copied, capsys):
    folder, run = copied
    (path,) = folder.glob("zero-shot.2-shot*.json")
    changed(path, without=("macro_f1",))
    assert run("--method", "zero-shot", "--shots", "2") == 0, capsys.readouterr().out


def test_some_may_be_chosen_and_json_says_the_same(copied, capsys):
    _, run = copied
    assert run("--method", "gda", "--shots", "2", "--seed", "1", "--json") == 0, "one record"
    (found,) = json.loads(capsys.readouterr().out)["records"]
    assert (found["method"], found["shots"], found["status"]) == ("gda(views=2)", 2, "equal"), f"got {found}"
    assert run("--sample", "2") == 0 and "2 equal" in capsys.readouterr().out, "a sample"
    for words, said in ((["--shots", "all"], "must leave a cell; got none, of"), (["--sample", "0"], "at least 1")):
        assert run(*words) == 2 and said in capsys.readouterr().err, f"{words} must be refused"


def test_other_numbers_and_the_inputs_that_differ_are_named(copied, capsys):
    folder, run = copied
    (path,) = folder.glob("zero-shot.2-shot*.json")
    record = json.loads(path.read_text())
    right = record["right"][""]
    changed(
        path,
        metrics={"accuracy": 0.125},
        right={"": ("0" if right[0] == "1" else "1") + right[1:]},
        versions={"torch": "1.0.0", "threads": "7"},
        protocol={"fingerprint": "another", "select": "none"},
        support="another",
    )
    assert run("--method", "zero-shot", "--shots", "2") == 1, "one differs"
    said = capsys.readouterr().out
    for words in (
        "different  zero-shot, 2-shot, seed 1; accuracy 0.",
        ", was 0.125",
        "1 images answered otherwise",
        "weights",
        "images learned from",
        ", was 1.0.0",
        "threads ",
        "0 equal, 1 different",
        "were read as stored; no record names the size of their batches",
    ):
        assert words in said, f"it must say {words!r}; got {said}"
    assert "select" not in said.partition("inputs")[2], "the record's own protocol is run, and does not differ"


def test_code_that_differs_is_named_by_its_module(copied, capsys):
    folder, run = copied
    (path,) = folder.glob("tda.1-shot*.json")
    name = json.loads(path.read_text())["versions"]["code"]
    modules = json.loads((folder / "code" / f"{name}.json").read_text())
    assert "adaptkit_plugins.test_time.tda" in modules, "the file must list what took part"
    modules["adaptkit_plugins.test_time.tda"] = "another"
    other = circumstances.code_name(modules)
    (folder / "code" / f"{other}.json").write_text(json.dumps(modules))
    changed(path, versions={"code": other}, tag="0" * 12)
    assert run("--method", "tda", "--shots", "1") == 0, "the numbers are the same"
    said = capsys.readouterr().out
    assert "although these differ: code of adaptkit_plugins.test_time.tda" in said, f"got {said}"
    changed(path, versions={"code": ""}, tag="0" * 12)
    assert run("--method", "tda", "--shots", "1") == 0, "still the same"
    assert "of which module nobody wrote down" in capsys.readouterr().out, "as far as is known"


def test_what_cannot_be_run_is_a_line_each_and_exit_1(copied, capsys, tmp_path):
    folder, run = copied
    for path in folder.glob("*.1-shot*.json"):
        changed(path, protocol={"dataset": "folder:nowhere/photos"})
    (edited,) = folder.glob("tda.2-shot*.json")
    edited.write_text(edited.read_text().replace('"seed": 1', '"seed": 2'))
    assert run() == 1, "some could not be run"
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("not run ") and "nowhere/photos" in line for line in lines) == 3, f"got {lines}"
    assert sum(line.startswith("damaged ") and "was changed after" in line for line in lines) == 1, "the edited one"
    assert lines[-1] == "2 equal, 0 different, 3 not run", f"got {lines[-1]}"


def test_a_folder_without_records_or_without_its_recipe_says_so(copied, capsys, tmp_path):
    folder, run = copied
    (folder / "recipe.json").unlink()
    assert run("--sample", "1") == 1 and "recipe.json must lie beside the records" in capsys.readouterr().out, "told"
    for text in ("[1]", "{nonsense"):
        (folder / "recipe.json").write_text(text)
        assert run("--sample", "1") == 1 and "as a run wrote it; got" in capsys.readouterr().out, f"so for {text}"
    (tmp_path / "empty").mkdir()
    assert cli.main(["repro", "check", str(tmp_path / "empty")]) == 2, "a wrong request"
    assert "must be a folder with records of cells" in capsys.readouterr().err, "in one line"


def test_records_of_methods_that_a_later_recipe_does_not_name_are_run_where_they_have_no_options(copied, capsys):
    folder, run = copied
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**recipe, "methods": ["coop"]}))
    assert run("--shots", "1") == 1, "one has options"
    said = capsys.readouterr().out
    assert "equal      tda, 1-shot, seed 1" in said and "equal      zero-shot, 1-shot, seed 1" in said, f"got {said}"
    assert "not run    gda(views=2), 1-shot, seed 1; recipe.json must name the method" in said, f"got {said}"


def test_a_cell_that_fails_now_is_different(copied, capsys, monkeypatch):
    _, run = copied

    def broken(*_, **__):
        raise RuntimeError("it broke")

    monkeypatch.setattr(work, "evaluate", broken)
    assert run("--method", "gda", "--shots", "1") == 1, "it fails"
    assert "it fails now: RuntimeError: it broke" in capsys.readouterr().out, "and says why"
