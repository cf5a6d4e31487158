"""The command line: what each command prints, and with which exit code; and runs that are killed, or meet."""

import ast
import inspect
import json
import re
import subprocess
import sys
import time

import pytest

from adaptkit import cli
from adaptkit.runs import plugins
from adaptkit.testing import CHECKS

RECIPE = (
    "{dataset: toy, backbone: toy, select: none, shots: [1, 2], seeds: [1], methods: [zero-shot, {gda: {views: 2}}]}"
)


@pytest.fixture
def say(capsys):
    """Run a command in this process: its exit code, what it printed, and what it complained of."""

    def run(*argv):
        try:
            code = cli.main([str(word) for word in argv])
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def forget():
    """Forget the plugins that a test adds."""
    before = set(plugins.manager().list_name_plugin())
    yield
    for name, _ in set(plugins.manager().list_name_plugin()) - before:
        plugins.manager().unregister(name=name)
    plugins.broken.clear()
    plugins.table.cache_clear()


def test_help_comes_at_once_and_without_torch():
    code = (
        "import sys\nfrom adaptkit import cli\ntry: cli.main(['--help'])\n"
        "finally: print(*({'torch', 'numpy', 'pluggy', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - began)
    assert done.returncode == 0, f"help must succeed; got {done.stderr}"
    assert all(word in done.stdout for word in ("run", "plan", "list", "show", "check", "cache")), (
        "it must name commands"
    )
    assert done.stderr.strip() == "", "help must import nothing heavy"
    assert min(took) < 0.4, f"help must come at once; it took {min(took):.2f} s at best"


def test_the_command_line_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "adaptkit", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python -m adaptkit must work; got {done.stderr}"
    assert done.stdout == f"{cli.version()}\n", "and be the same command line"


@pytest.mark.parametrize(("text", "part"), [("1/1", (1, 1)), ("2/4", (2, 4)), ("4/4", (4, 4))])
def test_a_run_may_be_one_part_of_several(text, part):
    options = cli.parser().parse_args(["run", "toy", "--shard", text])
    assert (options.shard, options.recompute) == (part, False), "the part must be read, and nothing recomputed unasked"
    options = cli.parser().parse_args(["run", "toy", "--recompute"])
    assert (options.shard, options.recompute) == (None, True), "without a part all cells are run"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "-1/4", "a/b", "1/4/4", "1.0/4", "\u0661/4", ""])
def test_a_part_that_is_none_is_one_line(text, say):
    code, _, error = say("run", "toy", f"--shard={text}")
    assert code == 2, f"{text!r} must be refused; got {code}"
    assert error == f"adaptkit run: error: argument --shard: must be i/n with 1 <= i <= n, e.g. 1/4; got {text!r}\n", (
        f"in one line; got {error!r}"
    )


def test_no_function_of_the_command_line_is_longer_than_a_screen():
    functions = [node for node in ast.walk(ast.parse(inspect.getsource(cli))) if isinstance(node, ast.FunctionDef)]
    long = {f.name: n for f in functions if (n := f.end_lineno - f.lineno + 1) > 40}
    assert not long, f"functions must have at most 40 lines; got {long}"


