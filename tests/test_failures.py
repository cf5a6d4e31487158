"""The unit of work: a cell that fails leaves the others alone, is written down, and is tried again."""

import json
import sys

import pytest
import torch

from adaptkit import cli
from adaptkit.runs import job, kept, plugins, protocol, recipe
from adaptkit.runs.build import check_recipe
from adaptkit.runs.failures import Failure, cause_of, interrupted, read_failures
from tests import processes

HEAD = '''"""Of a test."""
import sys
from dataclasses import field
import torch
from torch import nn
from adaptkit import Method, Schedule, ZeroShot, hookimpl
class Bad(ZeroShot):
    views: int = 4
'''
FOOT = "\n@hookimpl\ndef methods(): return {'bad': Bad}\n"
ANSWER = "    def forward(self, batch):\n        x = super().forward(batch)\n        return "
FIT = "    def fit(self, task):\n        super().fit(task)\n        "
TRAIN = (
    "    schedule: Schedule = field(default_factory=lambda: Schedule(steps=3))\n"
    + "    def support_needs(self): return self.needs()\n"
    + FIT
    + "self.gain = nn.Parameter(torch.ones(1))\n    def loss(self, batch): return super().loss(batch) * self.gain "
)


@pytest.fixture
def bad(tmp_path):
    """Write a recipe whose second method is bad in some way, and say how to run it."""

    def write(code, seeds="1, 2"):
        (tmp_path / "bad_method.py").write_text(HEAD + code + FOOT)
        text = f"dataset: toy\nbackbone: toy:0\nshots: [1]\nseeds: [{seeds}]\nselect: none\nplugins: [bad_method.py]\n"
        (tmp_path / "x.yaml").write_text(text + "methods: [zero-shot, bad, gda]\n")
        sys.modules.pop("adaptkit_file_bad_method", None)
        forget()
        return lambda *more: ["--home", tmp_path / "home", "run", "--trust", tmp_path / "x.yaml", "--quiet", *more]

    def forget():
        if plugins.manager().has_plugin("bad_method"):
            plugins.manager().unregister(name="bad_method")
        plugins.broken.clear()
        plugins.table.cache_clear()

    yield write
    forget()


@pytest.fixture
def say(capsys):
    def run(argv):
        try:
            code = cli.main([str(word) for word in argv])
        except SystemExit as left:  # argparse's way to refuse
            code = left.code
        return code, *capsys.readouterr()

    return run


def asked(tmp_path):
    return check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")), trust=True)


