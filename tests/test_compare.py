"""Runs side by side: what is averaged, what is refused, what is tested, what papers report; and files."""

import csv
import json
import os
import re

import pytest

from adaptkit import cli
from adaptkit.report import formats, runs
from adaptkit.report.comparison import AVERAGE, Column, Comparison
from adaptkit.report.scores import half_width, score
from adaptkit.runs.results import Result

SAME = {"backbone": "toy:0", "select": "none"}
QUOTE = {"method": "gda", "value": 71.0, "source": "Somebody et al., Table 1", "shots": 4}


def cell(method, seed, accuracy, *, dataset="toy", shots=4, protocol=None, images=100, **more):
    """A result whose first images are right, as many as the accuracy says."""
    right = "".join("01"[i < round(accuracy * images)] for i in range(images))
    fixed = {"dataset": dataset, "images": f"digest of {dataset}", **SAME, **(protocol or {})}
    metrics = {"accuracy": accuracy, **more.pop("metrics", {})}
    return Result(
        method=method,
        shots=shots,
        seed=seed,
        protocol=fixed,
        metrics=metrics,
        right={"": right, **more.pop("right", {})},
        **more,
    )


def run(folder, results, **recipe):
    """A folder as `adaptkit run` leaves it."""
    folder.mkdir()
    for i, result in enumerate(results):
        result.save(folder / f"{i}.json")
    dataset = results[0].protocol["dataset"]
    (folder / "recipe.json").write_text(json.dumps({"name": "x", "dataset": dataset, "backbone": "toy:0", **recipe}))
    return folder


def three(method, accuracy, **more):
    return [cell(method, seed, accuracy + gap, **more) for seed, gap in ((1, -0.01), (2, 0.0), (3, 0.01))]


def compared(*folders, **options):
    return Comparison(runs.read_runs(folders), **options)


@pytest.fixture
def say(capsys):
    """Run a command: its exit code, what it printed, what it complained of."""

    def command(*argv):
        return cli.main([str(word) for word in argv]), *capsys.readouterr()

    return command


def test_seeds_are_averaged_with_students_interval(tmp_path):
    one = run(tmp_path / "a", three("gda", 0.7) + three("zero-shot", 0.5))
    found = compared(one).columns[Column("toy", 4)]["gda"].score
    assert found.mean == pytest.approx(0.7) and found.std == pytest.approx(0.01), "mean and standard deviation"
    assert found.half == pytest.approx(4.302653 * 0.01 / 3**0.5), "t of two degrees of freedom"


def test_datasets_are_averaged_without_weights_and_methods_that_miss_one_are_not(tmp_path):
    a = run(tmp_path / "a", three("gda", 0.7) + three("tip", 0.9) + three("tip", 0.8, shots=8))
    b = run(tmp_path / "b", three("gda", 0.3, dataset="b", images=50) + three("tip", 0.5, dataset="b", shots=8))
    comparison = compared(a, b)
    found = comparison.columns[Column(AVERAGE, 4)]
    assert found["gda"].score.mean == pytest.approx(0.5), "a dataset counts once, however many images it has"
    assert found["gda"].score.values == pytest.approx((0.49, 0.5, 0.51)), "seed by seed"
    assert "tip" not in found and "tip" in comparison.columns[Column(AVERAGE, 8)], "only what every dataset has"
    assert "no average of tip at 4 shots: none on b" in comparison.notes(), "and it is said"
    assert "no average of gda" not in " ".join(comparison.notes()), "of the others nothing is"


def test_different_protocols_are_refused_in_one_line_that_names_the_field(tmp_path, say):
    a = run(tmp_path / "a", three("gda", 0.7))
    for name, dataset in (("same", "toy"), ("other", "b")):
        folder = run(tmp_path / name, three("tip", 0.5, dataset=dataset, protocol={"select": "oracle"}))
        code, out, error = say("compare", a, folder)
        assert (code, out, error.count("\n")) == (2, "", 1), f"{name} dataset: nothing but one line"
        assert "got select = 'none' and 'oracle'" in error, f"{name} dataset: it must name the field; got {error}"
    for field in ("images", "prompts", "tests"):
        folder = run(tmp_path / field, three("gda", 0.5, dataset="b", protocol={field: "of b"}))
        assert Column(AVERAGE, 4) in compared(a, folder).columns, f"{field} belongs to the dataset"
        with pytest.raises(ValueError, match=f"got {field} = "):
            compared(a, run(tmp_path / f"{field} of a", three("tip", 0.5, protocol={field: "another"})))


