"""Each check of the contract catches a method that breaks its rule, and no other check is needed for it.

Source: none. Deviations: all of them.
"""

import re
import sys
import threading
import types
from dataclasses import field, replace
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Patches, Schedule, ZeroShot, adapt, method, predict
from adaptkit.features.cache import FeatureCache
from adaptkit.io.ranges import Weight
from adaptkit.methods.adapt import tune
from adaptkit.runs import plugins
from adaptkit.testing import CHECKS, check, toy_backbone
from adaptkit.testing.harness import adapted
from adaptkit.testing.kinds import of_its_kind, toy_of
from adaptkit.testing.report import briefly
from adaptkit.testing.toy import toy_task


def honest(method, batch):
    return method.zero_shot(batch.x)


def culprit(name, forward=honest, fit=None, **attributes):
    """A `ZeroShot` that answers by `forward`, and ends its `fit` with another."""

    def fit_and_more(self, task):
        ZeroShot.fit(self, task)
        fit(self, task)

    return type(name, (ZeroShot,), {"forward": forward, "fit": fit_and_more if fit else ZeroShot.fit, **attributes})


def scribble(method, task):
    task.backbone.model.text_projection.weight.data[0, 0] += 0.5


def leave_gradient(method, task):
    weight = task.backbone.model.text_projection.weight
    weight.grad = torch.zeros_like(weight)


def tap(method, task):
    task.backbone.points["text.tokens"].module.register_forward_hook(lambda module, args, out: out)


def see(method, batch):
    method.seen += len(batch)
    return honest(method, batch)


def tire(method, batch):
    return honest(method, batch) / (9 + next(method.mood))


def add_noise(method, task):
    method.text += 1e-7 * torch.from_numpy(np.random.default_rng().standard_normal(method.text.shape)).float()


def keep_unregistered(method, task):
    method.kept = torch.randn(method.text.shape)


def add_parameters(method, task):
    method.gain, method.idle = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))


def spread(method, task):
    x, labels = task.support.x, task.support.labels
    method.weight = nn.Buffer(torch.stack([x[labels == c].std(0).mean() for c in range(5)]).mean())


def wrong_sweep(method, val):
    for tilt in method.grid()["tilt"]:
        yield method.zero_shot(val.x) * tilt + (tilt == 1.0)


def count_in(method, batch):
    method.seen += 1
    return honest(method, batch) / method.seen


def count_all(method, stream):
    return honest(method, stream) / (method.seen + 1 + torch.arange(len(stream)))[:, None]


def ridge(method, penalty):
    """Weights towards labels, ``(C, D)``, of a ridge regression."""
    x, y = method.x.double(), F.one_hot(method.labels, 5).double()
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y).T.float()


def fit_ridge(method, task):
    method.x, method.labels = nn.Buffer(task.support.x), nn.Buffer(task.support.labels)
    method.weight = nn.Buffer(ridge(method, method.penalty))


def refit_ridge(method, values):
    Method.refit(method, values)
    method.weight.copy_(ridge(method, method.penalty))


def refit_and_forget(method, values):
    Method.refit(method, values)
    method.weight.copy_(ridge(method, 1.0))


