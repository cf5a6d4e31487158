"""The wheel is whole: installed somewhere else, run from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = (".py", ".pyi", ".yaml", ".json", ".typed", ".html", ".css", ".js", ".txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy, so that the tree stays clean; setuptools is there already."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    ignore = shutil.ignore_patterns(".git", "goldens*", "__pycache__", "*.egg-info", "build", ".*_cache", ".venv")
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(work),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(work.glob("*.whl"))


def test_every_plugin_and_recipe_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (("plugins", "adaptkit_plugins"), ("recipes", "adaptkit_recipes"), ("adaptkit", "adaptkit")):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SHIPPED and "__pycache__" not in path.parts:
                name = f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
                assert name in inside, f"{name} is missing from the wheel"


def test_the_wheel_runs_a_recipe_by_name_in_a_new_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    folders = [path for path in sys.path if path.endswith("site-packages")]  # torch and the rest; their .pth do not run
    (site / "dependencies.pth").write_text("\n".join(folders))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"ADAPTKIT_HOME": str(tmp_path / "home")}
    command = [str(python.with_name("adaptkit")), "run", "toy", "--quiet"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "gda" in run.stdout and (tmp_path / "home" / "results" / "toy").is_dir(), run.stdout
    where = [str(python), "-c", "import adaptkit; print(adaptkit.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    assert found.startswith(str(site)), f"another adaptkit ran: {found}"
