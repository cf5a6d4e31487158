"""Every golden in the folders, against the method that is registered for it."""

from tests.parity.golden import Golden, hold


def test_golden(golden_path):
    hold(Golden(golden_path))