def test_base_and_new_are_averaged_before_their_harmonic_mean_is_taken(tmp_path):
    def base_to_new(dataset, base, new):
        mark = {"new": "1" * round(100 * new) + "0" * round(100 - 100 * new)}
        return [cell("gda", s, base, dataset=dataset, metrics={"new/accuracy": new}, right=mark) for s in (1, 2)]

    a, b = (run(tmp_path / d, base_to_new(d, *v)) for d, v in {"a": (0.9, 0.5), "b": (0.5, 0.7)}.items())
    comparison = compared(a, b, metric="harmonic")
    h = {column.dataset: cells["gda"].score for column, cells in comparison.columns.items()}
    assert h["a"].mean == pytest.approx(2 * 0.9 * 0.5 / 1.4), "2bn / (b + n)"
    assert h[AVERAGE].mean == pytest.approx(2 * 0.7 * 0.6 / 1.3), "of averages, not the average of means"
    assert h["a"].half is None, "it has no spread over seeds, being taken after them"
    assert "harmonic: 2bn/(b + n)" in formats.markdown(comparison), "and it is said"


def test_a_difference_that_images_show_is_marked_and_one_that_they_do_not_is_not(tmp_path):
    one = run(tmp_path / "a", three("gda", 0.7) + three("gda-like", 0.69) + three("zero-shot", 0.4))
    comparison = compared(one)
    found = comparison.columns[Column("toy", 4)]
    assert comparison.references[Column("toy", 4)] == "gda" and found["gda"].verdict is None, (
        "the best is the reference"
    )
    assert found["zero-shot"].verdict.differs and not found["gda-like"].verdict.differs, "30 images and one of 100"
    assert [formats.mark(comparison, Column("toy", 4), m) for m in comparison.methods] == [" •", "", " ▼"], "marks"
    low = compared(one, against="zero-shot")
    assert [formats.mark(low, Column("toy", 4), m) for m in low.methods] == [" ▲", " ▲", " •"], "against another"
    with pytest.raises(ValueError, match="to compare against must be one of gda, gda-like, zero-shot; got 'gd'"):
        compared(one, against="gd")
    assert (
        not compared(run(tmp_path / "b", [cell("gda", 1, 0.7), cell("tip", 2, 0.1)]))
        .columns[Column("toy", 4)]["tip"]
        .verdict
    ), "methods that share no seed have no pairs"


def test_averages_over_enough_datasets_are_tested_by_ranks_and_it_is_said_when_they_are_not(tmp_path):
    folders = [run(tmp_path / d, three("gda", 0.7, dataset=d) + three("tip", 0.6, dataset=d)) for d in "abcdef"]
    verdict = compared(*folders).columns[Column(AVERAGE, 4)]["tip"].verdict
    assert verdict.p == pytest.approx(2 / 2**6) and "Wilcoxon" in verdict.test, "six of six datasets"
    few = compared(*folders[:5])
    assert few.columns[Column(AVERAGE, 4)]["tip"].verdict is None, "five cannot decide"
    assert "averages are not tested: 5 datasets are too few" in " ".join(few.notes()), "and it is said"


def test_oracles_are_marked_everywhere_and_are_no_reference(tmp_path):
    one = run(tmp_path / "a", three("gda", 0.7, oracle=True) + three("tip", 0.6))
    comparison = compared(one)
    assert comparison.references[Column("toy", 4)] == "tip", "who looked at the test images is not the best"
    for write in (formats.markdown, formats.latex):
        assert "gda (oracle)" in write(comparison) and "chosen on the test images" in write(comparison), "marked"
    row = next(row for row in csv.DictReader(formats.text_table(comparison).splitlines()) if row["method"] == "gda")
    assert row["oracle"] == "True", "in CSV too"


