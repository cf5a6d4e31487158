"""A folder of each tiny model of OpenCLIP, saved once."""

import logging

import pytest

from tests.vlm import tiny


@pytest.fixture(autouse=True)
def quiet_libraries():
    """What OpenCLIP logs while a reference is made, on purpose, from random weights."""
    logging.getLogger().setLevel(logging.ERROR)
    yield
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A kind's folder."""
    root, done = tmp_path_factory.mktemp("openclip"), {}
    return lambda kind: done[kind] if kind in done else done.setdefault(kind, tiny.save(root / kind, kind))


@pytest.fixture(scope="session")
def loaded(saved):
    """A kind's backbone, which no test may spoil."""
    from adaptkit_plugins.backbones import open_clip

    done = {}
    return lambda kind: done[kind] if kind in done else done.setdefault(kind, open_clip.load(str(saved(kind))))
