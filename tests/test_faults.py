"""The table of faults says what the tests try."""

from tests import faults


def test_the_table_of_faults_is_the_one_that_the_tests_write(tmp_path):
    faults.write(tmp_path / "faults.md")
    assert faults.PAGE.read_text() == (tmp_path / "faults.md").read_text(), "run `python -m tests.faults`"