def test_published_numbers_stand_beside_ours_with_their_source(tmp_path):
    quotes = [
        {**QUOTE, "value": 99.0, "shots": 8},
        {**QUOTE, "value": 98.0, "backbone": "another"},
        {**QUOTE, "value": 97.0, "metric": "nll"},
        QUOTE,
        {**QUOTE, "value": 60.0, "datasets": 2, "source": "Their Table 2"},
        {**QUOTE, "value": 96.0, "datasets": 3},
        {**QUOTE, "method": "zero-shot", "value": 50.0, "shots": 0},
    ]
    a = run(tmp_path / "a", three("gda(views=4)", 0.7) + three("zero-shot", 0.5), published=quotes)
    b = run(tmp_path / "b", three("gda(views=4)", 0.4, dataset="b"))
    alone, both = compared(a), compared(a, b)
    assert "70.0 ± 2.5 • (-1.0 from 71.0 [1])" in formats.markdown(alone), "by plain name, with the difference"
    assert "[1] Somebody et al., Table 1" in formats.markdown(alone), "and the source"
    cells = {column.dataset: cells["gda(views=4)"].published for column, cells in both.columns.items()}
    assert cells[AVERAGE].value == 60.0 and cells["b"] is None, "an average over two is held against one over two"
    assert alone.columns[Column("toy", 4)]["zero-shot"].published.value == 50.0, "0 shots are any"
    both_rows = three("gda(views=4)", 0.7) + three("gda", 0.5)
    plain = compared(run(tmp_path / "plain", both_rows, published=[QUOTE])).columns[Column("toy", 4)]
    assert plain["gda"].published and not plain["gda(views=4)"].published, "a name that is a row's is that row's alone"
    labelled = {**QUOTE, "method": "gda(views=4)", "value": 72.0}
    c = run(tmp_path / "c", both_rows, published=[QUOTE, labelled])
    exact = compared(c).columns[Column("toy", 4)]
    assert [exact[m].published.value for m in ("gda", "gda(views=4)")] == [71.0, 72.0], "a row's own name comes first"


def test_of_two_answers_in_a_folder_the_later_counts_and_in_two_folders_they_are_refused(tmp_path):
    one = run(tmp_path / "a", [cell("gda", 1, 0.5), cell("gda", 1, 0.7)])
    os.utime(one / "0.json", (2e9, 2e9))  # written last
    comparison = compared(one)
    assert comparison.columns[Column("toy", 4)]["gda"].score.mean == 0.5, "the one written last"
    assert comparison.notes() == ["a has older answers of gda; those written last are shown"], "and it is said"
    same, other = run(tmp_path / "b", [cell("gda", 1, 0.5)]), run(tmp_path / "c", [cell("gda", 1, 0.6)])
    assert len(runs.read_runs([one, same])[1].results) == 0, "the same answer again is no second one"
    with pytest.raises(ValueError, match="runs must not answer one cell differently; got gda at 4 shots, seed 1, in"):
        runs.read_runs([one, other])
    assert len(runs.read_runs([one, one])) == 1, "a folder given twice is one"


def test_missing_seeds_are_said(tmp_path):
    one = run(tmp_path / "a", [*three("gda", 0.7), cell("tip", 1, 0.6)])
    assert compared(one).notes() == ["tip has 1 of 3 seeds at 4 shots on toy"], (
        "a mean over fewer seeds is another mean"
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], "a run must be a folder of results; got '.*nowhere', which does not exist"),
        (["empty"], "a run must be a folder of results; got '.*empty', which has none"),
        (["a", "--metric", "acuracy"], "metric must be one of accuracy; got 'acuracy'; did you mean 'accuracy'?"),
        (["a", "--out", "x.doc"], "the suffix of --out x.doc must be one of .md, .tex, .csv, .html, .json, .svg, .pdf"),
        (["a", "--by", "backbone"], "--by must name what differs between results, nothing; got 'backbone', 'toy:0' in"),
        (["a", "--by", "bakbone"], "--by must be one of .*; got 'bakbone'; did you mean 'backbone'?"),
        (["broken"], "a result must be a JSON record of"),
        (["recipe"], "a run's recipe must be as 'adaptkit run' writes it; got '.*recipe.json'"),
    ],
)
def test_mistakes_are_named_in_one_line(argv, words, tmp_path, say, monkeypatch):
    run(tmp_path / "a", three("gda", 0.7))
    run(tmp_path / "recipe", three("gda", 0.7), published=[{"method": "gda"}])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    code, out, error = say("compare", *argv)
    assert (code, out, error.count("\n")) == (2, "", 1), f"one line, exit code 2; got {error}"
    assert re.search(words, error), f"it must say {words}; got {error}"


