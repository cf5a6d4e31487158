"""Recipes: every mistake is named in one line before anything is computed; and results, which are never stale."""

import json
import re
from dataclasses import replace

import pytest
import yaml

from adaptkit import cli
from adaptkit.io.values import Spec
from adaptkit.report.scores import half_width
from adaptkit.report.table import Table, spread_text
from adaptkit.runs import build as options
from adaptkit.runs import job, plugins, recipe
from adaptkit.runs.results import Result

BASE = "dataset: toy\nbackbone: 'toy:0'\n"
GOOD = BASE + "methods: [zero-shot]\n"
WRONG = [  # a recipe, and words that the error must have
    (GOOD + "shotss: [1]", "a key must be one of dataset, .*; got 'shotss'; did you mean 'shots'?"),
    (GOOD + "name: mine", "a key must be one of .*; got 'name'"),
    (BASE, "methods must be given; got none"),
    ("backbone: toy\nmethods: [gda]", "dataset must be given; got none"),
    (BASE + "methods: gda", "methods must be a list; got 'gda'"),
    (BASE + "methods: [gdaa]", "method must be one of .*; got 'gdaa'; did you mean 'gda'?"),
    (BASE + "methods: [{gda: {alfa: 1}}]", "an option of gda must be one of .*; got 'alfa'; did you mean 'alpha'?"),
    (BASE + "methods: [{gda: {views: many}}]", "gda.views must be a whole number; got 'many'"),
    (BASE + "methods: [{gda: {views: 2.5}}]", "gda.views must be a whole number; got 2.5"),
    (BASE + "methods: [{gda: {alpha: true}}]", "gda.alpha must be a number; got True"),
    (BASE + "methods: [{gda: {views: -1}}]", "gda.views must be a whole number from 1 to 1,000; got -1"),
    (
        BASE + "methods: [{gda: {augment: crop-flop}}]",
        "augment must be one of .*'crop-flop'; did you mean 'crop-flip'?",
    ),
    (BASE + "methods: [{gda: {}, tda: {}}]", "a method must be a name, or one name with options"),
    (BASE + "methods: [{task-res: {schedule: {epoch: 3}}}]", "a field of task-res.schedule .*; did you mean 'epochs'?"),
    (
        BASE + "methods: [{task-res: {schedule: {optimizer: adm}}}]",
        "schedule.optimizer must be one of sgd, .*; got 'adm'",
    ),
    (BASE + "methods: [{task-res: {schedule: fast}}]", "task-res.schedule must be a mapping of epochs, .*; got 'fast'"),
    (BASE + "methods: [{trans-clip: {base: gdaa}}]", "method must be one of .*; got 'gdaa'; did you mean 'gda'?"),
    (BASE + "methods: [gda, tda, gda]", "methods must differ; got 'gda' twice"),
    (GOOD.replace("dataset: toy", "dataset: toi"), "dataset must be one of .*; got 'toi'; did you mean 'toy'?"),
    (GOOD.replace("dataset: toy", "dataset: 5"), "dataset must be text; got 5"),
    (GOOD.replace("'toy:0'", "'toi:0'"), "backbone must be one of .*; got 'toi'; did you mean 'toy'?"),
    (GOOD + "prompts: template", "prompt must be one of .*; got 'template'; did you mean 'templates'?"),
    (GOOD + "support: few-shots", "support must be one of .*; got 'few-shots'; did you mean 'few-shot'?"),
    (GOOD + "support: {few-shot: {n: 3}}", "few-shot.*'n'"),
    (
        GOOD + "support: {pseudo-label: {treshold: 0.5}}",
        "an option of pseudo-label must be .*; did you mean 'threshold'?",
    ),
    (GOOD + "support: {pseudo-label: {threshold: high}}", "threshold must be a number; got 'high'"),
    (GOOD + "select: few-vall", "select must be one of none, few-val, .*; got 'few-vall'; did you mean 'few-val'?"),
    (GOOD + "device: tpu", "device must be one of auto, cpu, cuda, mps, cuda:0; got 'tpu'"),
    (GOOD + "precision: bf16", "precision must be one of .*; got 'bf16'"),
    (GOOD + "shots: [four]", "shots must be a whole number; got 'four'"),
    (GOOD + "shots: 4", "shots must be a list; got 4"),
    (GOOD + "shots: [0]", "shots must be a whole number from 1 to .*; got 0"),
    (GOOD + "shots: []", "shots must be .*; got"),
    (GOOD + "seeds: [1, 1]", "seeds must differ; got"),
    (GOOD + "classes: half", "classes must be one of all, base; got 'half'"),
    (GOOD + "stream: sorted", "stream must be one of shuffled, .*; got 'sorted'"),
    (GOOD + "stream: {mixed: {seed: 1}}", "an option of mixed must be one of none; got 'seed'"),
    (GOOD + "near: [new]", "classes must be 'base' where the set 'new' is asked for; got 'all'"),
    (GOOD + "domains: [digits]\nfar: [digits]", "must name each set once; got 'digits' twice"),
    (GOOD + "bins: [3, 1]", r"bins must be two numbers that rise; got \[3, 1\]"),
    (GOOD + "bins: [3, 3]", r"bins must be two numbers that rise; got \[3, 3\]"),
    (GOOD + "bins: [3]", r"bins must have 2 values; got \[3\]|bins must be .*; got \[3\]"),
    (BASE + "methods: [gda]\nclasses: base", "answer for classes they did not adapt to; got '"),
    (GOOD + "published: [{method: gda, value: 3}]", "published must have source; got"),
    (GOOD + "published: [{method: gda, value: 3, source: x, shot: 1}]", "a field of published must be .*; got 'shot'"),
    (GOOD + "keep_answers: yes please", "keep_answers must be true or false; got 'yes please'"),
    (GOOD + "domains: [moon]", "a domain of toy, or a dataset, must be .*; got 'moon'"),
    (GOOD + "plugins: [nowhere.py]", "a plugin must be a Python file; got '.*nowhere.py', which does not exist"),
    (BASE + "methods: [task-res]\ntrainer: {max_step: 3}", "trainer.*max_step"),
    (GOOD + "dataset: toy", "line 4, column 1: key 'dataset' is given twice"),
    (BASE + "methods: [&a gda, *a]", "aliases are not allowed"),
    (BASE + "methods: [gda", "line .*column"),
    ("? [a]\n: b", "x.yaml"),
    ("- a\n- b", "a recipe must be a mapping of keys to values; got list"),
    ("", "a recipe must be a mapping of keys to values; got NoneType"),
    ("a: \0", "x.yaml"),
    ("extends: nowhere.yaml", "a recipe must be a readable YAML file; got '.*nowhere.yaml'"),
    ("extends: nowhere.yaml", r"x.yaml > nowhere.yaml: a recipe must be a readable YAML file"),
    ("extends: x.yaml", "a recipe must not extend itself; got x.yaml > x.yaml; take extends"),
    ("extends: [a.yaml]", r"extends must be the path of a recipe's file; got \['a.yaml'\]"),
    (GOOD + "published: 5", "published must be a list; got 5"),
    (GOOD + "support: [few-shot]", r"support must be a name, or one name with options, .*; got \['few-shot'\]"),
]
TYPED = [  # what is typed after a good recipe
    (["--only", "gdaa"], "a method of this recipe must be one of zero-shot; got 'gdaa'"),
    (
        ["--only", "gdaa"],
        r"name it under methods: of the recipe or in --set 'methods=\[.zero-shot., .gdaa.\]'",
    ),
    (["--only", "gdaa"], ", and load the file that brings it with --plugin FILE"),
    (["--only", "zero-shoot"], "; did you mean 'zero-shot'?"),
    (["--set", "shots"], "--set must be KEY=VALUE; got 'shots'"),
    (["--set", "shotss=[1]"], "a key must be one of .*; did you mean 'shots'?"),
    (["--set", "shots=[1"], r"--set.*shots=\[1"),
    (["--set", "dataset.x=1"], "dataset"),
    (["--set", "methods.0=gda"], "methods"),
    (["--shots", "one"], "shots must be a whole number; got 'one'"),
    (["--seeds", "1;2"], "seeds must be a whole number; got '1;2'"),
]


