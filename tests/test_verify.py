"""Published numbers: whose stand beside ours, and when ``adaptkit run --verify`` fails."""

import json

import pytest

from adaptkit import cli
from adaptkit.report import verify
from adaptkit.report.table import Table
from adaptkit.runs import recipe, shelf
from adaptkit.runs.results import Result

TOY = "{dataset: toy, backbone: 'toy:0', shots: [1, 2], seeds: [1, 2], methods: [zero-shot, {gda: {views: 2}}]"


@pytest.fixture
def run(tmp_path, capsys):
    """Run the toy recipe with one published number; exit code and what was printed."""

    def run(quote, *argv):
        (tmp_path / "toy.yaml").write_text(f"{TOY}, published: [{json.dumps(quote)}]}}")
        code = cli.main(["--home", str(tmp_path / "home"), "run", str(tmp_path / "toy.yaml"), "--quiet", *argv])
        records = [json.loads(path.read_text()) for path in tmp_path.rglob("gda*1-shot.seed-*.json")]
        return code, capsys.readouterr().out, 100 * sum(r["metrics"]["accuracy"] for r in records) / len(records)

    return run


def quote(value, **more):
    return {"method": "gda", "shots": 1, "value": value, "source": "somebody's log", **more}


def test_a_run_is_verified_by_the_mean_over_seeds_within_what_the_recipe_allows(run):
    ours = run(quote(0.0))[2]
    code, out, _ = run(quote(ours + 1.9, within=2.0), "--verify")
    assert code == 0, f"1.9 points are within 2; got {out}"
    assert f"{ours:.2f}" in out and "-1.90" in out and "somebody's log" in out, "with both numbers and the source"
    code, out, _ = run(quote(ours - 2.1, within=2.0), "--verify")
    assert code == 1, "2.1 are not"
    assert "1 of 1 numbers are not as published: gda(views=2) at 1 shots, accuracy, by +2.10" in out, "and which it is"
    assert run(quote(ours - 50))[0] == 0, "without --verify a number is shown, not judged"


@pytest.mark.parametrize(
    "other", [{"method": "tda"}, {"shots": 16}, {"metric": "new/accuracy"}, {"backbone": "toy:1"}, {"datasets": 11}]
)
def test_a_run_that_nothing_can_be_compared_with_is_not_verified(other, run):
    code, out, _ = run(quote(50.0) | other, "--verify")
    assert code == 1 and "nothing to verify: the recipe quotes no number" in out, "that must be said, not passed over"
    assert "beside published numbers" not in out, "and a number of something else must not be shown"


def beside(quotes, *rows):
    """Which rows and columns stand beside a quote, with ours."""
    results = [Result(method=m, shots=k, seed=i, metrics=metrics) for i, (m, k, metrics) in enumerate(rows)]
    made = {"dataset": "toy", "backbone": "toy:0", "methods": ["gda"]}
    made["published"] = [{"value": 50.0, "source": "s", **q} for q in quotes]
    found = verify.beside(recipe.build_recipe(made, shelf.folder() / "x.yaml"), Table(results))
    return [(b.method, b.shots, round(b.ours, 2), b.quote.metric) for b in found]


def test_a_label_is_more_exact_than_a_name():
    rows = ("coop", 1, {"accuracy": 0.5}), ("coop(n=4)", 1, {"accuracy": 0.75})
    assert beside([{"method": "coop", "shots": 1}], *rows) == [("coop", 1, 50, "accuracy")]
    assert beside([{"method": "coop(n=4)", "shots": 1}], *rows) == [("coop(n=4)", 1, 75, "accuracy")]
    assert beside([{"method": "coop", "shots": 1}], rows[1]) == [("coop(n=4)", 1, 75, "accuracy")], "there is no other"
    assert beside([{"method": "coo", "shots": 1}], *rows) == [], "a beginning is no name"


def test_a_number_for_any_shots_stands_there_once():
    rows = [("tda", k, {"accuracy": 0.5}) for k in (1, 2)]
    assert beside([{"method": "tda"}], *rows) == [("tda", 1, 50, "accuracy")]


def test_a_harmonic_mean_is_of_the_means_over_seeds():
    rows = ("gda", 16, {"accuracy": 0.5, "new/accuracy": 0.2}), ("gda", 16, {"accuracy": 0.7, "new/accuracy": 0.6})
    assert beside([{"method": "gda", "shots": 16, "metric": "harmonic"}], *rows) == [("gda", 16, 48, "harmonic")]


def rows(dataset="dtd", backbone="open_clip:RN50-quickgelu/openai", **more):
    """What stands beside zero-shot's numbers, which are 0.42, 0.5 and 0.42 on a domain."""
    metrics = {"accuracy": 0.42, "imagenet-a/accuracy": 0.42}
    results = [Result(method=m, shots=1, seed=1, metrics=metrics) for m in ("zero-shot", "gda")]
    made = {"dataset": dataset, "backbone": backbone, "methods": ["zero-shot", "gda"], **more}
    found = verify.beside(recipe.build_recipe(made, shelf.folder() / "x.yaml"), Table(results))
    return [(b.method, b.quote.metric, b.quote.value, b.near) for b in found], found


def test_zero_shot_is_held_to_what_is_known_of_a_backbone_on_a_dataset():
    shown, found = rows()
    assert shown == [("zero-shot", "accuracy", 42.2, True)], "and nothing else is held to it"
    assert "Tip-Adapter exp.log" in verify.as_text(found) and verify.verdict(found) == ""
    assert rows("dtd:somewhere", "open_clip:RN50/openai")[0] == shown, "by any name of the weights, wherever it lies"
    shown, found = rows("ucf101")
    assert shown == [("zero-shot", "accuracy", 61.35, False)] and "zero-shot at 1 shots" in verify.verdict(found)


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "toy"},
        {"backbone": "hf:somebody/own"},
        {"prompts": "photo"},
        {"prompts": {"templates": {"templates": "a {}."}}},
        {"classes": "base"},
    ],
)
def test_what_no_reference_is_about_has_none(other):
    assert rows(**other)[0] == []


def test_domains_have_references_and_a_recipe_quotes_its_own_first():
    domains = ["imagenet-a"]
    shown, _ = rows("imagenet", "hf:openai/clip-vit-base-patch16", domains=domains, prompts="ensemble")
    assert shown == [("zero-shot", "accuracy", 68.35, False), ("zero-shot", "imagenet-a/accuracy", 50.07, False)]
    own = {"method": "zero-shot", "value": 42.0, "source": "s"}
    assert rows(published=[own])[0] == [("zero-shot", "accuracy", 42.0, True)]


def test_every_reference_is_of_a_dataset_that_there_is_and_says_where_it_stands():
    from adaptkit.runs import plugins, references

    tables = references._tables()
    for table in tables["tables"]:
        assert table["source"] and table["about"] and 0 < table["within"] <= 5, f"{table['weights']} says what it is"
        assert table["weights"] in tables["weights"] and set(table["accuracy"]) <= set(plugins.table("datasets"))
    names = [name for known in tables["weights"].values() for name in known]
    assert len(set(names)) == len(names), "a backbone has one set of weights"
