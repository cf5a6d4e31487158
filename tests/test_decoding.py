"""Pictures are decoded to the same pixels in this thread, in others and in other processes, whatever dies meanwhile."""

import os
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import Patches, Pixels, Pooled, Preprocess
from adaptkit.features import decoder_pool, decoding
from adaptkit.features.cache import FeatureCache
from adaptkit.features.cohorts import Cohort, Row
from adaptkit.features.datasets import Joined, picture_file_of, some_of
from adaptkit.features.decoder_pool import LOST
from adaptkit.features.decoding import CHUNK, Decoding, raw_for, stays_raw
from adaptkit.features.needs import Masks
from adaptkit.features.parts import Part, prepared, row_id
from adaptkit.features.sources import PictureFiles
from adaptkit.features.store import Store
from adaptkit.io.digests import FileDigests
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.testing import ToyImages, toy_backbone
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.lane import Lane
from adaptkit.towers.preprocess import AUGMENTS

EYES = SimpleNamespace(
    preprocess=Preprocess(size=40, edge=44, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)), device=torch.device("cpu")
)
LANE = Lane(EYES.device)
MODES = {"a.jpg": "RGB", "b.png": "RGBA", "c.png": "L", "d.png": "P", "e.jpg": "CMYK", "f.png": "LA", "g.webp": "RGB"}


def pictures(folder, count=0):
    """Files of many kinds, and so many more of one."""
    draw = np.random.default_rng(3)
    for name, mode in MODES.items() if not count else [(f"{i:03}.png", "RGB") for i in range(count)]:
        pixels = draw.integers(0, 256, (*draw.integers(30, 90, 2), 4), dtype=np.uint8)
        Image.fromarray(pixels).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode).save(folder / name)
    return files(sorted(folder.glob("*.*")))


def files(paths):
    return PictureFiles("some", paths, [0] * len(paths), FileDigests(Path(os.devnull)))


def part(source, need, items):
    ids = np.stack([row_id(source.key(i), view) for i, view in items])
    return Part(need, need.views > 0, None, EYES, np.array(items), ids)


def decoding_of(source, some, count=0):
    return Decoding(source, [some], count)


def rows_of(work, places):
    """Some rows of the part, item by item."""
    (some,) = work.parts
    rows = [(*some.items[place].tolist(), place) for place in places]
    made = [Row(Cohort(some.kind(view), (some,)), i, view, (place,)) for i, view, place in rows]
    return [[*alike] for _, alike in groupby(made, lambda row: row.item)]


def plain(source, need, items):
    """What enters a tower, ``(N, 3, H, W)``, item by item, as every need prepares it."""
    return torch.stack([prepared(source, need, EYES, *item)[1] for item in items])


def run(work, places):
    """What enters a tower, in pieces as they come, and the ids of the rows."""
    got = [one for future in work.submit(rows_of(work, places)) for one in future.result(30)]
    out = work.batch(got, LANE)
    work.release(got)
    return (out if isinstance(out, torch.Tensor) else torch.stack(out)), np.stack([one.id for one in got])


@pytest.fixture
def eager(monkeypatch):
    """Processes for any number of pictures on any machine; they are waited for."""
    monkeypatch.setattr(decoding, "ENOUGH", 1)
    monkeypatch.setattr(decoding, "CORES", 1)
    begun = decoding.Helpers.__init__

    def begin(self, *how):
        begun(self, *how)
        wait(lambda: all(helper.ready for helper in self.all), "processes must start")

    monkeypatch.setattr(decoding.Helpers, "__init__", begin)


