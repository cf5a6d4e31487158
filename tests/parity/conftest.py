"""Discover the goldens in ``--goldens DIR``, or in both of ours, and count them in the last line."""

import importlib
import pkgutil

import pytest

from tests.parity import adaptors as folder
from tests.parity.finding import goldens, has_method
from tests.parity.names import FOLDERS

TALLY = pytest.StashKey[dict]()


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
    missing = [path.stem for path in paths if path not in here]
    metafunc.config.stash[TALLY] = {"passed": 0, "failed": 0, "missing": missing}
    metafunc.parametrize("golden_path", here, ids=[path.stem for path in here])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if "golden_path" in getattr(item, "fixturenames", ()) and (report.when == "call" or report.failed):
        item.config.stash[TALLY]["passed" if report.passed else "failed"] += 1


def pytest_terminal_summary(terminalreporter, config):
    tally = config.stash.get(TALLY, None)
    if tally and tally["missing"]:
        terminalreporter.section("goldens whose method is not registered yet")
        terminalreporter.line(", ".join(tally["missing"]))


def pytest_unconfigure(config):
    tally = config.stash.get(TALLY, None)
    if tally:
        print(f"goldens: passed {tally['passed']}, failed {tally['failed']}, not yet {len(tally['missing'])}")