def test_list_names_every_plugin_and_where_it_comes_from(say):
    code, out, _ = say("list")
    assert code == 0, "list must succeed"
    for name in ("methods", "prompts", "supports", "datasets", "backbones", "recipes", "gda", "few-shot", "toy"):
        assert re.search(rf"^{name}\b", out, re.M), f"{name} must be listed"
    code, out, _ = say("list", "methods", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert set(entries) == set(plugins.table("methods")), "all methods must be listed, and nothing else"
    assert all({"name", "scope", "trained", "source"} <= set(entry) for entry in entries.values()), "with these fields"
    assert all(entry["source"] for entry in entries.values()), "every method must say where it comes from"
    assert entries["tda"]["scope"] == "stream" and entries["zlap"]["scope"] == "set", "a scope must be the method's own"
    assert entries["coop"]["trained"] is True and entries["gda"]["trained"] is False, "trained or not, as a truth value"
    assert {e["role"] for e in json.loads(say("list", "--json")[1])} == {*plugins.ROLES, "recipes"}, "of every role"


def test_list_says_of_each_method_what_it_does_in_one_line_that_fits(say, tmp_path, forget):
    _, out, _ = say("list", "methods")
    wide = [line for line in out.splitlines() if len(line) >= 120]
    assert not wide, f"lines must fit into 119 columns; got {wide}"
    abouts = {entry["name"]: entry["about"] for entry in json.loads(say("list", "methods", "--json")[1])}
    lines = {line.split()[0]: line for line in out.splitlines()[3:] if line}
    cut = [name for name, about in abouts.items() if about not in lines[name]]
    assert not cut, f"our own methods must say it in so few words; not so {cut}"
    vague = [
        name for name, about in abouts.items() if len(about) < 30 or re.match("Transductive|Answers depend", about)
    ]
    assert not vague, f"and what they do, not how they differ; not so {vague}"
    for name, words in {"tda": "two caches", "oga": "Gaussians", "stat-a": "mixture", "re-clip": "labels"}.items():
        assert words in abouts[name], f"{name} must say what it does; got {abouts[name]}"


def test_a_long_line_of_a_list_is_cut_at_a_word(say, tmp_path, forget):
    long = METHOD.format(name="wordy", more="").replace(
        "class Copy(ZeroShot):\n", f"class Copy(ZeroShot):\n    {LONG!r}\n"
    )
    (tmp_path / "wordy.py").write_text(long)
    code, out, error = say("--plugin", tmp_path / "wordy.py", "list", "methods")
    line = next(line for line in out.splitlines() if line.startswith("wordy"))
    assert code == 0 and len(line) < 120, f"the line must fit; got {line!r} and {error!r}"
    assert re.search(r"wordy +(word )+\.\.\. +sample", line), f"and end at a word; got {line!r}"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_list_names_plugins_that_could_not_be_loaded(more, say, forget):
    plugins.broken["theirs"] = "ZeroDivisionError: division by zero"
    code, out, error = say("list", "methods", *more)
    assert code == 0 and "gda" in out, "the others must be listed"
    assert "'theirs'" in error and "division by zero" in error, f"the broken must be named, and why; got {error!r}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gda", "Hard-to-Beat Baseline|alpha: float = 0.1  # weight|views = Pooled|alpha \\(7 values from|few_shot"),
        ("ensemble", "one of the prompts|Hand-written sentences"),
        ("few-shot", "one of the supports|Learning to Prompt"),
        ("hf", "one of the backbones"),
    ],
)
def test_show_prints_a_card(name, words, say):
    code, out, _ = say("show", name)
    assert code == 0, "show must succeed"
    assert all(re.search(word, out) for word in words.split("|")), f"the card must have {words}; got {out}"


def test_every_card_can_be_shown(say):
    for role in plugins.ROLES:
        for name in plugins.table(role):
            code, out, error = say("show", name)
            assert (code, out.startswith(f"{name}: one of the ")) == (0, True), f"{name} must have a card; got {error}"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show", "gdaa"], "got 'gdaa'; did you mean 'gda'?"),
        (["rnu", "toy"], "'rnu'.*did you mean 'run'?"),
        (["--home", "somewhere", "rnu", "toy"], "'rnu'.*did you mean 'run'?"),
        (["list", "metods"], "'metods'.*did you mean 'methods'?"),
        (["cache", "veryfy"], "'veryfy'.*did you mean 'verify'?"),
        ([], "required: COMMAND"),
        (["run"], "required: RECIPE"),
        (["run", "toy", "--onyl", "gda"], "unrecognized arguments: --onyl"),
        (["check", "nowhere.py"], "a plugin must be a Python file; got '.*nowhere.py', which does not exist"),
        (["check", "gdaa"], "got 'gdaa'; did you mean 'gda'?"),
        (["--plugin", "nowhere.py", "list"], "a plugin must be a Python file; got '.*nowhere.py'"),
        (["--home", "FILE", "run", "toy", "--quiet"], "FILE"),
        (["--home", "HOME", "run", "toy", "--quiet", "--out", "FILE"], "FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_understood_is_one_line_and_exit_code_2(argv, words, say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file, where a folder is wanted")
    code, _, error = say(*argv)
    assert code == 2, f"the exit code must be 2; got {code} and {error!r}"
    assert error.count("\n") == 1, f"one line must say so; got {error!r}"
    assert re.search(words.replace("?", r"\?"), error), f"it must say {words!r}; got {error!r}"


