"""Where, with how much at once and how exactly: one option each, on every command that computes."""

import json

import pytest
import torch

from adaptkit import cli
from adaptkit.commands.requested import recipes
from adaptkit.io.notices import Notice
from adaptkit.runs.loading import open_cache, pick_device
from adaptkit.runs.setting import Setting
from adaptkit.testing import toy_backbone


def read(*words):
    return recipes(cli.parser().parse_args(list(words)))[0]


ASKED = ("--device", "cpu", "--batch-size", "5", "--workers", "2", "--precision", "bf16")


@pytest.mark.parametrize("command", ["run", "extract", "plan"])
def test_an_option_sets_what_set_sets(command):
    said = ("device=cpu", "batch_size=5", "workers=2", "precision=bf16-mixed")
    written = [word for pair in said for word in ("--set", pair)]
    assert read(command, "toy", *ASKED) == read(command, "toy", *written), "they must be the same recipe"
    assert read(command, "toy", "--set", "batch_size=7", *ASKED).batch_size == 5, "the option must win"


def test_export_has_them_and_predict_has_all_but_precision():
    exported = read("export", "toy", "--method", "gda", "--out", "x", *ASKED)
    assert (exported.batch_size, exported.precision) == (5, "bf16-mixed"), "export must take them"
    options = cli.parser().parse_args(["predict", "model", "a.png", *ASKED[:6]])
    assert (options.device, options.batch_size, options.workers) == ("cpu", 5, 2), "predict must take them"
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["predict", "model", "a.png", *ASKED])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--device", "gpu"], "toy.yaml: device must be one of auto, cpu, cuda, mps, cuda:0; got 'gpu'"),
        (["--device", "cuda:x"], "toy.yaml: device must be one of auto, cpu, cuda, mps, cuda:0; got 'cuda:x'"),
        (["--batch-size", "0"], "toy.yaml: batch_size must be a whole number from 1 to 10,000 or 'auto'; got 0"),
        (["--workers", "-1"], "toy.yaml: workers must be a whole number from 1 to 1,000 or 'auto'; got -1"),
        (["--batch-size", "many"], "argument --batch-size: must be a whole number or auto; got 'many'"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_runs(words, line, capsys, tmp_path):
    try:
        code = cli.main(["run", "toy", "--home", str(tmp_path), *words])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err
    assert code == 2 and line in said and said.count("\n") == 1, f"it must say {line!r}; got {said!r}"
    assert not [*tmp_path.iterdir()], "and nothing must have begun"


def test_a_device_that_is_not_there_is_told_before_the_dataset_is_read(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1), "one of several must be found"
    assert cli.main(["run", "toy", "--home", str(tmp_path), "--device", "cuda:2"]) == 2, "a wrong request"
    assert "device must be one of auto, cuda, cuda:0, cuda:1" in capsys.readouterr().err, "what is there must be named"


def test_more_workers_than_cores_are_told_and_not_started(tmp_path):
    setting = Setting(dataset="toy", backbone="toy", workers=900)
    with pytest.warns(Notice, match="workers 900 are more than the cores of this machine"):
        cache = open_cache(toy_backbone("0"), setting, home=tmp_path)
    assert cache.extraction.decoders < 900, "only so many as there are cores"


def test_keys_have_the_precision_and_neither_device_nor_batch_size_nor_workers(tmp_path, capsys):
    def names(folder, *words):
        made = ["run", "toy", "--only", "zero-shot", "--shots", "1", "--seeds", "1", "--quiet", "--out", folder, *words]
        assert cli.main([str(word) for word in made]) == 0, capsys.readouterr().err
        return {path.name for path in folder.glob("zero*.json")}

    own = names(tmp_path / "a")
    assert names(tmp_path / "b", *ASKED[:6]) == own, "the same cells"
    assert names(tmp_path / "c", "--precision", "bf16").isdisjoint(own), "other cells"
    kept = json.loads((tmp_path / "b" / "recipe.json").read_text())
    assert (kept["device"], kept["batch_size"], kept["workers"]) == ("cpu", 5, 2), "the folder says what was asked"