COUNTED = {"scope": "stream", "fit": lambda method, task: method.register_buffer("seen", torch.zeros(()))}
TILTED = {
    "__annotations__": {"tilt": Weight},
    "tilt": 1.0,
    "grid": lambda method: {"tilt": (0.5, 1.0)},
    "forward": lambda method, batch: honest(method, batch) * method.tilt,
}
RIDGE = {
    "__annotations__": {"penalty": Weight},
    "penalty": 1.0,
    "grid": lambda method: {"penalty": (0.01, 0.1, 1.0, 10.0)},
    "support_needs": Method.support_needs,
}
READS_SUPPORT = {"support_needs": Method.support_needs}
TRAINED = {**READS_SUPPORT, "__annotations__": {"schedule": Schedule}, "schedule": Schedule(steps=2)}
CULPRITS = [  # a method; the check that catches it, and its words; the checks that cannot help failing as well
    (
        culprit("Centred", lambda m, batch: honest(m, batch) - honest(m, batch).mean(0)),
        ("scope", "Centred has scope 'sample', but the batch size matters"),
    ),
    (
        culprit("Ordered", lambda m, batch: honest(m, batch) + torch.arange(len(batch))[:, None] % 7, scope="set"),
        ("scope", "Ordered has scope 'set', but the order matters"),
    ),
    (
        culprit("Peeks", lambda m, batch: honest(m, batch) + F.one_hot(batch.labels, 5)),
        ("output_shape", "must be Tensor, not NoneType", *CHECKS),
    ),
    (
        culprit("Undeclared", lambda m, batch: m.zero_shot(batch.views)),
        ("output_shape", r"a feature must be one of the declared needs, \['x'\]; got 'views'", *CHECKS),
    ),
    (
        culprit("Misspells", swep=wrong_sweep, **TILTED),
        ("verbs_are_spelt", "got 'swep', which nobody calls; did you mean 'sweep'?"),
    ),
    (
        culprit("Boundless", __annotations__={"tries": int}, tries=3),
        ("options_have_ranges", "Boundless.tries must state its range, e.g. 'tries: Annotated.*; got <class 'int'>"),
    ),
    (
        culprit("Wide", lambda m, batch: F.pad(honest(m, batch), (0, 1))),
        ("output_shape", r"Wide must return \(60, 5\); got \(60, 6\)", "class_order", "other_classes"),
    ),
    (
        culprit("Infinite", lambda m, batch: honest(m, batch) / 0),
        ("output_shape", "Infinite returned 300 values not finite", *CHECKS),
    ),
    (
        culprit("Counts", see, lambda m, task: m.register_buffer("seen", torch.zeros(()))),
        ("predict_is_pure", r"Counts changed \['seen'\] while predicting"),
    ),
    (
        culprit("Tires", tire, lambda m, task: setattr(m, "mood", count())),
        ("predict_is_pure", "Tires answers differently the second time", "scope", "state_round_trip"),
    ),
    (
        culprit("Noisy", fit=add_noise),
        ("fit_is_repeatable", r"\['text'\] differ between two adaptations from one seed"),
    ),
    (culprit("Scribbles", fit=scribble), ("backbone_untouched", "Scribbles changed the frozen backbone")),
    (
        culprit("Grades", fit=leave_gradient),
        ("backbone_untouched", "Grades left gradients on .*text_projection.weight"),
    ),
    (culprit("Taps", fit=tap), ("backbone_untouched", "Taps left taps on .*token_embedding")),
    (
        culprit("Swallows", fit=lambda m, task: setattr(m, "tower", task.backbone.model)),
        ("backbone_untouched", "Swallows holds weights of the backbone as its own parameters"),
    ),
    (
        culprit("Biased", lambda m, batch: honest(m, batch) + 9 * F.one_hot(torch.tensor(0), 5)),
        ("class_order", "Biased depends on how classes are numbered", "beats_chance", "other_classes"),
    ),
    (
        culprit("Stays", retarget=lambda m, task: None),
        ("other_classes", r"Stays must return \(60, 4\); got \(60, 5\)"),
    ),
    (
        culprit("Sorts", retarget=lambda m, task: setattr(m, "text", task.text.sort(0).values)),
        ("other_classes", "Sorts depends on the order in which other classes are named"),
    ),
    (
        culprit("Remains", extend=lambda m, task: None),
        ("next_task", r"Remains must return \(60, 5\) after another task; got \(60, 3\)"),
    ),
    (
        culprit("Forgets", lambda m, batch: m.zero_shot(batch.x) + 0.01 * batch.x @ m.kept.T, keep_unregistered),
        ("state_round_trip", "Forgets loses something when saved", "class_order", "other_classes"),
    ),
    (
        culprit("Idle", lambda m, batch: m.gain * honest(m, batch), add_parameters, **TRAINED),
        ("every_parameter_learns", r"no gradient reaches \['idle'\] of Idle"),
    ),
    (
        culprit("Spread", lambda m, batch: honest(m, batch) * m.weight, spread, **READS_SUPPORT),
        ("works_with_one_shot", "Spread returned 40 values not finite"),
    ),
    (
        culprit("Sweeps", sweep=wrong_sweep, **TILTED),
        ("sweep_matches_forward", "cell 1 of Sweeps's sweep: outputs differ"),
    ),
    (
        culprit("Ridge", lambda m, batch: 9 * batch.x @ m.weight.T, fit_ridge, **RIDGE),
        ("grid_reaches_answers", r"Ridge's fit reads 'penalty', which its grid searches; override refit\(values\)"),
    ),
    (
        culprit("Deaf", lambda m, batch: 9 * batch.x @ m.weight.T, fit_ridge, refit=refit_and_forget, **RIDGE),
        ("grid_reaches_answers", "Deaf answers otherwise once it is refitted|Deaf's fit reads 'penalty'"),
    ),
    (
        culprit("Idles", **{**TILTED, "forward": honest}),
        ("grid_reaches_answers", "Idles answers the same for all values of 'tilt'; take it out of the grid"),
    ),
    (
        culprit("Hurries", replay=lambda m, stream: honest(m, stream) * 1.001, scope="stream"),
        ("replay_matches_forward", "Hurries's replay of 20 images: outputs differ"),
    ),
    (
        culprit("Foresees", replay=lambda m, stream: honest(m, stream) * len(stream) / 60, scope="stream"),
        ("replay_matches_forward", "Foresees's replay of 20 images: outputs differ", "scope"),
    ),
    (
        culprit("Restarts", count_in, replay=count_all, **COUNTED),
        ("replay_matches_forward", "Restarts's replay of those behind them: outputs differ"),
    ),
    (
        culprit("Guesses", lambda m, batch: 0 * honest(m, batch)),
        ("beats_chance", "Guesses is right 20% of the time: guessing"),
    ),
    (
        culprit("Vain", exempt={"scope": "somebody was careful"}),
        ("scope", r"Vain passes scope; remove its exemption \(somebody was careful\)"),
    ),
]


