"""A row is stored under the digest of the bytes that it was made of, whatever happens to files meanwhile."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import Pooled
from adaptkit.features.cache import FeatureCache
from adaptkit.features.datasets import Joined
from adaptkit.features.sources import PictureFiles
from adaptkit.features.store import Store
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import digest
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.saving.pictures import Pictures
from adaptkit.testing import ToyImages, toy_backbone

N = 24
ONE = threading.Lock()
NEAR = {"atol": 2e-3, "rtol": 0}  # batches differ


def draw(path, seed):
    """Write an image of noise, at once in the place of the one before."""
    temp = path.with_suffix(f".{seed}.tmp")
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)).save(temp, "png")
    temp.replace(path)


class Changing(PictureFiles):
    """Files of which some are replaced when one is open_bytes."""

    def open(self, i):
        with ONE:  # no other is open_bytes meanwhile
            while self.events:
                self.events.pop()()
        return super().open(i)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i:02}.png" for i in range(N)]
    for i, path in enumerate(paths):
        draw(path, i)
    source = Changing("photos", paths, [0] * N, FileDigests(tmp_path / "digests"))
    object.__setattr__(source, "events", [])
    return source


def read(folder, source, need=None):
    """Rows of all images as another process would read them, and how many it computed."""
    store = Store(folder)
    cache = FeatureCache(toy_backbone("0"), store, hook=plugins.manager().hook, load=pick_backbone, batch_size=5)
    rows = cache.images(source, need or Pooled(), torch.arange(len(source)))
    return rows, sum(cache.computed.values())


@pytest.mark.parametrize("need", [Pooled(), Pooled(views=2, plain_first=True)])
def test_no_row_is_wrong_when_images_are_replaced_while_they_are_extracted(tmp_path, files, need):
    changed = range(10, 20)
    files.events.append(lambda: [draw(files.paths[i], 100 + i) for i in changed])
    during, _ = read(tmp_path / "f", files, need)
    alone, _ = read(tmp_path / "alone", files, need)
    torch.testing.assert_close(during, alone, **NEAR, msg="each row must be that of the bytes which are there")
    assert read(tmp_path / "f", files, need)[1] == 0, "and be found again"
    for i in changed:
        draw(files.paths[i], i)
    rows, computed = read(tmp_path / "f", files, need)
    assert computed == len(changed) * max(1, need.views), "what changed back must be computed, and nothing else"
    torch.testing.assert_close(rows, read(tmp_path / "other", files, need)[0], **NEAR, msg="rightly")
    assert Store(tmp_path / "f").verify() == [], "nothing is wrong on disk"


def test_an_image_that_never_stays_as_it_is_is_named(tmp_path, files, monkeypatch):
    seeds = iter(range(1000, 2000))

    def again():
        draw(files.paths[7], next(seeds))

    monkeypatch.setattr(Changing, "open", lambda self, i: (again(), PictureFiles.open(self, i), again())[1])
    with pytest.raises(ValueError, match=r"image must stay as it is .*; got 3 different ones of item 7 of photos") as e:
        read(tmp_path / "f", files)
    assert "\n" not in str(e.value), "in one line"


def test_every_source_opens_key_and_image_of_the_same_bytes(tmp_path, files):
    toy = ToyImages("train", 4)
    sources = [files, toy, Joined([toy, files]), Pictures([files.paths[0], toy.image(1)])]
    for source in sources:
        key, image = source.open(1)
        assert key == source.key(1), f"{source.name} must open an image under its key"
        assert isinstance(image, Image.Image), f"{source.name} must open an image"
    key, image = files.open(3)
    assert key == digest(files.paths[3].read_bytes()), "a file's key is the digest of its bytes"


def test_a_file_that_is_not_there_is_named_when_opened(files):
    files.paths[2].unlink()
    with pytest.raises(ValueError, match=r"images of photos must all be there; got no '.*02.png'"):
        files.open(2)
