"""What a method says of itself is checked when its class is made; asked before it is adapted, it says so."""

import copy
import pickle

import pytest
import torch

from adaptkit import Images, Method, ZeroShot, adapt, method, predict
from adaptkit.methods.unadapted import UnadaptedError
from adaptkit.runs import plugins
from adaptkit.testing import toy_task
from adaptkit.testing.kinds import of_its_kind


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"scope": "batch"}, "scope must be one of sample, stream, set; got 'batch'"),
        ({"scope": "streem"}, "scope must be one of sample, stream, set; got 'streem'; did you mean 'stream'?"),
        ({"scope": None}, "scope must be one of sample, stream, set; got None"),
        ({"output": "scores"}, "output must be one of logits, score; got 'scores'; did you mean 'score'?"),
        ({"exempt": ["scope"]}, "exempt must be a mapping from checks to reasons, .*; got \\['scope'\\]"),
        ({"exempt": {"scope": ""}}, "exempt must be a mapping from checks to reasons, .*; got {'scope': ''}"),
    ],
)
def test_a_class_that_says_what_cannot_be_is_refused_when_it_is_made(said, words):
    with pytest.raises(ValueError, match=rf"^Bad\.{words.replace('?', '[?]')}$"):
        type("Bad", (ZeroShot,), said)


@pytest.mark.parametrize("scope", ["sample", "stream", "set"])
def test_a_class_may_choose_and_a_property_may_choose_for_each_instance(scope):
    assert type("Good", (Method,), {"scope": scope}).scope == scope, "what is allowed must be taken"
    each = type("Each", (Method,), {"scope": property(lambda m: scope)})
    assert each().scope == scope, "an instance may decide"


@pytest.mark.parametrize("name", plugins.table("methods"))
def test_every_method_that_is_asked_before_it_is_adapted_says_so(name, toy):
    unadapted = method(name)
    _, queries = of_its_kind(unadapted, *toy)
    words = f"^{type(unadapted).__name__} must be adapted before it answers; call adaptkit.adapt\\(method, task\\)$"
    with pytest.raises(ValueError, match=words):
        predict(unadapted, queries[:4])
    for again in (copy.deepcopy(unadapted), pickle.loads(pickle.dumps(unadapted))):  # noqa: S301 (our own bytes)
        assert repr(again) == repr(unadapted), "what was asked too soon must be copied as before"


def test_a_method_that_is_called_before_it_is_adapted_says_so():
    with pytest.raises(UnadaptedError, match=r"^ZeroShot must be adapted"):
        ZeroShot()(Images.from_arrays(torch.eye(3)))


class Buggy(ZeroShot):
    """Reads what `fit` never made."""

    def forward(self, batch):
        return super().forward(batch) * self.nothing


def test_an_attribute_that_is_missing_for_another_reason_stays_missing(toy):
    task, queries = toy
    with pytest.raises(AttributeError, match="'Buggy' object has no attribute 'nothing'"):
        predict(adapt(Buggy(), task), queries[:4])
    by_hand = Buggy()
    by_hand.backbone, by_hand.text = task.backbone, task.text
    with pytest.raises(AttributeError, match="'Buggy' object has no attribute 'nothing'"):
        predict(by_hand, queries[:4])
    typo = type("Typo", (ZeroShot,), {"forward": lambda m, batch: batch.x.nothing})
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'nothing'"):
        predict(typo(), queries[:4])
    assert getattr(Buggy(), "text", None) is None and not hasattr(Buggy(), "text"), "looking must not raise"


def test_a_constructor_that_fails_again_hides_nothing():
    made = []

    def once(method):
        made.append(method)
        if len(made) > 1:
            raise RuntimeError("once only")

    cls = type("OnceOnly", (ZeroShot,), {"__post_init__": once})
    with pytest.raises(AttributeError, match="'OnceOnly' object has no attribute"):
        predict(cls(), torch.eye(3))


def test_a_method_whose_state_is_set_by_hand_answers(toy):
    task, queries = toy
    by_hand = ZeroShot()
    by_hand.backbone, by_hand.text = task.backbone, task.text
    assert torch.equal(predict(by_hand, queries), predict(adapt(ZeroShot(), task), queries)), "it needs no adapting"


def test_over_an_adapted_base_the_outer_method_says_it():
    task, queries = toy_task()
    base = adapt(ZeroShot(), task)
    with pytest.raises(UnadaptedError, match=r"^TransCLIP must be adapted"):
        predict(method("trans-clip", base=base), queries[:4])
