"""What does best at the edge of a grid is said, and searches may go on beyond it."""

import json
import math
import warnings
from dataclasses import fields

import pytest
import torch
import yaml

import adaptkit as ak
from adaptkit import EdgeOfGridWarning, Task, ZeroShot, adapt, cli, method, predict, tune
from adaptkit.io.ranges import Share
from adaptkit.io.values import default
from adaptkit.methods.adapt import refit
from adaptkit.methods.explore import choose, trying
from adaptkit.methods.search import unfold
from adaptkit.methods.searched import searched
from adaptkit.methods.widening import beyond
from adaptkit.runs import plugins, recipe, shelf
from adaptkit.runs.results import Result

fault = pytest.mark.fault("a search that ends at the edge of its grid", "said; continued where a recipe asks to widen")
OPEN = (-math.inf, math.inf, False)


def peaked(best, values, low=-math.inf, high=math.inf, kind=float):
    """A method that does the better the nearer its tilt is to `best`, and its task."""

    class Peak(ZeroShot):
        tilt: kind = values[0]

        def grid(self):
            return {"tilt": values}

        def forward(self, batch):
            if not low <= self.tilt <= high:
                raise ValueError(f"tilt must be from {low} to {high}; got {self.tilt}")
            x = 30 * batch.x[:, :1]
            return torch.cat([x - abs(math.log(self.tilt / best)), torch.zeros_like(x)], 1)

    Peak.__annotations__["tilt"] = kind
    angle = torch.linspace(0, math.pi / 2, 200)
    x, y = torch.stack([angle.cos(), angle.sin()], 1), torch.zeros(200).long()
    return Peak, Task.from_arrays((x[:0], y[:0]), torch.eye(2), val=(x, y))


@fault
@pytest.mark.parametrize(
    ("grid", "side", "limits", "want"),
    [
        ((1e-2, 0.1, 1.0), "high", OPEN, [10.0]),
        ((1e-2, 0.1, 1.0), "low", OPEN, [1e-3]),
        ((1.0, 0.1, 1e-2), "low", OPEN, [1e-3]),
        ((1.0, 2.0, 3.0, 5.0, 10.0), "high", OPEN, [20.0, 40.0, 80.0, 160.0]),
        ((0.0, 0.1, 0.2, 0.3), "low", OPEN, []),
        ((1.0, 1.2, 1.4), "low", OPEN, [0.8, 0.6, 0.4]),
        ((1.0, 3.0, 5.0), "low", OPEN, [0.5, 0.25, 0.125, 0.0625]),
        ((-3.0, -2.0, -1.0), "high", OPEN, [-0.5, -0.25, -0.125, -0.0625]),
        ((0.0, 0.25, 0.5, 0.75), "high", (0, 1, False), [1]),
        ((5, 10, 20), "high", (1, 100, True), [40, 80, 100]),
        ((1, 2, 4), "low", (0, 100, True), []),
        ((1.0, 10.0), "high", (1, 10, False), []),
    ],
)
def test_a_grid_goes_on_in_its_own_progression_within_what_values_may_be(grid, side, limits, want):
    got = list(beyond(grid, grid, side, limits))
    assert got == pytest.approx(want), f"{grid} must go on at the {side} end; got {got}"


@fault
def test_equal_steps_go_on_and_then_widen_to_ten_times_as_far():
    grid = tuple(0.1 + 0.2 * i for i in range(5))
    once = beyond(grid, grid, "high", OPEN)
    assert once[:5] == pytest.approx([1.1, 1.3, 1.5, 1.7, 1.9]), f"first in steps of its own; got {once[:5]}"
    assert once[-1] == pytest.approx(9.0) and sorted(once) == list(once), f"then ten times as far; got {once[-1]}"
    again = beyond(grid, grid + once, "high", OPEN)
    assert again[0] == pytest.approx(11.0) and again[-1] == pytest.approx(90.0), f"each time; got {again}"


