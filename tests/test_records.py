"""Records say the truth, of themselves too: digests, tags, true counts, supports, commits; and what is damaged."""

import json
import shutil
import subprocess

import jsonschema
import pytest
from PIL import Image

from adaptkit import cli
from adaptkit.io import git
from adaptkit.report.table import Table, fewer
from adaptkit.runs.results import Result

RECIPE = "{dataset: toy, backbone: toy:0, select: none, shots: [1], seeds: [1, 2], methods: [zero-shot, gda]}"


@pytest.fixture
def say(capsys):
    def run(*argv):
        return cli.main([str(word) for word in argv]), *capsys.readouterr()

    return run


@pytest.fixture
def ran(tmp_path, say):
    """A run that is finished: the command, and its records."""
    (tmp_path / "x.yaml").write_text(RECIPE)
    command = ["--home", tmp_path / "home", "run", tmp_path / "x.yaml", "--quiet"]
    assert say(*command)[0] == 0, "it must run"
    folder = tmp_path / "home" / "results" / "x"
    return command, sorted(path for path in folder.glob("*.json") if path.name != "recipe.json")


def edit(path, other):
    record = json.loads(path.read_text())
    record["metrics"]["accuracy"] = 0.99
    path.write_text(json.dumps(record, indent=1, sort_keys=True))


def cut(path, other):
    path.write_bytes(path.read_bytes()[:-40])


def copy(path, other):
    shutil.copy(other, path)


def bare(path, other):
    record = json.loads(path.read_text())
    del record["digest"], record["tag"]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("damage", [edit, cut, copy, bare])
def test_a_damaged_record_is_named_before_anything_runs_and_recomputed_when_asked(damage, ran, say):
    command, paths = ran
    whole = paths[0].read_text()
    damage(paths[0], paths[1])
    paths[2].unlink()
    code, out, error = say(*command)
    assert code == 2 and str(paths[0]) in error and error.count("\n") == 1, f"in one line; got {code}, {error!r}"
    assert "--recompute runs what is damaged again" in error, f"with what to do; got {error!r}"
    assert not out and not paths[2].exists(), "nothing must have run"
    code, out, _ = say(*command, "--recompute")
    assert code == 0 and "2 done already, 2 to run" in out, f"the damaged one must be run again; got {out}"
    assert f"recomputed: a re{'sult' if damage in (edit, cut) else 'cord'} must be" in out, f"and named; got {out}"
    again, before = json.loads(paths[0].read_text()), json.loads(whole)
    assert (again["metrics"], again["tag"]) == (before["metrics"], before["tag"]), "the numbers must be back"
    assert say(*command)[0] == 0, "after which all is well"


def test_an_edited_record_is_refused_by_a_comparison_and_one_of_before_is_read(ran, say):
    _, paths = ran
    bare(paths[0], None)
    assert say("compare", paths[0].parent)[0] == 0, "a record without a digest must be read as it is"
    edit(paths[1], None)
    code, _, error = say("compare", paths[0].parent)
    assert code == 2 and str(paths[1]) in error and "changed after it was written" in error, f"got {error!r}"


@pytest.fixture
def few(tmp_path, say):
    """A run that asks for more shots than classes have images."""
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for k in range(4):
            for part in ("train", "test"):
                color = (60 * k, 120 * i, 90 * (part == "test"))
                Image.new("RGB", (32, 32), color).save(tmp_path / "photos" / part / name / f"{k}.png")
    text = f"dataset: folder:{tmp_path / 'photos'}\nbackbone: toy:0\nselect: none\nmethods: [gda]\n"
    (tmp_path / "x.yaml").write_text(f"{text}shots: [2, 64]\nseeds: [1]\n")
    code, out, _ = say("--home", tmp_path / "home", "run", tmp_path / "x.yaml", "--quiet")
    assert code == 0, f"it must run; got {out}"
    return out, tmp_path / "home" / "results" / "x"