@pytest.fixture
def refused(tmp_path, capsys):
    def run(*argv):
        home = tmp_path / "home"
        assert cli.main(["--home", str(home), "run", *map(str, argv), "--quiet"]) == 2, "the exit code must be 2"
        out, error = capsys.readouterr()
        assert error.startswith("adaptkit: error: ") and error.count("\n") == 1, f"one line must say so; got {error!r}"
        assert not out, f"nothing else may be said; got {out!r}"
        assert not list(home.glob("features/*")), "nothing may have been computed"
        return error

    return run


@pytest.mark.parametrize(("text", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_recipe_is_refused_in_one_line(text, words, tmp_path, refused):
    (tmp_path / "x.yaml").write_text(text)
    error = refused(tmp_path / "x.yaml")
    assert re.search(words, error), f"it must say {words!r}; got {error!r}"


@pytest.mark.parametrize(("typed", "words"), TYPED, ids=[" ".join(typed) for typed, _ in TYPED])
def test_a_wrong_override_is_refused_in_one_line(typed, words, tmp_path, refused):
    (tmp_path / "x.yaml").write_text(GOOD)
    error = refused(tmp_path / "x.yaml", *typed)
    assert re.search(words, error), f"it must say {words!r}; got {error!r}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no.yaml", "a recipe must be a file, or one of .*toy.*no.yaml', which does not exist"),
        ("quikstart", "a recipe must be one of .*; got 'quikstart'; did you mean 'quickstart'?"),
        ("bytes.yaml", "a recipe must be a readable YAML file; got '.*bytes.yaml'"),
    ],
)
def test_a_recipe_that_cannot_be_found_or_read_is_refused_in_one_line(name, words, tmp_path, monkeypatch, refused):
    (tmp_path / "bytes.yaml").write_bytes(b"dataset: \xff\xfe")
    monkeypatch.chdir(tmp_path)
    error = refused(name)
    assert re.search(words, error), f"it must say {words!r}; got {error!r}"