@fault
@pytest.mark.parametrize(("best", "edge"), [(1000.0, "high"), (0.001, "low"), (3.0, "")])
def test_the_edge_is_said_by_a_warning_of_its_own_and_found_beyond_when_widened(best, edge):
    kind, task = peaked(best, (1.0, 3.0, 9.0))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        made = adapt(kind(), task)
    told = [str(w.message) for w in seen if w.category is EdgeOfGridWarning]
    assert len(told) == bool(edge), f"one line where the best is at the edge, none inside; got {told}"
    assert searched(made)["tilt"].edge == edge, f"and the record must say so; got {searched(made)}"
    if edge:
        assert f"({edge})" in told[0] and "\n" not in told[0] and 'search="widen"' in told[0], f"it says: {told[0]}"
    wide = adapt(kind(), task, search="widen")
    found = searched(wide)["tilt"]
    assert best / 2 < wide.tilt < best * 2, f"widened, it must come near {best}; got {wide.tilt}"
    assert found.edge == "" and found.low < wide.tilt < found.high, f"and lie inside; got {found}"
    assert found.widened == (0 if not edge else found.widened) <= 5, f"how often must be told; got {found}"


@fault
def test_a_command_says_in_one_line_of_its_own_that_a_search_ended_at_an_edge(capsys):
    from adaptkit.io.notices import on_a_line

    kind, task = peaked(1000.0, (1.0, 3.0, 9.0))
    with on_a_line():
        adapt(kind(), task)
    said = capsys.readouterr().err
    assert said.startswith("adaptkit: warning: ") and said.count("\n") == 1, f"no raw line of Python; got {said}"


@fault
def test_widening_ends_after_five_times_and_says_that_it_is_at_an_edge_still():
    kind, task = peaked(1e12, (1.0, 3.0, 9.0))
    with pytest.warns(EdgeOfGridWarning, match="farther out"):
        found = searched(adapt(kind(), task, search="widen"))["tilt"]
    assert found.widened == 5 and found.edge == "high", f"it must be bounded; got {found}"


@fault
def test_a_grid_that_tells_nothing_goes_on_upwards_and_changes_the_choice_for_better_ones_only():
    class Flat(ZeroShot):
        tilt: float = 1.0

        def grid(self):
            return {"tilt": (1.0, 2.0)}

        def forward(self, batch):
            return self.zero_shot(batch.x)

    _, task = peaked(1.0, (1.0, 2.0))
    made = adapt(Flat(), task, search="widen")
    assert made.tilt == 1.0 and searched(made)["tilt"].widened == 5, f"nothing does better; got {searched(made)}"
    assert searched(made)["tilt"].edge == "", "and what is as good everywhere is at no edge"
    assert searched(adapt(Flat(), task))["tilt"].widened == 0, "and the paper's grid stays as it is"

    class FarOff(Flat):
        def forward(self, batch):
            x = batch.x[:, :1]
            return torch.cat([x if self.tilt > 90 else -x, torch.zeros_like(x)], 1)

    assert adapt(FarOff(), task, search="widen").tilt > 90, "what lies beyond a flat grid must be found"


@fault
def test_one_value_and_the_ends_of_a_share_are_no_edges():
    for values, kind in (((1.0,), float), ((0.2, 0.6, 1.0), Share)):
        cls, task = peaked(50.0, values, kind=kind)
        made = adapt(cls(), task, search="widen")
        assert searched(made)["tilt"].edge == "" and searched(made)["tilt"].widened == 0, f"got {searched(made)}"


@fault
def test_where_a_method_cannot_answer_values_end():
    cls, task = peaked(1000.0, (1.0, 3.0, 9.0), high=9.0)
    found = searched(adapt(cls(), task, search="widen"))["tilt"]
    assert (found.chosen, found.edge, found.widened) == (9.0, "high", 0), f"the rest must stand; got {found}"


@fault
def test_a_search_inside_fit_says_the_same():
    class Inside(ZeroShot):
        tilt: float = 1.0

        def fit(self, task):
            super().fit(task)
            self.tilt = choose(self, "tilt", (1.0, 2.0, 4.0), lambda tilt: -abs(tilt - 64))

    _, task = peaked(1.0, (1.0, 2.0))
    assert searched(adapt(Inside(), task))["tilt"].edge == "high", "the edge must be on record"
    wide = adapt(Inside(), task, search="widen")
    assert wide.tilt == 64.0 and searched(wide)["tilt"].edge == "", f"it must go on; got {searched(wide)}"


