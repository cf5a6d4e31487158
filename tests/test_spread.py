"""A training that is spread over several processes of this machine is the training of one, within rounding."""

import os
import signal
import time

import pytest
import torch

import adaptkit as ak
from adaptkit.methods import spread
from adaptkit.methods.batches import Batches, Shares
from adaptkit.methods.method import Schedule
from adaptkit.methods.prompt_learner import PromptLearner
from tests import processes


def trained(name, trainer, toy, **options):
    torch.manual_seed(3)
    adapted = ak.adapt(ak.method(name, **options), toy[0], trainer=trainer)
    return adapted, ak.predict(adapted, toy[1]), torch.rand(2)


def test_two_processes_train_what_one_does_whatever_the_shares(toy, capfd):
    options = {"schedule": Schedule(epochs=2, lr=1e-2, batch_size=7), "dropout": 0.0}  # shares of four, three, and less
    one, want, draw = trained("clip-lora", {}, toy, **options)
    two, got, drawn = trained("clip-lora", {"devices": 2, "strategy": "ddp"}, toy, **options)
    off = float((got - want).abs().max() / want.abs().max())
    assert off < 1e-4, f"answers must be those of one process; got {off:.1e} of the largest apart"
    start = trained("clip-lora", {"max_steps": 0}, toy, **options)[1]
    assert float((start - want).abs().max()) > 1e-2, "and the training must have changed them"
    assert torch.equal(draw, drawn), "what is drawn afterwards is what one process would draw"
    assert {*one.state_dict()} == {*two.state_dict()} and not two.training, "the method is adapted as any other is"
    assert capfd.readouterr() == ("", ""), "and nothing is said"


def of_some_work(rank, world, given):
    if given[0] == "fails" and rank:
        raise ValueError("the training loss of CoOp must be finite; got nan at step 3 of 9")
    return {"sum": torch.tensor(float(rank + world)), "draw": torch.rand(1)}


def test_what_a_process_raises_is_raised_where_it_was_started():
    with pytest.raises(ValueError, match=r"^the training loss of CoOp must be finite; got nan at step 3 of 9$"):
        spread.launch(of_some_work, ("fails",), 2)


def that_never_ends(rank, world, given):
    (given[0] / str(os.getpid())).touch()
    while True:
        time.sleep(0.1)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(number, tmp_path):
    running, until = processes.Forked(spread.launch, that_never_ends, (tmp_path,), 2), time.monotonic() + 200
    while len([*tmp_path.iterdir()]) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2, f"two processes must work; got {running.poll()}"
    running.send_signal(number)
    running.communicate(60)
    until = time.monotonic() + 20
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)], "none must outlive it"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("Traceback\n  File\ntorch.OutOfMemoryError: CUDA out of memory\n", torch.OutOfMemoryError, "out of memory"),
        ("x\nMemoryError: no\n", MemoryError, "no"),
        ("x\nKeyError: 'a'\n", RuntimeError, "KeyError: 'a'"),
        ("x\nAssertionError\n", RuntimeError, "AssertionError"),
    ],
)
def test_the_error_of_a_process_is_known_by_its_kind(text, kind, said):
    error = spread.error_of(text)
    assert type(error) is kind and said in str(error), f"got {error!r}"


@pytest.mark.parametrize(("count", "size", "world"), [(20, 7, 2), (5, 2, 3), (8, 8, 4), (3, 3, 5), (7, 3, 2)])
def test_shares_are_parts_of_the_same_batches_and_weigh_as_much_as_the_whole(count, size, world, monkeypatch):
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *_: None)
    images, schedule = ak.Images.from_arrays(torch.randn(count, 4)), Schedule(epochs=1, batch_size=size)

    def drawn(batches):
        torch.manual_seed(0)
        return [batch.index.tolist() for batch in batches]

    whole = drawn(Batches(images, schedule))
    shares = [Shares(images, schedule, rank, world) for rank in range(world)]
    parts = [drawn(share) for share in shares]
    for step, batch in enumerate(whole):
        places = [share.place(step) for share in shares]
        assert all(place[0] == len(batch) for place in places), "each knows how long the whole batch is"
        got = [part[step] if stop > start else [] for part, (_, start, stop) in zip(parts, places, strict=True)]
        assert [row for part in got for row in part] == batch, "the parts, one after the other, are the batch"
        weights = [share.weight(step) for share in shares]
        assert sum(weights) == pytest.approx(world), "a mean over processes of the weights is one"
        want = [world * len(own) / len(batch) for own in got]
        assert weights == pytest.approx(want), "each weighs as its part is long"
        assert all(part[step] for part in parts), "nobody has nothing to do: the others wait for its gradients"


@pytest.mark.parametrize("name", ["flyp", "prograd", "cross-modal", "clap", "prompt-src"])
def test_a_method_whose_loss_may_look_at_a_whole_batch_says_so_in_one_line(name, toy):
    with pytest.raises(ValueError, match=r"trainer must not set devices .*; got 2 for .*leave") as why:
        ak.adapt(ak.method(name), toy[0], trainer={"devices": 2, "max_steps": 1})
    assert "\n" not in str(why.value), "in one line"


def test_a_loss_of_its_own_is_spread_only_where_it_says_that_it_is_a_mean():
    class Own(PromptLearner):
        def loss(self, batch):
            return super().loss(batch)

    class Mean(PromptLearner):
        @spread.mean_over_images
        def loss(self, batch):
            return super().loss(batch)

    spread.check_spreads(Mean(), {})
    with pytest.raises(ValueError, match="trainer must not set devices"):
        spread.check_spreads(Own(), {})


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert spread.processes({"devices": "auto"}, gpu) == 2 and spread.processes({"devices": "auto"}, cpu) == 1
    assert spread.processes({"devices": 2}, gpu) == 2 and spread.processes({}, gpu) == 1, "as many as are asked for"
    with pytest.raises(ValueError, match=r"trainer.devices must be at most the GPUs that are there, 2; got 3"):
        spread.processes({"devices": 3}, gpu)
    with pytest.raises(ValueError, match=r"trainer.devices must be 1 on mps; got 2"):
        spread.processes({"devices": 2}, torch.device("mps"))
