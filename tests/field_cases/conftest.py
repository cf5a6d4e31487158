"""What the field's cases share."""

import pytest

from tests.small import Command, checkpoint


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("small-clip"))


@pytest.fixture
def command(tmp_path, capsys):
    return Command(tmp_path / "home", capsys)
