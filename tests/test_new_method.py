"""A new method's file: of every kind it passes the contract and ruff as it is, and nothing is written over."""

import subprocess
import sys

import pytest

from adaptkit import cli
from adaptkit.commands.new import method_text
from adaptkit.commands.parsing.plugins import METHOD_KINDS
from adaptkit.runs import plugins
from adaptkit.testing import CHECKS
from adaptkit.testing.report import check_briefly


@pytest.fixture(autouse=True)
def forget():
    """Forget the plugins that a test adds."""
    before = set(plugins.manager().list_name_plugin())
    yield
    for name, _ in set(plugins.manager().list_name_plugin()) - before:
        plugins.manager().unregister(name=name)
    plugins.broken.clear()
    plugins.table.cache_clear()


@pytest.mark.parametrize("kind", METHOD_KINDS)
def test_a_new_method_of_each_kind_keeps_the_contract_as_it_is(kind, tmp_path, toy, capsys):
    file = tmp_path / f"mine_{kind.replace('-', '_')}.py"
    assert cli.main(["new", "method", f"mine-{kind}", "--kind", kind, "--out", str(file)]) == 0, "it must be written"
    assert str(file) in capsys.readouterr().out, "and say where"
    plugins.add_file(file)
    for title in CHECKS:
        check_briefly(f"mine-{kind}", title, *toy)


def test_new_methods_please_ruff_with_its_own_settings_and_with_ours(tmp_path):  # where adaptkit is installed
    (tmp_path / "plugins").mkdir()
    for kind in METHOD_KINDS:
        (tmp_path / "plugins" / f"{kind.replace('-', '_')}.py").write_text(method_text("my-method", kind))
    ours = f"{cli.__file__.removesuffix('adaptkit/cli.py')}pyproject.toml"
    for settings in (["--isolated"], ["--config", ours]):
        for verb in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *verb, *settings, "plugins"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"ruff must have nothing to say; got {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gda"], "a method's name must be new; got 'gda', of plugin 'training_free.gda'"),
        (["3d"], "a method's name must be words in lower case with dashes, e.g. my-method; got '3d'"),
        (["class"], "got 'class'"),
        (["Über"], "got 'Über'"),
        (["a--b"], "got 'a--b'"),
        (["mine", "--out", "kept.py"], "--out must be a new file; got 'kept.py', which exists; name another"),
        (["mine", "--out", "kept"], "--out must be a Python file"),
        (["torch"], "--out must not be called as a module is; got 'torch.py'; name another"),
        (["mine", "--out", "nowhere/x/mine.txt"], "--out must be a Python file"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_nothing_is_touched(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.py").write_text("mine")
    assert cli.main(["new", "method", *words]) == 2, "a wrong request"
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, f"it must say {said!r}; got {error!r}"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.py"], "nothing must be written"
    assert (tmp_path / "kept.py").read_text() == "mine", "nor changed"


def test_a_name_in_kebab_case_becomes_a_file_in_snake_case_and_a_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "method", "my_own-method"]) == 0, "it must be written"
    text = (tmp_path / "my_own_method.py").read_text()
    assert "class MyOwnMethod(ZeroShot)" in text and '{"my-own-method": MyOwnMethod}' in text, "by its names"
    assert "class RangeMethod(ZeroShot)" in method_text("range", "closed-form"), "no class may hide an import"