def test_a_recipe_extends_another_and_is_changed_from_outside(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD + "shots: [2]\ntrainer: {max_epochs: 3, precision: bf16-mixed}")
    (tmp_path / "child.yml").write_text("extends: base.yaml\nmethods: [gda, {task-res: {alpha: 1e-3}}]\nseeds: [5]")
    found = recipe.read_recipe(str(tmp_path / "child.yml"), {"trainer.max_epochs": 1, "select": "none"}, ["task-res"])
    assert (found.name, found.dataset, found.shots, found.seeds) == ("child", "toy", [2], [5]), (
        "what is not said is kept"
    )
    assert found.trainer == {"max_epochs": 1, "precision": "bf16-mixed"}, "a dot must reach into a mapping"
    assert (found.select, found.methods) == ("none", [Spec("task-res", {"alpha": "1e-3"})]), "as asked from outside"
    made = options.method(found.methods[0])
    assert made.alpha == 0.001, "YAML reads 1e-3 as text, and a number is wanted"
    assert list(found.labels()) == ["task-res(alpha=1e-3)"], "a row is called by the options that were set"


def test_a_spec_is_a_value_that_knows_its_label_and_how_recipes_write_it():
    assert Spec.of("gda") == Spec.of({"gda": None}) == Spec("gda"), "both ways to write a name must be one value"
    long = {"coop": {"n": 4, "schedule": {"epochs": 2}}}
    assert Spec.of("gda").label == "gda", "a row must be called plainly where no option was set"
    assert Spec.of(long).label == "coop(n=4, schedule={epochs: 2})", "and by options of options too"
    assert (Spec.of(long).plain, Spec("gda").plain) == (long, "gda"), "it must be written as it was read"
    assert len({Spec.of(long), Spec.of(long), Spec("coop")}) == 2, "equal ones must be one member of a set"
    assert Spec.of(Spec("gda")) == Spec("gda"), "a spec must be read as it is"
    with pytest.raises(AttributeError):
        Spec("gda").name = "tda"


