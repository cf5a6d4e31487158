"""Tower methods on tasks that few write tests for: equal names, too many words, and towers that were loaded anew."""

from dataclasses import replace

import pytest
import torch

import adaptkit as ak
from adaptkit.methods.adapt import retarget
from adaptkit.testing import toy_task
from adaptkit.testing.toy import LENGTH

BRIEF = {"steps": 2, "warmup": 0}


@pytest.fixture(scope="module")
def toy():
    return toy_task(2)


def named(task, names):
    """The task with its first classes' names changed, and images of no other."""
    prompts = tuple((f"a photo of a {name}.",) for name in names)
    few = task.support[task.support.labels < len(names)]
    return replace(task, classnames=tuple(names), prompts=prompts, labelnames=(), support=few, val=None)


def test_mocoop_tells_labels_apart_whose_classes_have_one_name(toy):
    task, test = toy
    made = ak.adapt(ak.method("mocoop", schedule=BRIEF), named(task, ["cat", "cat", "dog"]))
    assert made.prototypes.shape[1] == 3, f"each label has its class's sentences; got {tuple(made.prototypes.shape)}"
    assert torch.equal(made.prototypes[:, 0], made.prototypes[:, 1]), "of equal names the same ones"
    assert ak.predict(made, test[:3]).shape == (3, 3), "and an answer"


def test_prompt_align_answers_for_new_classes_of_towers_that_were_loaded_anew(toy, tmp_path):
    task, test = toy
    base = ak.method("maple", schedule=BRIEF)
    made = ak.adapt(ak.method("prompt-align", base=base, views=4), task)
    ak.save_classifier(tmp_path, made, task, backbone="toy:0")
    other = replace(named(task, ["owl", "hen"]), support=task.support[:0])
    again = ak.load_classifier(tmp_path).method
    assert again.backbone is not task.backbone, "the case is of towers that are equal, and two"
    got, want = (ak.predict(retarget(m, other), test[:3]) for m in (again, made))
    assert torch.equal(got, want), "it must align in the towers that its base answers by"


@pytest.mark.parametrize("name", ["coop", "proda", "prompt-src", "map"])
def test_more_words_than_the_tower_reads_are_refused_in_one_line(name, toy):
    with pytest.raises(ValueError, match=f"a sentence must be shorter than {LENGTH} tokens; got .*X X.*words$"):
        ak.adapt(ak.method(name, n=99, **({"init": ""} if name == "prompt-src" else {})), toy[0])


def test_two_sfs_answers_after_loading_bit_for_bit_however_its_towers_were_tuned(toy, tmp_path):
    task, test = toy
    for tower in ("vision", "text"):
        made = ak.adapt(ak.method("two-sfs", encoder=tower, schedule={"steps": 2}), task)
        ak.save_classifier(tmp_path / tower, made, task, backbone="toy:0")
        again = ak.load_classifier(tmp_path / tower)
        assert torch.equal(again(test[:7]), ak.predict(made, test[:7])), f"the classifier over {tower} must not move"


def test_dpa_learns_in_half_precision(toy):
    task = replace(toy[0], pool=toy[0].pool[:8], val=None)
    made = ak.adapt(ak.method("dpa", schedule=BRIEF), task, trainer={"precision": "bf16-mixed"})
    assert ak.predict(made, toy[1][:3]).isfinite().all(), "what it remembers of images is kept in full precision"
