"""Settings end to end on the toy dataset: what is learned, what is asked, what stands in the record."""

import json

import pytest
import torch
from safetensors.torch import load_file

from adaptkit import ZeroShot, adapt, method, predict
from adaptkit.runs import job, plugins, protocol, recipe
from adaptkit.runs.build import check_recipe
from adaptkit.runs.results import Result
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace

TOY = {"dataset": "toy", "backbone": "toy:0"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Features that all tests here share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home, tmp_path):
    """Runs methods in a setting and returns their results."""

    def go(methods, shots=4, seeds=(1,), folder="out", **keys):
        text = json.dumps({**TOY, "methods": methods, "shots": [shots], "seeds": list(seeds), **keys})
        (tmp_path / "asked.yaml").write_text(text)
        asked = check_recipe(recipe.read_recipe(str(tmp_path / "asked.yaml")))
        return list(job.run_recipe(asked, home=home, out=tmp_path / folder, say=lambda _: None, progress=False))

    return go


def test_base_to_new_learns_the_first_half_of_the_classes_from_the_supports_of_all(home):
    every = Workspace(Setting(**TOY), home=home).task(4, 1)
    workspace = Workspace(Setting(**TOY, classes="base"), home=home)
    base = workspace.task(4, 1)
    assert base.classnames == ("cat", "dog", "owl"), "of five classes three are the base"
    rows = every.support.labels < 3
    assert (base.support.index == every.support.index[rows]).all(), "supports must be drawn before classes are left out"
    assert (base.support.labels == every.support.labels[rows]).all(), "base classes must keep their numbers"
    assert {*base.val.labels.tolist()} == {0, 1, 2}, "validation images must be of base classes"
    own, new = workspace.evaluation_sets()
    assert (own.name, new.name, new.task.classnames) == ("", "new", ("fox", "hen")), "the others are the test set new"
    assert {*own.images.labels.tolist()} == {0, 1, 2} and {*new.images.labels.tolist()} == {0, 1}, "each from 0 on"
    assert len(own.images) + len(new.images) == 60, "every test image must be in one of them"
    assert not len(new.task.support), "new classes have no images to learn from"


def test_base_to_new_answers_for_new_classes_among_new_classes_alone(run, home):
    (result,) = run(["zero-shot"], classes="base")
    workspace = Workspace(Setting(**TOY, classes="base"), home=home)
    new = workspace.evaluation_sets()[1]
    logits = predict(adapt(method("zero-shot"), new.task), new.images)
    want = (logits.argmax(-1) == new.images.labels).double().mean()
    assert logits.shape == (24, 2), "two classes must be the choice"
    assert result.metrics["new/accuracy"] == pytest.approx(float(want)), "as zero-shot of the new classes by itself"
    assert [name for name, _ in result.classes["new"]] == ["fox", "hen"], "classes must be named"


@pytest.mark.parametrize("spec", ["gda", {"trans-clip": {"base": "gda"}}], ids=str)
def test_a_method_that_cannot_answer_for_other_classes_is_refused_at_once(spec, run):
    with pytest.raises(ValueError, match=r"answer for classes they did not adapt to; got '(gda|trans-clip)"):
        run([spec], classes="base")


def test_another_dataset_is_answered_among_its_own_classes(run):
    (result,) = run(["zero-shot"], domains=["digits", "noisy"])
    assert len(result.classes["digits"]) == 10 and result.classes["digits"][3][0] == "three", "digits has ten classes"
    assert len(result.right["digits"]) == 1197 and len(result.right["noisy"]) == 45, "both test sets must be whole"
    assert len(result.classes["noisy"]) == 5, "a domain has the dataset's classes"
    with pytest.raises(ValueError, match="answer for classes they did not adapt to; got 'gda'"):
        run(["gda"], domains=["digits"], folder="other")


class TellsTime(ZeroShot):
    """Answers with the number of images met so far."""

    scope = "stream"

    def fit(self, task):
        super().fit(task)
        self.register_buffer("met", torch.zeros(()))

    def forward(self, batch):
        self.met += 1
        return self.met + torch.zeros(1, len(self.text))


def test_a_stream_is_met_in_its_order_and_recorded_in_that_of_the_images(run, home, tmp_path, monkeypatch):
    table = {**plugins.table("methods"), "tells-time": TellsTime}
    monkeypatch.setattr(plugins, "table", lambda role, real=plugins.table: table if role == "methods" else real(role))
    spec = {"class-correlated": {"concentration": 1e-3}}
    run(["tells-time"], stream=spec, keep_answers=True)
    (record,) = (tmp_path / "out").glob("*.safetensors")
    times = load_file(record)["own"][:, 0]  # when each image was met
    tested = Workspace(Setting(**TOY, stream=spec), home=home).evaluation_sets()[0]
    assert (times[tested.order(1)] == torch.arange(1, 61)).all(), "image order(1)[t] must be met at time t"


