"""Ray: what workers do is what a run in turn does, to the last bit, whoever is killed meanwhile."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from adaptkit.features.store import Store
from adaptkit.runs import build, job, plugins, recipe

pytest.importorskip("ray")
QUICK = {"RAY_worker_niceness": "0", "RAY_prestart_worker_first_driver": "false"}
"""Workers that other tests do not starve, and none that nobody asked for."""

PLUGIN = '''
"""Methods that count, fail, and end their process; a backbone that a new process has at once, without transformers."""
import os, signal, time
from pathlib import Path
import torch
from torch import nn
from adaptkit import Backbone, Preprocess, ZeroShot, hookimpl

class Light(Backbone):
    def __init__(self):
        self.model = nn.ModuleDict({"image": nn.Linear(3, 8), "text": nn.Embedding(128, 8)})
        self.model["image"].weight.data = torch.arange(24.0).view(8, 3).sin()
        self.model["text"].weight.data = torch.arange(1024.0).view(128, 8).sin()
        self.model["image"].bias.data.zero_()
        self.preprocess = Preprocess(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.points, self.dim, self.width, self.depth, self.vocabulary = {}, 8, {}, {}, "letters"
        self.freeze()

    def tokenize(self, sentences):
        return {"input_ids": torch.tensor([[ord(c) % 128 for c in s[:20].ljust(20)] for s in sentences])}

    def image(self, pixels, project):
        return self.model["image"](pixels.mean((2, 3)))

    def text(self, tokens):
        return self.model["text"](tokens["input_ids"]).mean(1)

class Slow(ZeroShot):
    def fit(self, task):
        super().fit(task)
        (Path(os.environ["ADAPTKIT_HOME"]) / f"worker-{os.getpid()}").touch()
        time.sleep(0.2)

class Broken(ZeroShot):
    def fit(self, task):
        raise RuntimeError("this method is broken")

class Deadly(ZeroShot):
    def fit(self, task):
        os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def methods():
    return {"slow": Slow, "broken": Broken, "deadly": Deadly}

@hookimpl
def backbones():
    return {"light": lambda name: Light()}
'''
MACHINE = ("seconds", "memory", "digest")  # what two runs may differ in


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the plugin, which is loaded; workers load it, too."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "methods_for_ray.py").write_text(PLUGIN)
    plugins.use_file(folder / "methods_for_ray.py")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUICK, "ADAPTKIT_HOME": str(folder)}.items():
            patch.setenv(name, value)
        yield folder
    plugins.manager().unregister(name="methods_for_ray")
    plugins.table.cache_clear()


@pytest.fixture(scope="module")
def workers(place):
    from adaptkit.engines.ray_workers import RayWorkers

    with RayWorkers(workers=2) as engine:
        yield engine


def asked(*methods, **changes):
    made = recipe.read_recipe("toy", {"methods": list(methods), "shots": [1], "keep_answers": True, **changes})
    return build.check_recipe(made)


def done(folder, one, engine=None, home=None):
    said = []
    places = {"home": home or folder / "home", "out": folder / "out"}
    return job.run_recipe(one, **places, say=said.append, progress=False, engine=engine), said


def records(folder):
    """Every record without times and machine, and every other file whole, by name."""
    found = {}
    for path in sorted(p for p in (folder / "out").rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json" and path.parent == folder / "out" and path.name != "recipe.json":
            data = {key: value for key, value in json.loads(data).items() if key not in MACHINE}
        found[path.relative_to(folder).as_posix()] = data
    return found


def rows(home):
    """The bytes of every row, by table and id."""
    found = {}
    for path in (home / "features").glob("*/shards/*.safetensors"):
        shard = load_file(path)
        for one, row in zip(shard["ids"], shard["rows"], strict=True):
            found[path.parts[-3], one.tobytes()] = row.tobytes()
    assert len(found) == sum(table.rows for table in Store(home / "features").tables()), "each row once"
    return found


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_workers_one_killed_get_what_a_run_in_turn_gets_bit_for_bit(workers, place, tmp_path, monkeypatch):
    one = asked("zero-shot", "gda", "slow", seeds=[1, 2, 3, 4])
    alone, _ = done(tmp_path / "serial", one)
    original, killed = job.keep_made, []

    def keep_made(made, out):
        pids = [int(path.name.partition("-")[2]) for path in place.glob("worker-*")]
        living = [pid for pid in pids if pid != os.getpid() and alive(pid)]
        if living and not killed:
            os.kill(living[0], signal.SIGKILL)
            killed.append(living[0])
        return original(made, out)

    monkeypatch.setattr(job, "keep_made", keep_made)
    spread, said = done(tmp_path / "ray", one, workers)
    assert killed, "a worker must have been killed in the middle"
    assert len(spread) == len(alone) == 12 and not spread.failures, f"all cells must be there; got {said}"
    assert records(tmp_path / "ray") == records(tmp_path / "serial"), "records and answers must be the same"
    assert rows(tmp_path / "ray" / "home") == rows(tmp_path / "serial" / "home"), "and so must all features"
    again, said = done(tmp_path / "ray", one, workers)
    assert "12 done already, 0 to run" in said[0] and list(again) == list(spread), f"nothing is run twice; got {said}"


def test_a_cell_that_fails_or_ends_its_worker_each_time_is_named_and_the_others_are_run(workers, tmp_path):
    one = asked("broken", "zero-shot", "deadly", seeds=[1], backbone="light:0")
    found, said = done(tmp_path, one, workers)
    causes = {failure.method: failure.cause for failure in found.failures}
    assert [result.method for result in found] == ["zero-shot"], f"what can be run must be; got {said}"
    assert causes["broken"] == "RuntimeError: this method is broken", f"as in a run in turn; got {causes}"
    assert "ended 3 times while it did this job alone" in causes["deadly"], f"tried by three workers; got {causes}"
    text = (tmp_path / "out" / found.failures[0].file).read_text()
    assert "this method is broken" in text and "Traceback" in text, f"the traceback must lie beside; got {text}"


def test_features_by_workers_are_those_of_one_process_and_those_that_a_run_reads(workers, tmp_path):
    one = asked("zero-shot", {"tip-adapter": {"views": 2}}, seeds=[1, 2])
    said = job.extract_all(one, home=tmp_path / "serial", progress=False)
    parts = [job.extract_all(one, home=tmp_path / "parts", progress=False, shard=(i, 3)) for i in (1, 2, 3)]
    spread = job.extract_all(one, home=tmp_path / "ray", progress=False, engine=workers)
    whole, count = rows(tmp_path / "serial"), int(said.split()[1].replace(",", ""))
    assert len(whole) == count > 90, f"it must say how many rows it computed; got {said}"
    assert f" {count:,} rows computed" in spread, f"so must who has others compute; got {spread}"
    assert rows(tmp_path / "ray") == whole, "workers must compute the same bytes"
    three = rows(tmp_path / "parts")  # of other batches: the last digit of a row may differ
    assert three.keys() == whole.keys() and len(parts) == 3, f"three parts must compute the same rows; got {parts}"
    halves = [k for k in whole if len(whole[k]) == 32]  # pictures' rows, (16,) in half precision
    pairs = [[np.frombuffer(found[k], np.float16).astype(float) for found in (three, whole)] for k in halves]
    assert max(np.abs(a - b).max() for a, b in pairs) < 0.01, "to the last digits"
    again = job.extract_all(one, home=tmp_path / "ray", progress=False, engine=workers)
    assert " 0 rows computed" in again, f"nothing is computed twice; got {again}"
    _, told = done(tmp_path, one, home=tmp_path / "ray")
    assert " 0 rows computed" in told[1] and len(rows(tmp_path / "ray")) == count, f"a run finds all; got {told}"


def test_workers_that_have_other_code_are_refused(workers, tmp_path, monkeypatch):
    from adaptkit.runs import opened

    monkeypatch.setattr(opened, "file_name", lambda cell, *rest: f"{cell.label}.another")
    with pytest.raises(ValueError, match=r"workers must have this process's adaptkit.*zero-shot.another"):
        done(tmp_path, asked("zero-shot", seeds=[7], backbone="light:0"), workers)
    assert not [*(tmp_path / "out").glob("zero*.json")], "what they made must not be kept"


def test_a_cluster_that_has_no_room_for_what_was_asked_is_said(workers, monkeypatch):
    from adaptkit.engines.ray_workers import RayWorkers

    more = RayWorkers(workers=1, gpus=8.0)
    with pytest.raises(ValueError, match=r"workers must fit in the cluster, which has 2 CPUs and 0 GPUs .*--gpus 8"):
        more._start()


def test_who_has_no_ray_is_told_how_to_get_it(monkeypatch, capsys):
    from adaptkit import cli

    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["run", "toy", "--engine", "ray"]) == 2, "it cannot be done"
    assert capsys.readouterr().err.strip() == (
        "adaptkit: error: ray must be installed for --engine ray; got none; pip install 'adaptkit-vlm[ray]'"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cpus", "2"], "--cpus must come with --engine ray; got it without"),
        (["--engine", "ray", "--workers", "999"], "--workers times --cpus must be at most the cores of this machine"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "--address must be that of a Ray cluster that stands; got"),
        (["--engine", "ray", "--shard", "1/2"], "--shard must be left out with --engine ray"),
        (["--engine", "ray", "--cpus", "0"], "--cpus must be a number from 0.1 to 1,000; got 0.0"),
        (["--engine", "ray", "--address", ""], "--address must be HOST:PORT, auto or ray://HOST:PORT; got ''; leave"),
        (["--engine", "ray", "--workers", "-1"], "--workers must be a whole number from 0 to 10,000; got -1"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_starts(options, words, capsys):
    from adaptkit import cli

    assert cli.main(["extract", "toy", *options]) == 2, "a wrong request"
    assert words in capsys.readouterr().err, f"it must say {words!r}"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:port", "127.0.0.1:99999999"])
def test_an_address_where_nobody_listens_is_refused_before_ray_tries_it_without_end(address, monkeypatch):
    from adaptkit.engines.ray_workers import RayWorkers

    engine, tried = RayWorkers(address=address), []
    monkeypatch.setattr(engine.ray, "init", lambda *given, **_: tried.append(given))
    with pytest.raises(ValueError, match=r"^--address must be that of a Ray cluster that stands; got '.*': .+$") as why:
        engine._begin()
    assert not tried and "\n" not in str(why.value), f"in one line; got {why.value}"


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:1"])
@pytest.mark.parametrize("own", [False, True])
def test_another_kind_of_address_is_left_to_ray_and_sigterm_to_who_had_it(address, own, monkeypatch):
    from adaptkit.engines.ray_workers import RayWorkers

    engine, tried, raised, before = RayWorkers(address=address), [], [], signal.getsignal(signal.SIGTERM)

    def init(*given, **_):
        tried.append(given)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray's

    monkeypatch.setattr(engine.ray, "init", init)
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(signal, "raise_signal", lambda number: raised.append((number, signal.getsignal(number))))
    had = (lambda *_: None) if own else signal.SIG_DFL
    try:
        signal.signal(signal.SIGTERM, had)
        with contextlib.suppress(KeyboardInterrupt), engine:
            engine._begin()
            os.kill(os.getpid(), signal.SIGTERM)
        assert tried == [(address,)] and signal.getsignal(signal.SIGTERM) is had, f"got {tried}"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert raised == ([] if own else [(signal.SIGTERM, had)]), f"a signal that is not heard ends the run; got {raised}"


def below(pid):
    """The processes that one has started, and those that these have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, b"stopped; finished rows and cells are kept"), (signal.SIGTERM, -signal.SIGTERM, b"")],
)
def test_a_signal_ends_workers_at_once_and_leaves_what_is_finished(number, code, words, place, tmp_path):
    plugin, home, out = place / "methods_for_ray.py", tmp_path / "home", tmp_path / "out"
    what = [
        "run",
        "toy",
        "--set",
        "methods=[slow]",
        "--set",
        "backbone=light:0",
        "--seeds",
        ",".join(map(str, range(400))),
        "--shots",
        "1",
    ]
    command = [sys.executable, "-m", "adaptkit", *what, "--plugin", plugin, "--home", home, "--out", out]
    environment = {**os.environ, "ADAPTKIT_HOME": str(home)}
    with subprocess.Popen([*command, "--engine", "ray", "--workers", "1"], env=environment, stderr=-1) as running:
        until = time.monotonic() + 200
        while len([*out.glob("slow*.json")]) < 2 and running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        started = below(running.pid)
        assert len(started) > 2, f"there must be workers; got {running.poll()}"
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == code and words in said and b"Traceback" not in said, f"got {said[-500:]!r}"
    until = time.monotonic() + 20
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)], "no process of Ray must stay"
    assert 2 <= len([*out.glob("slow*.json")]) < 400, "what is finished is kept"
