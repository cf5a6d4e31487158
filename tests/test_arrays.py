"""Arrays and degenerate tasks: the right answer, or one sentence that says which array, shape and value is wrong."""

import warnings

import numpy as np
import pytest
import torch

from adaptkit import Range, Schedule, Task, ZeroShot, adapt, load, method, predict, unit
from adaptkit.features.items import Images
from adaptkit.io.ranges import Count, Share, Size, bounds_of, hints
from adaptkit.io.values import convert
from adaptkit.methods.adapt import extend, retarget
from adaptkit.runs import plugins
from adaptkit.runs.recipe import build_recipe
from tests.fuzz.arrays import attempt

RANGE = pytest.mark.fault("an option outside of its range", "one line that says the range, before anything runs")
ARRAY = pytest.mark.fault("an array that is no array of numbers", "one line: which array, shape, row and value")
FORM = pytest.mark.fault("an array in an unusual form", "is read as what it says")
TASK = pytest.mark.fault("a degenerate task", "finite answers, or one line that says why not")

S, C, D = 12, 3, 6
GENERATOR = np.random.default_rng(0)
X, TEXT, QUERIES = (GENERATOR.standard_normal((n, D)).astype("f4") for n in (S, C, 4))
Y = np.arange(S) % C


def changed(array, place, value):
    """A copy with one other entry."""
    array = np.array(array, dtype=float)
    array[place] = value
    return array


def answers(name="gda", queries=QUERIES, support=(X, Y), text=TEXT, **more):
    return predict(adapt(method(name), Task.from_arrays(support=support, text=text, **more)), queries)


@RANGE
@pytest.mark.parametrize("name", plugins.table("methods"))
def test_no_option_of_a_method_goes_beyond_its_range(name):
    cls = plugins.table("methods")[name]
    for option, kind in hints(cls).items():
        low, high = bounds_of(kind)
        for value in () if low is None else (low - 1, high * 2 + 1, float("nan")):
            with pytest.raises(ValueError, match=rf"^{name}\.{option} must be a .*number") as caught:
                method(name, **{option: value})
            assert "\n" not in str(caught.value), "one line"
            with pytest.raises(ValueError, match=rf"^{cls.__name__}\.{option} must be a .*number from .* to .*; got"):
                cls(**{option: value})
            with pytest.raises(ValueError, match="must be"):
                cls().set({option: value})


@RANGE
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"shots": [1_000_000_000]}, "shots must be a whole number from 1 to 1,000,000; got 1000000000"),
        ({"shots": [-1]}, "shots must be .*; got -1"),
        ({"seeds": [-1]}, "seeds must be .*; got -1"),
        ({"batch_size": -4}, "batch_size must be .*; got -4"),
        ({"batch_size": 10**9}, "batch_size must be .*; got 1000000000"),
        ({"sequence": -1}, "sequence must be .*; got -1"),
        ({"bins": [-1, 3]}, "bins"),
    ],
)
def test_no_number_of_a_recipe_goes_beyond_its_range(raw, words, tmp_path):
    good = {"dataset": "toy", "backbone": "toy:0", "methods": ["gda"]}
    with pytest.raises(ValueError, match=words):
        build_recipe({**good, **raw}, tmp_path / "x.yaml")


@RANGE
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": -1}, "epochs must be a whole number from 0 to 1,000,000 or a list of lists, .*; got -1"),
        ({"epochs": ((1, 50), (2, -1))}, r"epochs must be a whole number .*; got \(\(1, 50\), \(2, -1\)"),
        ({"epochs": ((1, 50, 2),)}, "epochs must be"),
        ({"epochs": ()}, "epochs must be pairs of ever more shots"),
        ({"epochs": ((4, 50), (2, 9))}, "epochs must be pairs of ever more shots"),
        ({"steps": 10**9}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"lr": float("nan")}, "lr must be a number from 0 to 1,000,000; got nan"),
        ({"lr": -0.1}, "lr must be"),
        ({"warmup": -1}, "warmup must be"),
    ],
)
def test_no_number_of_a_schedule_goes_beyond_its_range(change, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**change)
    with pytest.raises(ValueError, match=words):
        method("clip-adapter", schedule=change)


