"""The three verbs: adapt, tune, predict; and what Lightning is given to do."""

import math
import re
import sys
from dataclasses import field

import pytest
import torch
from torch import nn

from adaptkit import Method, Schedule, Task, ZeroShot, adapt, method, predict, tune
from adaptkit.methods.method import trainable
from adaptkit.runs import opened, recipe
from adaptkit.runs.evaluate import evaluate
from adaptkit.testing import toy_task
from tests import processes

GENERATOR = torch.Generator().manual_seed(0)
TEXT = torch.randn(3, 8, generator=GENERATOR)
LABELS = torch.arange(12) % 3
X, VAL = (TEXT[LABELS] + 0.8 * torch.randn(12, 8, generator=GENERATOR) for _ in range(2))
TASK = Task.from_arrays((X, LABELS), TEXT, val=(VAL, LABELS), pool=X)


class Gain(ZeroShot):
    """Learns one scale for each class; remembers what it was trained with."""

    schedule: Schedule = Schedule(epochs=4, batch_size=5, lr=0.1, optimizer="sgd", decay="constant")

    def support_needs(self):
        return self.needs()

    def fit(self, task):
        super().fit(task)
        self.gain, self.sizes, self.rates = nn.Parameter(torch.ones(3)), [], []

    def forward(self, batch):
        return self.zero_shot(batch.x) * self.gain

    def loss(self, batch):
        self.sizes.append(len(batch))
        return super().loss(batch)

    def callbacks(self):
        from pytorch_lightning import Callback

        class Rates(Callback):
            def on_train_batch_start(_, trainer, *__):
                self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

        return [Rates()]


class Sizes(ZeroShot):
    """Remembers how many queries it saw at once, and how many in all."""

    def fit(self, task):
        super().fit(task)
        self.seen = 0

    def forward(self, batch):
        self.seen += len(batch)
        SIZES.append((len(batch), self.seen))
        return self.zero_shot(batch.x)


SIZES = []


class Over(Method):
    """Built over another; remembers what it found."""

    base: Method = field(default_factory=Gain)

    def fit(self, task):
        state = {name: value.clone() for name, value in self.base.state_dict().items()}
        self.found = trainable(self.base), self.base.training, state, repr(self.base)

    def forward(self, batch):
        return self.base(batch)


class Tuned(ZeroShot):
    """Answers class 0 where `tilt` is large; two cells of its grid are equally good."""

    tilt: float = 9.0
    shift: float = 1.0

    def grid(self):
        return {"tilt": (500.0, 0.0, 0.5), "shift": (1.0, 2.0)}

    def forward(self, batch):
        return self.zero_shot(batch.x) + torch.tensor([self.tilt, 0.0, 0.0]) * self.shift


@pytest.mark.parametrize("base", [Gain, Tuned])
def test_what_a_method_is_built_over_is_adapted_first_and_then_frozen(base):
    adapted = adapt(Over(base=base()), TASK)
    left, training, state, options = adapted.found
    after = adapted.base.state_dict()
    assert all(torch.equal(state[name], after[name]) for name in after), "the base must have been trained before"
    assert options == repr(adapted.base), "and tuned"
    assert (left, trainable(adapted)) == (0, 0), "the base must be frozen, and nothing else is left to train"
    assert not training, "the base must answer as it will at prediction, not as in training"
    assert not adapted.training, "an adapted method must be in evaluation mode"


def test_tuning_takes_the_first_of_the_best_cells():
    found = tune(tuned := adapt(Tuned(), TASK), TASK.val)
    counts = [accuracy_at(tilt, shift) for tilt in (500.0, 0.0, 0.5) for shift in (1.0, 2.0)]
    assert found.correct.flatten().tolist() == counts, "every cell must be counted, the last option varying fastest"
    assert found.correct.shape == (3, 2) and found.total == 12, "the search must tell the grid and the images it saw"
    assert counts[2] == counts[3] == max(counts) > counts[0], "the test must have ties to break"
    assert found.values == {"tilt": 0.0, "shift": 1.0}, "of equally good cells the first must win"
    assert (tuned.tilt, tuned.shift) == (0.0, 1.0), "and be set"


def accuracy_at(tilt, shift):
    """Right answers on the validation rows at one cell."""
    logits = 100 * nn.functional.normalize(VAL, dim=1) @ nn.functional.normalize(TEXT, dim=1).T
    return int((logits + torch.tensor([tilt * shift, 0.0, 0.0])).argmax(1).eq(LABELS).sum())


