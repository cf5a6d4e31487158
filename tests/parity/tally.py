"""The last line of a run: how many goldens passed, failed, and wait for their method.

Tests that several processes share are reported to the process that prints; so each report carries what is counted.
"""

import pytest

PROPERTY = "golden"


class Tally:
    """Counts what reports say of goldens."""

    def __init__(self):
        self.counts = {"passed": 0, "failed": 0}
        self.missing = []

    @property
    def counted(self):
        return any(self.counts.values())

    def pytest_runtest_logreport(self, report):
        for name, missing in report.user_properties:
            if name == PROPERTY and (report.when == "call" or report.failed):
                self.counts["passed" if report.passed else "failed"] += 1
                self.missing = missing

    def pytest_terminal_summary(self, terminalreporter):
        if self.missing:
            terminalreporter.section("goldens whose method is not registered yet")
            terminalreporter.line(", ".join(self.missing))

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self):
        if self.counted:
            counts = f"passed {self.counts['passed']}, failed {self.counts['failed']}"
            print(f"goldens: {counts}, not yet {len(self.missing)}")
