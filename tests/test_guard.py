"""A method that changes what cells share fails, by name, and the next cell starts clean: every door that is known."""

import random
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.runs import guard, job, opened, plugins, recipe
from adaptkit.runs.build import check_recipe
from adaptkit.runs.failures import Failure

HEAD = '"""Of a test."""\nimport random, numpy, torch\nfrom adaptkit import ZeroShot, hookimpl\n'
METHOD = "class Bad(ZeroShot):\n    def fit(self, task):\n        super().fit(task)\n        {}\n"
FOOT = "@hookimpl\ndef methods(): return {'bad': Bad}\n"
MODEL = "task.backbone.model"
WEIGHT = f"next(p for p in {MODEL}.parameters() if p.dim() == 2)"
CACHE = "task.encode.__self__"

DOORS = {
    "a weight, under no_grad": (f"with torch.no_grad(): {WEIGHT}.add_(1)", "weights of the backbone"),
    "a weight's data": (f"{WEIGHT}.data.mul_(-1)", "weights of the backbone"),
    "a weight's array": (f"{WEIGHT}.detach().numpy()[:] *= 2", "weights of the backbone"),
    "a weight, replaced": (f"{WEIGHT}.data = torch.zeros_like({WEIGHT})", "weights of the backbone"),
    "the order of weights": (f"w = {WEIGHT}.data; w.copy_(w.flatten().flip(0).view_as(w))", "weights of the backbone"),
    "a buffer": (f"next(b for b in {MODEL}.buffers()).add_(1)", "weights of the backbone"),
    "a hook": (f"{MODEL}.register_forward_hook(lambda *a: None)", "attributes, modes or hooks"),
    "training": (f"{MODEL}.train()", "attributes, modes or hooks"),
    "gradients": (f"{MODEL}.requires_grad_(True)", "attributes, modes or hooks"),
    "the scale": ("task.backbone.logit_scale = 1.0", "attributes, modes or hooks"),
    "a function of the tower": ("task.backbone.logits = lambda x, t: x @ t.T", "attributes, modes or hooks"),
    "two signs": (f"w = {WEIGHT}.data.view(-1); w[1] *= -1; w[2049 % len(w)] *= -1", "weights of the backbone"),
    "two rows": (f"w = {WEIGHT}.data; w.copy_(w.roll(1, 0))", "weights of the backbone"),
    "labels": ("task.support.labels.zero_()", "targets of the support images"),
    "labels' array": ("task.support.labels.numpy()[:] = 0", "targets of the support images"),
    "which images": ("task.pool.index.zero_()", "which of the pool images"),
    "a sentence": (f"next(iter({CACHE}.texts[''].values())).zero_()", "texts[''].* in the cache's memory"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the rows are that every door finds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def clean():
    """What cells came to where no door was opened, by their methods: the same for every door."""
    return {}


@pytest.fixture
def outcomes(tmp_path, home):
    """What the cells of a recipe come to, one after the other, with a method between that opens a door."""

    def run(door, methods="[zero-shot, bad, gda, {tip-adapter: {views: 2}}]", seeds="[1, 2]", folder="out"):
        (tmp_path / "bad_door.py").write_text(HEAD + METHOD.format(door) + FOOT)
        (tmp_path / "x.yaml").write_text(
            f"{{dataset: toy, backbone: toy:0, shots: [2], seeds: {seeds}, plugins: [bad_door.py], methods: {methods}}}"
        )
        forget()
        asked = check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")), trust=True)
        return job.run_recipe(asked, home=home, out=tmp_path / folder, say=lambda _: None, progress=False)

    def forget():
        sys.modules.pop("adaptkit_file_bad_door", None)
        if plugins.manager().has_plugin("bad_door"):
            plugins.manager().unregister(name="bad_door")
        plugins.table.cache_clear()

    yield run
    forget()


@pytest.mark.parametrize("door", DOORS)
def test_a_cell_that_changes_what_cells_share_fails_and_the_next_starts_clean(door, outcomes, clean):
    code, words = DOORS[door]
    methods = "[zero-shot, bad, gda, {mta: {views: 4}}]"  # one reads the towers anew
    if methods not in clean:
        clean[methods] = outcomes("pass", methods, folder="clean")
    spoiled = outcomes(code, methods)
    assert [(f.method, f.seed) for f in spoiled.failures] == [("bad", 1), ("bad", 2)], "each of its cells must fail"
    cause = spoiled.failures[0].cause
    assert cause.startswith("ValueError: bad must leave what cells share as it was; it changed "), f"got {cause}"
    assert all(word in cause for word in words.split(".*")), f"and say what; got {cause}"
    want = {(r.method, r.seed): r.metrics for r in clean[methods] if r.method != "bad"}
    assert {(r.method, r.seed): r.metrics for r in spoiled} == want, "others must answer as if it had not been"


OTHERS = {
    "rows that were read": "task.support.bind({'x': next(iter(self.needs().values()))}).x.zero_()",
    "grad mode": "torch.set_grad_enabled(False)",
    "dtype": "torch.set_default_dtype(torch.float64)",
    "generators": "random.seed(7); numpy.random.seed(7); torch.manual_seed(7)",
    "text of the task": "task.text.zero_()",
}


@pytest.mark.parametrize("door", OTHERS)
def test_doors_that_are_shut_spoil_nothing(door, outcomes, clean):
    if "" not in clean:
        clean[""] = outcomes("pass", folder="clean")
    after = outcomes(OTHERS[door])
    want = {(r.method, r.seed): r.metrics for r in clean[""] if r.method != "bad"}
    assert {(r.method, r.seed): r.metrics for r in after if r.method != "bad"} == want, f"{door} must not reach others"


def test_a_failed_cell_may_have_changed_things_too(outcomes):
    found = outcomes(f"{WEIGHT}.data.zero_(); 1 / 0")
    assert "weights of the backbone" in found.failures[0].cause, "what it did to others must be told first"


def test_a_weight_that_is_written_to_and_set_back_is_no_harm(outcomes):
    found = outcomes(f"w = {WEIGHT}.data; old = w.clone(); w.zero_(); w.copy_(old)")
    assert not found.failures, f"got {found.failures}"


def test_a_job_alone_answers_as_it_does_after_others(outcomes, tmp_path):
    code = "self.noise = random.random() + numpy.random.rand() + float(torch.rand(()))\n"
    code += "    def forward(self, batch): return super().forward(batch) + self.noise * torch.randn(len(batch), 5)"
    first = outcomes(code, "[gda, zero-shot, bad]", folder="a")
    alone = outcomes(code, "[bad]", folder="b")
    together = [r.metrics for r in first if r.method == "bad"]
    assert [r.metrics for r in alone] == together, "whatever generator it draws from"


def test_a_plugin_that_hands_out_spoiled_towers_again_ends_the_run(outcomes, monkeypatch):
    from adaptkit.runs import workspace
    from adaptkit.testing import toy_backbone

    held = toy_backbone.__wrapped__("0")
    monkeypatch.setattr(workspace, "pick_backbone", lambda name: held)
    with pytest.raises(ValueError, match=r"must be loaded anew after a cell changed it.*plugin 'backbones.toy'"):
        outcomes(f"{WEIGHT}.data.zero_()")


def test_sums_heed_every_bit_and_its_place():
    for shape in ((3,), (1024,), (5000, 7), (0,)):
        for dtype in (torch.float32, torch.float16, torch.bool, torch.int64, torch.float64):
            w = torch.randn(shape).to(dtype)
            assert guard.total(w) == guard.total(w.clone()), "equal weights must have equal sums"
            if w.numel() > 2:
                other = w.clone().flatten()
                other[-1] = ~other[-1] if dtype == torch.bool else other[-1] + 1
                assert guard.total(other) != guard.total(w), f"one value of {shape}, {dtype} must count"
    w = torch.randn(6000, 1024)
    for i, j in ((1, 3), (1, 2049), (1, 1025), (0, 5_000_001)):
        other = w.clone().flatten()
        other[[i, j]] *= -1
        assert guard.total(other) != guard.total(w), f"two signs, at {i} and {j}, must count"
        other = w.clone().flatten()
        other[[i, j]] = other[[j, i]]
        assert guard.total(other) != guard.total(w), f"and an exchange of {i} and {j}"
    odd = torch.randn(101)[1:]
    assert guard.total(odd) == guard.total(odd.clone()), "wherever they begin in memory"


def test_looking_is_cheap():
    model = nn.Linear(2000, 2000)
    began = time.process_time()
    for _ in range(3):
        guard.weights(model)
    assert time.process_time() - began < 1, "a pass over the weights must cost little"


def test_settings_are_opened_once_and_few_are_kept(outcomes, tmp_path, monkeypatch):
    opened._open.clear()  # what other tests' jobs left open
    count = []
    plain = opened.Opened.__init__
    monkeypatch.setattr(opened.Opened, "__init__", lambda *a, **k: (count.append(1), plain(*a, **k))[1])
    outcomes("pass")
    assert len(count) == 1, "a run must open its setting once"
    assert not opened._open, "and close it"
    asked = check_recipe(recipe.read_recipe(str(tmp_path / "x.yaml")))
    from adaptkit.runs.protocol import cells

    for cell in cells(asked)[:3]:
        assert not isinstance(job.do(job.Job(asked, cell), tmp_path, tmp_path / "alone"), Failure), "each must be done"
    assert len(count) == 2 and len(opened._open) == 1, "jobs must open it once in a process"
    opened.close(asked, tmp_path)
    state = random.getstate(), np.random.get_state()[1].sum()
    with guard.alone(3):
        assert random.random() == random.Random(3).random(), "a cell's generators start from its seed"
    assert state, "whatever they were"