WAYS = {
    "nan": (ANSWER + "x * float('nan')", "ValueError: .*returned 300 values not finite"),
    "infinite": (ANSWER + "x / 0", "ValueError: .*returned 300 values not finite"),
    "shape": (ANSWER + "x[:, :3]", r"ValueError: .*must answer in the shape \(60, 5\); got \(60, 3\)"),
    "more": (ANSWER + "torch.cat([x, x], 1)", r"ValueError: .*must answer in the shape \(60, 5\); got \(60, 10\)"),
    "exit": (FIT + "sys.exit(3)", "SystemExit: 3: a method must not end the process"),
    "exception": (ANSWER + "x.nothing", "AttributeError: 'Tensor' object has no attribute 'nothing'"),
    "memory": (FIT + "raise MemoryError", r"MemoryError: no message; lower views \(4\) or batch_size \(32\)"),
    "cuda": (FIT + "raise torch.OutOfMemoryError('CUDA out of memory')", r"lower views \(4\) or batch_size \(32\)"),
    "loss": (TRAIN + "* float('nan')", "ValueError: the training loss of Bad must be finite; got nan at step 1 of "),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_cell_that_fails_is_written_down_and_all_others_run(way, bad, say, tmp_path):
    code, words = WAYS[way]
    command = bad(code)
    left, out, _ = say(command())
    assert left == 1, f"the exit code must be 1; got {left} and {out}"
    lines = [line for line in out.splitlines() if line.startswith("failed: bad, 1 shot, seed ")]
    assert len(lines) == 2, f"each failed cell must be named at the end; got {out}"
    assert __import__("re").search(words, lines[0]), f"with its cause, {words!r}; got {lines[0]!r}"
    row = next(line for line in out.splitlines() if line.startswith("bad"))
    assert "failed" in row, f"the table must mark it; got {row!r}"
    folder = tmp_path / "home" / "results" / "x"
    assert len([p for p in folder.glob("*.json") if p.name != "recipe.json"]) == 4, "all other cells must have records"
    failures = [*read_failures(folder)]
    assert [(f.method, f.shots, f.seed) for f in failures] == [("bad", 1, 1), ("bad", 1, 2)], "each must be a record"
    assert "Traceback" in (folder / failures[0].file).read_text(), "the traceback must lie beside it"
    assert str(folder / failures[0].file) in lines[0], "and be named"
    assert "\n" not in failures[0].cause, "a cause is one line"


def test_failed_cells_are_tried_again(bad, say, tmp_path):
    assert say(bad(FIT + "sys.exit()")())[0] == 1, "the run must fail at first"
    code, out, _ = say(bad(FIT + "pass")())
    assert (code, "failed:" in out) == (0, False), f"once mended there must be no trace of it; got {out}"
    folder = tmp_path / "home" / "results" / "x"
    assert len([p for p in folder.glob("*.json") if p.name != "recipe.json"]) == 6, "every cell must have a record"
    code, out, _ = say(["compare", folder])
    assert code == 0 and "failed cell" not in out, f"a failure that has a result since counts no longer; got {out}"


def test_a_failed_cell_that_is_not_mended_is_tried_again_too(bad, say):
    command = bad(ANSWER + "x / 0")
    say(command())
    code, out, _ = say(command())
    assert code == 1 and "6 cells, 4 done already, 2 to run" in out, f"only failed cells must be run; got {out}"


def test_a_comparison_says_that_cells_failed(bad, say, tmp_path):
    say(bad(FIT + "sys.exit() if task.support.index[0] % 2 == 0 or True else 0")())
    code, out, _ = say(["compare", tmp_path / "home" / "results" / "x"])
    assert code == 0 and "x has 2 failed cells, of bad; run it again" in out, f"in a line; got {out}"


def test_every_cell_may_fail(bad, say, tmp_path):
    code, out, _ = say(bad(ANSWER + "x / 0")("--only", "bad"))
    assert code == 1 and out.count("failed: bad") == 2, f"the run must end well; got {out}"
    row = next(line for line in out.splitlines() if line.startswith("bad"))
    assert row.split() == ["bad", "failed"], f"the table must show nothing but that; got {row!r}"
    code, _, error = say(["compare", tmp_path / "home" / "results" / "x"])
    assert code == 2 and "has none, and 2 failed cells" in error, f"nothing is there to compare; got {error!r}"


def test_some_seeds_may_fail(bad, say):
    _, out, _ = say(bad("    count = []\n" + FIT + "self.count.append(1)\n        if len(self.count) == 2: 1 / 0")())
    row = next(line for line in out.splitlines() if line.startswith("bad"))
    assert "(1 failed)" in row, f"the number of the others must be marked; got {row!r}"


def test_what_is_wrong_with_a_recipe_still_ends_the_run(bad, say, tmp_path):
    command = bad(FIT + "pass")
    for change in (["--set", "dataset=folder:nowhere"], ["--shots", "0"], ["--shard", "3/2"], ["--shard", "x"]):
        code, _, error = say(command(*change))
        assert code == 2 and error.count("\n") == 1, f"{change} must be refused in a line; got {code}, {error!r}"


def test_ctrl_c_ends_the_run_also_inside_lightning(bad, say):
    for code in (FIT + "raise KeyboardInterrupt", TRAIN + "* self.stop()\n    def stop(self): raise KeyboardInterrupt"):
        left, _, error = say(bad(code)())
        assert left == 130 and "stopped" in error, f"it must end; got {left} and {error!r}"
    assert not interrupted(SystemExit(1)), "leaving is no interruption"


def test_a_need_that_cannot_be_computed_fails_its_own_cells_only(bad, say):
    need = "    def needs(self): return {'x': Torn()}\n"
    torn = "from adaptkit import Pooled\nclass Torn(Pooled):\n    def compute(self, backbone, pixels): 1 / 0\n"
    import adaptkit_plugins

    assert adaptkit_plugins, "plugins must be there"
    code = need + "\n" + torn
    left, out, _ = say(bad(code)())
    assert left == 1, f"the others must go on; got {out}"
    assert out.count("failed: bad") == 2 and "ZeroDivisionError" in out, f"its cells must fail by it; got {out}"


def do_all(jobs, folder):
    for one in jobs:
        job.do(one, folder / "home", folder / "out")


def test_a_job_is_a_value_that_any_process_can_do_twice(bad, tmp_path):
    bad(FIT + "pass", seeds="1")
    one = asked(tmp_path)
    jobs = [job.Job(one, cell) for cell in protocol.cells(one)]
    processes.Forked(do_all, jobs, tmp_path).result()
    files = {p: p.read_bytes() for p in (tmp_path / "out").glob("*.json")}
    assert len(files) == 3, "each job must leave a record"
    again = [job.do(j, tmp_path / "home", tmp_path / "out") for j in jobs]
    assert all(isinstance(found, list) and len(found) == 1 for found in again), "a list of results"
    assert {p: p.read_bytes() for p in files} == files, "doing it again must change nothing"
    for path in files:
        path.unlink()
    more = [job.do(j, tmp_path / "home", tmp_path / "out") for j in jobs]
    assert [r[0].metrics for r in more] == [r[0].metrics for r in again], "another process must get the same numbers"


def test_several_results_of_one_cell_are_several_records(bad, tmp_path):
    from dataclasses import replace

    bad(FIT + "pass", seeds="1")
    one = asked(tmp_path)
    one = replace(one, sequence=2, methods=one.methods[:1])
    found = job.do(job.Job(one, protocol.cells(one)[0]), tmp_path / "home", tmp_path / "out")
    names = sorted(p.name.split(".", 3)[3][12:] for p in (tmp_path / "out").glob("zero*.json"))
    assert [r.step for r in found] == [1, 2] and names == [".json", ".step-2.json"], f"got {names}"
    assert job.do(job.Job(one, protocol.cells(one)[0]), tmp_path / "home", tmp_path / "out") == found, "and are read"


def test_shards_finish_a_run_together_and_do_not_disturb_each_other(bad, say, tmp_path):
    command = bad(FIT + "pass")
    whole = say(command("--out", tmp_path / "whole"))[1]
    code, out, _ = say(command("--shard", "1/2"))
    assert code == 0 and "x, shard 1/2: 3 cells, 0 done already, 3 to run" in out, f"every second cell; got {out}"
    assert "missing: 3 cells of x" in out, f"it must say how many cells the others have to do; got {out}"
    running = [processes.command(*command("--shard", f"{i}/2")) for i in (1, 2)]
    assert all(shard.result() for shard in running), "side by side they must succeed"
    code, last, _ = say(command("--shard", "2/2"))
    assert "missing" not in last and "3 done already, 0 to run" in last, f"nothing must be left; got {last}"

    def numbers(text):
        return [line.split("  ")[:2] for line in text.split("\n\n")[2].splitlines()]

    assert numbers(last) == numbers(whole), "the last must print the table of all, the same as of one process"


def test_a_cause_is_short_and_names_what_to_lower():
    from adaptkit import method

    long = cause_of(ValueError("so\n\nlong " * 200), None, 32)
    assert "\n" not in long and len(long) < 330, "one line, not too long"
    assert cause_of(ValueError(), None, 32) == "ValueError: no message", "whatever the error says"
    lower = cause_of(RuntimeError("DefaultCPUAllocator: can't allocate memory"), method("tip-adapter-f"), 32)
    assert "views (10)" in lower and "schedule.batch_size (256)" in lower and "batch_size (32)" in lower, lower


def test_a_failure_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "a.json").write_text("{")
    assert [*read_failures(tmp_path)] == [] and kept.read_failure(tmp_path, "b") is None, "nothing is made of it"
    Failure(method="m", file="failed/c.txt").save(tmp_path, ValueError("x"))
    assert json.loads((tmp_path / "failed" / "c.json").read_text())["method"] == "m", "one that can is there"
    assert torch.is_grad_enabled(), "nothing must be switched"


