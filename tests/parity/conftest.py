"""Discover the goldens in ``--goldens DIR``, or in both of ours."""

import importlib
import pkgutil

import pytest

from tests.parity import adaptors as folder
from tests.parity.finding import goldens, has_method
from tests.parity.names import FOLDERS
from tests.parity.tally import PROPERTY

MISSING = pytest.StashKey[list]()


def pytest_generate_tests(metafunc):
    if "golden_path" not in metafunc.fixturenames:
        return
    from adaptkit.runs import plugins

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    given = metafunc.config.getoption("--goldens")
    paths = [path for root in ([given] if given else FOLDERS) for path in goldens(root)]
    if not paths:
        raise pytest.UsageError(f"--goldens must be a folder with .npz files and their sidecars; got {str(given)!r}")
    registered = set(plugins.table("methods"))
    here = [path for path in paths if has_method(path.stem, registered)]
    metafunc.config.stash[MISSING] = [path.stem for path in paths if path not in here]
    metafunc.parametrize("golden_path", here, ids=[path.stem for path in here])


@pytest.fixture(autouse=True)
def counted(request, record_property):
    """What the last line counts goes with the test's report."""
    if "golden_path" in request.fixturenames:
        record_property(PROPERTY, request.config.stash[MISSING])
