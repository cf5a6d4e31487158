"""Discover the goldens in ``--goldens DIR``, and count them in the last line."""

import importlib
import pkgutil

import pytest

from tests.parity import adaptors as folder
from tests.parity.golden import adaptors, best_match
from tests.parity.names import CORE, METHODS, NOT_METHODS

TALLY = pytest.StashKey[dict]()


def pytest_generate_tests(metafunc):
    if "golden_path" not in metafunc.fixturenames:
        return
    from adaptkit.runs import plugins

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    root = metafunc.config.getoption("--goldens")
    paths = sorted(p for p in root.glob("*.npz") if p.stem not in NOT_METHODS)
    if not paths:
        raise pytest.UsageError(f"--goldens must be a folder with .npz files; got {str(root)!r}")
    registered, here, missing = plugins.table("methods"), [], []
    for path in paths:
        name = best_match(path.stem, METHODS)
        known = path.stem in CORE or best_match(path.stem, adaptors) or name is None or METHODS[name] in registered
        (here if known else missing).append(path)
    metafunc.config.stash[TALLY] = {"passed": 0, "failed": 0, "missing": [p.stem for p in missing]}
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
