"""Reporters that a run asks for by name: what they write is read back; who is not asked hears nothing."""

import csv

import pytest

from adaptkit import cli
from adaptkit.runs import plugins, reporters
from adaptkit.runs.results import Result

RESULT = Result(
    method="gda(views=2)",
    shots=2,
    seed=1,
    tag="0123456789ab",
    protocol={"dataset": "=toy", "backbone": "toy:0", "bins": None},
    metrics={"accuracy": 0.75, "new/accuracy": 0.5, "ece": float("nan")},
    seconds={"fit": 0.25},
    options="GDA(views=2)",
)


def told(name, folder, result=RESULT):
    """Let one reporter hear of a result."""
    with reporters.reporting([name], folder, "mine"):
        return plugins.announce(result)


@pytest.fixture
def run(tmp_path, capsys):
    """Run a tiny recipe; its exit code and what was said."""

    def go(*words):
        some = ["run", "toy", "--only", "zero-shot", "--shots", "1", "--seeds", "1", "--quiet"]
        code = cli.main([*some, "--home", str(tmp_path), "--out", str(tmp_path / "out"), *words])
        return code, *capsys.readouterr()

    return go


def test_csv_has_a_line_for_each_cell_and_metric(tmp_path):
    (tmp_path / "report.csv").touch()
    for seed in (1, 2):
        assert told("csv", tmp_path, Result(**{**vars(RESULT), "seed": seed})) == {}, "nothing may fail"
    rows = [*csv.DictReader((tmp_path / "report.csv").read_text().splitlines())]
    found = [(r["seed"], r["metric"], r["value"]) for r in rows[:2]]
    assert found == [("1", "accuracy", "0.75"), ("1", "new/accuracy", "0.5")], "in the order in which they came"
    assert len(rows) == 6 and rows[0]["dataset"] == "'=toy", "and no formula in it"


def test_a_run_that_asks_gets_it_and_one_that_does_not_gets_nothing(run, tmp_path):
    code, _, err = run()
    assert code == 0 and not (tmp_path / "out" / "report.csv").exists(), f"nobody asked; {err}"
    code, _, err = run("--report", "csv", "--set", "select=none")
    rows = [*csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines())]
    assert code == 0 and {row["method"] for row in rows} == {"zero-shot"}, f"the cell must be reported; {err}"
    assert {row["recipe"] for row in rows} == {"toy"}, "with the recipe's name"


def test_a_reporter_that_is_none_or_lacks_its_package_is_one_line_before_anything_runs(run, tmp_path, monkeypatch):
    code, _, err = run("--report", "cvs")
    assert code == 2 and "toy: report must be one of csv, mlflow, tensorboard, wandb; got 'cvs'" in err, f"got {err}"
    monkeypatch.setattr(reporters.importlib.util, "find_spec", lambda name: None)
    code, _, err = run("--report", "csv,wandb")
    line = "wandb must be installed for --report wandb; got none; pip install 'adaptkit-vlm[wandb]'"
    assert code == 2 and line in err, f"got {err}"
    assert not (tmp_path / "out").exists(), "and nothing has run"


def test_a_reporter_that_fails_is_a_warning_and_the_cell_stays(run, tmp_path):
    (tmp_path / "out" / "report.csv").mkdir(parents=True)
    code, out, _ = run("--report", "csv")
    plugins.broken.clear()
    assert code == 1 and out.count("warning: report of plugin 'reports.csv_file' failed") == 1, f"got {out}"
    assert [*(tmp_path / "out").glob("zero-shot*.json")] and "zero-shot" in out, "the result is kept and shown"


def test_tensorboard_reads_back_what_was_reported(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert told("tensorboard", tmp_path) == {}, "nothing may fail"
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name == "gda_views=2_.2-shot.seed-1.0123456789ab", "a run for each cell"
    events = EventAccumulator(str(folder)).Reload()
    assert events.Scalars("accuracy")[0].value == 0.75 and "new/accuracy" in events.Tags()["scalars"], "its metrics"
    assert events.Scalars("seconds/fit")[0].value == 0.25, "and what it took"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_wandb_keeps_a_run_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert told("wandb", tmp_path) == {}, "nothing may fail"
    wandb.teardown()  # its service writes beside the run, as it does until a program ends
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"accuracy" in kept.read_bytes() and b"0123456789ab" in kept.read_bytes(), "with its metrics and options"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_mlflow_reads_back_what_was_reported(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for _ in range(2):
        assert told("mlflow", tmp_path) == {}, "nothing may fail"
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("mine")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and runs[0].data.metrics["accuracy"] == 0.75, "a run for each cell, with its metrics"
    assert runs[0].data.params["method"] == "gda(views=2)" and runs[0].info.status == "FINISHED", "and its options"


def test_a_plugin_without_a_name_hears_of_everything_and_one_with_a_name_must_be_asked():
    class Mine:
        reporter = "mine"

    assert reporters.hears(object()) and not reporters.hears(Mine()), "outside of a run"
    with reporters.reporting(["mine"], ".", "toy"):
        assert reporters.hears(Mine()), "where it was asked for"
