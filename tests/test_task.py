"""Tasks and queries from plain arrays, in every documented form, and the mistakes that are named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptkit import Pooled, Task, ZeroShot, accuracy, adapt, compare, load, method, predict, unit
from adaptkit.features.items import Images
from adaptkit.io.text import distinct
from adaptkit.testing import ToyImages, toy_backbone

S, C, D, V = 12, 4, 6, 3
GENERATOR = np.random.default_rng(0)
X, VIEWS, TEXT = (GENERATOR.standard_normal(shape) for shape in ((S, D), (S, V, D), (C, D)))
LABELS = np.arange(S) % C


class Reads(ZeroShot):
    """Reads a plain row and views of each support image, under names of its own."""

    def support_needs(self):
        return {"plain": Pooled(unit=False), "views": Pooled(views=7, unit=False)}


def bound(support, **options):
    """The support as a method reads it."""
    return Task.from_arrays(support=(support, LABELS), text=TEXT, **options).bind(Reads()).support


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, np.float32, np.ndarray.tolist], ids=lambda f: f.__name__)
def test_numpy_torch_and_lists_of_any_precision_make_the_same_task(make):
    task = Task.from_arrays((make(X), LABELS.tolist()), make(TEXT), val=(make(X), LABELS), pool=make(X))
    assert task.support.bind({"x": Pooled()}).x.dtype == torch.float32, "features must be read as float32"
    torch.testing.assert_close(
        task.bind(Reads()).support.plain, torch.tensor(X).float(), msg="raw rows must be as given"
    )
    torch.testing.assert_close(task.text, unit(torch.tensor(TEXT).float()), msg="text must be read as unit-norm")
    assert (len(task.val), len(task.pool), task.pool.labels) == (S, S, None), (
        "val and pool must be there, pool unlabelled"
    )
    assert task.val.labels.tolist() == task.support.labels.tolist() == LABELS.tolist(), "labels must be as given"
    assert task.classnames == ("class 0", "class 1", "class 2", "class 3"), "classes must have names"


def test_val_and_pool_may_be_left_out_and_names_given():
    task = Task.from_arrays(
        support=(X, LABELS), text=TEXT, classnames=["a", "b", "b", "c"], logit_scale=50, logit_bias=-3
    )
    assert (task.val, task.pool) == (None, None), "what is not given must not be there"
    assert task.classnames == ("a", "b", "b", "c"), "names may repeat"
    logits = task.backbone.logits(unit(torch.tensor(X).float()), task.text)
    want = 50 * unit(torch.tensor(X)) @ unit(torch.tensor(TEXT)).T - 3
    torch.testing.assert_close(logits.double(), want, atol=1e-4, rtol=0, msg="scale and bias must be those given")


def test_rows_with_views_serve_every_need():
    support, views = bound(VIEWS), torch.tensor(VIEWS).float()
    torch.testing.assert_close(support.views, views, msg="a need with views must get all that were given")
    torch.testing.assert_close(support.plain, views[:, 0], msg="a need without views must get the first")
    plain = bound(X)
    torch.testing.assert_close(plain.views, torch.tensor(X).float()[:, None], msg="a single row must serve as one view")


def test_arrays_may_be_given_by_the_names_a_method_reads():
    support = bound({"plain": X, "views": VIEWS})
    torch.testing.assert_close(support.plain, torch.tensor(X).float(), msg="each name must get its own array")
    torch.testing.assert_close(support.views, torch.tensor(VIEWS).float(), msg="each name must get its own array")
    with pytest.raises(ValueError, match=r"arrays must be given for every need, here 'views'; got \['plain'\]"):
        _ = bound({"plain": X}).views


def test_text_may_be_a_list_of_sentence_embeddings_for_each_class():
    rows = [GENERATOR.standard_normal((n, D)) for n in (1, 3, 2, 1)]
    task = Task.from_arrays((X, LABELS), rows)
    assert [len(t) for t in task.text_per_prompt] == [1, 3, 2, 1], "each class must keep its sentences"
    mean = torch.stack([unit(torch.tensor(r)).mean(0) for r in rows])
    torch.testing.assert_close(task.text.double(), unit(mean), msg="a class is the mean of unit-norm sentences")


@pytest.mark.parametrize("names", [None, ["a"] * 13, ["a", "a1", *"bcdefghijkl"], ["x", "x", "x (1)", *"bcdefghijk"]])
def test_the_embeddings_of_many_classes_are_never_mixed_up(names):
    rows = GENERATOR.standard_normal((13, 3, D))
    task = Task.from_arrays((X, LABELS), rows, classnames=names)
    got = torch.stack(task.text_per_prompt).double()
    torch.testing.assert_close(
        got, unit(torch.tensor(rows)), atol=1e-6, rtol=0, msg="each class must have its own rows"
    )


def test_equal_sentences_with_different_embeddings_are_kept_apart_or_refused():
    try:
        task = Task.from_arrays((X, LABELS), TEXT, prompts=[["a missile."], ["a missile."], ["b"], ["c"]])
    except ValueError as error:
        assert "missile" in str(error), f"the sentence must be named; got {error}"
    else:
        torch.testing.assert_close(task.text, unit(torch.tensor(TEXT).float()), msg="each class must have its own row")


def test_a_class_list_reordered_or_renamed_reads_the_right_texts(toy):
    def text(*names):
        return replace(toy[0], prompts=tuple((f"a {n}.", f"the {n}.") for n in names)).text

    before, after = text("cat", "dog", "owl"), text("owl", "cat", "fox", "cat")
    assert torch.equal(after[[0, 1, 3]], before[[2, 0, 0]]), "each class must keep its text, twice named or moved"
    assert not any(torch.equal(after[2], row) for row in before), "a new name must have a text of its own"


def test_pixels_are_encoded_by_the_backbone():
    backbone, source = toy_backbone("0"), ToyImages("train", S)
    pixels = torch.stack([backbone.preprocess(source.image(i)) for i in range(S)])
    text = backbone.encode_text([f"a {n}." for n in "abcd"])
    task = Task.from_arrays((pixels, LABELS), text, pool=pixels[:, None].expand(-1, 2, -1, -1, -1), backbone=backbone)
    want = backbone.encode_image(pixels)
    torch.testing.assert_close(task.bind(Reads()).support.plain, want, msg="pixels must be read as embeddings")
    views = task.pool.bind({"v": Pooled(views=2, unit=False)}).v
    torch.testing.assert_close(views, torch.stack([want, want], 1), msg="and so must pixels with views")
    adapted = adapt(method("zero-shot"), task)
    torch.testing.assert_close(predict(adapted, pixels), predict(adapted, want), msg="queries may be pixels, too")
    with pytest.raises(ValueError, match="pixels must come with a backbone"):
        _ = Task.from_arrays((pixels, LABELS), text).bind(Reads()).support.plain
    arrays = adapt(method("zero-shot"), Task.from_arrays((want, LABELS), text))
    with pytest.raises(ValueError, match="backbone"):
        predict(arrays, pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"support": (X, LABELS[1:])}, "labels must be as many as the rows, 12; got 11"),
        ({"val": (X, LABELS[1:])}, "labels must be as many as the rows, 12; got 11"),
        ({"support": (X, LABELS + 1)}, "labels must be from 0 to 3; got 1 to 4"),
        ({"support": (X, LABELS - 1)}, "labels must be from 0 to 3; got -1 to 2"),
        ({"val": (X, LABELS + 1)}, "labels must be from 0 to 3; got 1 to 4"),
        ({"classnames": ["a", "b"]}, "classnames must be as many as the classes in text, 4; got 2"),
        ({"prompts": [["a"]]}, "prompts must be as many as"),
        ({"support": (X[:, 1:], LABELS)}, "(?s)width.*6.*5"),
        ({"val": (X[:, 1:], LABELS)}, "(?s)width.*6.*5"),
        ({"support": ({"x": X, "views": VIEWS[1:]}, LABELS)}, "(?s)rows.*12.*11"),
    ],
)
def test_lengths_widths_and_labels_that_do_not_fit_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        Task.from_arrays(**{"support": (X, LABELS), "text": TEXT, **change})


def test_a_method_that_needs_towers_says_so():
    with pytest.raises(ValueError, match=r"needs the towers themselves; got a task made from arrays; pass backbone="):
        adapt(method("coop"), Task.from_arrays((X, LABELS), TEXT))
    with pytest.raises(ValueError, match="new sentences must have a text tower"):
        Task.from_arrays((X, LABELS), TEXT).encode(["a zebra."])


def test_queries_may_be_rows_views_or_a_mapping():
    task = Task.from_arrays((X, LABELS), TEXT)
    adapted = adapt(method("zero-shot"), task)
    want = 100 * unit(torch.tensor(X)) @ unit(torch.tensor(TEXT)).T
    for what, queries in (("rows", X), ("views", VIEWS), ("a mapping", {"x": X}), ("a list", X.tolist())):
        got = predict(adapted, queries)
        assert got.shape == (S, C), f"{what} must give one row of logits each"
        if what != "views":
            torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=0, msg=f"{what} must be read as they are")
    torch.testing.assert_close(
        predict(adapted, VIEWS), predict(adapted, VIEWS[:, 0]), msg="the first view is the image"
    )
    assert torch.equal(predict(adapted, Images.from_arrays(X, LABELS)), predict(adapted, X)), (
        "labels must change nothing"
    )


@pytest.mark.parametrize("name", ["zero-shot", "gda", "tip-adapter", "linear-probe", "task-res"])
def test_a_notebook_can_adapt_and_predict_with_arrays_alone(name):
    task = Task.from_arrays((VIEWS, LABELS), TEXT, val=(X, LABELS), pool=X)
    logits = predict(adapt(method(name), task, trainer={"max_steps": 3}), X)
    assert logits.shape == (S, C), f"{name} must answer"
    assert logits.isfinite().all(), f"{name} must answer with finite numbers"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"select": "few"}, "select must be one of none, few-val, full-val, oracle; got 'few'"),
        ({"precision": "bf16"}, "precision must be one of auto, 32-true, bf16-mixed, 16-mixed; got 'bf16'"),
        ({"dtype": "float64"}, "dtype .*must be one of float16, float32; got 'float64'"),
        ({"device": "tpu"}, "device must be one of .*; got 'tpu'"),
        ({"batch_size": 0}, "batch_size must be .*; got 0"),
        ({"prompts": "template"}, "prompt must be one of .*; got 'template'; did you mean 'templates'?"),
        ({"support": {"pseudo-label": {"threshold": "high"}}}, "threshold must be a number; got 'high'"),
    ],
)
def test_a_notebook_is_told_of_a_wrong_setting_before_anything_is_computed(wrong, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load("toy", backbone="toy:0", home=tmp_path, **wrong)
    assert not list(tmp_path.iterdir()), "nothing may have been computed"


def test_methods_are_compared_side_by_side(toy):
    table = compare(*toy, ["zero-shot", {"gda": {"views": 2}}, method("gda", views=3)], seed=1)
    want = accuracy(adapt(method("zero-shot"), toy[0]), toy[1])
    assert table[0].metrics["accuracy"] == want, "each must be measured on the test images"
    rows = [row for row, *_ in table.cells()[1:]]
    assert rows[:2] == ["zero-shot", "gda"], "a row must be called by its method's name where no other has it"
    assert table[1].method == "gda(views=2)", "and its result as a recipe writes its method"
    assert table[2].method.startswith("GDA(alpha="), "and what is built already, with its options"


def test_no_queries_give_no_answers(toy):
    task, queries = toy
    adapted = adapt(method("zero-shot"), task)
    assert predict(adapted, torch.zeros(0, 16)).shape == (0, 5), "no rows must give no rows"
    assert predict(adapted, queries[:0]).shape == (0, 5), "no images must give no rows"


@pytest.mark.parametrize("second", ["cafe\u0301", "caf\u00e9"], ids=["other letters", "the same"])
def test_names_that_look_the_same_are_told_apart(second):
    names = distinct(["caf\u00e9", "dog", second, "Dog", "caf\u00e9 (class 2)"])
    assert names == ("caf\u00e9 (class 0)", "dog", f"{second} (class 2) (class 2)", "Dog", "caf\u00e9 (class 2)"), names
    assert distinct(names) == names, "names that differ stay as they are"