def test_tuning_reads_validation_rows_only_and_needs_their_labels():
    other = Task.from_arrays((X, LABELS), TEXT, val=(VAL, torch.zeros(12)), pool=X)
    assert adapt(Tuned(), other).tilt == 500.0, "the labels of the validation rows must decide"
    assert adapt(Tuned(), Task.from_arrays((X, 0 * LABELS), TEXT, val=(VAL, LABELS))).tilt == 0.0, "and no others"
    assert adapt(Tuned(), Task.from_arrays((X, LABELS), TEXT)).tilt == 9.0, (
        "without them, options must stay as they are"
    )
    with pytest.raises(ValueError, match="validation images must be labelled and at least one"):
        tune(adapt(Tuned(), TASK), TASK.val.blind())


@pytest.mark.parametrize(
    ("scope", "sizes"),
    [("sample", [(5, 5), (5, 10), (2, 12)]), ("stream", [(1, n + 1) for n in range(12)]), ("set", [(12, 12)])],
)
def test_a_scope_decides_how_many_queries_are_seen_at_once(scope, sizes):
    adapted = adapt(type("Sizes", (Sizes,), {"scope": scope})(), TASK)
    for _ in range(2):
        SIZES.clear()
        adapted.seen = 0
        predict(adapted, X, batch_size=5)
        assert sizes == SIZES, f"scope {scope!r} must see these"
    assert adapted.seen == (0 if scope == "stream" else 12), "a stream must change a copy of the method only"


@pytest.mark.parametrize("name", ["coop", "task-res", "tip-adapter-f", "clip-adapter"])
def test_training_from_one_seed_gives_the_same_bits(name, toy):
    schedule = {"steps": 6, "warmup": 0}

    def trained(seed):
        torch.manual_seed(seed)
        return adapt(method(name, schedule=schedule), toy[0]).state_dict()

    one, two, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[n], two[n]) for n in one), f"{name} must repeat under a seed"
    assert any(not torch.equal(one[n], other[n]) for n in one), f"{name} must draw something from the seed"


def test_a_measured_cell_depends_on_its_seed_alone(toy):
    def cell(seed):
        torch.rand(seed * 7)  # whatever was drawn before
        return evaluate(method("task-res", schedule={"steps": 3, "lr": 0.5}), *toy, seed=seed).metrics

    one, two = cell(1), cell(1)
    torch.rand(5)
    assert one == two == cell(1), "one seed must give one result"
    assert one["nll"] != cell(2)["nll"], "another seed must give another"


def test_epochs_batches_and_callbacks_reach_lightning():
    adapted = adapt(Gain(), TASK)
    assert adapted.sizes == [5, 5, 2] * 4, "four passes over twelve rows, five at a time"
    assert adapted.rates == [0.1] * 12, "each step must take the rate of the schedule"
    adapted = adapt(
        Gain(schedule=Schedule(steps=7, batch_size=5, drop_last=True, lr=0.2, warmup=1, warmup_lr=0.01)), TASK
    )
    assert adapted.sizes == [5] * 7, "steps instead of epochs, without the batch that is too small"
    want = [Schedule(lr=0.2, warmup=1, warmup_lr=0.01).rate(step, 2, 7) for step in range(7)]
    assert adapted.rates == pytest.approx(want), "each step must take the rate of the schedule"


def test_trainer_options_are_passed_on_and_win():
    from pytorch_lightning import Callback

    class Seen(Callback):
        def on_fit_start(self, trainer, module):
            self.trainer = trainer

    seen = Seen()
    adapted = adapt(Gain(), TASK, trainer={"max_steps": 2, "gradient_clip_val": 0.5, "callbacks": [seen]})
    assert (seen.trainer.gradient_clip_val, seen.trainer.max_steps) == (0.5, 2), "options must arrive unchanged"
    assert len(adapted.sizes) == 2, "the recipe's length must win over the schedule's"
    assert len(adapted.rates) == 2, "the method's own callbacks must be there beside the recipe's"


def test_epochs_of_the_trainer_win_over_the_schedule():
    assert len(adapt(Gain(), TASK, trainer={"max_epochs": 2}).sizes) == 6, "fewer epochs must win over the schedule"
    assert len(adapt(Gain(), TASK, trainer={"max_epochs": 6}).sizes) == 18, "more epochs must win over the schedule"
    assert adapt(Gain(), TASK, trainer={"max_epochs": 0}).sizes == [], "no epoch is none"
    assert len(adapt(Gain(), TASK, trainer={"max_epochs": -1}).sizes) == 12, "any number leaves it to the schedule"


