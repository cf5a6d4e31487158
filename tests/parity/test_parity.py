"""Every golden in the folder, against the method that is registered for it."""

from tests.parity.golden import Golden, adaptors, best_match
from tests.parity.names import METHODS


def test_golden(golden_path):
    name = best_match(golden_path.stem, adaptors)
    belongs = METHODS.get(best_match(golden_path.stem, METHODS) or "", "no method in tests/parity/names.py")
    assert name, f"{golden_path.stem} belongs to {belongs}, but no adaptor in tests/parity/adaptors takes it"
    golden = Golden(golden_path)
    adaptors[name][1](golden)
    golden.done()
