"""Workers share a table: none waits for another's rows, none computes them again, none loses much when it is killed."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptkit import Pooled
from adaptkit.features import claims, extraction
from adaptkit.features.cache import FeatureCache
from adaptkit.features.store import Store
from adaptkit.io import files
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.testing import ToyImages, toy_backbone

IMAGES = ToyImages("train", 96)
CHILD = f"""
import sys, types
import numpy as np
package = types.ModuleType("adaptkit"); package.__path__ = [{str(Path(files.__file__).parents[1])!r}]
sys.modules["adaptkit"] = package
from pathlib import Path
from adaptkit.features import claims
ids = np.arange(64, dtype=np.uint8).reshape(4, 16)
print(claims.claim(Path(sys.argv[1]), ids).tolist(), flush=True)
sys.stdin.readline()
"""
IDS = np.arange(96, dtype=np.uint8).reshape(6, 16)


@dataclass(frozen=True, kw_only=True)
class Slow(Pooled):
    """Takes its time, and writes down when."""

    unit: bool = False
    pause: float = 0.0

    def compute(self, backbone, pixels):
        began = time.monotonic()
        time.sleep(self.pause * len(pixels))
        if threading.current_thread() in PASSES:
            PASSES[threading.current_thread()].append((began, time.monotonic(), len(pixels)))
        return super().compute(backbone, pixels)


PASSES = {}


def start(folder, need, index, failed=None, batch_size=8):
    """Extract some rows in a thread with a cache of its own; the thread, its passes, and what it computed."""
    cache = FeatureCache(
        toy_backbone("0"), Store(folder), hook=plugins.manager().hook, load=pick_backbone, batch_size=batch_size
    )

    def work():
        try:
            cache.fill(IMAGES, need, index)
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    passes = PASSES[thread] = []
    thread.start()
    return thread, passes, cache.computed


def rows(folder):
    return sum(table.rows for table in Store(folder).tables())


def test_a_claim_lasts_until_it_is_released_or_its_process_dies(tmp_path):
    file = tmp_path / ".claims"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "[True, True, True, True]\n", "the first gets all it asks for"
    assert claims.claim(file, IDS).tolist() == [False] * 4 + [True] * 2, "the second what is left"
    assert claims.claim(file, IDS[4:]).tolist() == [False] * 2, "a thread must not get what its own process has"
    claims.release(file, IDS[4:5])
    assert claims.claim(file, IDS).tolist() == [False] * 4 + [True, False], "what is released may be claimed"
    child.kill()
    child.communicate()
    assert claims.claim(file, IDS).tolist() == [True] * 4 + [False] * 2, "and so may what a dead process had"
    claims.release(file, IDS)
    assert file.stat().st_size == 0, "nothing is written"


def test_two_workers_on_halves_of_a_table_compute_at_the_same_time(tmp_path):
    need = Slow(pause=0.01)
    started = [start(tmp_path, need, half) for half in (range(48), range(48, 96))]
    for thread, _, _ in started:
        thread.join()
    (one, two) = (passes for _, passes, _ in started)
    both = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in two)
    assert both > 0.24, f"of half a second of work each, most must be at the same time; got {both:.2f} s"
    assert [sum(computed.values()) for *_, computed in started] == [48, 48], "each must compute its half"
    assert rows(tmp_path) == 96, "and store it"
    assert Store(tmp_path).verify() == [], "nothing is wrong on disk"


def test_two_workers_on_the_same_rows_share_them_and_compute_none_twice(tmp_path):
    started = [start(tmp_path, Slow(pause=0.01), range(96)) for _ in range(2)]
    for thread, _, _ in started:
        thread.join()
    counts = [sum(computed.values()) for *_, computed in started]
    assert sum(counts) == 96 == rows(tmp_path), f"each row must be computed once; got {counts}"
    assert min(counts) > 0, f"and both must have worked; got {counts}"


def test_rows_of_a_worker_that_fails_are_computed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "COMMIT", 0.05)
    need, failed, original = Slow(pause=0.01), [], Slow.compute

    def fail(self, backbone, pixels):
        if threading.current_thread() is broken and len(PASSES[broken]) > 5:
            raise ValueError("the tower is broken")
        return original(self, backbone, pixels)

    broken = None
    monkeypatch.setattr(Slow, "compute", fail)
    broken, _, some = start(tmp_path, need, range(96), failed)
    thread, _, rest = start(tmp_path, need, range(96))
    broken.join()
    thread.join()
    assert len(failed) == 1, "the first must have failed"
    assert sum(some.values()) + sum(rest.values()) == 96 == rows(tmp_path), "the second must compute what is left"


def test_a_commit_comes_every_two_seconds_of_work_whatever_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "COMMIT", 0.5)
    thread, passes, _ = start(tmp_path, Slow(pause=0.02), range(96), batch_size=512)  # two seconds in all
    thread.join()
    longest = max(took for took in (end - began for began, end, _ in passes))
    assert longest < 1.0, f"no pass may take much longer than a commit; got {longest:.2f} s"
    assert max(n for *_, n in passes) <= 25, "a pass must have no more rows than fit"
    (table,) = Store(tmp_path).tables()
    shards = [entry["rows"] for entry in table._entries()]
    assert len(shards) >= 4, f"about two seconds of work must be stored in four shards or more; got {shards}"


def test_a_small_tower_gets_whole_batches(tmp_path):
    thread, passes, _ = start(tmp_path, Slow(), range(96), batch_size=40)
    thread.join()
    assert [n for *_, n in passes if n > 1] == [40, 40, 16], "what is quick must be done in batches as asked"


@pytest.mark.parametrize("need", [Pooled(views=2, fresh=True), Pooled(views=3, plain_first=True, fresh=True)])
def test_fresh_views_are_decoded_by_several_threads(tmp_path, monkeypatch, need):
    threads, original = set(), ToyImages.image

    def image(self, i):
        threads.add(threading.current_thread().name)
        time.sleep(0.01)
        return original(self, i)

    monkeypatch.setattr(ToyImages, "image", image)
    cache = FeatureCache(toy_backbone("0"), Store(tmp_path), hook=plugins.manager().hook, load=pick_backbone)
    rows = cache.images(IMAGES, need, torch.arange(8))
    assert rows.shape == (8, need.views, 16), "every view must be there"
    assert len(threads) > 1 and threading.current_thread().name not in threads, f"got decoding by {threads}"