@pytest.mark.parametrize(("steps", "fatal", "seen"), [(7, 3, 7), (7, 7, 7), (100, 40, 64), (40, 33, 40)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training_and_says_at_which_step(steps, fatal, seen, value):
    class Spoilt(Gain):
        def loss(self, batch):
            return super().loss(batch) + (value if len(self.sizes) >= fatal else 0.0)

    spoilt = Spoilt(schedule=Schedule(steps=steps, batch_size=5, lr=0.25))
    words = (
        f"the training loss of Spoilt must be finite; got {value} at step {fatal} of {steps}; "
        "lower the schedule's lr, 0.25, or set the trainer's gradient_clip_val"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        adapt(spoilt, TASK)
    assert len(spoilt.sizes) == seen, "it must stop within a few steps, and look at several losses together"


@pytest.mark.parametrize("schedule", [Schedule(epochs=0), Schedule(epochs=1, lr=0.0)])
def test_a_schedule_that_changes_nothing_leaves_parameters_as_they_start(schedule):
    assert adapt(Gain(schedule=schedule), TASK).gain.tolist() == [1.0] * 3, "nothing must have been learned"


def test_training_without_schedule_or_images_is_an_error_that_says_so():
    nameless = type("Nameless", (ZeroShot,), {"fit": lambda m, task: setattr(m, "p", nn.Parameter(torch.ones(1)))})
    with pytest.raises(TypeError, match="a trained method must have a 'schedule: Schedule' option; got Nameless"):
        adapt(nameless(), TASK)
    with pytest.raises(ValueError, match="Gain must have support images to train on; got none"):
        adapt(Gain(), Task.from_arrays((X[:0], LABELS[:0]), TEXT))


def test_a_schedule_counts_its_steps():
    assert Schedule(epochs=3).length(per_epoch=7, shots=4) == 21, "epochs decide by default"
    assert Schedule(epochs=3, steps_per_shot=50).length(7, 4) == 200, "steps per shot win over epochs"
    assert Schedule(epochs=3, steps=5, steps_per_shot=50).length(7, 4) == 5, "steps win over both"


@pytest.mark.parametrize(("shots", "epochs"), [(0, 50), (1, 50), (2, 100), (4, 100), (7, 100), (8, 200), (16, 200)])
def test_epochs_may_depend_on_the_shots(shots, epochs):
    by_shots = [[1, 50], [2, 100], [8, 200]]
    for schedule in (method("coop").schedule, method("task-res", schedule={"epochs": by_shots}).schedule):
        assert schedule.length(per_epoch=3, shots=shots) == 3 * epochs, f"{shots} shots must train for {epochs} epochs"
    fixed = method("coop", schedule={"epochs": 20}).schedule
    assert fixed.length(per_epoch=3, shots=shots) == 60, "a recipe's one number must stand for all shots"


def test_the_shots_of_the_task_decide_how_long_is_trained():
    schedule = Schedule(epochs=((1, 2), (4, 5)), batch_size=5, lr=0.1)
    want = 2 if len(TASK.support) < 4 * len(TASK.classnames) else 5
    assert len(adapt(Gain(schedule=schedule), TASK).sizes) == 3 * want, "the support's own shots must be counted"


def test_a_rate_falls_as_a_cosine_by_step_or_by_epoch():
    def rates(**options):
        return [Schedule(lr=2.0, **options).rate(step, 5, 20) for step in range(20)]

    def cosine(share):
        return 1 + math.cos(math.pi * share)

    assert rates(decay="constant") == [2.0] * 20, "constant must stay"
    assert rates() == pytest.approx([cosine(step / 20) for step in range(20)]), "by step"
    assert rates(decay="cosine-epoch") == pytest.approx([cosine(e / 4) for e in range(4) for _ in range(5)]), "by epoch"
    assert rates(final_lr=1.0) == pytest.approx([1 + cosine(s / 20) / 2 for s in range(20)]), "down to the final rate"
    dassl = [0.3] * 5 + [cosine(e / 4) for e in range(3) for _ in range(5)]
    assert rates(decay="cosine-epoch", warmup=1, warmup_lr=0.3) == pytest.approx(dassl), (
        "after a warm-up, as Dassl does"
    )
    warm = rates(warmup=1, warmup_lr=0.3)
    assert warm[:6] == pytest.approx([0.3] * 5 + [2.0]), "after a warm-up the cosine must start at its full height"


def say_what_is_imported(folder):
    task, test = toy_task()
    for name in ("zero-shot", "gda"):
        predict(adapt(method(name), task), test)
    print([m for m in ("pytorch_lightning", "lightning_fabric", "torchmetrics") if m in sys.modules])
    opened.Opened(recipe.read_recipe("toy", {"methods": ["coop"]}), folder)
    print("pytorch_lightning" in sys.modules)


def test_lightning_is_not_imported_where_nothing_is_trained(tmp_path):
    alone, training = processes.Forked(say_what_is_imported, tmp_path).result().splitlines()
    assert alone == "[]", "nothing that only training needs may be imported"
    assert training == "True", "a recipe that trains must have it once it is opened: a first cell's time has no import"
