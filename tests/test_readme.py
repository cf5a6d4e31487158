"""The README cannot rot: its table is generated, its hooks are all there, its code runs."""

import ast
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"


def block(name):
    return re.search(rf"<!-- {name} -->\n?(.*?)<!-- /{name} -->", README.read_text(), re.DOTALL)[1]


def table():
    """The table of methods, in Markdown."""
    from adaptkit.report.cards import entry
    from adaptkit.runs.plugins import table as registered

    lines = ["| method | what it does | scope | trained | source |", "|---|---|---|---|---|"]
    for name in registered("methods"):
        e = entry("methods", name)
        arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", e["source"])
        link = f"[{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else ""
        trained = "trained" if e["trained"] else ""
        lines.append(f"| `{name}` | {e['about']} | {e['scope']} | {trained} | {link} |")
    return "\n".join(lines) + "\n"


def count():
    """How many methods the quickstart compares, in words that a reader can check."""
    from adaptkit.runs import recipe

    return f"{len(recipe.read_recipe('quickstart').methods)} methods"


WINGS = ["io", "towers", "features", "methods", "runs", "engines", "report", "saving", "testing", "commands"]


def wings():
    """The table of the core's folders: what lives there, by their docstrings, and how much."""
    lines = ["| wing | what lives there | lines |", "|---|---|---|"]
    for wing in WINGS:
        files = [*(ROOT / "adaptkit" / wing).rglob("*.py")]
        about = ast.get_docstring(ast.parse((ROOT / "adaptkit" / wing / "__init__.py").read_text()))
        count = sum(len(file.read_text().splitlines()) for file in files)
        lines.append(f"| `{wing}/` | {about.splitlines()[0].rstrip('.')} | {count:,} |")
    return "\n".join(lines) + "\n"


def written_wings():
    return re.search(r"<!-- wings -->\n(.*?)<!-- /wings -->", CONTRIBUTING.read_text(), re.DOTALL)[1]


def write():
    filled = re.sub(
        r"(<!-- wings -->\n).*?(<!-- /wings -->)",
        lambda m: m[1] + wings() + m[2],
        CONTRIBUTING.read_text(),
        flags=re.DOTALL,
    )
    CONTRIBUTING.write_text(filled)
    text = README.read_text()
    text = re.sub(r"(<!-- methods -->\n).*?(<!-- /methods -->)", lambda m: m[1] + table() + m[2], text, flags=re.DOTALL)
    README.write_text(
        re.sub(r"(<!-- count -->).*?(<!-- /count -->)", lambda m: m[1] + count() + m[2], text, flags=re.DOTALL)
    )


def test_the_table_of_methods_is_current():
    assert block("methods") == table(), "README's table is stale; run python -m tests.test_readme"
    assert block("count") == count(), "README's count is stale; run python -m tests.test_readme"


def test_the_table_of_the_wings_is_current_up_to_a_tenth_of_their_lines():
    def parts(table):
        rows = [line.strip("|").rsplit("|", 1) for line in table.splitlines()[2:]]
        return [what for what, _ in rows], [int(count.replace(",", "")) for _, count in rows]

    (named, counts), (there, lines) = parts(written_wings()), parts(wings())
    assert named == there, "CONTRIBUTING's wings are stale; run python -m tests.test_readme"
    assert counts == pytest.approx(lines, rel=0.1), "and so are their lines; run python -m tests.test_readme"
    folders = {file.parent.name for file in (ROOT / "adaptkit").glob("*/__init__.py")}
    assert folders == {*WINGS}, "every folder of the core must stand in the table"


def test_every_hook_has_a_heading_with_its_exact_arguments():
    from adaptkit.runs import hooks

    for name, spec in vars(hooks).items():
        if getattr(spec, "adaptkit_spec", None):
            heading = f"#### `{name}({', '.join(inspect.signature(spec).parameters)})`"
            assert heading in README.read_text(), f"README must have the heading {heading}"


def test_the_method_in_the_readme_passes_the_contract(tmp_path):
    from adaptkit import method
    from adaptkit.runs import plugins
    from adaptkit.testing import CHECKS, check, toy_task

    code = re.search(r"```python\n(.*?)```", block("my_method.py"), re.DOTALL)[1]
    file = tmp_path / "readme_method.py"
    file.write_text(code)
    name = plugins.add_file(file)
    try:
        task, queries = toy_task()
        for title in CHECKS:
            check(title, lambda: method("prototypes"), task, queries)
    finally:
        plugins.manager().unregister(name=name)
        plugins.table.cache_clear()


@pytest.mark.parametrize("number", range(4))
def test_the_python_examples_run(number):
    examples = re.findall(r"```python\n(import .*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 4, "a Python example came or went; this test runs each"
    names = {}
    exec("import adaptkit as ak\n" + examples[number], names)
    assert names["logits"].shape[0] in (60, 100), "the example must have answered every query"


def test_the_commands_in_the_readme_exist():
    from adaptkit.cli import parser

    shell = "\n".join(re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL))
    for line in re.findall(r"^adaptkit (.*?)(?:  #.*)?$", shell, re.MULTILINE):
        parser().parse_args(line.split())  # leaves with an error when a command or an option does not exist


if __name__ == "__main__":
    write()