def test_a_method_that_cannot_say_what_it_reads_fails_its_own_cells_only(bad, say):
    for needs in ("raise KeyError('x')", "return [1]"):
        code, out, _ = say(bad(f"    def needs(self): {needs}\n" + FIT + "pass")())
        assert code == 1 and out.count("failed: bad") == 2, f"only its cells must fail; got {code}, {out}"


def test_a_method_may_go_to_another_folder(bad, say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = say(bad(FIT + "import os; os.chdir('/')")("--out", "here"))
    assert code == 0 and len([*(tmp_path / "here").glob("*-shot*.json")]) == 6, f"got {out}"
    assert "missing" not in out, f"every record must lie where it was asked for; got {out}"


def test_a_step_that_is_lost_is_named(bad, tmp_path):
    from dataclasses import replace

    bad(FIT + "pass", seeds="1")
    one = asked(tmp_path)
    one = replace(one, sequence=2, methods=one.methods[:1])
    work = job.Job(one, protocol.cells(one)[0])
    job.do(work, tmp_path / "home", tmp_path / "out")
    (lost,) = (tmp_path / "out").glob("zero*.step-2.json")
    lost.unlink()
    with pytest.raises(ValueError, match=r"must have the records of steps 1 to 2 beside it; got \[1\]"):
        job.run_recipe(one, home=tmp_path / "home", out=tmp_path / "out", say=lambda _: None, progress=False)
    assert len(job.do(work, tmp_path / "home", tmp_path / "out")) == 2 and lost.exists(), "and done again"


@pytest.mark.parametrize(
    "text", ["import not_there", "from adaptkit import hookimpl\n@hookimpl\ndef methods(): 1 / 0\n"]
)
def test_a_plugin_file_that_fails_leaves_the_others_alone_and_the_exit_code_says_so(bad, say, tmp_path, text):
    command = bad(FIT + "pass")
    (tmp_path / "torn.py").write_text(text)
    code, out, _ = say(command("--plugin", tmp_path / "torn.py"))
    assert code == 1 and "plugin 'torn' could not be loaded" in out, f"it must be named in a line; got {code}, {out}"
    assert "6 cells, 0 done already, 6 to run" in out and "failed:" not in out, "and every cell be run"
    code, _, error = say(command("--plugin", tmp_path / "torn.py", "--set", "methods=[torn]"))
    assert code == 2 and "failed to load: torn, " in error and error.count("\n") == 1, (
        f"who needs it is told why; {error}"
    )
