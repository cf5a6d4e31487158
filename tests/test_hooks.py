"""The seven hooks, one test each by name; and plugins that clash, are misspelt, or cannot be loaded."""

import importlib
import inspect

import pytest
import torch

from adaptkit import Pooled, load, method
from adaptkit.features.cache import FeatureCache
from adaptkit.features.store import Store
from adaptkit.runs import build as options
from adaptkit.runs import hooks, job, plugins, recipe, relay
from adaptkit.runs.loading import pick_backbone, pick_dataset
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing import ToyImages, toy_backbone

HOOKS = [name for name, thing in vars(hooks).items() if hasattr(thing, "adaptkit_spec")]
HEAD = '"""Of a test. Source: none. Deviations: none."""\nfrom adaptkit import Splits, ZeroShot, hookimpl\n'


@pytest.fixture
def plug(tmp_path):
    """Add a plugin file with some code, and forget it after the test."""
    before = set(plugins.manager().list_name_plugin())

    def add(code, name="mine"):
        (tmp_path / f"{name}.py").write_text(HEAD + code)
        return plugins.add_file(tmp_path / f"{name}.py")

    yield add
    for name, _ in set(plugins.manager().list_name_plugin()) - before:
        plugins.manager().unregister(name=name)
    plugins.broken.clear()
    plugins.table.cache_clear()


def test_every_hook_has_a_test_and_a_sentence():
    assert len(HOOKS) == 7, f"there are seven hooks; got {HOOKS}"
    assert set(HOOKS) == {*plugins.ROLES, "extract", "report"}, "five tables, one question, one announcement"
    missing = [name for name in HOOKS if f"test_hook_{name}" not in globals()]
    assert not missing, f"each hook must have a test of its own; not so: {missing}"
    assert all(inspect.getdoc(getattr(hooks, name)) for name in HOOKS), "each hook must say what it is"


def test_hook_methods(plug):
    owner = plug("class Mine(ZeroShot):\n    n: int = 3\n@hookimpl\ndef methods(): return {'mine': Mine}")
    assert repr(method("mine", n=4)) == "Mine(n=4)", "a plugin's method must be built by name"
    assert plugins.owner("methods", "mine") == owner == "mine", "and known to be the plugin's"
    assert list(plugins.table("methods")) == sorted(plugins.table("methods")), "names must be sorted"


def test_hook_prompts(plug, tmp_path):
    plug("@hookimpl\ndef prompts(): return {'mine': lambda names, splits: [[n, splits.name + n] for n in names]}")
    task, _ = load("toy", backbone="toy:0", prompts="mine", home=tmp_path)
    assert task.prompts[1] == ("dog", "toydog"), "classes must be described by the plugin's sentences"
    assert task.text.shape == (5, 16), "which must be encoded"


KINDS = """import functools
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from adaptkit import Task
class Made:
    def __call__(self, names, splits): return [[n] for n in names]
def write(names, splits, word: str = 'a'): return [[word + n] for n in names]
@hookimpl
def prompts(): return {'made': Made(), 'partial': functools.partial(write, word='a'), 'lambda': lambda n, s: [n] * 5}
def typed(task: 'Task', train, val, *, shots: int, seed: int, skip: int = 0): return train[skip:], val
@hookimpl
def supports(): return {'typed': typed}"""


@pytest.mark.parametrize(
    "setting",
    [{"prompts": "made"}, {"prompts": "partial"}, {"prompts": "lambda"}, {"support": {"typed": {"skip": "9"}}}],
)
def test_whatever_can_be_called_may_be_in_a_table(setting, plug, tmp_path):
    plug(KINDS)
    if "support" in setting:
        with pytest.raises(ValueError, match=r"typed\.skip must be a whole number; got '9'"):
            load("toy", backbone="toy:0", home=tmp_path, **setting)
        setting = {"support": {"typed": {"skip": 90}}}
    task, _ = load("toy", backbone="toy:0", home=tmp_path, **setting)
    assert len(task.support) in (10, 80), "a support must be chosen"
    assert task.text.shape == (5, 16), "and classes described"


def test_hook_supports(plug, tmp_path):
    plug(
        "def mine(task, train, val, *, shots, seed, skip=0):\n"
        "    assert task.text.shape == (5, 16) and not len(task.support)\n"
        "    return train[skip : skip + 5 * shots], val[:seed]\n"
        "@hookimpl\ndef supports(): return {'mine': mine}"
    )
    workspace = Workspace(Setting(dataset="toy", backbone="toy:0", support={"mine": {"skip": 10}}), home=tmp_path)
    task = workspace.task(shots=2, seed=3)
    assert task.support.index.tolist() == list(range(10, 20)), "the plugin must choose the support, with its options"
    assert len(task.val) == 3, "and the few validation images"
    assert task.pool.labels is None, "the pool must come without labels"


def test_hook_datasets(plug):
    plug(
        "from adaptkit.testing import ToyImages\n"
        "def read(place): return Splits('mine', tuple('abcde'), ToyImages(place, 5), ToyImages('t', 5))\n"
        "@hookimpl\ndef datasets(): return {'mine': read}"
    )
    splits = pick_dataset("mine:some:place")
    assert splits.train.name == "some:place", "a dataset must be given its place"
    assert pick_dataset("mine").train.name == "", "which may be none"