def test_a_run_says_how_many_images_there_truly_were(few, say):
    out, folder = few
    head = next(line for line in out.splitlines() if line.startswith("method "))
    assert "64 shots (4 had)" in head and "2 shots  " in head, f"the heading must say it; got {head!r}"
    assert out.count("64 shots: classes had 4 images each") == 1, f"and the run, once; got {out}"
    counts = {r["shots"]: r["images_per_class"] for p in folder.glob("gda*.json") if (r := json.loads(p.read_text()))}
    assert counts == {2: [2, 2], 64: [4, 4]}, "records must hold the true number of each class"
    out = say("--home", folder.parents[1], "run", folder.parents[2] / "x.yaml", "--quiet", "--shots", "64")[1]
    assert ": 64 shots (4 had), %" in out, f"also where it stands above the table; got {out}"
    assert "64 shots: classes had 4 images each" in say("compare", folder)[1], "a comparison must say it, too"


def test_a_support_is_written_once_by_names_that_hold_elsewhere(few):
    folder = few[1]
    records = [json.loads(path.read_text()) for path in folder.glob("gda*.json")]
    files = {path.stem: json.loads(path.read_text()) for path in (folder / "supports").glob("*.json")}
    assert set(files) == {record["support"] for record in records}, "one file for each support, named by its digest"
    images = files[next(r for r in records if r["shots"] == 64)["support"]]["images"]
    assert sorted(place for place, _, _ in images)[:2] == ["train/cat/0.png", "train/cat/1.png"], "from the dataset on"
    assert {label for *_, label in images} == {0, 1} and all(len(key) == 64 for _, key, _ in images), "with digests"


def test_images_without_a_place_are_known_by_their_number(ran):
    (file, *_) = (ran[1][0].parent / "supports").glob("*.json")
    assert all(isinstance(number, int) for number, *_ in json.loads(file.read_text())["images"]), "of the toy's"


def test_counts_that_differ_are_shown_as_a_span():
    rows = [Result(method="m", shots=16, images_per_class=[1, 16, 4], metrics={"accuracy": 0.5})]
    assert Table(rows).cells()[0][1] == "16 shots (1 to 16 had)", "as of a long tail"
    assert fewer(Table([Result(method="m", shots=16, images_per_class=[16, 16])])) == [], "true shots are no news"
    assert fewer(Table([Result(method="m", shots=16)])) == [], "nor are records that do not say"


def test_plots_say_how_many_images_there_were():
    pytest.importorskip("matplotlib")
    rows = [Result(method="m", shots=k, images_per_class=[4, 4], metrics={"accuracy": 0.5}) for k in (4, 64)]
    ticks = [tick.get_text() for tick in Table(rows).plot().axes[0].get_xticklabels()]
    assert ticks == ["4", "64\n(4 had)"], f"below the axis; got {ticks}"


def test_a_commit_is_named_where_there_is_one(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    assert git.commit(tmp_path) == "", "no repository, no commit"

    def run(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, "-C", str(tmp_path), *words], check=True, capture_output=True, text=True)

    run("init")
    assert git.commit(tmp_path) == "", "nor before the first"
    (tmp_path / "a").write_text("1")
    run("add", "a")
    run("commit", "-m", "one")
    head = run("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "b").write_text("results")
    assert git.commit(tmp_path) == head, "files that git does not track are no changes"
    (tmp_path / "a").write_text("2")
    assert git.commit(tmp_path) == f"{head}+changes", "tracked ones are"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.commit(tmp_path) == "", "without git a run goes on"


def test_a_record_names_the_commit_of_its_recipe(ran, tmp_path, say, monkeypatch):
    command, paths = ran
    assert "git" not in json.loads(paths[0].read_text())["versions"], "this recipe lies in no repository"
    monkeypatch.setattr(git, "commit", lambda folder: f"commit of {folder.name}")
    say(*command, "--out", tmp_path / "out")
    (path, *_) = (tmp_path / "out").glob("gda*.json")
    assert json.loads(path.read_text())["versions"]["git"] == f"commit of {tmp_path.name}", "the recipe's folder"


def test_records_are_as_the_schema_says(ran):
    from adaptkit.runs import results

    text = (__import__("pathlib").Path(results.__file__).with_name("result.schema.json")).read_text()
    for path in ran[1]:
        jsonschema.validate(json.loads(path.read_text()), json.loads(text))
        assert json.loads(path.read_text())["tag"] in path.name, "a tag stands in the name, too"