def test_test_sets_can_flow_together_and_are_judged_each_by_itself_as_well(run):
    apart, mixed, gradual = (
        run(["zero-shot"], domains=["noisy"], stream=s, folder=s)[0] for s in ("shuffled", "mixed", "gradual")
    )
    for together in (mixed, gradual):
        assert len(together.right[""]) == 60 + 45, "one stream must hold both sets"
        assert together.metrics["own/accuracy"] == apart.metrics["accuracy"], "zero-shot does not care for the order"
        assert together.metrics["noisy/accuracy"] == apart.metrics["noisy/accuracy"], "nor for the company"
    assert mixed.protocol_hash != gradual.protocol_hash, "the order must be part of the protocol"
    with pytest.raises(ValueError, match=r"domains must be those of toy in a mixed stream; got \['digits'\]"):
        run(["zero-shot"], domains=["digits"], stream="mixed", folder="none")


def test_scores_are_judged_by_how_they_tell_near_and_far_images_from_the_own(run, tmp_path):
    (result,) = run(["mcm"], classes="base", near=["new"], far=["digits", "noisy"])
    named = {name.partition("/")[0] for name in result.metrics}
    assert named == {"near", "new", "far", "digits", "noisy"}, "sets by name, and the means"
    assert result.metrics["near/auroc"] == result.metrics["new/auroc"], "one near set is its own mean"
    mean = (result.metrics["digits/fpr95"] + result.metrics["noisy/fpr95"]) / 2
    assert result.metrics["far/fpr95"] == pytest.approx(mean), "far is the mean over its sets"
    assert not result.right, "a score answers no class"
    (plain,) = run(["gda"], classes="base", near=["new"], far=["digits"], keep_answers=True, folder="plain")
    (path,) = (tmp_path / "plain").glob("*.safetensors")
    assert [*load_file(path)] == ["own"] and [*plain.right] == [""], "who gives logits must not be asked from outside"


def test_bins_part_classes_by_their_labelled_images(run):
    (result,) = run(["gda"], shots=8, support={"long-tailed": {"ratio": 8}}, bins=[2, 4])
    shares = [share for _, share in result.classes[""]]  # the classes have 8, 4, 2, 1 and 1 images
    want = {"many": shares[:1], "medium": shares[1:3], "few": shares[3:]}
    for kind, own in want.items():
        assert result.metrics[f"{kind}_accuracy"] == pytest.approx(sum(own) / len(own)), f"{kind} of {shares}"


def test_a_record_says_all_that_later_questions_need(run, tmp_path):
    one, two, other = run(["zero-shot", "gda"], seeds=(1,)) + run(["gda"], seeds=(2,), folder="two")
    assert one.support == two.support != other.support, "equal supports must have one digest, other ones another"
    for r in (one, two, other):
        assert r.metrics["accuracy"] == pytest.approx(r.right[""].count("1") / len(r.right[""])), "image by image"
        mean = sum(share for _, share in r.classes[""]) / 5
        assert r.metrics["macro_accuracy"] == pytest.approx(mean), "class by class"
        assert r.memory > 50 and {"adaptkit", "torch", "python"} <= {*r.versions}, "what it ran on"
    again = [Result.read(path) for path in (tmp_path / "out").glob("*seed*.json")]
    assert sorted(map(repr, again)) == sorted(map(repr, [one, two])), "written and read, the same"
    about = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert about["dataset"] == "toy" and about["methods"] == ["zero-shot", "gda"], "the folder says what was asked"


def test_answers_are_kept_when_asked_for(run, tmp_path):
    (result,) = run(["gda"], keep_answers=True, domains=["noisy"])
    (path,) = (tmp_path / "out").glob("*.safetensors")
    answers = load_file(path)
    assert {n: tuple(a.shape) for n, a in answers.items()} == {"own": (60, 5), "noisy": (45, 5)}, "by test set"
    right = "".join("01"[int(c == i % 5)] for i, c in enumerate(answers["own"].argmax(-1).tolist()))
    assert right == result.right[""], "they must be what was judged"


@pytest.mark.parametrize(
    "keys",
    [
        {"classes": "base"},
        {"stream": "class-correlated"},
        {"domains": ["noisy"]},
        {"bins": [1, 2]},
        {"select": "none"},
        {"support": "long-tailed"},
        {"prompts": "ensemble"},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_what_a_comparison_holds_fixed_changes_the_protocol(keys, home, tmp_path):
    def fixed(**keys):
        (tmp_path / "asked.yaml").write_text(json.dumps({**TOY, "methods": ["zero-shot"], **keys}))
        asked = recipe.read_recipe(str(tmp_path / "asked.yaml"))
        workspace = Workspace(asked.setting(), home=home)
        return protocol.protocol(asked, workspace, workspace.evaluation_sets())

    assert fixed() == fixed(seeds=[5]) == fixed(methods=["gda"]), "what is compared is no part of it"
    assert fixed(**keys) != fixed(), f"{keys} must be part of the protocol"