LONG = "word " * 40
METHOD = '''"""A copy of zero-shot.

Source: nobody. Deviations: none.
"""
from adaptkit import ZeroShot, hookimpl
class Copy(ZeroShot):
    def forward(self, batch):
        return super().forward(batch){more}
@hookimpl
def methods():
    return {{"{name}": Copy}}
'''


def test_check_passes_a_good_file_and_fails_a_bad_one(say, tmp_path, forget):
    for name, more in (("good", ""), ("bad", " - 9 * len(batch)")):
        (tmp_path / f"{name}.py").write_text(METHOD.format(name=f"my-{name}", more=more))
    code, out, _ = say("check", tmp_path / "good.py")
    assert code == 0, f"a good file must pass; got {out}"
    assert out.splitlines()[-1] == f"1 methods, {len(CHECKS)} passed, 0 failed", "every check must be counted"
    code, out, _ = say("check", tmp_path / "bad.py")
    assert code == 1, "a bad file must fail"
    assert re.search(r"FAILED +scope: .*batch size matters", out), (
        f"the check must be named, with its reason; got {out}"
    )
    assert say("check", "my-good")[0] == 0, "a method may be checked by name"


def test_check_names_a_cause_once_with_its_line_and_what_it_kept_from_running(say, tmp_path, forget, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = METHOD.format(name="raises", more="")
    fit = "    def fit(self, task):\n        super().fit(task)\n        task.nothing\n@hookimpl"
    (tmp_path / "raises.py").write_text(text.replace("@hookimpl", fit))
    line = 1 + (tmp_path / "raises.py").read_text().splitlines().index("        task.nothing")
    code, out, _ = say("check", "raises.py")
    cause = f"AttributeError: 'Task' object has no attribute 'nothing' (raises.py:{line}, in fit)"
    assert code == 1 and out.count("FAILED") == out.count("no attribute") == 1, f"a cause must be said once; got {out}"
    assert f"  FAILED  output_shape: {cause}\n" in out, f"with file and line; got {out}"
    others = ", ".join(title for title in CHECKS if title not in ("docstring_names_source", "output_shape"))
    kept = len(CHECKS) - out.count("passed  ") - 1
    rest = re.search(rf"the failure of output_shape kept {kept} more from running: (.*)", out)
    assert rest and set(rest[1].split(", ")) <= set(others.split(", ")), f"and what it kept from running; got {out}"
    assert out.splitlines()[-1] == f"1 methods, {len(CHECKS) - kept - 1} passed, {kept + 1} failed", (
        "all must be counted"
    )
    assert "accuracy" not in out, "what cannot answer has no accuracy"


def test_check_says_once_that_an_exemption_names_no_check(say, tmp_path, forget):
    text = METHOD.format(name="exempts", more="\n    exempt = {'class_ordr': 'by design'}")
    (tmp_path / "exempts.py").write_text(text)
    code, out, _ = say("check", tmp_path / "exempts.py")
    assert code == 1 and out.count("got 'class_ordr'; did you mean 'class_order'?") == 1, f"it must be said; got {out}"
    assert out.count("FAILED") == 1 and f"kept {len(CHECKS) - 1} more from running" in out, f"and once; got {out}"


def test_a_cause_in_the_author_s_own_assertion_has_its_line_too(say, tmp_path, forget):
    more = "\n    def needs(self):\n        assert False, 'mine'"
    (tmp_path / "asserts.py").write_text(METHOD.format(name="asserts", more=more))
    _, out, _ = say("check", tmp_path / "asserts.py")
    assert re.search(r"FAILED  output_shape: AssertionError: mine \(.*asserts\.py:10, in needs\)", out), f"got {out}"


@pytest.mark.parametrize(
    ("more", "number"), [("", r"(\d+\.\d)%; of zero-shot: \1%"), (" * 0", "20.0%; of zero-shot: [3-9]")]
)
def test_check_prints_the_accuracy_beside_that_of_zero_shot(more, number, say, tmp_path, forget):
    (tmp_path / "beside.py").write_text(METHOD.format(name="beside", more=more))
    _, out, _ = say("check", tmp_path / "beside.py")
    assert re.search(f"^  accuracy on the toy task: {number}", out, re.M), f"both must be printed; got {out}"


def test_check_prints_no_accuracy_of_scores(say):
    code, out, _ = say("check", "max-logit")
    assert code == 0 and "accuracy on" not in out, f"a score has none; got {out}"


def test_a_plugin_that_cannot_be_imported_is_named_and_may_be_mended(say, tmp_path, forget):
    broken = tmp_path / "mine.py"
    broken.write_text("def methods(:\n")
    code, _, error = say("check", broken)
    assert code == 2 and "mine.py" in error and "SyntaxError" in error, f"file and error must be named; got {error}"
    broken.write_text(METHOD.format(name="mended", more=""))
    assert say("--plugin", broken, "show", "mended")[0] == 0, "once mended it must load"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text(METHOD.format(name="another", more=""))
    code, _, error = say("--plugin", tmp_path / "other" / "mine.py", "show", "another")
    assert code == 0 or ("mine" in error and "unique" in error), "a second file of that name must load, or be refused"


def test_plan_tells_what_a_run_does_and_the_second_run_does_nothing(say, tmp_path, monkeypatch):
    (tmp_path / "x.yaml").write_text(RECIPE)
    home, recipe = tmp_path / "home", tmp_path / "x.yaml"
    code, planned, _ = say("--home", home, "plan", recipe)
    assert code == 0 and "x: 4 cells, 0 done, 4 to run" in planned, f"the cells must be counted; got {planned}"
    assert not home.exists(), "a plan must create nothing"
    todo = [int(n) for n in re.findall(r"^\w+ · .*?  +\d+ +0 +(\d+) ", planned, re.M)]
    assert len(todo) == 2 and 60 in todo, f"the rows of both tables must be planned; got {planned}"
    code, out, _ = say("--home", home, "run", recipe, "--quiet")
    assert code == 0 and f"features: {sum(todo)} rows computed" in out, f"it must do what was planned; got {out}"
    assert re.search(r"^zero-shot +\d+\.\d .*\n^gda +\d+\.\d", out, re.M), f"a table must follow; got {out}"
    assert "with options: gda(views=2)" in out, f"and what the names leave out; got {out}"
    assert str(home / "results" / "x") in out, "it must say where the results are"
    code, again, _ = say("--home", home, "run", recipe, "--quiet")
    assert "4 done already, 0 to run" in again and "features: 0 rows computed" in again, "again, nothing is to be done"
    assert again.split("\n\n")[1:3] == out.split("\n\n")[1:3], "and the table must be the same"
    assert "0 to run" in say("--home", home, "plan", recipe)[1], "a plan must know it"
    monkeypatch.setenv("ADAPTKIT_HOME", str(home))
    assert "features: 0 rows" in say("run", recipe, "--quiet")[1], "the environment must name the home, too"
    _, out, _ = say("run", recipe, "--quiet", "--out", tmp_path / "out", "--only", "gda", "--shots", "2")
    assert "1 cells, 0 done already" in out and "features: 0 rows" in out, "other results may share the features"
    assert len([*(tmp_path / "out").glob("gda*.json")]) == 1, "results must be where they were asked for"


def test_the_cache_is_listed_verified_and_mended(say, tmp_path):
    assert say("--home", tmp_path, "cache", "verify")[0] == 0, "an empty cache must be sound"
    (tmp_path / "x.yaml").write_text(RECIPE)
    say("--home", tmp_path, "run", tmp_path / "x.yaml", "--quiet")
    code, out, _ = say("--home", tmp_path, "cache", "ls")
    assert code == 0 and re.search(r"Pooled views crop-flip", out), f"tables must be listed in words; got {out}"
    assert re.search(r" 60 ", out) and "Sentence" in out, "with their rows"
    assert say("--home", tmp_path, "cache", "verify")[0] == 0, "the cache must be sound after a run"
    shard = next((tmp_path / "features").rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    code, out, _ = say("--home", tmp_path, "cache", "verify")
    assert code == 1 and str(shard) in out and "1 problem" in out, f"a damaged file must be named; got {out}"
    code, out, _ = say("--home", tmp_path, "cache", "gc")
    assert code == 0 and "freed" in out and not shard.exists(), "a damaged file must be removed"
    assert say("--home", tmp_path, "cache", "verify")[0] == 0, "after which the cache is sound"