@pytest.fixture
def sandbox(toy):
    """The toy task over a backbone that may be spoilt."""
    task, queries = toy
    return replace(task, backbone=toy_backbone.__wrapped__("0")), queries


def failures(make, sandbox):
    """What each failing check says."""
    said = {}
    for title in CHECKS:
        try:
            check(title, make, *sandbox)
        except Exception as error:
            said[title] = str(error)
    return said


@pytest.mark.filterwarnings("ignore:std\\(\\)")
@pytest.mark.parametrize(("cls", "caught"), CULPRITS, ids=[cls.__name__ for cls, _ in CULPRITS])
def test_breaking_a_rule_is_caught_by_its_check_in_words_that_say_so(cls, caught, sandbox):
    title, words, *besides = caught
    said = failures(cls, sandbox)
    assert title in said, f"{cls.__name__} must be caught by {title}; these caught it: {said}"
    assert re.search(words, said[title]), f"{title} must say {words!r}; got {said[title]!r}"
    assert set(said) <= {title, *besides}, f"{cls.__name__} breaks {title} only; got {said}"


def test_every_check_has_a_culprit():
    caught = {title for _, (title, *_) in CULPRITS} | {"docstring_names_source"}
    assert caught == set(CHECKS), "each check must be shown to bite"


class Maps(Method):
    """How far each patch of an image is from the nearest one of the support."""

    answers = ("maps",)

    def needs(self):
        return {"patches": Patches()}

    def fit(self, task):
        normal = task.support[~task.support.targets.flatten(1).any(1)]
        self.bank = nn.Buffer(normal.patches[:, 1:].flatten(0, 1))

    def forward(self, batch):
        return torch.cdist(batch.patches[:, 1:], self.bank).amin(-1).unflatten(-1, (4, 4))


def kept(task):
    """What `Maps` keeps of a task."""
    made = Maps()
    made.fit(task)
    return made.bank


def test_a_method_of_maps_is_held_to_the_contract_on_maps():
    task, queries = of_its_kind(Maps(), *toy_of("toy-defects"))
    odd = {
        "output_shape": lambda self, batch: Maps.forward(self, batch).flatten(1).amax(1),
        "scope": lambda self, batch: Maps.forward(self, batch) / Maps.forward(self, batch).amax(),
        "beats_chance": lambda self, batch: -Maps.forward(self, batch),
    }
    for title, forward in odd.items():
        check(title, Maps, task, queries)
        with pytest.raises(AssertionError, match=r"must return|the batch size matters|guessing"):
            check(title, type("Odd", (Maps,), {"forward": forward}), task, queries)
    unkept = type("Unkept", (Maps,), {"fit": lambda self, task: self.__dict__.update(bank=kept(task))})
    with pytest.raises(AssertionError, match="loses something when saved"):
        check("state_round_trip", unkept, task, queries)
    for title in CHECKS:
        if title not in ("docstring_names_source", "verbs_are_spelt"):
            check(title, Maps, task, queries)


@pytest.mark.parametrize("missing", ["Source:", "Deviations:"])
def test_a_module_without_a_card_is_caught(missing, monkeypatch, sandbox):
    doc = "\n".join(f"{word} x." for word in ("Source:", "Deviations:") if word != missing)
    monkeypatch.setitem(sys.modules, "bare", types.ModuleType("bare", doc))
    cls = type("Bare", (ZeroShot,), {"__module__": "bare"})
    with pytest.raises(AssertionError, match=f"bare must have a '{missing}' line"):
        check("docstring_names_source", cls, *sandbox)