def test_a_recipe_is_described_as_it_was_written(tmp_path):
    text = GOOD.replace("[zero-shot]", "[zero-shot, {gda: {alpha: 2.0}}]") + "support: {few-shot: {}}\nstream: mixed"
    (tmp_path / "x.yaml").write_text(text + "\nprompts: {llm: {file: x.json}}")
    found = recipe.read_recipe(str(tmp_path / "x.yaml"))
    said = json.loads(found.describe())
    assert said["methods"] == ["zero-shot", {"gda": {"alpha": 2.0}}], "methods must be as recipes write them"
    assert (said["stream"], said["prompts"]) == ("mixed", {"llm": {"file": "x.json"}}), "and so all other specs"
    assert replace(found, support="few-shot", methods=["zero-shot"]).methods == [Spec("zero-shot")], "in Python too"


def test_a_recipe_extends_a_chain_of_any_length(tmp_path):
    quote = "published: [{{method: {0}, value: {1}, source: x}}]\n"
    for number, (below, text) in enumerate(
        [
            ("", GOOD + "shots: [2]\nseeds: [7]\n" + quote.format("zero-shot", 1)),
            ("r0.yaml", "shots: [4]\nselect: none\n"),
            ("r1.yaml", "select: oracle\n" + quote.format("zero-shot", 2)),
            ("sub/../r2.yaml", quote.format("gda", 3)),
        ]
    ):
        (tmp_path / f"r{number}.yaml").write_text((f"extends: {below}\n" if below else "") + text)
    (tmp_path / "sub").mkdir()
    found = recipe.read_recipe(str(tmp_path / "r3.yaml"), {"seeds": [1]})
    assert (found.name, found.shots, found.select, found.seeds) == ("r3", [4], "oracle", [1]), "the nearest must win"
    assert [quote.value for quote in found.published] == [1, 2, 3], "quotes must be joined, the protocol's first"


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("a.yaml", r"a recipe must not extend itself; got a.yaml > b.yaml > c.yaml > a.yaml; take"),
        ("b.yaml", r"a recipe must not extend itself; got a.yaml > b.yaml > c.yaml > b.yaml; take"),
        ("d.yaml", r"a.yaml > b.yaml > c.yaml > d.yaml: a recipe must be a readable YAML file; got '.*d.yaml'"),
    ],
)
def test_a_chain_that_leads_nowhere_is_named_whole(last, words, tmp_path, refused):
    for name, base in {"a": "b.yaml", "b": "c.yaml", "c": last}.items():
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}\n" + GOOD * (name == "a"))
    error = refused(tmp_path / "a.yaml")
    assert re.search(words, error), f"it must say {words!r}; got {error!r}"


def run(text, tmp_path):
    """Run a recipe, and return how many of its cells were done already, and the table."""
    (tmp_path / "x.yaml").write_text(text)
    said = []
    asked = options.check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")))
    table = job.run_recipe(asked, home=tmp_path, out=tmp_path / "out", say=said.append, progress=False)
    return int(said[0].split("cells, ")[1].split(" done")[0]), table


SMALL = BASE + "shots: [1, 2]\nseeds: [1]\nmethods: [zero-shot, {gda: {views: 2}}]\n"


def test_cells_that_are_done_are_skipped_and_no_others(tmp_path):
    done, table = run(SMALL, tmp_path)
    assert (done, len(table)) == (0, 4), "every cell must be run at first"
    again, same = run(SMALL, tmp_path)
    assert (again, [*same]) == (4, [*table]), "and none again: the results must be those"
    assert run(SMALL.replace("views: 2", "views: 3"), tmp_path)[0] == 2, "a changed option must be run"
    assert run(SMALL.replace("seeds: [1]", "seeds: [1, 2]"), tmp_path)[0] == 4, "a further seed must be run, only"
    for change in ("select: none", "select: oracle", "dtype: float32", "prompts: ensemble", "trainer: {max_epochs: 2}"):
        assert run(SMALL + change, tmp_path)[0] == 0, f"under another protocol all must be run: {change}"
    assert run(SMALL.replace("toy:0", "toy:1"), tmp_path)[0] == 0, "over another backbone all must be run"


