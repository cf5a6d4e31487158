"""The README and the pages of docs cannot rot: tables are generated, hooks are all there, code and commands run."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from tools import pages, results

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING, DOCS = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs"
METHODS, HOOKS, USED = DOCS / "methods.md", DOCS / "hooks.md", DOCS / "use.md"
READ = [README, *sorted(DOCS.rglob("*.md"))]
EXAMPLES = {README: 1, DOCS / "python.md": 3, DOCS / "use.md": 1}  # how many Python examples each has that begin alone
WRITTEN = sorted((DOCS / "examples").glob("*.py"))
MADE = {"api", "plugin_api", "tutorials", "methods", "security.md"}  # by the build of the site, which checks them
WINGS = [
    "io",
    "towers",
    "features",
    "methods",
    "runs",
    "engines",
    "report",
    "saving",
    "automatic",
    "testing",
    "commands",
]


def name(path):
    return path.relative_to(ROOT).as_posix()


def wings():
    """The table of the core's folders: what lives there, by their docstrings, and how much."""
    lines = ["| wing | what lives there | lines |", "|---|---|---|"]
    for wing in WINGS:
        files = [*(ROOT / "adaptkit" / wing).rglob("*.py")]
        about = ast.get_docstring(ast.parse((ROOT / "adaptkit" / wing / "__init__.py").read_text()))
        count = sum(len(file.read_text().splitlines()) for file in files)
        lines.append(f"| `{wing}/` | {about.splitlines()[0].rstrip('.')} | {count:,} |")
    return "\n".join(lines) + "\n"


def counts():
    """Numbers of methods, in words that a reader can check."""
    from adaptkit.runs import plugins, recipe

    quickstart, every = recipe.read_recipe("quickstart").methods, plugins.table("methods")
    ours = [method for method in every if plugins.owner("methods", method) != "readme_method"]
    return {"count": f"{len(quickstart)} methods", "all": f"{len(ours)} methods"}


def block(path, name):
    return re.search(rf"<!-- {name} -->\n?(.*?)<!-- /{name} -->", path.read_text(), re.DOTALL)[1]


def fill(path, name, text):
    pattern = rf"(<!-- {name} -->\n?).*?(<!-- /{name} -->)"
    path.write_text(re.sub(pattern, lambda found: found[1] + text + found[2], path.read_text(), flags=re.DOTALL))


def write():
    """Write all that is generated anew."""
    fill(CONTRIBUTING, "wings", wings())
    fill(METHODS, "methods", pages.methods_table(""))
    for called, text in counts().items():
        fill(README, called, text)
    for path in READ:
        if (text := path.read_text()) != (made := pages.filled(text)):
            path.write_text(made)


def test_the_table_of_methods_is_current():
    assert block(METHODS, "methods") == pages.methods_table(""), "it is stale; run python -m tests.test_readme"


@pytest.mark.parametrize("called", ["count", "all"])
def test_the_counts_of_methods_are_current(called):
    assert block(README, called) == counts()[called], "README's count is stale; run python -m tests.test_readme"


@pytest.mark.parametrize("path", READ, ids=name)
def test_a_quoted_number_stands_in_the_committed_results(path):
    text = path.read_text()
    assert unmarked(text) == unmarked(pages.filled(text)), (
        f"{name(path)} quotes others; run python -m tests.test_readme"
    )


def unmarked(text):
    """A page without marks that rows are stale: code changes more often than numbers are measured."""
    return re.sub(rf"\\\*(?= \|)|\n\n(\\\*|All rows:) {pages.STALE}\.", "", text)


def test_a_row_that_was_measured_with_other_code_is_named():
    kept = results.read("quickstart")
    assert not set(kept.stale()) - {r.method for r in kept.results}, "what is stale must be rows"
    kept.code["gda"] = "another"
    assert {"gda(views=4)", "trans-clip(base={gda: {views: 4}})"} <= set(kept.stale()), "and those that use it"
    assert "gda-em" not in results.methods_in("gda(views=4)"), "a method is named by its whole name"


def test_committed_results_are_small_and_say_where_they_come_from():
    assert {"quickstart", "gallery", "gallery_towers"} <= set(results.names()), "these are quoted"
    size = sum(path.stat().st_size for path in results.FOLDER.glob("*.json"))
    assert size < 1e6, f"results must be below 1 MB together; got {size:,} bytes"
    for kept in map(results.read, results.names()):
        assert kept.about["command"].startswith("adaptkit "), f"{kept.name} must say the command that made it"
        assert kept.about["machine"] and kept.results, f"{kept.name} must say on what, and have rows"
        assert kept.about["versions"] or kept.about["note"], f"{kept.name} must have versions, or say why not"


