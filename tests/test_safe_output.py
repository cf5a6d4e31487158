"""What is printed and written stays text where it goes, whatever the names in it are."""

import csv
import json
import re
import warnings

import pytest

from adaptkit import cli
from adaptkit.io import safe
from adaptkit.io.text import columns
from adaptkit.report import formats, runs
from adaptkit.report.comparison import Comparison
from adaptkit.report.page import page
from adaptkit.report.table import Table
from adaptkit.saving.model_card import model_card
from adaptkit.testing import toy_task
from tests.test_compare import QUOTE, run, three

NAMES = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "comment": "a<!-- b",
    "entity": "&lt;b&gt;&#60;b",
    "heading": "a\n# Heading\n\n- item",
    "setext": "a\r\n===\r\n",
    "separators": "a\u2028# b\u2029c\x85d\x0be",
    "table": "a | b |\n| --- | --- |",
    "code": "a`b``c",
    "fence": "```\n~~~",
    "link": "[a](javascript:alert(1)) ![b](http://example.org/track.png)",
    "reference": "[a]: http://example.org",
    "emphasis": "**a** __b__ _c_ ~~d~~",
    "input": "a\n\\input{/etc/passwd}",
    "macro": "\\write18{rm -rf x} %&$#_{}~^",
    "row end": "[1cm] * a",
    "caret": "^^4d^^5c a",
    "formula": "=cmd|'/c calc'!A0",
    "plus": "+1+cmd",
    "minus": "-2+3",
    "at": "@SUM(A1)",
    "tab": "\t=1+1",
    "wide": "\uff1d1+1",
    "escape": "a\x1b[2J\x1b]0;title\x07b\x9b31m",
    "return": "fine\radaptkit: done",
    "backspace": "a\b\b\bb\x7f",
    "bidi": "a\u202egnp.exe\u2066b\u200f",
    "hidden": "a\u200bb\ufeffc\u00add\U000e0041",
    "half": "a\udc80b\ud800c",
    "null": "a\0b",
    "dollar": "$\\frac{a}$ $b",
    "underscore": "_hidden",
}
OUT = ("a name with markup, formulas or control characters is printed or written", "it stays text, wherever it goes")
STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


@pytest.fixture(scope="module", params=NAMES)
def evil(request):
    """A name that is more than a name."""
    return NAMES[request.param]


@pytest.fixture(scope="module")
def comparison(evil, tmp_path_factory):
    """A comparison in which a method, a dataset, a class and a source are called so."""
    folder = tmp_path_factory.mktemp("runs")
    scores = [("zero-shot", 0.5), (evil, 0.7), (f"{evil} ({evil})", 0.1)]
    results = [r for m, value in scores for r in three(m, value, dataset=evil, classes={"": [(evil, 0.5)]})]
    wholly = run(folder / "a", results, published=[{**QUOTE, "method": evil, "source": evil}])
    try:
        return Comparison(runs.read_runs([wholly]))
    except (ValueError, UnicodeError) as error:  # half a character cannot be in a file of ours
        assert "\udc80" in evil, f"only that may be refused; got {error}"
        pytest.skip("half a character cannot be written")


@pytest.mark.fault(*OUT)
def test_markdown_has_no_more_structure_than_ours(comparison):
    text = formats.markdown(comparison)
    assert not STEERING.search(text), "no character may steer a terminal"
    assert not re.search(r"(?<!\\)<\S|(?<!\\)`|\]\(|^[-\s]*\[[^\]\\]*\]:", text, re.MULTILINE), f"no markup; got {text}"
    headings = [line for line in text.splitlines() if re.match(r"\s*(- )?#", line)]
    assert len(headings) == 1 and headings[0].startswith("# "), f"one heading, which is ours; got {headings}"
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(bars) <= 2, f"each table must keep its number of cells; got {bars}"
    assert all(re.match(r"$|\||- [^#>+=~-]|# |Differences:", line) for line in text.splitlines()), f"got {text}"


@pytest.mark.fault(*OUT)
def test_latex_has_no_more_commands_than_ours(comparison):
    text = formats.latex(comparison)
    assert not STEERING.search(text), "no character may end a line"
    ours = (
        "textbackslash|textasciitilde|textasciicircum|usepackage|begin|end|toprule|midrule|bottomrule|par|footnotesize"
        "|pm|bullet|bigtriangledown|bigtriangleup"
    )
    left = re.sub(rf"\\(({ours})(?![a-zA-Z])|[\\&%$#_{{}}])", "", text)
    assert "\\" not in left and "^^" not in left, f"no command but ours; got {text}"
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    assert len(inside) == 6, f"a line for each row; got {inside}"
    assert not any(re.match(r"[\[*]", line) for line in inside), "and none is an option of the row's end before it"
    assert not re.search(r"(?<!\\)%", text.partition("\n")[2].replace("\n% ", "")), "no comment hides what follows"


