"""Tables on a terminal: fitted to it, with no number cut; and plain where a file or a program reads."""

import io
import json
import re
import sys

import pytest

from adaptkit import cli
from adaptkit.commands.tables import print_lines, print_sheet, print_table, split_to_fit
from adaptkit.io.jsons import strict_json
from adaptkit.io.safe import Shown
from adaptkit.io.text import columns, wide
from adaptkit.report.sheets import Sheet, SheetTable, as_markdown
from tests.test_compare import run, three

ROWS = [
    ["method", "1 shot", "2 shots", "4 shots", "8 shots", "trained", "fit s"],
    ["clip-adapter-of-a-long-name [12]", "18.9 ± 16.1", "19.2 ± 13.8", "32.5 ± 5.1^", "42.5 ± 5.4", "819,200", "2.50"],
    ["狐", "-", "12.3 ± 0.0", "failed", "50.0 ± 0.1", "0", "0.02"],
    ["[red]x[/red]\x1b[2J", "1.0", "2.0", "3.0", "4.0", "0", "0.00"],
]


@pytest.fixture
def terminal(monkeypatch):
    """Print as on a terminal of some width; returns what reaches it."""

    def on(width, show, encoding="utf-8", **environment):
        held = io.BytesIO()
        stream = io.TextIOWrapper(held, encoding, newline="\n", write_through=True)
        stream.isatty = lambda: True
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(width), "TERM": "xterm-256color", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdout", Shown(stream))
        show()
        return held.getvalue().decode(encoding)

    return on


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_fits_and_every_number_is_whole(terminal, width):
    shown = plain(terminal(width, lambda: print_table(ROWS)))
    assert max(wide(line) for line in shown.splitlines()) <= width, f"no line is wider; got {shown}"
    for number in (cell for row in ROWS[1:] for cell in row[1:]):
        assert number in shown, f"{number} must be whole; got {shown}"
    assert "…" not in shown and shown.count("狐") == {40: 5, 60: 3, 80: 2, 200: 1}[width], "in parts"
    assert "[red]" in shown and "\x1b" not in shown, "names are neither markup nor commands"


def test_a_terminal_too_narrow_for_a_number_has_the_plain_table(terminal):
    assert split_to_fit(ROWS, 20) == [] and terminal(20, lambda: print_table(ROWS)) == columns(ROWS) + "\n", "as it is"


def test_colours_are_for_terminals_that_want_them(terminal):
    assert "\x1b[1m" in terminal(80, lambda: print_table(ROWS)), "the head is bold"
    for environment in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        shown = terminal(80, lambda: print_table(ROWS), **environment)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown), f"no colour with {environment}; got {shown!r}"


def test_without_unicode_marks_have_other_signs(terminal):
    shown = terminal(
        80, lambda: print_table([["m", "a"], ["x", "1.0 ± 2.0 •"], ["y", "1.0 ± 2.0 ▼"]]), encoding="ascii"
    )
    assert "1.0 +/- 2.0 *" in shown and "1.0 +/- 2.0 <" in shown and "\\u" not in shown, f"spelled; got {shown}"
    assert len({len(plain(text)) for text in shown.splitlines()}) == 1, "and in line"


def test_sentences_are_wrapped_for_people_and_whole_for_programs(terminal, capsys):
    long = "word " * 30 + "end"
    shown = terminal(60, lambda: print_lines([long]))
    assert max(map(len, shown.splitlines())) <= 60 and shown.splitlines()[1].startswith("  "), "wrapped, set back"


def test_what_goes_into_a_pipe_is_plain(capsys):
    sheet = Sheet("t", ["about"], [SheetTable(ROWS), SheetTable(ROWS, "Differences", ["said"], second=True)], ["note"])
    print_table(ROWS)
    assert capsys.readouterr().out == columns(ROWS) + "\n", "columns"
    print_sheet(sheet)
    assert capsys.readouterr().out == as_markdown(sheet), "and Markdown"


def test_a_sheet_on_a_terminal_has_all_its_parts(terminal):
    sheet = Sheet(
        "title", ["about"], [SheetTable(ROWS, "x"), SheetTable(ROWS, "Differences", ["said"], second=True)], ["note"]
    )
    shown = plain(terminal(100, lambda: print_sheet(sheet)))
    assert shown.splitlines()[:2] == ["title", "about"] and shown.splitlines()[-1] == "note", f"got {shown}"
    assert "\nDifferences\n" in shown and "said" in shown and "|" not in shown, "without Markdown"


def test_a_run_and_a_comparison_are_one_json_object_each(tmp_path, capsys):
    words = ["run", "toy", "--quiet", "--home", str(tmp_path / "home"), "--shots", "1", "--json", "--out"]
    assert cli.main([*words, str(tmp_path / "a")]) == 0, "it runs"
    shown, said = capsys.readouterr()
    (table,) = json.loads(shown)["tables"]
    assert "results: " in said and table["kind"] == "run" and table["about"][0].startswith("backbone toy:0: no CLIP"), (
        "one"
    )
    number = table["numbers"][0]
    assert {"dataset", "method", "shots", "metric", "mean", "std", "low", "high", "seeds", "trained"} <= set(number), (
        "all"
    )
    assert (number["method"], number["shots"], number["seeds"], number["failed"]) == ("zero-shot", 1, 2, 0), "the first"
    assert cli.main(["compare", str(tmp_path / "a"), "--json", "--spread", "std"]) == 0, "it compares"
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert table["kind"] == "comparison" and table["spread"] == "std" and len(table["numbers"]) == 2, "and here"
    assert {"difference", "p", "reference", "published"} <= set(table["numbers"][0]), "with the tests"


def test_numbers_that_are_none_are_null():
    odd = {"a": [float("nan"), 1.0, (float("inf"), "nan")]}
    assert json.loads(strict_json(odd)) == {"a": [None, 1.0, [None, "nan"]]}, "JSON has no such numbers"


def test_the_spread_is_named_in_every_format(tmp_path, capsys):
    kept = str(run(tmp_path / "a", three("gda", 0.7)))
    for spread, words in {
        "std": "mean ± standard deviation over seeds",
        "interval": "mean ± 95 % interval over seeds",
    }.items():
        files = [tmp_path / f"x{suffix}" for suffix in (".md", ".tex", ".html", ".json", ".csv", ".svg")]
        argv = ["compare", kept, "--spread", spread, *(str(word) for f in files for word in ("--out", f))]
        assert cli.main(argv) == 0, f"{spread} is written"
        text = {f.suffix: f.read_text() for f in files}
        assert words in text[".md"] and words in json.loads(text[".json"])["tables"][0]["name"], "said"
        assert words.replace("±", "$\\pm$").replace("%", "\\%") in text[".tex"], f"in LaTeX; got {text['.tex']}"
        assert words.replace("±", "\\u00b1") in text[".html"], "on the page"
        number = "70.0 ± 1.0" if spread == "std" else "70.0 ± 2.5"
        assert number in text[".md"] and ",0.01" in text[".csv"], "and shown; CSV has both"