@pytest.mark.parametrize("edited", ["top", "base", "support"])
def test_changed_code_is_run_again_also_below(edited, tmp_path):
    for name, code in CODE.items():
        (tmp_path / f"my_{name}.py").write_text(f"from adaptkit import Method, ZeroShot, hookimpl\n{code}\n")
        plugins.add_file(tmp_path / f"my_{name}.py")
    try:
        text = BASE + "shots: [1]\nseeds: [1]\nsupport: my-support\nmethods: [{my-top: {base: my-base}}]\n"
        assert [run(text, tmp_path)[0], run(text, tmp_path)[0]] == [0, 1], "a cell must be run once"
        with (tmp_path / f"my_{edited}.py").open("a") as file:
            file.write("# better now\n")
        assert run(text, tmp_path)[0] == 1, "a comment makes no other answers"
        with (tmp_path / f"my_{edited}.py").open("a") as file:
            file.write("BETTER = 1\n")
        assert run(text, tmp_path)[0] == 0, f"a change in {edited} must be run"
    finally:
        for name in CODE:
            plugins.manager().unregister(name=f"my_{name}")
        plugins.table.cache_clear()


CODE = {
    "base": "class Base(ZeroShot): pass\n@hookimpl\ndef methods(): return {'my-base': Base}",
    "top": "from dataclasses import field\nclass Top(Method):\n    base: Method = field(default_factory=ZeroShot)\n"
    "    def fit(self, task): pass\n    def forward(self, batch): return self.base(batch)\n"
    "@hookimpl\ndef methods(): return {'my-top': Top}",
    "support": "def mine(task, train, val, *, shots, seed): return train[:9], val\n"
    "@hookimpl\ndef supports(): return {'my-support': mine}",
}


def result(method, shots, seed, accuracy, **more):
    return Result(method=method, shots=shots, seed=seed, metrics={"accuracy": accuracy}, **more)


def test_a_result_is_what_it_was_when_saved(tmp_path):
    kept = result("gda", 4, 2, 0.5, protocol={"dataset": "toy", "trainer": {}}, seconds={"fit": 1.5}, parameters=7)
    kept.save(tmp_path / "r.json")
    assert Result.read(tmp_path / "r.json") == kept, "saving and reading must change nothing"
    for text in ("{", "[1]", json.dumps({"method": "gda", "colour": 1})):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ValueError, match=r"a result must be a JSON record of method, .*; got '.*r.json'"):
            Result.read(tmp_path / "r.json")


def test_an_interval_is_students():
    assert half_width([60, 70, 80]) == pytest.approx(4.302653 * 10 / 3**0.5), "t for two degrees of freedom is 4.303"
    assert half_width([1, 2]) == pytest.approx(12.7062 * 0.5**0.5 / 2**0.5, rel=1e-4), "and for one 12.706"
    assert spread_text([result("m", 1, s, a) for s, a in enumerate((0.6, 0.7, 0.8))]) == "70.0 ± 24.8", "in percent"
    assert spread_text([result("m", 1, 1, 0.123)]) == "12.3", "one seed has no interval"
    assert spread_text([]) == "-", "no result, no number"


def test_a_table_has_methods_in_rows_and_shots_in_columns():
    rows = [result("gda", k, s, 0.5, parameters=k) for k in (1, 16) for s in (1, 2)]
    table = Table([*rows, result("tip", 16, 1, 0.25, oracle=True, seconds={"fit": 2.0})])
    head, rule, *body = [line.split() for line in table.text().splitlines()]
    assert " ".join(head) == "method 1 shot 16 shots trained extract s fit s predict s", (
        "the head must name the columns"
    )
    assert set("".join(rule)) == {"-"}, "a rule must stand under the head"
    assert " ".join(body[0]) == "gda 50.0 ± 0.0 50.0 ± 0.0 1 to 16 0.00 0.00 0.00", "seeds must be averaged"
    assert " ".join(body[1]) == "tip (oracle) - 25.0 0 0.00 2.00 0.00", "who looked at the test set must be marked"
    assert "<td>tip (oracle)</td>" in table._repr_html_(), "in notebooks too"
    assert (len(table), table[0], [*table][-1].method) == (5, rows[0], "tip"), "a table is a sequence of results"