class Grades(Method):
    """The mean of grades, by the softmax of cosines to each one's mean image."""

    answers = ("ordinal",)
    output = "score"

    def fit(self, task):
        x, y = task.support.x, task.support.labels
        self.means = nn.Buffer(torch.stack([x[y == c].mean(0) for c in range(len(task.classnames))]))

    def forward(self, batch):
        return (400 * batch.x @ self.means.T).softmax(-1) @ torch.arange(len(self.means)).float()


def test_a_method_of_grades_is_held_to_the_contract_on_grades():
    task, queries = of_its_kind(Grades(), *toy_task())
    assert task.kind == "ordinal", "grades must be asked of it"
    odd = {
        "output_shape": lambda self, batch: Grades.forward(self, batch)[:, None],
        "scope": lambda self, batch: Grades.forward(self, batch) - Grades.forward(self, batch).mean(),
        "beats_chance": lambda self, batch: 2 + 0 * Grades.forward(self, batch),
    }
    for title, forward in odd.items():
        with pytest.raises(AssertionError, match=r"must return|the batch size matters|guessing"):
            check(title, type("Odd", (Grades,), {"forward": forward}), task, queries)
    for title in CHECKS:
        if title not in ("docstring_names_source", "verbs_are_spelt"):
            check(title, Grades, task, queries)


def adaptations(monkeypatch):
    """The methods that are fitted from now on."""
    fitted = []
    fit = ZeroShot.fit
    monkeypatch.setattr(ZeroShot, "fit", lambda method, task: (fitted.append(method), fit(method, task))[1])
    return fitted


def test_checks_that_ask_for_the_same_share_one_adaptation(monkeypatch, sandbox):
    task, queries = sandbox
    fitted, make = adaptations(monkeypatch), culprit("Shared")
    one, two = adapted(make, task), adapted(make, task)
    assert len(fitted) == 1, "one task, seed and method are adapted once"
    assert one is not two and torch.equal(predict(one, queries), predict(two, queries)), "each check must have its own"
    one.text += 1
    assert torch.equal(two.text, adapted(make, task).text), "what one check does to its copy must not reach another"
    adapted(make, replace(task))
    adapted(make, task)
    adapted(lambda: method("zero-shot"), task)
    adapted(make, task, anew=True)
    assert len(fitted) == 5, "another task or method is adapted anew, and what is asked for anew"


def test_options_tell_shared_adaptations_apart(sandbox):
    task, queries = sandbox
    tilted = culprit("Tilted", **TILTED)
    task = replace(task, val=None)
    answers = [predict(adapted(lambda tilt=tilt: tilted(tilt=tilt), task), queries) for tilt in (1.0, 0.5)]
    assert torch.equal(answers[0] * 0.5, answers[1]), "each option must be adapted with"


def test_a_method_that_cannot_be_copied_is_adapted_for_each_check(monkeypatch, sandbox):
    task, _ = sandbox
    make = culprit("Locked", fit=lambda m, task: setattr(m, "lock", threading.Lock()))
    fitted = adaptations(monkeypatch)
    assert adapted(make, task) is not adapted(make, task) and len(fitted) == 2, "there is nothing to share"


def test_the_generator_goes_on_as_after_adapting(sandbox):
    make = culprit("Draws", fit=lambda m, task: torch.rand(3))
    draws = [(adapted(make, sandbox[0]), torch.rand(2))[1] for _ in range(2)]
    assert torch.equal(*draws), "a check must see the same random numbers, shared or not"