@RANGE
@pytest.mark.parametrize("change", [{"shots": 10**9}, {"shots": -1}, {"seed": -1}, {"shots": 1.5}], ids=str)
def test_a_notebook_cannot_ask_for_more_than_there_may_be(change):
    with pytest.raises(ValueError, match=r"^(shots|seed) must be a whole number from"):
        load("toy", backbone="toy:0", **change)


@pytest.mark.parametrize(
    ("kind", "value", "want"),
    [(Share, 0, 0.0), (Share, "1e-3", 1e-3), (Size, 1, 1), (Count, 0, 0), (Size | None, None, None)],
)
def test_the_ends_of_a_range_belong_to_it(kind, value, want):
    assert convert(value, kind, "x") == want, "what is allowed must be read"


def test_a_range_is_held_in_a_class_that_somebody_else_wrote():
    cls = type("Mine", (ZeroShot,), {"__annotations__": {"k": Size | None}, "k": None})
    assert (cls().k, cls(k=3).k) == (None, 3), "what is allowed must be taken"
    with pytest.raises(ValueError, match=r"Mine.k must be a whole number from 1 to 10,000 or null; got 0"):
        cls(k=0)
    assert str(Range(0, 1)) == "from 0 to 1", "a range must say its ends"


WRONG = {
    "nan in the support": (
        {"support": (changed(X, (3, 1), np.nan), Y)},
        "support features must be finite; got nan in row 3 of 12",
    ),
    "inf in the support": ({"support": (changed(X, (0, 0), -np.inf), Y)}, "support features .* got -inf in row 0"),
    "too large for float32": ({"support": (changed(X, (5, 0), 1e300), Y)}, r"support features .* got 1e\+300 in row 5"),
    "far too large": ({"support": (changed(X, (5, 0), 1e20), Y)}, r"support features must be .* got 1e\+20 in row 5"),
    "far too small": ({"support": (X * 1e-30, Y)}, "support features must be zeros, or .* in row 0 of 12"),
    "nan in val": ({"val": (changed(X, (3, 1), np.nan), Y)}, "val features must be finite; got nan in row 3"),
    "nan in the pool": ({"pool": changed(X, (3, 1), np.nan)}, "pool features must be finite; got nan in row 3"),
    "nan in the text": ({"text": changed(TEXT, (1, 0), np.nan)}, "text must be finite; got nan in row 1 of 3"),
    "nan in a sentence": (
        {"text": [TEXT[:1], TEXT[1:], changed(TEXT, (2, 0), np.nan)]},
        "text of class 2 .* nan in row 2",
    ),
    "nan in another text": ({"text_by": {"b": changed(TEXT, (1, 0), np.nan)}}, "text_by 'b' must be finite; got nan"),
    "another text of other shape": ({"text_by": {"b": TEXT[1:]}}, r"text_by 'b' must be \(3, D\); got shape \(2, 6\)"),
    "strings": ({"support": (X.astype(str), Y)}, r"support features must be real numbers; got text of shape \(12, 6\)"),
    "objects": ({"support": (np.full((S, D), None), Y)}, "support features must be real numbers; got objects .* None"),
    "complex": ({"support": (X + 1j, Y)}, "support features must be real numbers; got complex numbers"),
    "complex tensor": (
        {"support": (torch.tensor(X) + 1j, Y)},
        "support features must be real numbers; got torch.complex64",
    ),
    "sparse": ({"support": (torch.tensor(X).to_sparse(), Y)}, "support features must be a dense tensor"),
    "masked": ({"support": (np.ma.masked_greater(X, 1), Y)}, "support features must have no masked entries"),
    "ragged": (
        {"support": ([[1.0, 2.0], [1.0]], [0, 1])},
        "support features must be rows of one length; got lengths 2 in row 0 and 1 in row 1",
    ),
    "one dimension": ({"support": (X[:, 0], Y)}, r"support features must be \(N, D\), .* got shape \(12,\)"),
    "no width": ({"support": (X[:, :0], Y)}, r"support features must be .* got shape \(12, 0\)"),
    "no names": ({"support": ({}, Y)}, "support features must be given under at least one name"),
    "no pair": ({"support": X}, "support must be a pair, .*; got ndarray"),
    "no labels": ({"support": (X, None)}, "support labels must be given; got None"),
    "text of one dimension": ({"text": TEXT[0]}, r"text must be \(C, D\), .* got shape \(6,\)"),
    "list of one dimension": ({"text": TEXT[0].tolist()}, r"text must be \(C, D\), .* got shape \(\) for class 0"),
    "ragged text": ({"text": [TEXT[0], TEXT[1, :4]]}, "text must have one width; got 6 for class 0, 4 for 1"),
    "class without text": ({"text": [TEXT[:1], TEXT[:0]]}, r"text must be .* got shape \(0, 6\) for class 1"),
    "words for text": (
        {"text": ["cat", "dog", "owl"]},
        "text of class 0 must be real numbers; got text of shape .*cat",
    ),
    "one word for text": ({"text": "cat"}, "text must be .*; got str"),
    "one-hot": (
        {"support": (X, np.eye(C)[Y])},
        r"support labels must be \(12,\), one class each; got shape \(12, 3\); pass labels.argmax",
    ),
    "one-hot val": (
        {"val": (X, np.eye(C, dtype=int)[Y])},
        r"val labels must be \(12,\), one class each; got shape \(12, 3\)",
    ),
    "a column": ({"support": (X, Y[:, None])}, r"support labels must be \(12,\), .* got shape \(12, 1\)"),
    "half a class": (
        {"support": (X, Y + 0.5)},
        "support labels must be whole numbers, one for each class; got 0.5 in row 0",
    ),
    "nan for a class": (
        {"support": (X, changed(Y, 4, np.nan))},
        "support labels must be whole numbers, .* got nan in row 4",
    ),
    "names for classes": (
        {"support": (X, ["cat"] * S)},
        "support labels, each the place of its class .* got text .* cat",
    ),
    "one label": ({"support": (X, 1)}, "support labels must be as many as the rows, 12; got one number"),
    "negative": ({"support": (X, Y - 1)}, "support labels must be from 0 to 2; got -1 to 1"),
    "beyond": ({"val": (X, Y + 1)}, "val labels must be from 0 to 2; got 1 to 3"),
    "one name": ({"classnames": "cat"}, "classnames must be a list of texts; got 'cat'"),
    "numbers for names": ({"classnames": [1, 2, 3]}, r"classnames must be a list of texts; got \[1, 2, 3\]"),
    "no scale": ({"logit_scale": float("nan")}, "logit_scale must be a number from .*; got nan"),
    "endless scale": ({"logit_scale": 1e30}, "logit_scale must be a number from"),
    "no bias": ({"logit_bias": float("inf")}, "logit_bias must be a number from"),
}


