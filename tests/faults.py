"""The table of faults: which kinds are tried, by how many cases, and what adaptkit does about each.

A test says what it holds with ``@pytest.mark.fault(kind, outcome)``; every parameter of such a test is one case.
``python -m tests.faults`` writes docs/faults.md anew.
"""

import contextlib
import io
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults that are tried

What can be wrong with a file, a task, a machine or a method, and what adaptkit does about it. The tests write this
table (`python -m tests.faults`) and hold it: every case is one test that runs in the suite.

| kind | what happens | cases |
|---|---|---:|
"""


def table(items):
    """The page for these collected tests."""
    found = Counter(tuple(mark.args) for item in items for mark in item.iter_markers("fault"))
    rows = [f"| {kind} | {outcome} | {count:,} |\n" for (kind, outcome), count in sorted(found.items())]
    return HEAD + "".join(rows) + f"| **all** | | **{sum(found.values()):,}** |\n"


def write(path):
    """Collect the marked tests, whatever else is tested by this process, and write their table."""
    marked = [file for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.fault(" in file.read_text()]
    other = ("cacheprovider", "xdist", "faulthandler", "unraisableexception", "threadexception")  # the process has them
    alone = [word for name in other for word in ("-p", f"no:{name}")]
    options = ["--collect-only", "-q", *alone, "--override-ini=addopts=--strict-markers", "-m", "fault"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([f"--rootdir={ROOT}", *options, f"--faults={path}", *map(str, marked)])
    if code:
        raise SystemExit(said.getvalue())


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    write(PAGE)
