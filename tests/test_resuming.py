"""A training that was killed goes on from its checkpoint, to the same bits; what is damaged or foreign is not used."""

import json
import time
import warnings

import pytest
import torch

import adaptkit as ak
from adaptkit.io.notices import Notice
from adaptkit.methods import resuming
from adaptkit.methods.checkpoints import is_plain, put_together, read_training, taken_apart, write_training
from adaptkit.runs import job, recipe
from tests import processes

REAL = resuming.KeepState.on_train_epoch_end


class KilledError(Exception):
    """In the place of a signal."""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def dying(monkeypatch):
    """Let trainings die once they have kept their state so many times; 0 lets them live."""

    def after(count):
        seen = []

        def end(self, trainer, module):
            self.took = 0.0  # it is written after every epoch, however quick
            REAL(self, trainer, module)
            seen.append(trainer.current_epoch)
            if len(seen) == count:
                raise KilledError

        monkeypatch.setattr(resuming.KeepState, "on_train_epoch_end", end)
        return seen

    return after


def adapted(spec, folder=None, *, seed=3, shots=2, trainer=None, draws=3):
    torch.manual_seed(draws)
    task, _ = ak.load("toy", backbone="toy:0", shots=shots, seed=seed)
    return ak.adapt(ak.method(spec), task, trainer=trainer or {"max_epochs": 4}, checkpoint=folder)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def schedule(**how):
    return ak.Schedule(epochs=4, batch_size=4, **how)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(
            {"coop": {"schedule": schedule(optimizer="sgd", warmup=1, decay="cosine-epoch")}}, id="sgd, warm-up"
        ),
        pytest.param({"clip-adapter": {"schedule": schedule(optimizer="adamw", weight_decay=0.1)}}, id="adamw, cosine"),
        pytest.param({"tip-adapter-f": {"schedule": schedule(optimizer="adam", drop_last=True)}}, id="adam, drop last"),
        pytest.param("two-sfs", id="two stages"),
        pytest.param("maple", id="pixels, deep prompts"),
        pytest.param("clip-lora", id="dropout in the towers"),
    ],
)
def test_a_training_killed_after_its_epochs_ends_with_the_same_bits(spec, tmp_path, dying):
    want = adapted(spec)
    for count in (1, 2):  # killed, gone on, and killed again
        dying(count)
        with pytest.raises(KilledError):
            adapted(spec, tmp_path / "kept")
    epochs = dying(0)
    got = adapted(spec, tmp_path / "kept")
    assert same(want, got), "a training that was killed twice must end where one does that was not"
    assert 0 not in epochs, "and it must not have begun anew"
    assert not (tmp_path / "kept").exists(), "nothing is left of it"


def test_a_checkpoint_changes_no_bit_of_a_training_that_lives(tmp_path, dying):
    dying(0)
    assert same(adapted("coop"), adapted("coop", tmp_path / "kept")), "to keep a state is only to write"


def killed(spec, folder, dying):
    dying(2)
    with pytest.raises(KilledError):
        adapted(spec, folder)
    dying(0)
    return next(folder.iterdir())


@pytest.mark.parametrize("change", [{"draws": 4}, {"seed": 4}, {"shots": 4}, {"trainer": {"max_epochs": 5}}], ids=str)
def test_a_checkpoint_of_another_training_is_not_used(change, tmp_path, dying):
    killed("coop", tmp_path / "kept", dying)
    with pytest.warns(Notice, match="of another training and not used"):
        got = adapted("coop", tmp_path / "kept", **change)
    assert same(adapted("coop", **change), got), "the training begins anew"


@pytest.mark.parametrize("where", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_not_used(where, tmp_path, dying):
    file = killed("coop", tmp_path / "kept", dying)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "text": b"no tensors"}[where])
    with pytest.warns(Notice, match="is damaged and not used"):
        got = adapted("coop", tmp_path / "kept")
    assert same(adapted("coop"), got), "the training begins anew"


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = {
        0: {"m": torch.eye(2).T[:, :1], "step": 3.0},
        "nan": float("nan"),
        "tiny": 5e-324,
        "rest": [(), None, True],
    }
    assert is_plain(state) and not is_plain({"function": print}), "a state is tensors, numbers and text"
    write_training(tmp_path / "a", "id", state)
    back = read_training(tmp_path / "a", "id")
    assert torch.equal(back[0].pop("m"), state[0].pop("m")), "tensors are kept"
    assert repr(back) == repr(state), "and so is everything else, with its type"
    with pytest.raises(ValueError, match="must be tensors, numbers and text; got Event"):
        taken_apart({"x": __import__("threading").Event()}, {})
    assert put_together(taken_apart(1.5, {}), {}) == 1.5, "a number is a number"


def recipe_of(**changes):
    how = {"methods": ["coop"], "shots": [2], "seeds": [1], "trainer": {"max_epochs": 4}, "checkpoint": True, **changes}
    return recipe.read_recipe("toy", how)


def test_a_cell_goes_on_and_its_checkpoint_is_gone_once_its_record_is_written(tmp_path, dying):
    def run(out, **changes):
        found = job.run_recipe(
            recipe_of(**changes), home=tmp_path / "home", out=tmp_path / out, say=str, progress=False
        )
        return json.loads(next(p for p in (tmp_path / out).glob("coop*.json")).read_text()), found

    plain, _ = run("plain", checkpoint=False)
    dying(2)
    failed = job.run_recipe(recipe_of(), home=tmp_path / "home", out=tmp_path / "out", say=str, progress=False)
    assert len(failed.failures) == 1 and len([*(tmp_path / "home/checkpoints").rglob("*.safetensors")]) == 1, "kept"
    epochs = dying(0)
    record, _ = run("out")
    assert 0 not in epochs, "the cell must go on where it was"
    assert record["metrics"] == plain["metrics"] and record["tag"] == plain["tag"], "to the same record, under one key"
    assert not [*(tmp_path / "home/checkpoints").iterdir()], "and nothing is left of it"


def train_until_killed(kept, reached):
    """In another process: train, and wait at the end of the second epoch."""

    def slow(self, trainer, module):
        REAL(self, trainer, module)
        if trainer.current_epoch == 1:
            reached.touch()
            time.sleep(60)

    warnings.simplefilter("ignore")
    resuming.REST = 0
    resuming.KeepState.on_train_epoch_end = slow
    torch.manual_seed(3)
    task, _ = ak.load("toy", backbone="toy:0", shots=2, seed=3)
    ak.adapt(ak.method("coop"), task, trainer={"max_epochs": 4}, checkpoint=kept)


def test_a_process_that_was_killed_in_the_middle_is_gone_on_from_in_another(tmp_path, dying):
    reached, give_up = tmp_path / "reached", time.monotonic() + 150
    process = processes.Forked(train_until_killed, str(tmp_path / "kept"), reached)
    while not reached.exists() and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.01)
    process.kill()
    said = process.communicate()
    assert reached.exists(), f"it must have come to its second epoch; it said {said}"
    epochs = dying(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        got = adapted("coop", tmp_path / "kept")
    assert epochs[0] == 2, f"the third epoch comes next; got {epochs}"
    assert same(adapted("coop"), got), "and the end is the same, bit for bit"
