"""What is handed to the verbs in Python: of the right type, or one line that says what to hand over."""

import numpy as np
import pytest

import adaptkit as ak
from adaptkit.sklearn import AdaptedClassifier

TYPES = pytest.mark.fault("an argument of another type in Python", "one ValueError that names it and says what to pass")
X, Y, TEXT = np.eye(4)[[0, 1, 2, 0, 1, 2]] + 0.1, np.arange(6) % 3, np.eye(3, 4)


@TYPES
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("backbone", [5, "toy:0", [1], [], {}, {"a": 1}, float("nan"), True]),
        ("logit_scale", [None, [1], {}, "x", True, float("nan"), -1.0, 0.0]),
        ("logit_bias", [None, [1], {}, "x", True, float("inf")]),
        ("classnames", [5, True, -1, "abc", {"a": 1}, [1, 2, 3], float("nan")]),
        ("prompts", [5, True, "abc", [1], [["a"], "b", ["c"]], {"a": 1}]),
        ("text_by", [5, "x", [1], ["a", "b"]]),
    ],
)
def test_a_task_takes_what_it_says(name, values):
    for value in values:
        with pytest.raises(ValueError, match=name) as told:
            ak.Task.from_arrays(support=(X, Y), text=TEXT, **{name: value})
        assert "\n" not in str(told.value), f"in one line; got {told.value}"


@TYPES
@pytest.mark.parametrize("made", [None, "gda", 5, ak.ZeroShot], ids=str)
def test_what_is_adapted_is_a_method(made):
    task = ak.Task.from_arrays(support=(X, Y), text=TEXT)
    with pytest.raises(ValueError, match=r"a method to adapt must be one, as ak.method\('gda'\) makes it; got"):
        ak.adapt(made, task)


@TYPES
@pytest.mark.parametrize("task", [None, "toy", (X, Y)], ids=["none", "text", "arrays"])
def test_it_is_adapted_to_a_task(task):
    with pytest.raises(ValueError, match=r"a task must be one, as ak.load or ak.Task.from_arrays makes it; got"):
        ak.adapt(ak.method("gda"), task)
    with pytest.raises(ValueError, match="task"):
        ak.compare(task, ak.Images.from_arrays(X, Y), ["gda"])


@TYPES
@pytest.mark.parametrize("trainer", [5, "x", {"bogus": 1}], ids=str)
def test_options_of_the_trainer_are_named(trainer):
    task = ak.Task.from_arrays(support=(X, Y), text=TEXT)
    with pytest.raises(ValueError, match="trainer"):
        ak.adapt(ak.method("clip-adapter", reduction=1), task, trainer=trainer)


@TYPES
@pytest.mark.parametrize(("test", "methods"), [(None, ["gda"]), (X, ["gda"]), ("ok", 5), ("ok", None), ("ok", "gda")])
def test_what_is_compared_is_a_list_on_images(test, methods):
    task, images = ak.Task.from_arrays(support=(X, Y), text=TEXT), ak.Images.from_arrays(X, Y)
    with pytest.raises(ValueError, match=r"^(test images|methods) must be"):
        ak.compare(task, images if isinstance(test, str) else test, methods)


@TYPES
@pytest.mark.parametrize("options", [{"options": [1]}, {"options": {1: 2}}, {"text": 5}, {"classnames": "abc"}])
def test_the_estimator_takes_what_it_says(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaptedClassifier(**{"text": TEXT, **options}).fit(X, Y)


@pytest.mark.fault("a task with nothing to learn from", "every method answers, or says in a line that it needs images")
@pytest.mark.parametrize("search", ["paper", "widen"])
@pytest.mark.parametrize("name", ["tip-adapter", "tip-adapter-f", "ape", "cafo", "caps-adapter", "tip-x", "gda"])
def test_validation_images_alone_are_no_trouble(name, search):
    task = ak.Task.from_arrays(support=(X[:0], Y[:0]), text=TEXT, val=(X, Y))
    try:
        adapted = ak.adapt(ak.method(name), task, search=search)
    except ValueError as error:
        assert "support" in str(error), f"it must say what is missing; got {error}"
        return
    assert np.isfinite(ak.predict(adapted, X).numpy()).all(), f"{name} must answer"