def test_hook_backbones(plug, tmp_path):
    plug("from adaptkit.testing import toy_backbone\n@hookimpl\ndef backbones(): return {'mine': toy_backbone}")
    assert pick_backbone("mine:1").fingerprint == toy_backbone("1").fingerprint, "a backbone must be given its name"
    _, test = load("toy", backbone="mine:0", home=tmp_path)
    assert test[:3].bind({"x": Pooled(backbone="mine:1")}).x.shape == (3, 16), "needs may name it, too"


ANSWER = "@hookimpl\ndef extract(need, backbone, pixels):\n    rows = need.compute(backbone, pixels)\n    return {}"


def read(folder, index):
    cache = FeatureCache(toy_backbone("0"), Store(folder), hook=plugins.manager().hook, load=pick_backbone)
    return cache.images(ToyImages("train", 12), Pooled(unit=False), torch.as_tensor(index))


def test_hook_extract(plug, tmp_path):
    plug(ANSWER.format("rows + 1 if need.projected else None"))
    core = read(tmp_path / "core", range(3))
    plug(ANSWER.format("None"), "abstains")
    assert torch.equal(read(tmp_path / "b", range(3)), core), "a plugin that abstains must leave it to the next"
    want = toy_backbone("0").encode_image(
        torch.stack([toy_backbone("0").preprocess(ToyImages("train").image(i)) for i in range(3)])
    )
    torch.testing.assert_close(core, want + 1, atol=2e-2, rtol=0, msg="the first plugin that answers must be believed")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("rows[:-1]", "extract must return one row per image, 6; got 5"),
        ("rows / 0", "rows must be finite"),
        ("rows * 1e6", "rows must be finite .*float16.* use dtype float32"),
        ("rows.tolist()", "extract must return a tensor"),
    ],
)
def test_a_wrong_answer_to_extract_is_an_error_and_is_not_stored(answer, words, tmp_path, plug):
    right = read(tmp_path / "f", range(6))
    name = plug(ANSWER.format(answer))
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "f", range(6, 12))
    plugins.manager().unregister(name=name)
    again = read(tmp_path / "f", range(12))
    assert torch.equal(again[:6], right), "rows stored before must be as they were"
    torch.testing.assert_close(
        again, read(tmp_path / "g", range(12)), atol=2e-3, rtol=0, msg="no wrong row may be there"
    )


def test_a_plugin_that_changes_the_shape_of_its_rows_is_refused(tmp_path, plug):
    plug(ANSWER.format("rows[:, : 9 + len(rows)]"))
    read(tmp_path, range(6))
    with pytest.raises(ValueError, match=r"must be floating point \(2, 15\); got float16 \(2, 11\)"):
        read(tmp_path, range(6, 8))


def test_hook_report(plug, tmp_path):
    plug("heard = []\n@hookimpl\ndef report(result): heard.append(result)")
    (tmp_path / "x.yaml").write_text("{dataset: toy, backbone: toy, shots: [1], seeds: [1, 2], methods: [zero-shot]}")
    asked = options.check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")))
    table = job.run_recipe(asked, home=tmp_path, out=tmp_path / "out", say=lambda line: None, progress=False)
    heard = plugins.manager().get_plugin("mine").heard
    assert [(r.seed, r.metrics) for r in heard] == [(r.seed, r.metrics) for r in table], "each cell must be announced"


def test_two_plugins_that_bring_one_name_are_both_named(plug):
    plug("class Mine(ZeroShot): pass\n@hookimpl\ndef methods(): return {'gda': Mine}")
    with pytest.raises(ValueError, match="names in methods must be unique; got 'gda' from both") as caught:
        plugins.table("methods")
    assert "'mine'" in str(caught.value) and "'training_free.gda'" in str(caught.value), f"got {caught.value}"


WRONG = [
    (
        "@hookimpl\ndef method(): return {}",
        "unknown hook 'method'.*the hooks are methods, prompts, .*, extract, report",
    ),
    ("@hookimpl\ndef methods(task): return {}", "methods.*task"),
    ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
    ("1 / 0", "division by zero"),
    ("def f(:", "invalid syntax"),
]


@pytest.mark.parametrize(("code", "words"), WRONG, ids=range(len(WRONG)))
def test_a_plugin_that_cannot_be_used_is_named_and_leaves_nothing_behind(code, words, plug):
    datasets = "@hookimpl\ndef datasets(): return {'left-behind': print}\n"
    with pytest.raises(ValueError, match=f"(?s)plugin '.*mine.py' could not be loaded:.*{words}"):
        plug(datasets + code)
    assert set(plugins.broken) == {"mine"}, "it must be on the list of the broken"
    plugins.table.cache_clear()
    assert "left-behind" not in plugins.table("datasets"), "no half of it may be in use"
    assert "toy" in plugins.table("datasets"), "the others must go on"
    with pytest.raises(ValueError, match="failed to load: mine"):
        plugins.pick("methods", "gdaa")


