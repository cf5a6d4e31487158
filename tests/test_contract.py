"""Every check on every method, whoever wrote it; what is trained is trained briefly."""

import pytest

from adaptkit.runs import plugins
from adaptkit.testing import CHECKS
from adaptkit.testing.report import check_briefly


@pytest.mark.parametrize("title", CHECKS)
@pytest.mark.parametrize("name", plugins.table("methods"))
def test_every_method_keeps_the_contract(name, title, toy):
    check_briefly(name, title, *toy)


def test_every_plugin_loads():
    assert not plugins.broken, f"every plugin must load; these did not: {plugins.broken}"
    assert plugins.table("methods"), "the methods must be found, or the tests above hold for nothing"
