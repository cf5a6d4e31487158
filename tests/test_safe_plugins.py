"""What a stranger's recipe may run: its plugin files only where the command line allows them, and no Trainer's door."""

import importlib
import inspect

import pytest
import pytorch_lightning as pl

from adaptkit import adapt, cli, method
from adaptkit.methods.trainer_options import ALLOWED, INSTEAD
from adaptkit.runs import job, plugins, protocol, recipe, shelf
from adaptkit.runs.build import check_recipe

HEAD = '"""Of a test. Source: none. Deviations: none."""\nfrom adaptkit import ZeroShot, hookimpl\n'
PLUGIN = HEAD + (
    "from pathlib import Path\nPath({0!r}).touch()\nclass Theirs(ZeroShot):\n    n: int = 1\n"
    "@hookimpl\ndef methods(): return {{{1!r}: Theirs}}\n"
)
RECIPE = "{{dataset: toy, backbone: toy:0, shots: [1], seeds: [1], methods: [zero-shot{1}], plugins: [{0}]}}"
STRANGER = ("a recipe of a stranger's that names plugin files", "none runs unless the command line allows it")


@pytest.fixture
def stranger(tmp_path):
    """A recipe that names two plugin files, and one in another folder that extends it; one that runs leaves a mark."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("theirs_a", "theirs_b"):
        (theirs / f"{name}.py").write_text(PLUGIN.format(str(tmp_path / f"{name}.ran"), name.replace("_", "-")))
    (theirs / "x.yaml").write_text(RECIPE.format("theirs_a.py, ./theirs_b.py", ", theirs-a"))
    (tmp_path / "over.yaml").write_text("{extends: theirs/x.yaml, methods: [zero-shot, theirs-a]}")
    yield tmp_path
    for name in ("theirs_a", "theirs_b"):
        plugins.asked_for.discard((theirs / f"{name}.py").resolve())
        if plugins.manager().has_plugin(name):
            plugins.manager().unregister(name=name)
    plugins.broken.clear()
    plugins.table.cache_clear()


@pytest.fixture
def say(capsys, tmp_path):
    """Give a command, and get its exit code and what it prints."""

    def run(*argv):
        try:
            code = cli.main(["--home", str(tmp_path / "home"), *map(str, argv)])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def ran(folder):
    """The plugin files that have run."""
    return sorted(path.stem for path in folder.glob("*.ran"))


COMMANDS = {
    "run": ["run", "{0}", "--quiet"],
    "run with another method": ["run", "{0}", "--quiet", "--set", "methods=[gda]"],
    "run of some methods": ["run", "{0}", "--quiet", "--only", "zero-shot"],
    "run of a part": ["run", "{0}", "--quiet", "--shard", "1/2"],
    "plan": ["plan", "{0}"],
    "export": ["export", "{0}", "--method", "zero-shot", "--out", "{1}/out"],
    "data check": ["data", "check", "{0}"],
}


@pytest.mark.fault(*STRANGER)
@pytest.mark.parametrize("name", ["theirs/x.yaml", "over.yaml"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_recipes_plugin_that_nobody_allowed(command, name, stranger, say):
    words = [word.format(stranger / name, stranger) for word in COMMANDS[command]]
    code, out, error = say(*words)
    assert (code, out, error.count("\n")) == (2, "", 1), f"it must be refused in one line; got {code}, {out}, {error}"
    assert f"must be allowed, as its code can do anything; got '{stranger}/theirs/theirs_a.py'" in error, error
    assert f"give --plugin {stranger}/theirs/theirs_a.py, or --trust" in error, "it must say how to allow it"
    assert not ran(stranger), "nothing of it may have run"


@pytest.mark.fault(*STRANGER)
@pytest.mark.parametrize("name", ["theirs/x.yaml", "over.yaml"])
def test_one_file_that_is_allowed_does_not_allow_another(name, stranger, say):
    code, _, error = say("plan", stranger / name, "--plugin", stranger / "theirs" / "theirs_a.py")
    assert code == 2 and "theirs_b.py'" in error, "the other must be refused by name"
    assert ran(stranger) == ["theirs_a"], "and must not have run"


@pytest.mark.parametrize("name", ["theirs/x.yaml", "over.yaml"])
@pytest.mark.parametrize("way", ["trust", "plugin", "link"])
def test_what_the_command_line_allows_is_run(way, name, stranger, say, monkeypatch):
    monkeypatch.chdir(stranger)
    (stranger / "theirs_b.py").symlink_to(stranger / "theirs" / "theirs_b.py")
    files = {"plugin": "theirs/../theirs/theirs_b.py", "link": "theirs_b.py"}
    allowed = ["--trust"] if way == "trust" else ["--plugin", "theirs/theirs_a.py", "--plugin", files[way]]
    code, out, error = say("run", name, "--quiet", *allowed)
    assert (code, error) == (0, ""), f"it must run; got {error}"
    assert "theirs-a" in out and ran(stranger) == ["theirs_a", "theirs_b"], "with both files"


def test_in_python_whoever_checks_a_recipe_says_that_it_is_trusted(stranger, tmp_path):
    read = recipe.read_recipe(str(stranger / "theirs" / "x.yaml"))
    with pytest.raises(ValueError, match=r"x: a plugin file that a recipe names must be allowed"):
        check_recipe(read)
    with pytest.raises(ValueError, match="must be allowed"):
        job.do(job.Job(read, protocol.cells(read)[0]), tmp_path / "home", tmp_path / "out")
    assert not ran(stranger), "nothing of it may have run"
    asked = check_recipe(read, trust=True)
    assert asked.trust and not read.trust, "its jobs, which another process may do, carry the word"
    assert "trust" not in asked.describe(), "and its description does not"


def test_a_recipe_cannot_trust_itself(stranger, say):
    (stranger / "theirs" / "x.yaml").write_text("trust: true\n" + RECIPE.format("theirs_a.py", "")[1:-1])
    (stranger / "theirs" / "y.yaml").write_text(RECIPE.format("theirs_a.py", "").replace("{", "{trust: true, ", 1))
    assert "a key must be one of" in say("plan", stranger / "theirs" / "y.yaml")[2], "no file holds the word"
    (stranger / "theirs" / "y.yaml").write_text(RECIPE.format("theirs_a.py", ""))
    assert say("plan", stranger / "theirs" / "y.yaml", "--set", "trust=true")[0] == 2, "nor does --set"
    assert not ran(stranger), "nothing of it may have run"


def test_no_recipe_that_comes_with_adaptkit_names_a_plugin_file():
    for name in shelf.names():
        assert not recipe.read_recipe(name).plugins, f"{name} must run as it is, without --trust"


INSTALLED = ("ADAPTKIT_PLUGINS restricts which installed plugins load", "those that it names load and no others")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two installed plugins, one of which fails, and what is found under a value of ``ADAPTKIT_PLUGINS``."""
    for name, code in (("good", "@hookimpl\ndef datasets(): return {'theirs': print}"), ("bad", "1 / 0"), ("own", "")):
        (tmp_path / f"put_{name}.py").write_text(HEAD + code)
    info = tmp_path / "put-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: put\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[adaptkit]\nbad = put_bad\ngood = put_good\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def found(value):
        plugins.broken.clear()
        monkeypatch.setenv("ADAPTKIT_PLUGINS", value.format(tmp_path))
        there = {name for name, _ in plugins.manager.__wrapped__().list_name_plugin()}
        assert "training_free.gda" in there, "our own plugins always load"
        return sorted({"good", "bad", "put_own"} & there), dict(plugins.broken)

    yield found
    plugins.broken.clear()