@pytest.mark.fault(*OUT)
def test_csv_has_no_formula_and_numbers_stay_numbers(comparison):
    rows = [*csv.DictReader(formats.text_table(comparison).splitlines())]
    assert len(rows) == 3, "a line for each number"
    for row in rows:
        for key in ("dataset", "method", "reference", "source"):
            assert not re.match(r"[\s]*[=+@\uff1d-]", row[key]), f"{key} must be no formula; got {row[key]!r}"
        gaps = [row[key] for key in ("mean", "difference", "difference_low") if row[key]]
        assert all(float(gap) <= 1 for gap in gaps), "numbers, negative ones too, stay numbers"
    assert any(row["difference"].startswith("-") for row in rows), "of which there are some"


@pytest.mark.fault(*OUT)
def test_the_page_holds(comparison, evil):
    text = page(comparison)
    assert evil not in text.partition("</style>")[2] or not re.search("[<>&]", evil), "names are escaped on the page"
    assert text.count("<script") == 2 and "<img" not in text, "no element but ours"


@pytest.mark.fault(*OUT)
def test_a_picture_shows_names_as_they_are(evil):
    plt = pytest.importorskip("matplotlib.pyplot")
    results = [r for r in three(evil, 0.5, shots=1) + three(evil, 0.5, shots=4)]
    made = Table(results).plot(f"{evil} {evil}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        made.canvas.draw()
    shown = [made.axes[0]._left_title, *made.axes[0].texts, *made.texts]
    assert len(shown) == 3, "the method must be named where its line ends, and the caption"
    for text in shown:
        assert not text._preprocess_math(text.get_text())[1], f"nothing is mathematics; got {text.get_text()!r}"
        assert not STEERING.search(text.get_text()), "and nothing ends the line"
    plt.close("all")


@pytest.mark.fault(*OUT)
def test_a_model_card_has_no_more_structure_than_ours(evil):
    task, _ = toy_task()
    from adaptkit import adapt, method

    config = {
        **{"classnames": [evil, f"{evil}2"], "protocol": {"dataset": evil, evil: evil, "prompts": [evil]}},
        **{"source": evil, "backbone": evil, "adaptkit": "1", "options": {"base": evil}, "tested": None},
        "towers": {evil: {"fingerprint": evil}},
    }
    adapted = adapt(method("zero-shot"), task)
    plain = {**config, "classnames": ["a", "b"], "protocol": {"dataset": "a", "b": "c", "prompts": ["d"]}}
    plain |= {"source": "a", "backbone": "b", "options": {"base": "c"}, "towers": {"": {"fingerprint": "d"}}}
    text, same = model_card(adapted, config), model_card(adapted, plain)
    assert not STEERING.search(text), "no character may steer a terminal or end a line"

    def kinds(card):
        return [re.match(r"\s*(#+ |- |> |```\w*|---|\||=)?", line)[1] for line in card.splitlines()]

    assert kinds(text) == kinds(same), f"the lines must be of the same kinds; got {text}"
    prose = re.sub(r"(?<!\\)`[^`\n]*`", "", text)
    assert not re.search(r"(?<!\\)<[a-z!/]|\]\(|(?<!\\)\*\*|^[-\s]*\[[^\]\\]*\]:", prose, re.MULTILINE), f"got {text}"


@pytest.mark.fault(*OUT)
def test_a_table_in_a_terminal_keeps_its_lines(evil):
    text = columns([["method", evil], [evil, "1"]])
    assert text.count("\n") == 2 and not STEERING.search(text), f"a line for each row; got {text!r}"
    assert not STEERING.search(Table(three(evil, 0.5, dataset=evil)).text()), "in Python too"


@pytest.mark.fault(*OUT)
def test_nothing_that_a_command_says_steers_the_terminal(evil, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(json.dumps({"dataset": evil.replace("\udc80", "").replace("\ud800", "")}))
    codes = [cli.main([*words]) for words in (("run", str(tmp_path / "x.yaml")), ("show", "--", evil))]
    out, error = capsys.readouterr()
    assert codes == [2, 2] and not out, "each must be refused"
    assert not STEERING.search(error), f"without what steers a terminal; got {error!r}"
    said = [line for line in error.splitlines() if not line.startswith("  ")]
    assert len(said) == 2 and all(line.startswith("adaptkit: error: ") for line in said), f"a line each; got {said}"


def test_what_is_printed_keeps_its_lines_and_hides_nothing(capsys):
    stream = safe.Shown(__import__("sys").stdout)
    assert stream.write("a\x1b[2J\tb\n\u202ec ± é 日本 👩\u200d👩\n") == 22, "as many as were given"
    stream.flush()
    assert capsys.readouterr().out == "a\\x1b[2J\tb\n\\u202ec ± é 日本 👩\u200d👩\n", "text of people stays as it is"


def test_usual_names_are_written_as_they_are():
    for name in ("tip-adapter(views=4)", "coop(n=4, schedule={epochs: 2})", "few_shot/dtd", "sea lion", "70.0 ± 2.1"):
        assert safe.in_markdown(name) == safe.item(name) == safe.line(name) == safe.plotted(name) == name, (
            f"{name} is plain"
        )
        assert safe.csv_text([[name]]).strip().strip('"') == name, "in CSV, too"