WAYS = {
    "tip-adapter": {"search_steps": (5, 4)},
    "tip-x": {"search_steps": (3, 3, 3)},
    "caps-adapter": {"search_steps": (2, 3, 3, 2)},
    "ape": {"search_steps": (4, 3, 3)},
    "cafo": {"search_steps": (4, 3), "schedule": {"epochs": 0}},
    "gda": {},
    "timo-s": {"search_steps": 3},
    "proker": {"betas": (0.5, 3.0, 3), "lams": (0.001, 1.0, 3)},
    "trans-clip-fs": {},
    "dmn": {"views": 1},
}


def small_task(spread):
    draw = torch.Generator().manual_seed(3)
    text = torch.randn(4, 12, generator=draw)
    labels, truth = torch.arange(4).repeat(3), torch.arange(60) % 4

    def images(of):
        return torch.nn.functional.normalize(text[of] + spread * torch.randn(len(of), 12, generator=draw), dim=-1)

    return Task.from_arrays((images(labels), labels), text, val=(images(truth), truth), logit_scale=20.0)


@fault
@pytest.mark.parametrize("name", WAYS)
def test_a_method_sweeps_the_values_beyond_its_grid_as_it_answers_them(name):
    task = small_task(1.5)
    torch.manual_seed(0)
    made = adapt(method(name, **WAYS[name]), task)
    grid = {
        n: beyond(v, v, "high", (0.0, 1.0 if n == "delta" or (name, n) == ("timo-s", "beta") else 1e6, False))[:2]
        or v[:2]
        for n, v in made.grid().items()
    }
    val = task.val.bind(made.needs()).load().blind()
    with torch.no_grad(), trying(made, grid):
        fast = made.sweep(val)
        fast = None if fast is None else unfold(fast, grid, len(val))
    if fast is not None:
        refit(made, {n: v[-1] for n, v in grid.items()})
        off = (fast[-1] - predict(made, val)).abs().max() / fast[-1].abs().max()
        assert off < 1e-4, f"{name}'s sweep must ask for self.grid(); the last cell is off by {off:.2g}"
    assert "grid" not in vars(made), "its own grid must be back"


@fault
@pytest.mark.parametrize("name", [*WAYS, "linear-probe", "diht-probe"])
def test_a_method_that_searches_records_it_and_does_no_worse_when_it_widens(name):
    task = small_task(2.0)
    right = []
    for search in ("paper", "widen"):
        torch.manual_seed(0)
        made = adapt(method(name, **WAYS.get(name, {})), task, search=search)
        found = searched(made)
        assert {*made.grid()} <= {*found} and found, f"{name} must say what it searched; got {found}"
        for option, each in found.items():
            assert each.low <= each.chosen <= each.high and each.widened <= 5, f"{name}.{option}: {each}"
        right.append(ak.accuracy(made, task.val))
    ties = 1 / 60 if name in ("linear-probe", "dmn", "timo-s") else 1e-9  # steps that are not of the grid
    assert right[1] >= right[0] - ties, f"{name} must do no worse on validation images; got {right}"


@fault
def test_linear_probe_says_where_its_halving_ended():
    task = small_task(2.0)
    found = searched(adapt(method("linear-probe"), task))["inverse_penalty"]
    assert found.low <= 1e-6 and found.high >= 1e6 and found.values > 7, f"grid and halving count; got {found}"


@fault
def test_only_paper_and_widen_are_ways_to_search(toy):
    with pytest.raises(ValueError, match="search must be one of paper, widen; got 'wide'"):
        adapt(method("gda"), toy[0], search="wide")
    made = adapt(method("gda"), toy[0])
    with pytest.raises(ValueError, match="search must be one of"):
        tune(made, toy[0].val, search="oracle")