def test_numbers_are_printed_or_written_in_the_formats_asked_for(tmp_path, say):
    home, odd = tmp_path / "home", "a_b(x=1 & 2|3)"
    (home / "results").mkdir(parents=True)
    kept = run(home / "results" / "mine", three("gda", 0.7) + three(odd, 1 / 3) + three("a_b", 0.2))
    code, out, _ = say("compare", "mine", "--home", home)
    assert code == 0 and "| a_b [1] " in out and r"- [1] a_b(x=1 & 2\|3)" in out, "a run is found by its name"
    assert out == say("compare", kept)[1], "as by its folder"
    files = [tmp_path / "new" / f"x{suffix}" for suffix in (".md", ".tex", ".csv", ".html")]
    code, out, _ = say("compare", kept, *(word for file in files for word in ("--out", file)))
    assert code == 0 and out.split() == [str(file) for file in files], "each file is written, and named"
    assert files[0].read_text() == say("compare", kept)[1], "Markdown is what is printed"
    tex = files[1].read_text()
    assert r"a\_b [1] & 33.3 $\pm$ 2.5 $^\bigtriangledown$ \\" in tex, f"a row has the number of a note; got {tex}"
    assert r"{[}1] a\_b(x=1 \& 2|3)" in tex, f"which LaTeX takes literally; got {tex}"
    rows = list(csv.DictReader(files[2].read_text().splitlines()))
    assert rows[1]["method"] == odd and float(rows[1]["mean"]) == score([three(odd, 1 / 3)], "accuracy").mean, (
        "unrounded"
    )
    assert float(rows[1]["high"]) - float(rows[1]["mean"]) == pytest.approx(half_width([0.32, 0.33, 0.34])), "interval"
    assert float(rows[1]["difference"]) == pytest.approx(-0.37, abs=0.005) and float(rows[1]["p"]) < 1e-6, "the test"


def test_one_number_of_shots_puts_datasets_side_by_side(tmp_path):
    a = run(tmp_path / "a", three("gda", 0.7) + three("tip", 0.5))
    b = run(tmp_path / "b", three("gda", 0.3, dataset="b") + three("tip", 0.3, dataset="b"))
    head = next(line for line in formats.markdown(compared(a, b)).splitlines() if line.startswith("|"))
    assert [text.strip() for text in head.strip("|").split("|")] == ["method", AVERAGE, "toy", "b"], f"got {head}"
    c = run(tmp_path / "c", three("gda", 0.3, dataset="c", shots=8))
    titles = [line for line in formats.markdown(compared(a, c)).splitlines() if line.startswith("## ")]
    assert titles == ["## toy", "## c"], "several make a table for each dataset, and here no average"


def test_numbers_that_are_none_are_shown_as_such_and_drawn_nowhere(tmp_path, say):
    pytest.importorskip("matplotlib")
    lost = [cell("lost", s, 0.5, metrics={"nll": v}) for s, v in ((1, float("nan")), (2, float("inf")))]
    kept = run(tmp_path / "a", lost + [cell("gda", s, 0.5, metrics={"nll": 1.0}) for s in (1, 2)])
    files = [tmp_path / f"x.{kind}" for kind in ("md", "tex", "csv", "json", "html", "svg")]
    code, out, _ = say("compare", kept, "--metric", "nll", "--json", *(w for file in files for w in ("--out", file)))
    assert code == 0 and "| nan ± nan" in files[0].read_text(), "a method that was lost is seen to be"
    number = next(n for n in json.loads(out)["tables"][0]["numbers"] if n["method"] == "lost")
    assert number["mean"] is None and number["std"] is None, "null, and nothing but JSON is printed"
