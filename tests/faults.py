"""The table of faults: which kinds are tried, by how many cases, and what adaptkit does about each.

A test says what it holds with ``@pytest.mark.fault(kind, outcome)``; every parameter of such a test is one case.
``python -m tests.faults`` writes docs/faults.md anew.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

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
    """Collect the marked tests in a process of their own and write their table."""
    marked = [file for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.fault(" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "fault"]
    done = subprocess.run([*command, f"--faults={path}", *map(str, marked)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    write(PAGE)