@fault
def test_a_run_records_edges_marks_them_and_keys_cells_by_search(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    tip = "{tip-adapter: {views: 1, search_scale: [0.3, 0.2], search_steps: [3, 3]}}"
    toy = shelf.find_recipe("toy")
    file.write_text(f"extends: {toy}\nshots: [4]\nseeds: [1]\nmethods: [{tip}]\n")
    names = {}
    for search, more in (("paper", []), ("widen", []), ("widen", ["--set", "select=oracle"])):
        out = tmp_path / f"{search}{len(more)}"
        args = ["run", str(file), "--quiet", "--home", str(tmp_path / "home"), "--out", str(out), *more]
        assert cli.main([*args, "--set", f"search={search}"]) == 0, "it must run"
        shown = capsys.readouterr()
        (record,) = [p for p in out.glob("*.json") if p.name != "recipe.json"]
        result = Result.read(record)
        names[out.name] = record.name
        at_edge = any(found.edge for found in result.searched.values())
        assert ("^ best at the edge" in shown.out) == at_edge, f"a footnote must say so; got {shown.out}"
        assert "Warning" not in shown.err, f"and no warning; got {shown.err}"
        raw = json.loads(record.read_text())
        assert {*raw["searched"]} == {"alpha", "beta"}, f"both must be on record; got {raw['searched']}"
        widened = sum(found.widened for found in result.searched.values())
        assert (raw["protocol"].get("search"), widened > 0) == (
            (None, False) if search == "paper" or more else ("widen", widened > 0)
        ), "test images must never decide how far a grid goes"
    assert len({*names.values()}) == 3, f"each must be a cell of its own; got {names}"


@fault
@pytest.mark.parametrize("name", shelf.names())
def test_recipes_on_the_datasets_of_papers_keep_the_papers_grids_and_others_widen(name):
    found = recipe.read_recipe(name)
    if found.select != "none":
        want = "paper" if found.backbone.startswith("hf:") else "widen"
        assert found.search == want, f"{name} must say search: {want}; got {found.search}"
    quick = name.startswith("quickstart") or name == "gallery"
    hand = [spec.label for spec in found.methods if {"search_scale", "search_steps"} & {*spec.options}]
    assert not (quick and hand), f"no grid is set by hand where searches widen; got {hand}"


settable = pytest.mark.fault("an option that a recipe could not set", "every option of every method is set from YAML")


def plain(value):
    """A default as YAML would have it."""
    if isinstance(value, ak.Method):
        return {name: {} for name, cls in plugins.table("methods").items() if cls is type(value)}
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value


@settable
@pytest.mark.parametrize("name", sorted(plugins.table("methods")))
def test_every_option_of_a_method_can_be_set_from_yaml(name):
    cls = plugins.table("methods")[name]
    for field in fields(cls):
        read = yaml.safe_load(yaml.safe_dump({field.name: plain(default(field))}))
        made = method({name: read})
        want, got = default(field), getattr(made, field.name)
        if not isinstance(want, ak.Method):
            assert got == want, f"{name}.{field.name} must be {want!r} again; got {got!r}"
        if isinstance(want, ak.Schedule):
            for inner in (f.name for f in fields(want)):
                own = plain(getattr(want, inner))
                new = (
                    own + 1
                    if type(own) is int
                    else own / 2
                    if type(own) is float
                    else not own
                    if type(own) is bool
                    else own
                )
                changed = getattr(method({name: {field.name: {inner: new}}}), field.name)
                where = f"{name}.{field.name}.{inner}"
                assert plain(getattr(changed, inner)) == new and type(changed) is type(want), where


@settable
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"warmup_step": 5}, "did you mean 'warmup_steps'"),
        ({"warmup_steps": "many"}, "warmup_steps must be a whole number"),
        ({"lr": "fast"}, "lr must be a number"),
        ([1], "must be a mapping of"),
        (None, "must be a mapping of"),
    ],
)
def test_a_schedule_of_its_own_names_what_is_wrong(given, words):
    made = method({"cross-modal": {"schedule": {"warmup_steps": 5}}}).schedule
    assert made.warmup_steps == 5 and made.steps == 12800, f"what is not named must stay the method's; got {made}"
    with pytest.raises(ValueError, match=words):
        method({"cross-modal": {"schedule": given}})