def wait(true, what, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture
def helped(eager):
    """Start the decoding of a part in two processes; all are closed in the end."""
    works = []

    def start(source, need, items, slots=64):
        works.append(work := decoding_of(source, part(source, need, items), 2))
        work.help(len(items), 1e-6, slots)
        return work

    yield start
    for work in works:
        work.close()


def test_bytes_that_are_normalised_by_the_batch_are_the_same_bits(tmp_path):
    source = pictures(tmp_path)
    for augment in AUGMENTS:
        need = Pooled(views=1, augment=augment, unit=False)
        items = [(i, view) for i in range(len(source)) for view in (0, 1)]
        work = decoding_of(source, part(source, need, items))
        assert (raw_for(need, EYES) is None) == (augment == "augmix"), "what computes with pixels needs them normalised"
        got, ids = run(work, range(len(items)))
        want = plain(source, need, items)
        assert torch.equal(got, want) and got.stride() == want.stride(), f"{augment} views must be the same"
        assert (ids == work.parts[0].ids).all(), "and come in order, under the keys of their bytes"


def test_processes_decode_to_the_same_bits_in_order(tmp_path, helped):
    source = pictures(tmp_path)
    items = [(i, view) for i in range(len(source)) for view in (-1, 0, 1, 2)]
    need = Pooled(views=1, augment="strong", unit=False)
    work = helped(source, need, items)
    inline = []
    decode, work.decode = work.decode, lambda rows: inline.append(rows) or decode(rows)
    got, ids = run(work, range(len(items)))
    assert torch.equal(got, plain(source, need, items)), "pixels must be the same in any process"
    assert (ids == work.parts[0].ids).all(), "rows must come in order"
    assert not inline and len(work.helpers.all) == 2, f"processes must have done it all; got {inline}"
    assert len(work.helpers.free) == len(work.helpers.slab), "all slots must be free again"


def test_a_process_that_is_killed_loses_nothing_and_is_replaced(tmp_path, helped):
    source = pictures(tmp_path, 48)
    items = [(i, -1) for i in range(48)]
    work = helped(source, Pooled(unit=False), items)
    first = list(work.helpers.all)
    work.helpers.all[0].process.kill()
    want = plain(source, Pooled(), items)
    assert torch.equal(run(work, range(24))[0], want[:24]), "pictures of a dead process must be decoded again"
    for helper in first:
        helper.process.kill()
    assert torch.equal(run(work, range(24, 48))[0], want[24:]), "of two as well"
    assert work.helpers.lost == 2 and len(work.helpers.all) == 4, "each that dies must be replaced"
    for _ in range(4):
        for helper in work.helpers.all:
            helper.process.kill()
        assert torch.equal(run(work, range(48))[0], want), "where all die, threads must do"
    assert len(work.helpers.all) <= 2 + LOST, "no process is started for ever"
    assert len(work.helpers.free) == len(work.helpers.slab), "all slots must be free again"


def test_where_no_process_can_take_a_dead_ones_place_threads_do(tmp_path, helped, monkeypatch):
    source = pictures(tmp_path, 24)
    items = [(i, -1) for i in range(24)]
    work = helped(source, Pooled(unit=False), items)
    monkeypatch.setattr(decoder_pool, "Helper", no_processes)
    for helper in work.helpers.all:
        helper.process.kill()
    for _ in range(2):
        assert torch.equal(run(work, range(24))[0], plain(source, Pooled(), items)), "nothing may be lost"
    assert not work.helpers.idle, "there is no process left"


def test_an_application_without_an_interpreter_is_not_started_again(tmp_path, eager, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(OSError, match="there is no interpreter"):
        decoding.Helpers(2, 4, EYES.preprocess)


def test_where_slots_are_short_threads_decode(tmp_path, helped):
    source = pictures(tmp_path, 24)
    items = [(i, -1) for i in range(24)] * 3
    work = helped(source, Pooled(unit=False), items, slots=0)
    assert len(work.helpers.free) == 2 * 2 * CHUNK, "there must be what keeps two processes busy"
    assert torch.equal(run(work, range(72))[0], plain(source, Pooled(), items)), "more rows than slots must come, too"


@pytest.mark.parametrize("processes", [False, True])
def test_a_broken_picture_has_the_same_sentence_everywhere(tmp_path, helped, processes):
    source = pictures(tmp_path, 12)
    items = [(i, -1) for i in range(12)]
    work = (
        helped(source, Pooled(unit=False), items) if processes else decoding_of(source, part(source, Pooled(), items))
    )
    broken = source.paths[9]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match="an image must be readable") as found:
        run(work, range(12))
    with pytest.raises(ValueError, match="an image must be readable") as want:
        source.open(9)
    assert str(found.value) == str(want.value), "the reason must be the same"
    broken.unlink()
    with pytest.raises(ValueError, match="images of some must all be there; got no"):
        run(work, range(12))


def test_a_file_that_changed_is_told_under_its_new_key(tmp_path, helped):
    source = pictures(tmp_path, 12)
    items = [(i, -1) for i in range(12)]
    work = helped(source, Pooled(unit=False), items)
    Image.new("RGB", (50, 50), "red").save(source.paths[5])
    got, ids = run(work, range(12))
    assert torch.equal(got, plain(source, Pooled(), items)), "the pixels must be those of the new file"
    assert (ids == work.parts[0].ids).all(1).tolist() == [i != 5 for i in range(12)], "and its id, too"


def test_processes_are_started_where_they_pay_alone(tmp_path, monkeypatch):
    source, started, usual = pictures(tmp_path, 4), [], Pooled(unit=False)
    monkeypatch.setattr(decoding, "Helpers", lambda *how: started.append(how))

    def tries(count=8, left=9000, rate=1e-4, source=source, need=usual):
        work = decoding_of(source, part(source, need, [(i, -1) for i in range(4)]), count)
        for _ in range(2):
            work.help(left, rate, 64)
        return len(started)

    assert tries(left=500) == 0, "few pictures need no processes"
    assert tries(count=2) == 0, "on two cores threads decode as much"
    assert tries(rate=0.0) == tries(rate=0.1) == 0, "nor where the tower is slow, or nobody knows yet"
    assert tries(source=ToyImages("train", 4)) == 0, "what is in memory stays in this process"
    assert tries(need=Pooled(views=1, augment="augmix")) == 0, "what computes with pixels is done here"
    assert tries() == 1, "thousands of files for a fast tower on many cores are worth it, once"
    monkeypatch.setattr(decoding, "Helpers", no_processes)
    work = decoding_of(source, part(source, Pooled(), [(i, -1) for i in range(4)]), 8)
    work.help(9000, 1e-4, 64)
    assert run(work, range(4))[0].shape == (4, 3, 40, 40), "where no process can be started threads must do"


def no_processes(*how):
    raise OSError("no memory")


def test_a_source_tells_its_files_where_their_bytes_are_all_there_is(tmp_path):
    class Own(PictureFiles):
        def open(self, i):
            return super().open(i)

    source = pictures(tmp_path, 4)
    joined = Joined([ToyImages("train", 3), source])
    assert picture_file_of(source, 1) == source.paths[1], "a file is told"
    assert picture_file_of(joined, 4) == picture_file_of(some_of(joined, [4]), 0) == source.paths[1], "through others"
    assert picture_file_of(joined, 2) is None, "what is drawn has no file"
    own = Own(source.name, source.paths, source.labels, source.digests)
    assert picture_file_of(own, 1) is None, "nor what a subclass opens in its own way"


def test_only_what_is_prepared_as_by_all_stays_bytes():
    class Grey(Pooled):
        def prepare(self, item, backbone, view, seed):
            return super().prepare(item.convert("L"), backbone, view, seed)

    class Sharp(Preprocess):
        pass

    assert stays_raw(Pooled(), EYES) and stays_raw(Patches(), EYES), "most needs prepare images alike"
    assert not stays_raw(Masks(), EYES) and not stays_raw(Grey(), EYES), "some do it in their own way"
    sharp = Sharp(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert not stays_raw(Pixels(), SimpleNamespace(preprocess=sharp)), "and so may a preprocessing"


def test_views_of_one_picture_open_it_once_and_not_once_each(tmp_path):
    source = pictures(tmp_path, 3)
    need, items, opened = Pooled(views=1, unit=False), [(i, view) for i in range(3) for view in range(CHUNK)], []
    counting = files(source.paths)
    work = decoding_of(counting, part(counting, need, items))
    object.__setattr__(counting, "open", lambda i: opened.append(i) or source.open(i))
    assert torch.equal(run(work, range(len(items)))[0], plain(source, need, items)), "views must be the same"
    assert sorted(opened) == [0, 1, 2], f"each must be opened once; got {opened}"


def test_features_of_a_folder_are_the_same_by_processes(tmp_path, eager, monkeypatch):
    source, need, rows = pictures(tmp_path, 90), Pooled(views=3, plain_first=True, unit=False), []
    closed, close = [], Decoding.close
    monkeypatch.setattr(Decoding, "close", lambda self: closed.append(self.helpers) or close(self))
    for enough in (1, 10**6):
        monkeypatch.setattr(decoding, "ENOUGH", enough)
        store, hook = Store(tmp_path / str(enough)), plugins.manager().hook
        cache = FeatureCache(toy_backbone("0"), store, hook=hook, load=pick_backbone, batch_size=16)
        rows.append(cache.images(source, need, torch.arange(90).flip(0)))
    assert rows[0].shape[:2] == (90, 3), "each picture must have three rows"
    assert torch.equal(*rows), "they must be the same, in order"
    assert [helpers is not None for helpers in closed] == [True, False], "with processes and without, once for both"
    for helpers in filter(None, closed):
        ended = [helper.process.poll() is not None for helper in helpers.all]
        assert all(ended), "no process outlives what it was started for"


PARENT = """
import os, sys, time
from adaptkit.features.decoder_pool import Helpers
from adaptkit.towers.preprocess import Preprocess
helpers = Helpers(2, 4, Preprocess(size=8, mean=(0.5,) * 3, std=(0.5,) * 3))
while not all(helper.ready for helper in helpers.all):
    time.sleep(0.01)
print("torch.nn" in sys.modules, *[helper.process.pid for helper in helpers.all], flush=True)
time.sleep(60)
"""


def test_no_process_outlives_its_parent_and_nothing_stays_behind():
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.is_dir() else set()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    heavy, *pids = parent.stdout.readline().split()
    parent.kill()
    parent.communicate()
    assert heavy == "False", "a process that only decodes must import no torch"
    wait(lambda: not any(running(pid) for pid in pids), f"{pids} must end with their parent, killed or not")
    after = set(shared.iterdir()) if shared.is_dir() else set()
    assert not any(path.name.startswith("adaptkit") for path in after - before), "shared memory has no name"


def running(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rsplit(")")[-1].split()[0] == "Z")  # nobody has asked for it


def test_a_processor_is_not_waited_for_as_it_answers_at_once():
    start, rows = LANE.mark(), torch.ones(2)
    assert LANE.late == 0, "there is nothing beside which something could be done"
    assert torch.equal(LANE.fetch(LANE.bring(lambda: rows))(), rows), "what is brought and fetched is what it was"
    assert LANE.between(start, LANE.mark()) >= 0, "marks are seconds"


@pytest.mark.parametrize(("seconds", "threads"), [(1e-5, 1), (1.0, 3)])
def test_a_tower_that_is_far_ahead_of_the_decoders_leaves_them_the_cores(tmp_path, monkeypatch, seconds, threads):
    seen, original = [], CLIPBackbone.image

    def image(self, pixels, project):
        seen.append(torch.get_num_threads())
        return original(self, pixels, project)

    monkeypatch.setattr(CLIPBackbone, "image", image)
    monkeypatch.setattr(Lane, "between", lambda self, start, end: seconds)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        how = {"hook": plugins.manager().hook, "load": pick_backbone, "batch_size": 2, "decoders": 2}
        cache = FeatureCache(toy_backbone("0"), Store(tmp_path / "store"), **how)
        cache.images(pictures(tmp_path, 12), Pooled(), torch.arange(12))
        assert seen[-1] == threads, f"the last batch must be computed by {threads}; got {seen}"
        assert torch.get_num_threads() == 3, "afterwards there must be as many as before"
    finally:
        torch.set_num_threads(before)