def test_results_of_different_protocols_are_not_averaged():
    one = result("gda", 1, 1, 0.5, protocol={"dataset": "toy", "dtype": "float16"})
    with pytest.raises(ValueError, match="dtype"):
        Table([one, replace(one, seed=2, protocol={"dataset": "toy", "dtype": "float32"})]).text()


@pytest.mark.parametrize("key", ["domains", "near", "far"])
@pytest.mark.parametrize("value", ["true", "5", "x", "[[1]]", "{a: [1]}", ".nan"])
def test_sets_that_are_none_are_refused_also_where_the_dataset_is_another(tmp_path, key, value):
    (tmp_path / "mine.yaml").write_text(f"dataset: toy\nbackbone: toy:0\nmethods: [zero-shot]\n{key}: {value}\n")
    with pytest.raises(ValueError, match=key):
        recipe.read_recipe(str(tmp_path / "mine.yaml"), {"dataset": "digits"})


def test_a_methods_odd_name_keeps_an_error_in_one_line(tmp_path):
    (tmp_path / "x.yaml").write_text('dataset: toy\nbackbone: toy:0\nmethods: ["a\\n\\0"]\n')
    with pytest.raises(ValueError, match="must be one of") as told:
        recipe.read_recipe(str(tmp_path / "x.yaml"), only=["gda"])
    assert "\n" not in str(told.value), f"got {told.value}"


def test_a_recipe_has_options_for_methods_which_those_that_are_asked_for_win_over(tmp_path):
    below = tmp_path / "below.yaml"
    below.write_text(GOOD + "defaults: {coop: {n: 8, schedule: {epochs: 3, lr: 0.1}}, gda: {alpha: 2.0}}\n")
    above = tmp_path / "above.yaml"
    above.write_text(
        "extends: below.yaml\nmethods: [{coop: {schedule: {epochs: 5}}}, gda, tda]\ndefaults: {gda: {alpha: 3.0}}\n"
    )
    found = options.check_recipe(recipe.read_recipe(str(above)))
    coop, gda, tda = (options.method(spec) for spec in found.methods)
    assert (coop.n, coop.schedule.epochs, coop.schedule.lr) == (8, 5, 0.1), f"what was asked for must win; got {coop}"
    assert gda.alpha == 3.0, f"a recipe's defaults must replace those below, by method; got {gda.alpha}"
    labels = ["coop(schedule={epochs: 5})", "gda", "tda"]
    assert [*found.labels()] == labels, f"a row's name must be what was asked for; got {[*found.labels()]}"
    assert repr(tda) == repr(options.method("tda")), "others must be as they were"


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ("[coop]", "defaults must be options by method"),
        ("{coop: 4}", "defaults must be options by method"),
        ("{coup: {n: 4}}", "method must be one of .*; got 'coup'"),
        ("{coop: {m: 4}}", "an option of coop must be one of .*; got 'm'"),
        ("{coop: {n: many}}", "coop.n must be a whole number; got 'many'"),
    ],
)
def test_defaults_are_checked_whether_their_method_runs_or_not(tmp_path, defaults, words):
    file = tmp_path / "x.yaml"
    file.write_text(GOOD + f"defaults: {defaults}\n")
    with pytest.raises(ValueError, match=words):
        options.check_recipe(recipe.read_recipe(str(file)))
    file.write_text(GOOD)
    with pytest.raises(ValueError, match=words):
        options.check_recipe(recipe.read_recipe(str(file), {"defaults": yaml.safe_load(defaults)}))
