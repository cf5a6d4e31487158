"""The forms of cross-modal adaptation, VDT-Adapter and ProKeR that train more, or on more, than the plain ones."""

from dataclasses import replace

import pytest
import torch

from adaptkit import Images, accuracy, adapt, load_classifier, method, predict, save_classifier, unit
from adaptkit.testing import toy_backbone
from tests.test_fine_tuning import fitted, one_block, pixel_task, with_preprocess
from tests.test_prompting import siglip

FEW = {"steps": 3, "lr": 1e-3, "batch_size": 8, "warmup_steps": 0}
MAKERS = {"clip": toy_backbone, "siglip": lambda: with_preprocess(siglip()), "one block": one_block}
ENDS = [("last-block", "clip"), ("last-block", "siglip"), ("last-block", "one block"), ("pool", "siglip")]


@pytest.mark.parametrize(("tuned", "tower"), ENDS)
def test_the_end_of_the_tower_goes_on_from_stored_tokens_as_the_tower_does(tuned, tower):
    task, pixels = pixel_task(MAKERS[tower]())
    made = fitted("cross-modal", task, tuned=tuned)
    for p in made.end.parameters():
        p.data += 0.05 * torch.randn_like(p)
    assert all(name.startswith("image.") for name in made.end.names), "the text tower stays frozen"
    tokens = task.support.bind(made.needs()).x
    with made.end.placed("image"):
        want = unit(task.backbone.encode_image(pixels))
    got = made.embed(tokens)
    assert torch.allclose(got, want, atol=1e-5), "stored tokens must lead to the same embeddings"
    pair = [torch.autograd.grad((x**2 * torch.arange(x.shape[1])).sum(), [*made.end.parameters()]) for x in (got, want)]
    for name, one, two in zip(made.end.names, *pair, strict=True):
        assert torch.allclose(one, two, atol=1e-4 * float(two.abs().max() + 1)), f"and the same gradient of {name}"


def test_what_the_end_of_the_tower_is():
    task, _ = pixel_task(MAKERS["siglip"]())
    names = fitted("cross-modal", task, tuned="pool").end.names
    assert len(names) > 8 and all(name.startswith("image.head.") for name in names), f"the pool alone; got {names}"
    task, _ = pixel_task(toy_backbone())
    names = fitted("cross-modal", task, tuned="last-block").end.names
    around = ["image.norm.bias", "image.norm.weight", "image.projection.weight"]
    assert sorted(n for n in names if ".block." not in n) == around, f"the last block, and what follows; got {names}"
    assert all(n.startswith("image.block.1.") for n in names if ".block." in n), "and no other block"
    with pytest.raises(ValueError, match=r"must have tap point 'image\.head' for this method"):
        fitted("cross-modal", task, tuned="pool")


def test_the_adapter_refines_images_and_sentences_alike():
    task, _ = pixel_task(toy_backbone())
    made = fitted("cross-modal", task, tuned="adapter", ratio=0.3)
    x, rows, labels = unit(torch.randn(4, 16)), torch.tensor([0, 3]), torch.tensor([0, 1, 2, 0])
    down, up = made.adapter[0].weight, made.adapter[2].weight
    losses = []
    for row, y in zip([*x, *made.sentences[rows]], [0, 1, 2, 0, 0, 1], strict=True):
        refined = 0.3 * (up @ (down @ row).clamp_min(0)).clamp_min(0) + 0.7 * row
        losses.append(-(task.backbone.logit_scale * made.weight @ refined).log_softmax(0)[y])
    want = torch.stack(losses).mean()
    assert torch.allclose(made.joint(x, labels, rows), want, rtol=1e-4), "the loss must be the mean over both"


@pytest.mark.parametrize("tuned", ["adapter", "last-block"])
def test_the_forms_of_cross_modal_adaptation_learn_and_are_exported(tuned, toy, tmp_path):
    task, queries = toy
    made = adapt(method("cross-modal", tuned=tuned, schedule=FEW, check=1), replace(task, val=task.val[:10]))
    assert accuracy(made, queries) > 0.4, "it must learn"
    save_classifier(tmp_path, made, task, backbone="toy:0")
    assert torch.equal(load_classifier(tmp_path)(queries[:8]), predict(made, queries[:8])), "bit for bit"


def test_vdt_adapter_may_draw_its_views_anew(toy):
    task, _ = toy
    made = method("vdt-adapter", fresh=True)
    one, two = (task.support[:3].bind(made.support_needs()).views for _ in range(2))
    assert one.shape == (3, 1, 16) and not torch.equal(one, two), "every reading must be another view"
    assert not next(iter(method("vdt-adapter").support_needs().values())).fresh, "stored views are the default"


@pytest.mark.parametrize("features", [0, 64])
def test_prokers_head_and_regression_are_trained_together(features, toy):
    task, _ = toy
    made = method("proker-clap", views=2, features=features)
    bound = task.bind(made)
    made.fit(bound)
    assert torch.allclose(made.text, unit(made.raw)), "the head starts at the text"
    made.prototypes.data += 0.1 * torch.randn_like(made.prototypes)
    batch = bound.support[:6]
    torch.manual_seed(0)
    got = made.loss(batch)
    made.keep_head()  # solves again, for the head as it is
    torch.manual_seed(0)
    x = batch.views[torch.arange(6), torch.randint(2, (6,))]
    scale = task.backbone.logit_scale
    kernel = made.lift(x, made.beta).float()
    logits = scale * (x @ unit(made.prototypes).T + kernel @ made.coefficients)
    apart = (made.prototypes - made.raw).square().sum(1)
    want = torch.nn.functional.cross_entropy(logits, batch.labels) + (made.multipliers * apart).sum() / 5
    assert torch.allclose(got, want, rtol=1e-3), f"the loss must be that of head and regression, {want}; got {got}"
    queries = Images.from_arrays(x)
    assert torch.allclose(predict(made.eval(), queries), logits, atol=1e-2), "and so must the answers"


def test_a_class_the_text_explains_is_held_to_it(toy):
    task, _ = toy
    made = method("proker-clap", views=2)
    made.fit(task.bind(made))
    x, labels = task.support.bind(made.support_needs()).views, task.support.labels
    for c in range(5):
        own = made.backbone.logits(x[labels == c].flatten(0, 1), task.text).softmax(-1)[:, c].mean()
        assert torch.allclose(made.multipliers[c], own, rtol=1e-3), "by the mean belief in its own class"
