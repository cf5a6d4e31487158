"""Shell completion, asked of the shell itself."""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip("shtab")

from adaptkit import cli


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script for bash, in a file."""
    from contextlib import redirect_stdout

    path = tmp_path_factory.mktemp("completion") / "adaptkit.bash"
    with path.open("w") as file, redirect_stdout(file):
        assert cli.main(["completion", "bash"]) == 0, "it must be printed"
    return path


def completed(script, words, folder):
    """What bash offers for the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {script}; COMP_WORDS=(adaptkit {line}); COMP_CWORD={len(words)}; compopt() {{ :; }}; "
        'cd "$1"; _shtab_adaptkit; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asked, "bash", str(folder)], capture_output=True, text=True, check=True
    )
    assert not done.stderr, f"bash must not complain; got {done.stderr}"
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["ru"], {"run"}),
        (["run", "quick"], {"quickstart"}),
        (["run", "few_shot/dt"], {"few_shot/dtd"}),
        (["run", "toy", "--only", "gd"], {"gda", "gda-em"}),
        (["run", "toy", "--only", "zero-shot,gd"], {"zero-shot,gda", "zero-shot,gda-em"}),
        (["run", "toy", "--prec"], {"--precision"}),
        (["run", "toy", "--precision", "bf"], {"bf16", "bf16-mixed"}),
        (["run", "mi"], {"mine.yaml"}),
        (["check", "mi"], {"mine.py"}),
        (["show", "openm"], {"openmoji"}),
        (["predict", "fol"], {"folder"}),
        (["export", "toy", "--method", "tip-x"], {"tip-x"}),
        (["data", "check", "few_shot/dt"], {"few_shot/dtd"}),
        (["completion", "ba"], {"bash"}),
    ],
)
def test_bash_completes_commands_options_names_and_files(words, some, script, tmp_path):
    for name in ("mine.yaml", "mine.py"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert completed(script, words, tmp_path) >= some, f"it must offer {some}"


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell, capsys, tmp_path):
    assert cli.main(["completion", shell]) == 0, "it must be printed"
    text = capsys.readouterr().out
    assert "quickstart" in text and "tip-adapter" in text, "with names of recipes and methods"
    if found := shutil.which(shell):
        (tmp_path / "script").write_text(text)
        flags = ["-f", "-n"] if shell == "zsh" else ["-f"]
        done = subprocess.run([found, *flags, tmp_path / "script"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, f"{shell} must read it; got {done.stderr}"


def test_who_has_no_shtab_is_told_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2, "it cannot be done"
    assert capsys.readouterr().err.strip() == (
        "adaptkit: error: shtab must be installed for adaptkit completion; got none; "
        "pip install 'adaptkit-vlm[completion]'"
    )


def test_a_name_in_which_a_shell_could_see_more_is_left_out(monkeypatch):
    from adaptkit.commands import completion

    monkeypatch.setattr(completion.plugins, "table", lambda role: {"$(touch x)": 1, "fine": 2, "a b": 3})
    assert completion.completing_names("methods") == ["fine"], "only plain names are offered"
