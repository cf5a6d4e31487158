"""One torch thread (tiny tensors on many threads are five times slower), no hub, a home of the tests' own."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests import faults
from tests.parity.tally import Tally

HOME = tempfile.mkdtemp(prefix="adaptkit-tests-")
GIVEN_HOME = os.environ.get("ADAPTKIT_HOME", HOME)  # where notebooks find the features of earlier runs
SLOW = ("test_ray", "test_cache", "test_failures", "test_spread", "test_resuming", "test_wheel")  # they start processes
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.fsync = lambda descriptor: None  # nobody cuts the power here, and of many runs a third is waiting for the disk
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "ADAPTKIT_HOME": HOME,
    "TOKENIZERS_PARALLELISM": "false",
}


def pytest_addoption(parser):
    parser.addoption(
        "--goldens",
        type=Path,
        help="a folder of goldens to hold methods against, instead of tests/goldens and tests/goldens2",
    )
    parser.addoption("--executed", type=Path, help="keep the notebooks that are run in this folder, as they were left")
    parser.addoption("--faults", type=Path, help="write the table of fault cases to this file")


def pytest_configure(config):
    """Count goldens in the process that prints."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tally())


def pytest_collection_modifyitems(items):
    """Begin with the modules whose tests take longest, or one process ends with them while the others wait."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


def pytest_collection_finish(session):
    """Count the cases that are marked as faults, if asked."""
    if path := session.config.getoption("--faults"):
        path.write_text(faults.table(session.items))


@pytest.fixture(scope="session")
def toy():
    """The toy task, with validation and pool images, and its labelled test images."""
    from adaptkit.testing import toy_task

    return toy_task()


@pytest.fixture(autouse=True)
def one_thread(request):
    if "torch" in __import__("sys").modules:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