def test_what_predicting_changes_is_seen_through_a_copy(sandbox):
    def count_behind(method, task):
        method.register_buffer("seen", torch.zeros(()))
        method.count = lambda: method.seen.add_(1)  # of the original, whichever copy answers

    cls = culprit("Hides", lambda m, batch: (m.count(), honest(m, batch))[1], count_behind)
    said = failures(cls, sandbox)
    assert said["predict_is_pure"] == "Hides changed ['seen'] while predicting", f"it must be caught; got {said}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("foward", "forward"), ("predict", "forward"), ("suport_needs", "support_needs"), ("training_step", "loss")],
)
def test_a_verb_that_nobody_calls_is_told_from_a_function_of_the_author_s(name, meant, sandbox):
    misspelt = type("Misspelt", (ZeroShot,), {name: lambda m, batch: batch})
    with pytest.raises(AssertionError, match=f"got '{name}', which nobody calls; did you mean '{meant}'?"):
        check("verbs_are_spelt", misspelt, *sandbox)
    calling = {name: lambda m, batch: batch}
    exec(f"def weigh(m, batch): return [m.{name}(b) for b in batch]", {}, calling)
    for wrap in (lambda f: f, property, staticmethod, torch.no_grad()):
        called = type("Called", (ZeroShot,), {**calling, "weigh": wrap(calling["weigh"])})
        check("verbs_are_spelt", called, *sandbox)
    both = type("Both", (ZeroShot,), {name: lambda m, batch: batch, meant: lambda m, batch: batch})
    check("verbs_are_spelt", both, *sandbox)
    inherited = type("Inherits", (misspelt,), {})
    with pytest.raises(AssertionError, match=f"did you mean '{meant}'"):
        check("verbs_are_spelt", inherited, *sandbox)


def test_a_declared_exemption_is_honoured(sandbox):
    openly = culprit("Biased", lambda m, batch: honest(m, batch) + torch.arange(5), exempt={"class_order": "by design"})
    assert "class_order" not in failures(openly, sandbox), "an exemption with a reason must be honoured"


def test_a_method_that_keeps_the_rules_passes(sandbox):
    answer = {"forward": lambda m, batch: 9 * batch.x @ m.weight.T, "fit": fit_ridge}
    for made in (culprit("Honest", **TILTED), culprit("Ridge", **answer, refit=refit_ridge, **RIDGE)):
        assert not failures(made, sandbox), "the checks must not fail a method that breaks no rule"


def test_the_answers_are_those_of_the_penalty_on_record(toy):
    task, _ = toy
    made = adapt(culprit("Ridge", lambda m, b: b.x @ m.weight.T, fit_ridge, refit=refit_ridge, **RIDGE)(), task)
    assert torch.equal(made.weight, ridge(made, made.penalty)), "the weights must be those of the penalty chosen"
    found = tune(made, task.val)
    weights = [ridge(made, penalty) for penalty in made.grid()["penalty"]]
    val = task.val.bind(made.needs())
    right = [int((val.x @ weight.T).argmax(-1).eq(val.labels).sum()) for weight in weights]
    assert found.correct.tolist() == right, "every cell must count the answers of its own penalty"
    assert made.penalty == made.grid()["penalty"][right.index(max(right))], "and the best must be kept"


@pytest.mark.parametrize(
    "name",
    ["forward", "train", "type", "half", "training", "scope", "exempt", "fit", "needs", "loss", "grid", "set", "refit"],
)
def test_an_option_named_like_an_attribute_of_a_method_is_an_error(name):
    with pytest.raises(TypeError, match=rf"must not be named like an attribute of Method; got Bad\.{name}"):
        type("Bad", (Method,), {"__annotations__": {name: int}, name: 3})


def test_a_module_shared_by_all_instances_is_an_error():
    with pytest.raises(TypeError, match=r"Bad.base must use field\(default_factory=...\); got one shared module"):
        type("Bad", (Method,), {"__annotations__": {"base": Method}, "base": ZeroShot()})
    good = type("Good", (Method,), {"__annotations__": {"base": Method}, "base": field(default_factory=ZeroShot)})
    assert good().base is not good().base, "each instance must get a base of its own"


def test_fit_reads_no_test_image_and_forward_no_label(monkeypatch, toy):
    task, queries = toy
    read, seen, phase = [], [], [""]
    images, call = FeatureCache.images, Method.__call__
    monkeypatch.setattr(FeatureCache, "images", lambda c, s, *a: (read.append((phase[0], s.name)), images(c, s, *a))[1])
    monkeypatch.setattr(Method, "__call__", lambda m, batch: (seen.append(batch.labels), call(m, batch))[1])
    for name, cls in plugins.table("methods").items():
        made = method(name, **briefly(cls, 1))
        own, asked = of_its_kind(made, task, queries)
        if own.gallery is not None:  # which queries are asked about, and so is read
            continue
        phase[0] = f"{name} fits"
        adapt(made, own)
        phase[0] = f"{name} predicts"
        predict(made, asked[:8])
    assert seen and any(source == "test" for _, source in read), "methods must have been called on test images"
    peeked = {p for p, source in read if p.endswith("fits") and source not in ("train", "val", "captions")}
    assert not peeked, f"adapting must read training and validation images only; not so: {peeked}"
    assert all(labels is None for labels in seen), "no method may be called with labels in sight"