@pytest.mark.fault(*INSTALLED)
@pytest.mark.parametrize(
    ("value", "loaded", "failed"),
    [
        ("", [], []),
        (" , ", [], []),
        ("good", ["good"], []),
        (" good ,", ["good"], []),
        ("good,bad", ["good"], ["bad"]),
        ("good,{0}/put_own.py", ["good", "put_own"], []),
        ("{0}/put_own.py", ["good", "put_own"], ["bad"]),  # as files alone always did: they restrict nothing
        ("goood", [], ["goood"]),
        ("good,nowhere.py", ["good"], ["nowhere"]),
        ("/dev/zero.py", ["good"], ["bad", "zero"]),
    ],
)
def test_the_environment_says_which_installed_plugins_load(value, loaded, failed, installed):
    found, broken = installed(value)
    assert (found, sorted(broken)) == (loaded, failed), f"got {found}, and failed {broken}"


def test_a_name_in_the_environment_that_nobody_has_is_said_with_the_nearest(installed):
    _, broken = installed("goood")
    words = "a name in ADAPTKIT_PLUGINS must be one of bad, good"
    assert words in broken["goood"] and "did you mean 'good'?" in broken["goood"], f"got {broken}"


TRAINER = ("a recipe that sets a key of the trainer's that reaches beyond its cell", "refused, with what to do instead")
DOORS = {
    "num_nodes": ["2"],
    "callbacks": ["[os.system]", "null x"],
    "plugins": ["[x]"],
    "logger": ["true", "[tensorboard]", "mlflow"],
    "profiler": ["advanced"],
    "enable_checkpointing": ["true", "1"],
    "default_root_dir": ["/tmp/elsewhere"],
    "fast_dev_run": ["true"],
    "max_time": ["'00:00:01:00'"],
    "sync_batchnorm": ["true"],
}
TYPES = {
    "devices": ["[0, 1]", "-1", "0", "two", "1000"],
    "strategy": ["ddp_spawn", "ddp_notebook", "deepspeed", "{}"],
    "max_epochs": ["one", "1.5", "-2", "true", "[1]"],
    "max_steps": ["-2", "{a: 1}", "9999999999999999"],
    "gradient_clip_val": ["-1", "big", ".nan", ".inf"],
    "gradient_clip_algorithm": ["l2"],
    "accumulate_grad_batches": ["0", "{4: 2}"],
    "precision": ["8", "half", "[16]", "16-true", "bf16-true", "64", "64-true"],
    "accelerator": ["tpu", "hpu", "{}"],
    "deterministic": ["warn", "1"],
    "max_step": ["3"],
    "limit_train_batches": ["1"],
    "__class__": ["x"],
}


