"""What a home may be: a folder of a file system with locks; anything else is told in one line."""

import errno
import fcntl

import numpy as np
import pytest

from adaptkit import cli
from adaptkit.engines.handing import DEATHS, HOPELESS, JOBS_AT_ONCE, PACE, Jobs
from adaptkit.io.home import home
from adaptkit.runs.shards import ShardJobs, masked


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "toy", "--home", "s3://bucket/home"],
        ["extract", "toy", "--home", "s3://bucket/home"],
        ["run", "toy", "--out", "gs://bucket/out"],
        ["cache", "ls", "--home", "memory://home"],
    ],
    ids=" ".join,
)
def test_an_address_of_an_object_store_is_refused_and_becomes_no_folder(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2, "a wrong request"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "must be a folder of a file system" in said, f"in one line; got {said}"
    assert "copy it there afterwards" in said, f"with what to do; got {said}"
    assert not [*tmp_path.iterdir()], "no folder called s3: must be made"


def test_an_address_in_the_environment_is_refused_too(monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", "hdfs://node/home")
    with pytest.raises(ValueError, match=r"the home must be a folder of a file system.*an address by hdfs"):
        home()


@pytest.mark.parametrize("what", ["flock", "lockf"])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_in_one_line(what, number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, "Operation not supported")

    monkeypatch.setattr(fcntl, what, refuse)
    assert cli.main(["extract", "toy", "--shots", "1", "--seeds", "1", "--home", str(tmp_path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "it must lie on a file system with locks; choose another by --out, or by --home" in said, f"got {said}"
    assert said.count("\n") == 1 and str(tmp_path / "features") in said, f"in one line, with the folder; got {said}"


def test_short_jobs_are_handed_out_many_at_once_long_ones_singly():
    short, long = Jobs(range(1000)), Jobs(range(1000))
    counts = []
    for _ in range(9):
        given = short.take(2)
        counts.append(len(given))
        short.done(given, len(given), 0.001 * len(given))
    assert counts == [1, 2, 4, 8, 16, 32, 64, 64, 64] and JOBS_AT_ONCE == 64, f"twice as many each time; got {counts}"
    for _ in range(3):
        given = long.take(2)
        long.done(given, len(given), 2 * PACE)
        assert len(given) == 1, f"what takes longer than a call should must go alone; got {given}"


def test_what_is_left_is_shared_by_all_workers_and_what_was_not_begun_comes_next():
    jobs = Jobs(range(10), seconds=0.001, last=64)
    given = jobs.take(5)
    assert given == [0], f"of ten jobs five workers must get one each at first; got {given}"
    jobs.done([0], 1, 0.001)
    jobs.last = 64
    two = jobs.take(2)
    jobs.done(two, 1, 0.001)
    assert jobs.take(100) == [two[1]], "the rest of a call comes first"


def test_a_job_is_given_up_once_it_has_ended_workers_by_itself():
    jobs = Jobs(range(4), seconds=0.001, last=64)
    given = jobs.take(1)
    assert jobs.died(given) is None and len(given) == 2, "of several nobody knows which it was"
    lost = [jobs.died(jobs.take(1)) for _ in range(2 * DEATHS)]
    assert [n for n in lost if n is not None] == [0, 1], f"each after {DEATHS} deaths of its own; got {lost}"
    assert jobs.take(1) == [2], "the others are given out as before"
    with pytest.raises(ValueError, match="workers must live; got 30 that died one after another"):
        for _ in range(HOPELESS):
            jobs.died([3, 4])


def test_images_that_lack_the_same_needs_stand_together_in_the_order_they_are_met():
    rows, masks = masked([np.array([7, 3, 5]), np.array([3, 9]), np.array([], int)])
    assert rows.tolist() == [7, 3, 5, 9] and masks.tolist() == [1, 3, 1, 2], f"got {rows}, {masks}"
    shards = ShardJobs(None, [("train", (), rows), ("test", (), np.arange(130))])
    assert len(shards) == 4 and [len(s.rows) for s in shards] == [4, 64, 64, 2], "64 rows each, and the rest"
    assert shards[3].source == "test" and shards[3].rows == (128, 129), "in order"
    assert len(ShardJobs(None, [])) == 0, "there may be none"
