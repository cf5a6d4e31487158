"""A saved classifier: the same answers after loading, in this process and another, and one-line errors for the rest."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adaptkit import ZeroShot, adapt, load_classifier, method, predict, save_classifier
from adaptkit.methods.task import Task
from adaptkit.runs import plugins
from adaptkit.saving.config import sealed
from adaptkit.saving.kinds import SAVED
from adaptkit.testing import ToyImages
from adaptkit.testing.checks import adapted
from adaptkit.testing.kinds import of_its_kind
from adaptkit.testing.report import brief
from tests import processes

FILES = {"model.safetensors", "config.json", "README.md"}


@pytest.fixture(scope="module")
def small(toy):
    task, queries = toy
    return replace(task, val=task.val[:10]), queries[:20]


@pytest.fixture
def gda(small, tmp_path):
    """A saved classifier, its method and its folder."""
    task, queries = small
    made = adapt(method("gda"), task)
    save_classifier(tmp_path / "gda", made, task, backbone="toy:0", test=queries, protocol={"dataset": "toy"})
    return made, tmp_path / "gda"


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(sealed({**config, **values})))  # as a stranger would
    return config


@pytest.mark.parametrize("name", plugins.table("methods"))
def test_every_method_answers_bit_for_bit_as_before_it_was_saved(name, small, tmp_path):
    task, queries = of_its_kind(method(name), *small)
    made = adapted(lambda: brief(name, 2), task)
    want = predict(made, queries)
    if task.kind not in SAVED and task.gallery is None:
        with pytest.raises(ValueError, match="must be adapted to a task of classification, maps or of a gallery"):
            save_classifier(tmp_path / name, made, task, backbone="toy:0")
        return
    save_classifier(tmp_path / name, made, task, backbone="toy:0")
    again = load_classifier(tmp_path / name)
    assert again.method is not made and again.classnames == task.classnames, (
        "what is loaded must be new, with its names"
    )
    assert torch.equal(again(queries), want), f"{name} must answer as before, to the last bit"
    assert repr(again.method) == repr(made), "every option must be as adapted"
    assert {file.name for file in (tmp_path / name).iterdir()} == FILES, "the folder must hold these three files"
    held, kept = load_file(tmp_path / name / "model.safetensors"), made.state_dict()
    assert all(torch.equal(held[key], kept[key]) for key in kept), "the tensors must be those of the state_dict"
    loaded = again.method.state_dict()
    assert all(loaded[key].stride() == kept[key].stride() for key in kept), "and lie in memory as before"
    assert not any(p.requires_grad for p in again.method.parameters()), "what is loaded must be frozen"
    scope = {"sample": "answered alone", "stream": "the images before it", "set": "answered together"}[made.scope]
    assert scope in (tmp_path / name / "README.md").read_text(), "the card must say what an answer depends on"


def test_searched_values_and_those_of_a_base_survive(small, tmp_path):
    task, queries = small
    made = adapt(method("trans-clip", base=method("tip-adapter", views=2)), task)
    made.base.set({"alpha": 0.1 + 0.2, "beta": 1e-7})
    save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    again = load_classifier(tmp_path / "x")
    assert (again.method.base.alpha, again.method.base.beta) == (0.1 + 0.2, 1e-7), "every digit must survive"
    assert torch.equal(again(queries), predict(made, queries)), "and the answers"


def compare_answers(folder):
    for name in ("gda", "coop"):
        logits = load_classifier(folder / name)(np.load(folder / "x.npy")).numpy()
        print(np.array_equal(logits, np.load(folder / f"{name}.npy")))


def test_another_process_gives_the_same_answers(small, tmp_path):
    task, queries = small
    x = queries.bind({"x": method("gda").needs()["x"]}).x
    for name in ("gda", "coop"):
        made = adapted(lambda name=name: brief(name, 2), task)
        save_classifier(tmp_path / name, made, task, backbone="toy:0")
        np.save(tmp_path / f"{name}.npy", predict(made, queries).numpy())
    np.save(tmp_path / "x.npy", x.numpy())
    said = processes.Forked(compare_answers, tmp_path).result()
    assert said.split() == ["True", "True"], f"another process must answer the same; got {said}"


def test_pictures_are_answered_as_the_recipe_answered_them(gda, small, tmp_path):
    made, folder = gda
    source, paths = ToyImages("test", 20), []
    for i in range(20):
        paths.append(tmp_path / f"{i}.png")
        source.image(i).save(paths[-1])
    classifier, want = load_classifier(folder, home=tmp_path), predict(made, small[1])
    assert torch.equal(classifier(paths), want), "files must be answered like the test images that they are"
    assert torch.equal(classifier([source.image(i) for i in range(20)]), want), "and so must images in memory"
    with pytest.raises(ValueError, match=r"must be a file that exists; got .*none\.png"):
        classifier([tmp_path / "none.png"])


def test_a_classifier_of_features_needs_no_backbone(tmp_path):
    rng = np.random.default_rng(0)
    x, y, text = rng.normal(size=(20, 8)), np.arange(20) % 4, rng.normal(size=(4, 8))
    task = Task.from_arrays((x, y), text, logit_scale=30.0, logit_bias=-1.0)
    made = adapt(method("tip-adapter"), task)
    save_classifier(tmp_path / "x", made, task)
    again = load_classifier(tmp_path / "x")
    assert torch.equal(again(x), predict(made, x)), "scale and bias must survive with the rest"
    assert again.backbone.logit_scale == 30.0 and "not measured" in (tmp_path / "x" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"must be features .* got pictures"):
        again(["a.png"])
    with pytest.raises(ValueError, match=r"backbone must be the name .* got 'toy:0'"):
        save_classifier(tmp_path / "y", made, task, backbone="toy:0")


def test_another_backbone_is_refused_in_one_line(gda):
    _, folder = gda
    towers = change(folder, backbone="toy:1")["towers"]
    change(folder, towers={"toy:1": towers["toy:0"]})
    with pytest.raises(ValueError, match=r"^fingerprint of backbone 'toy:1' must be '\w+', as adapted; got '\w+'$"):
        load_classifier(folder)
    preprocess = {**towers["toy:0"]["preprocess"], "resample": "bilinear"}
    change(folder, backbone="toy:0", towers={"toy:0": {**towers["toy:0"], "preprocess": preprocess}})
    with pytest.raises(ValueError, match=r"^preprocess of backbone 'toy:0' must be .*bilinear.* got .*bicubic"):
        load_classifier(folder)


def test_a_second_backbone_is_loaded_by_its_name_and_held_to_its_fingerprint(small, tmp_path):
    task, queries = small
    made = adapt(method("backbone-ensemble", others=["toy:1"]), task)
    save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    again, want = load_classifier(tmp_path / "x", home=tmp_path), predict(made, queries)
    assert torch.equal(again([ToyImages("test").image(i) for i in range(20)]), want), "both must see the pictures"
    towers = change(tmp_path / "x")["towers"]
    change(tmp_path / "x", towers={**towers, "toy:1": towers["toy:0"]})
    with pytest.raises(ValueError, match=r"^fingerprint of backbone 'toy:1' must be"):
        load_classifier(tmp_path / "x")


def test_what_would_not_load_is_not_left_behind(gda, small, tmp_path):
    task, _ = small
    with pytest.raises(ValueError, match=r"backbone must be the name .* got ''"):
        save_classifier(tmp_path / "x", gda[0], task)
    with pytest.raises(ValueError, match="fingerprint of backbone 'toy:1'"):
        save_classifier(tmp_path / "x", gda[0], task, backbone="toy:1")
    assert not [*(tmp_path / "x").iterdir()], "the folder must be empty"


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
def test_a_damaged_folder_is_refused_in_one_line(gda, tmp_path):
    _, folder = gda
    with pytest.raises(ValueError, match=r"a classifier's folder must hold .*; got .*nothing"):
        load_classifier(tmp_path / "nothing")
    config = change(folder, format=1)
    with pytest.raises(ValueError, match=r"format 1, where this version reads 3 and 4; export it again"):
        load_classifier(folder)
    change(folder, **config)
    tensors = bytearray((folder / "model.safetensors").read_bytes())
    tensors[-1] ^= 1
    (folder / "model.safetensors").write_bytes(tensors)
    with pytest.raises(ValueError, match="tensors of another classifier"):
        load_classifier(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"a classifier's folder must hold"):
        load_classifier(folder)


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize(
    "edit",
    [
        lambda config: config | {"classnames": config["classnames"][::-1]},
        lambda config: config | {"classnames": ["only"]},
        lambda config: config | {"protocol": {}},
        lambda config: config | {"method": config["method"] | {"buffers": {}}},
    ],
)
def test_an_edit_of_the_config_shows(gda, edit):
    _, folder = gda
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(edit(config)))
    with pytest.raises(ValueError, match=r"config.json was changed after it was written; export it again"):
        load_classifier(folder)


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize("names", [["only"], [*"abcd"], [*"abcdef"], {"a": 1, "b": 2}, [1, 2, 3, 4, 5], "abcde"])
def test_there_must_be_a_name_for_each_class(gda, names):
    _, folder = gda
    change(folder, classnames=names)
    with pytest.raises(ValueError, match=r"classnames|text") as told:
        load_classifier(folder)
    assert "\n" not in str(told.value), "in one line"


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize("key", ["buffers", "keeps"])
def test_what_a_method_lacks_or_has_beyond_its_range_is_said(gda, small, key):
    _, folder = gda
    node = change(folder)["method"]
    edits = {"buffers": {}, "keeps": node["keeps"] | {"alpha": -5}}
    change(folder, method=node | {key: edits[key]})
    wrong = "as it was written" if key == "buffers" else "alpha must be a number"
    with pytest.raises(ValueError, match=wrong):
        load_classifier(folder)(small[1])


FOREIGN = [
    *("subprocess:Popen", "builtins:eval", "adaptkit.saving.state:dump", "torch:load", "torch:Module", "nn:Linear"),
    *("adaptkit.features.store:Store", "adaptkit.testing.toy:tempfile.TemporaryDirectory", "adaptkit:FeatureCache"),
    *("adaptkit.io.files:os.PathLike", "torch.nn.modules.linear:Linear", "gda:torch.Tensor", "gda:Tensor"),
    *("gda:ZeroShot", "gda:__builtins__", "gda:", ":gda", "torch:", "cross-modal:LinearWarmup.step", "zero-shot:nn"),
    *(["gda"], {"a": 1}, 3, True),
]


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize("name", FOREIGN, ids=str)
def test_a_class_from_elsewhere_is_not_made(gda, name):
    _, folder = gda
    node = change(folder)["method"]
    evil = {"class": name, "keeps": {"name": str(folder), "args": "touch x"}}
    for method_ in ({**node, "class": name}, {**node, "keeps": {**node["keeps"], "inner": evil}}):
        change(folder, method=method_)
        with pytest.raises(ValueError, match=r"a saved (class must be .*; got|method must be)") as told:
            load_classifier(folder)
        assert "\n" not in str(told.value), "in one line"
    assert len([*folder.iterdir()]) == 3, "and nothing must have been touched"


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize(
    "name", ["forward", "__class__", "__call__", "_forward_hooks", "training", "fit", "register_buffer"]
)
def test_what_a_class_does_cannot_be_replaced(gda, name):
    _, folder = gda
    node = change(folder)["method"]
    inner = {"class": "torch:Identity"}
    change(folder, method={**node, "keeps": {**node["keeps"], name: inner}})
    with pytest.raises(ValueError, match=rf"a saved GDA must keep values only; got one for '{name}'"):
        load_classifier(folder)


BROKEN = {
    "towers": [{}, [], None, {"": {}}, {"toy:0": None}, {"toy:0": {}}],
    "classnames": [None, 3, [1, 2], "text"],
    "method": [None, [], "gda", {"class": "gda"}, {"list": 3}, {"tensor": ["x"]}, {"what": 1}, {}, {"float": "x"}],
    "backbone": [None, 3, ["toy:0"], ""],
    "protocol": [None, [], "x"],
    "sha256": [None, ""],
    "format": [None, "2", [2]],
}


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BROKEN.items() for v in values], ids=str)
def test_a_malformed_config_is_refused_in_one_line(gda, key, value):
    _, folder = gda
    change(folder, **{key: value})
    if (key, value) == ("classnames", "text"):
        return  # a text is a sequence of names of one letter: the method's own count decides elsewhere
    with pytest.raises(ValueError) as told:
        load_classifier(folder)
    assert "\n" not in str(told.value), f"{key}: {value!r} must be refused in one line"


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
def test_a_config_that_is_deeper_than_can_be_read_is_refused(gda):
    _, folder = gda
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="a classifier's folder must hold"):
        load_classifier(folder)


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
def test_the_backbone_must_be_identified(gda):
    _, folder = gda
    change(folder, backbone="toy:1", towers={"toy:0": change(folder)["towers"]["toy:0"]})
    with pytest.raises(ValueError, match="a classifier's folder must hold"):
        load_classifier(folder)


@pytest.mark.fault("a saved classifier from a stranger", "refused in one line; nothing in it runs")
def test_an_unknown_method_and_a_torn_state_are_named(gda):
    _, folder = gda
    node = change(folder)["method"]
    change(folder, method={**node, "class": "gdaa"})
    with pytest.raises(ValueError, match=r"method must be one of .*; did you mean 'gda'"):
        load_classifier(folder)
    change(folder, method={**node, "buffers": {"text": {"tensor": "nowhere"}}})
    with pytest.raises(ValueError, match=r"a saved method must be whole; got KeyError .*nowhere"):
        load_classifier(folder)
    change(folder, method={"class": "adaptkit:Once", "keeps": {}})
    with pytest.raises(ValueError, match="a saved method must be one; got Once"):
        load_classifier(folder)


def test_what_is_no_data_cannot_be_saved_and_is_named(small, tmp_path):
    task, _ = small
    made = adapt(ZeroShot(), task)
    made.inner = {"act": [torch.relu]}
    with pytest.raises(ValueError, match=r"^to be saved, inner\.act\.0 must be a tensor, .*; got builtin_function"):
        save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    made.inner = SimpleNamespace(act=1)
    with pytest.raises(ValueError, match=r"^to be saved, inner must be a tensor, .*; got SimpleNamespace"):
        save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    made.inner = torch.nn.Linear(2, 2)
    made.inner.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="to be saved, inner must be"):
        save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    assert not (tmp_path / "x").exists(), "and nothing must be written"


def test_what_a_method_keeps_comes_back_as_it_was(small, tmp_path):
    task, _ = small
    made = adapt(ZeroShot(), task)
    kept = {"a": (1, [2.5, None, True]), "b": {"deep": (float("inf"), "text")}, "n": 3}
    made.kept, made.loose, made.share = kept, torch.arange(3)[::2], np.float64(0.1)
    made.register_buffer("aside", torch.ones(2, dtype=torch.float64), persistent=False)
    save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    again = load_classifier(tmp_path / "x").method
    assert again.kept == kept and again.share == 0.1, f"plain values must come back; got {again.kept}"
    assert torch.equal(again.loose, made.loose) and torch.equal(again.aside, made.aside), "and tensors of any kind"


def test_a_folder_in_use_is_left_alone(gda, small):
    made, folder = gda
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="must be saved to a new or empty folder"):
        save_classifier(folder, made, small[0], backbone="toy:0")
    assert (folder / "config.json").read_bytes() == before, "it must be as before"


def test_the_card_states_the_accuracy_and_the_source(small, tmp_path):
    task, queries = small
    made = adapt(method("gda"), task)
    share = float((predict(made, queries).argmax(-1) == queries.labels).double().mean())
    protocol = {"dataset": "toy", "shots": 8, "select": "oracle", "bins": None, "domains": []}
    save_classifier(tmp_path / "x", made, task, backbone="toy:0", test=queries, protocol=protocol, source="drawn, CC0")
    card = (tmp_path / "x" / "README.md").read_text()
    assert f"{100 * share:.1f} % of 20 test images, on which its hyperparameters were chosen" in card, card
    for part in ("drawn, CC0", "2402.04087", repr(made), task.backbone.fingerprint, "- shots: 8", "cat, dog, owl"):
        assert part in card, f"the card must say {part!r}"
    assert not re.search(r"\bNone\b|\[\]", card), "and nothing that is not set"