@ARRAY
@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_an_array_of_a_task_is_named(change, words):
    with pytest.raises(ValueError, match=words) as caught:
        adapt(method("gda"), Task.from_arrays(**{"support": (X, Y), "text": TEXT, **change}))
    assert "\n" not in str(caught.value), "one line"


METHODS = plugins.table("methods")
OF_SETS = [n for n, cls in METHODS.items() if cls.scope == "set" and "classification" in cls.answers]


@ARRAY
@pytest.mark.parametrize("name", OF_SETS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_no_number_is_refused_by_its_row_and_spoils_no_other(name, value):
    task = Task.from_arrays((X, Y), TEXT, pool=X)
    adapted = adapt(method(name, **({"iterations": 2} if name == "in-map" else {})), task)
    with pytest.raises(ValueError, match=rf"^query features must be finite; got {value} in row 2 of 4"):
        predict(adapted, changed(QUERIES, (2, 0), value))
    assert predict(adapted, QUERIES[:2]).isfinite().all(), "the others must have answers"


@ARRAY
@pytest.mark.parametrize(
    ("queries", "words"),
    [
        (QUERIES[:, 1:], "query features must have the width of text, 6; got 5"),
        (Images.from_arrays(QUERIES[:, 1:]), "query features must have the width of text, 6; got 5"),
        (QUERIES[0], r"query features must be \(N, D\), .* got shape \(6,\)"),
        (["a", "b"], r"query features must be real numbers; got text"),
        (None, "query features must be real numbers; got objects"),
        ([[1.0], [1.0, 2.0]], "query features must be rows of one length"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["zero-shot", "linear-probe", "trans-clip", "tda", "mcm"])
def test_what_is_wrong_with_queries_is_named(name, queries, words):
    with pytest.raises(ValueError, match=words):
        answers(name, queries)


@ARRAY
@pytest.mark.parametrize("verb", [extend, retarget])
def test_a_later_task_must_have_the_width_of_the_first(verb):
    adapted = adapt(method("zero-shot"), Task.from_arrays((X, Y), TEXT))
    with pytest.raises(ValueError, match="a task must have the width of the one adapted to, 6; got 5"):
        verb(adapted, Task.from_arrays((X[:, 1:], Y), TEXT[:, 1:]))


FORMS = {
    "float16": lambda x: x.astype("f2").astype("f4"),
    "float64": lambda x: x.astype("f8"),
    "long double": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1, ::-1][::-1, ::-1][:, ::-1][:, ::-1],
    "strided": lambda x: np.repeat(x, 2, 0)[::2],
    "list": lambda x: x.tolist(),
    "list of arrays": list,
    "list of tensors": lambda x: [torch.tensor(row, requires_grad=True) for row in x],
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True) * 1,
    "double tensor": lambda x: torch.tensor(x).double(),
    "transposed tensor": lambda x: torch.tensor(x.T.copy()).T,
}


@FORM
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_features_in_any_form_make_the_same_task(form):
    got = answers("gda", form(QUERIES), (form(X), Y), form(TEXT))
    want = answers("gda")
    torch.testing.assert_close(got, want, rtol=0.05, atol=0.2, msg="the form must change nothing")
    assert not got.requires_grad, "answers have no gradient"


@FORM
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", ">i4"])
def test_whole_numbers_are_features_and_labels(kind):
    whole = np.abs(X * 50).astype(kind)
    got = answers("gda", whole, (whole, Y.astype(kind if kind != "?" else "i4")), TEXT)
    want = answers("gda", whole.astype("f4"), (whole.astype("f4"), Y), TEXT)
    torch.testing.assert_close(got, want, msg="features become float32")


@FORM
def test_labels_may_be_floats_that_are_whole_and_truths_of_two_classes():
    assert torch.equal(answers(support=(X, Y.astype(float))), answers()), "floats that are whole are classes"
    two = (X, Y[:S] > 0)
    assert torch.equal(answers(support=two, text=TEXT[:2]), answers(support=(X, (Y > 0).astype(int)), text=TEXT[:2]))


@FORM
def test_a_file_that_is_mapped_for_reading_is_read_without_a_warning(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(answers("gda", mapped[:4], (mapped, Y)), answers("gda", X[:4])), "as from memory"
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X, "and the file stays as it was")


@TASK
@pytest.mark.parametrize("name", plugins.table("methods"))
def test_degenerate_tasks_are_answered_or_refused_in_a_line(name):
    for seed in range(8):
        fault, *_ = attempt(name, seed)
        assert not fault, f"{name}, seed {seed}: {fault}"


@TASK
@pytest.mark.parametrize("name", ["zero-shot", "tip-adapter", "gda", "trans-clip", "amu-tuning", "mcm", "tda"])
def test_no_queries_have_no_answers_whatever_the_method(name):
    shape = (0,) if name == "mcm" else (0, C)
    assert answers(name, QUERIES[:0]).shape == shape, "no rows must give no rows"


def test_answers_that_are_no_numbers_are_never_silent():
    cls = type("Odd", (ZeroShot,), {"forward": lambda self, batch: self.zero_shot(batch.x) / 0})
    task = Task.from_arrays((X, Y), TEXT)
    with pytest.raises(ValueError, match=r"Odd returned 12 values not finite, in 4 of 4 rows; got -?inf in row 0"):
        predict(adapt(cls(), task), QUERIES)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_norm_is_reached_in_the_precision_of_the_input_and_then_kept(kind):
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0), dtype=torch.double).to(kind)
    once = unit(x)
    worst = float((once.double().norm(dim=-1) - 1).abs().max())
    assert worst < 8 * max(torch.finfo(kind).eps, 1e-15), f"norms must be 1 up to rounding; got {worst}"
    if kind in (torch.float32, torch.float64):
        assert torch.equal(unit(once), once), "what is of unit norm must stay, bit for bit"
    near = once * torch.tensor(1 + 5e-7, dtype=kind)
    if kind is torch.float64:
        torch.testing.assert_close(unit(near), once, rtol=0, atol=1e-14, msg="a drift must not be left standing")