@pytest.mark.fault(*TRAINER)
@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in (DOORS | TYPES).items() for v in values])
def test_a_recipe_sets_no_key_of_the_trainer_that_reaches_beyond_its_cell(key, value, tmp_path, say):
    text = "dataset: toy\nbackbone: toy:0\nmethods: [task-res]\nshots: [1]\nseeds: [1]\n"
    (tmp_path / "x.yaml").write_text(f"{text}trainer: {{{key}: {value}}}")
    code, out, error = say("run", tmp_path / "x.yaml", "--quiet")
    assert (code, out, error.count("\n")) == (2, "", 1), f"it must be refused in one line; got {code}, {out}, {error}"
    assert "trainer" in error and key in error, f"it must name the key; got {error}"
    assert (key not in DOORS) or INSTEAD[key] in error, f"and say what to do instead; got {error}"
    (tmp_path / "y.yaml").write_text(text)
    again = say("run", tmp_path / "y.yaml", "--quiet", "--set", f"trainer.{key}={value}")
    assert again[0] == 2 and again[2].count("\n") == 1, f"--set is the same door; got {again}"


def test_what_a_recipe_may_set_is_what_the_trainer_knows(tmp_path):
    known = inspect.signature(pl.Trainer.__init__).parameters
    assert {*ALLOWED, *INSTEAD} <= {*known}, "each key must be one of the Trainer's"
    text = "dataset: toy\nbackbone: toy:0\nmethods: [task-res]\nshots: [1]\nseeds: [1]\n"
    fine = "{max_epochs: 2, gradient_clip_val: 1e-1, precision: 32, accelerator: cpu, logger: false, max_steps: null}"
    (tmp_path / "x.yaml").write_text(f"{text}trainer: {fine}")
    asked = check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")))
    want = {"max_epochs": 2, "gradient_clip_val": 0.1, "precision": 32, "accelerator": "cpu", "logger": False}
    assert asked.trainer == want, "values arrive in their types, and null leaves an option as it is"


@pytest.mark.parametrize("options", [{"num_nodes": 3}, {"strategy": "ddp_spawn"}, {"devices": [0, 1]}, {"devices": 0}])
def test_in_python_too_a_training_stays_on_one_machine(options, toy):
    with pytest.raises(ValueError, match=f"trainer.*{next(iter(options))}"):
        adapt(method("task-res"), toy[0], trainer={**options, "max_steps": 1})


@pytest.mark.parametrize("options", [{"devices": 1}, {"devices": "auto"}, {"strategy": "ddp"}, {"strategy": "auto"}])
def test_one_device_by_any_name_is_a_training_in_this_process(options, toy, monkeypatch):
    monkeypatch.setattr("adaptkit.methods.spread.launch", lambda *_: pytest.fail("no process may be started"))
    adapt(method("task-res"), toy[0], trainer={**options, "max_steps": 1})