BODIES = ["return ['gda']", "return None", "raise KeyError('hub')", "raise SystemExit(3)"]


@pytest.mark.parametrize("body", BODIES)
def test_a_table_that_is_none_names_its_plugin(body, plug):
    with pytest.raises(ValueError, match=r"mine.py' could not be loaded:(?s:.*)methods\(\) must return a mapping"):
        plug(f"@hookimpl\ndef datasets(): return {{'half': print}}\n@hookimpl\ndef methods():\n    {body}")
    assert "half" not in plugins.table("datasets"), "no half of it may be in use"


@pytest.mark.parametrize("body", BODIES)
def test_a_plugin_whose_table_fails_is_named_and_the_others_go_on(body, plug):
    plug("ready = []\n@hookimpl\ndef methods():\n    if not ready: return {}\n    " + body)
    plugins.manager().get_plugin("mine").ready.append(1)
    plugins.table.cache_clear()
    assert "gda" in plugins.table("methods"), "the others must go on"
    assert set(plugins.broken) == {"mine"}, "the plugin must be on the list of the broken"
    (line,) = plugins.complaints()
    assert line.startswith("plugin 'mine' could not be loaded: ValueError: methods() must return"), f"got {line!r}"


def test_a_report_that_fails_is_a_warning(plug, tmp_path):
    plug("@hookimpl\ndef report(result): raise KeyError(result.method)")
    plug("heard = []\n@hookimpl\ndef report(): heard.append(1)", "other")
    (tmp_path / "x.yaml").write_text("{dataset: toy, backbone: toy, shots: [1], seeds: [1, 2], methods: [zero-shot]}")
    asked, said = options.check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml"))), []
    table = job.run_recipe(asked, home=tmp_path, out=tmp_path / "out", say=said.append, progress=False)
    assert len(table) == 2 and not table.failures, "the run must go on"
    assert len(plugins.manager().get_plugin("other").heard) == 2, "the other plugin must be told"
    warned = [line for line in said if "warning" in line]
    assert warned == ["warning: report of plugin 'mine' failed: KeyError: 'zero-shot'"], f"once, in a line; got {said}"
    assert "mine" in plugins.broken, "and 'adaptkit list' must name it"
    assert plugins.add_file(tmp_path / "mine.py") == "mine", "what else it brings is still in use"


def test_entry_points_and_files_of_the_environment_are_found_and_the_broken_named(tmp_path, monkeypatch, plug):
    for name, code in (("good", "@hookimpl\ndef datasets(): return {'theirs': print}"), ("bad", "1 / 0"), ("own", "")):
        (tmp_path / f"their_{name}.py").write_text(HEAD + code)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[adaptkit]\nbad = their_bad\ngood = their_good\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ADAPTKIT_PLUGINS", str(tmp_path / "their_own.py"))
    importlib.invalidate_caches()
    found = plugins.manager.__wrapped__()
    assert {"good", "their_own", "training_free.gda"} <= {name for name, _ in found.list_name_plugin()}, (
        "all must be found"
    )
    assert set(plugins.broken) == {"bad"}, "what cannot be loaded must be named"
    assert "ZeroDivisionError" in plugins.broken["bad"], "with the reason"
    assert {"theirs"} <= {name for table in found.hook.datasets() for name in table}, "a plugin's table must be merged"
    monkeypatch.setenv("ADAPTKIT_STRICT_PLUGINS", "1")
    with pytest.raises(ZeroDivisionError):
        plugins.manager.__wrapped__()


def test_a_second_file_of_the_same_name_is_loaded_or_refused(plug, tmp_path):
    plug("@hookimpl\ndef datasets(): return {'one': print}")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.py").write_text(HEAD + "@hookimpl\ndef datasets(): return {'two': print}")
    try:
        plugins.add_file(tmp_path / "there" / "mine.py")
    except ValueError as error:
        assert "mine" in str(error), f"the name must be told; got {error}"
    else:
        assert {"one", "two"} <= set(plugins.table("datasets")), "a second file must not be passed over in silence"


def test_a_broken_file_that_is_mended_can_be_loaded(plug):
    with pytest.raises(ValueError, match="division by zero"):
        plug("1 / 0")
    plug("@hookimpl\ndef datasets(): return {'mended': print}")
    assert "mended" in plugins.table("datasets"), "once mended it must load, in a notebook too"
    assert not plugins.broken, "and not be called broken any more"


def test_another_process_is_sent_only_files_whose_plugin_is_in_use(plug, tmp_path):
    plug("")
    gone, there = tmp_path / "mine.py", tmp_path / "there" / "mine.py"
    assert gone in relay.files_in_use(), "a file that is in use must be sent"
    plugins.manager().unregister(name="mine")
    there.parent.mkdir()
    plug("", name="there/mine")
    got = [path for path in relay.files_in_use() if path.stem == "mine"]
    assert got == [there], f"one that was taken out must not be sent beside another of its name; got {got}"
    assert relay.sent(relay.relay())[1] == (relay.files_in_use(),), "nor with the hooks"