def test_the_table_of_the_wings_is_current_up_to_a_tenth_of_their_lines():
    def parts(table):
        rows = [line.strip("|").rsplit("|", 1) for line in table.splitlines()[2:]]
        return [what for what, _ in rows], [int(count.replace(",", "")) for _, count in rows]

    (named, counts), (there, lines) = parts(block(CONTRIBUTING, "wings")), parts(wings())
    assert named == there, "CONTRIBUTING's wings are stale; run python -m tests.test_readme"
    assert counts == pytest.approx(lines, rel=0.1), "and so are their lines; run python -m tests.test_readme"
    folders = {file.parent.name for file in (ROOT / "adaptkit").glob("*/__init__.py")}
    assert folders == {*WINGS}, "every folder of the core must stand in the table"


def test_every_hook_has_a_heading_with_its_exact_arguments():
    from adaptkit.runs import hooks

    for called, spec in vars(hooks).items():
        if getattr(spec, "adaptkit_spec", None):
            heading = f"## `{called}({', '.join(inspect.signature(spec).parameters)})`"
            assert heading in HOOKS.read_text(), f"docs/hooks.md must have the heading {heading}"


def held_to_the_contract(file):
    """Every check, on each method that a file brings."""
    from adaptkit import method
    from adaptkit.runs import plugins
    from adaptkit.testing import CHECKS, check, toy_task
    from adaptkit.testing.kinds import of_its_kind

    before = {*plugins.table("methods")}
    added = plugins.add_file(file)
    try:
        task, queries = toy_task()
        brought = {*plugins.table("methods")} - before
        assert brought, f"{file.name} must bring a method"
        for called in brought:
            for title in CHECKS:
                asked = of_its_kind(method(called), task, queries)
                check(title, lambda called=called: method(called), *asked)
    finally:
        plugins.manager().unregister(name=added)
        plugins.table.cache_clear()


def test_the_method_in_the_readme_passes_the_contract(tmp_path):
    file = tmp_path / "readme_method.py"
    file.write_text(re.search(r"```python\n(.*?)```", block(README, "my_method.py"), re.DOTALL)[1])
    held_to_the_contract(file)


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_the_method_of_each_kind_passes_the_contract_and_has_a_page(file):
    assert f'"docs/examples/{file.name}"' in (DOCS / "write" / f"{file.stem}.md").read_text(), "its page must show it"
    assert len(file.read_text().splitlines()) < 60, "an example must fit on a screen"
    held_to_the_contract(file)


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_the_python_examples_run(path):
    examples = re.findall(r"```python\n(import .*?)```", path.read_text(), re.DOTALL)
    assert len(examples) == EXAMPLES[path], "a Python example came or went; this test runs each"
    for example in examples:
        names = {}
        exec("import adaptkit as ak\n" + example, names)
        assert names["logits"].shape[0] in (60, 100), "the example must have answered every query"


@pytest.mark.parametrize("path", READ, ids=name)
def test_the_commands_on_a_page_exist(path):
    from adaptkit.cli import parser

    shell = "\n".join(re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL))
    for line in re.findall(r"^adaptkit (.*?)(?:  +#.*)?$", shell, re.MULTILINE):
        told = re.sub(r'"\$[^"]*"', "1/2", line)  # as a shell's variables may be
        parser().parse_args(told.split())  # leaves with an error when a command or an option does not exist


def test_every_page_of_docs_stands_in_the_navigation_of_the_site():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    missing = [page for path in READ[1:] if (page := path.relative_to(DOCS).as_posix()) not in nav]
    assert not missing, f"mkdocs.yml must name {', '.join(missing)} below nav, or the site is not built"


@pytest.mark.parametrize("path", [*READ, CONTRIBUTING, ROOT / "SECURITY.md"], ids=name)
def test_what_a_page_links_to_exists(path):
    for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)\s]+)\)", path.read_text()):
        place = (path.parent / link.partition("#")[0]).resolve()
        generated = place.is_relative_to(DOCS) and place.relative_to(DOCS).parts[0] in MADE
        if generated and path.is_relative_to(DOCS):
            continue
        assert place.exists(), f"{name(path)} links to {link}, which does not exist"
    for address in re.findall(r"\]\((https?:[^)]*)\)", path.read_text()):
        assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./~%#?=&+-]*)?", address), f"{name(path)}: {address} is none"


if __name__ == "__main__":
    write()
