"""What learns several prompts, by images' statistics, or without labels: options, losses, small towers, new names."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Layers, Task, adapt, load_classifier, method, predict, save_classifier, unit
from adaptkit.methods.adapt import retarget
from adaptkit.testing import CLASSES, ToyImages, toy_backbone
from tests.test_prompting import siglip

OURS = {"plot": {"n": 4}, "plot, pooled": {"n": 4, "pooled": True}, "mocoop": {}, "gopro": {}}
BRIEF = {"schedule": {"steps": 2, "warmup": 0, "batch_size": 4}}


@pytest.fixture
def task():
    """Two images a class, as pixels."""
    return pictured(toy_backbone(), CLASSES)


def pictured(backbone, names, per_class=2, side=32):
    """Random images of some classes as a task."""
    labels = torch.arange(per_class * len(names)) % len(names)
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    pixels = torch.randn(len(names), 3, side, side)[labels] + torch.randn(len(labels), 3, side, side)
    return Task.from_arrays((pixels, labels), text, classnames=names, backbone=backbone)


def fitted(name, task, **options):
    made = method(name.partition(",")[0], **{**OURS.get(name, {}), **options})
    made.fit(task.bind(made))
    return made


def shallow():
    """Towers of one block each."""
    from transformers import CLIPConfig, CLIPModel

    from adaptkit.testing.toy import toy_tokenizer
    from adaptkit.towers.clip import CLIPBackbone

    tower = {"num_hidden_layers": 1, "num_attention_heads": 1, "projection_dim": 12, "intermediate_size": 20}
    text = {**tower, "hidden_size": 10, "vocab_size": 96, "max_position_embeddings": 40, "eos_token_id": 95}
    vision = {**tower, "hidden_size": 14, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    return CLIPBackbone(model, toy_tokenizer, toy_backbone().preprocess)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("towers", ["siglip", "shallow"])
def test_other_towers_are_adapted_and_answer_for_two_classes_of_one_shot(name, towers):
    backbone = siglip() if towers == "siglip" else shallow()
    backbone.preprocess = replace(toy_backbone().preprocess, size=16)
    task = pictured(backbone, ["cat", "dog"], per_class=1, side=16)
    made, pixels = adapt(method(name.partition(",")[0], **OURS[name], **BRIEF), task), torch.randn(3, 3, 16, 16)
    answers = predict(made, pixels)
    assert answers.shape == (3, 2), f"{name} must answer for two classes; got {tuple(answers.shape)}"
    one_by_one = predict(made, pixels, batch_size=1)
    assert torch.allclose(answers, one_by_one, atol=1e-4), f"{name} must answer alike in any batch"


@pytest.mark.parametrize("name", OURS)
def test_a_saved_classifier_answers_other_names_as_before_it_was_saved(name, task, tmp_path):
    made, pixels = adapt(method(name.partition(",")[0], **OURS[name], **BRIEF), task), torch.randn(3, 3, 32, 32)
    save_classifier(tmp_path, made, task, backbone="toy:0")
    again = load_classifier(tmp_path)
    assert torch.equal(predict(again.method, pixels), predict(made, pixels)), f"{name} must answer bit for bit"
    names = ["polar bear", "very long name of one bird", "ox"]
    new = pictured(task.backbone, names)
    got, want = (predict(retarget(m, new), pixels) for m in (again.method, made))
    assert torch.equal(got, want) and got.shape == (3, 3), f"{name} must answer for new names as before it was saved"


def test_plot_is_the_papers_transport(task):
    plot = fitted("plot", task, n=2, iterations=500, threshold=0.0)
    cosines = torch.rand(3, 5, 16, 4).double()
    plan = plot.plan(cosines)
    assert torch.allclose(plan.sum(-1), torch.full((3, 5, 16), 1 / 16).double()), "patches must have equal mass"
    assert torch.allclose(plan.sum(-2), torch.full((3, 5, 4), 1 / 4).double()), "prompts must have equal mass"
    potential = plan.log() - cosines / plot.epsilon  # of an entropic plan, a sum of one term a row and one a column
    cross = potential - potential[..., :1, :] - potential[..., :1] + potential[..., :1, :1]
    assert cross.abs().max() < 1e-8, "the plan must be the kernel, scaled by rows and by columns"


def test_plots_pairs_stop_by_themselves_unless_as_released(task):
    cosines = torch.rand(1, 2, 9, 3)
    cosines[:, 1] = 0.5  # done at once
    ours, theirs = (fitted("plot", task, as_released=flag) for flag in (False, True))
    alone = ours.plan(cosines[:, 1:])
    assert torch.equal(ours.plan(cosines)[:, 1:], alone), "a pair must not wait for others"
    theirs.threshold = 1e-5
    ours.threshold = 1e-5
    assert not torch.equal(ours.plan(cosines)[:, :1], theirs.plan(cosines)[:, :1]), "a batch must stop together"


def test_plot_learns_and_adds_pooled_logits(task):
    pixels = torch.randn(3, 3, 32, 32)
    plain, pooled = (fitted("plot", task, pooled=flag).eval() for flag in (False, True))
    pooled.context.data.copy_(plain.context)
    with torch.no_grad():
        x = unit(task.backbone.encode_image(pixels))
        mean = unit(plain.prompts.encode(plain.context[:, None]).mean(0))
    want = predict(plain, pixels) + task.backbone.logits(x, mean)
    assert torch.allclose(predict(pooled, pixels), want, atol=1e-4), "pooled must add the mean prompt's logits"
    quick = {"schedule": {"steps": 40, "lr": 0.05, "warmup": 0}}
    made = adapt(method("plot", n=4, **quick), task)
    before, after = (m.eval().loss(task.bind(m).support) for m in (fitted("plot", task, n=4), made))
    assert after < before - 0.1, f"the loss must fall; got {before} to {after}"


def test_plots_class_contexts_serve_no_other_names(task):
    made = fitted("plot", task, per_class=True)
    assert made.context.shape[:2] == (4, 5), "four contexts for each of five classes"
    with pytest.raises(ValueError, match="per_class must be false"):
        retarget(made, task)


def test_mocoops_loss_is_the_sum_of_its_parts_written_plainly(task):
    made = fitted("mocoop", task, text_weight=3.0, gate_weight=0.5).eval()
    x, y = task.bind(made).support.views[:, 0], task.support.labels  # (S, D), (S,)
    text, protos = made.texts(made.experts), made.prototypes  # (G, C, D)
    logits, gates = [], []
    for image, label in zip(x, y, strict=True):
        scores = made.gate(image)
        first, second = scores.argsort(descending=True)[:2].tolist()
        share = scores[[first, second]].softmax(-1)
        mixed = share[0] * text[first] + share[1] * text[second]  # (C, D)
        logits.append(task.backbone.logit_scale * mixed @ image)
        suits = protos[:, label] @ image
        suits[suits.argsort(descending=True)[:2]] += 10
        gates.append(-(suits.softmax(-1) * scores.log_softmax(-1)).sum())
    texts = [F.cross_entropy(text[g] @ protos[g].T, torch.arange(5)) for g in range(len(protos))]
    want = F.cross_entropy(torch.stack(logits), y) + 3 * sum(texts) / len(texts) + 0.5 * sum(gates) / len(gates)
    assert torch.allclose(made.loss(task.bind(made).support), want, rtol=1e-5), "the loss must be the paper's three"


def test_mocoops_prompts_start_as_their_templates(task):
    made = fitted("mocoop", task, groups=(("a photo of a {}.",), ("{} in a photo", "a {}")))
    with torch.no_grad():
        want = [
            unit(task.backbone.encode_text([t.format(c) for c in CLASSES]))
            for t in ("a photo of a {}", "{} in a photo")
        ]
        assert torch.allclose(made.texts(made.experts), torch.stack(want), atol=1e-5), "before training, the templates"
    assert [len(words) for words in made.before] == [4, 0], "words before the name"
    assert [len(words) for words in made.after] == [0, 3], "words behind it"
    with pytest.raises(ValueError, match=r"mocoop\.groups must have {} once"):
        fitted("mocoop", task, groups=(("a photo",),))


def test_mocoop_holds_other_names_to_their_templates(task):
    made = fitted("mocoop", task, others=("ox", "cat"))
    assert made.prototypes.shape[1] == 6, "five classes and one more name"
    made.loss(task.bind(made).support).backward()
    assert predict(made.eval(), torch.randn(2, 3, 32, 32)).shape == (2, 5), "only the task's classes are answered"
    kept = copy.deepcopy(made)
    assert kept.held is not kept.experts, "a copy must keep the further names"


def test_gopro_reads_mean_and_deviation_of_every_blocks_tokens(task):
    need, pixels = method("gopro").needs()["statistics"], torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        rows = need.compute(task.backbone, pixels)
        layers = Layers(blocks=(0, 1)).compute(task.backbone, pixels)  # (B, K, T, W)
    want = torch.stack([layers.mean(2), layers.std(2, correction=0)], 2)
    assert torch.allclose(rows, want, atol=1e-5), "the mean over tokens, and the deviation"
    assert rows.shape[1:] == need.shape(task.backbone), "the shape must be as told"


def test_gopros_contrastive_loss_is_simclrs(task):
    gopro, x, other = fitted("gopro", task, tau=0.5).eval(), torch.randn(4, 16), torch.randn(4, 16)
    both = unit(gopro.projector(torch.cat([x, other])))
    terms = []
    for i in range(8):
        cosines = [(both[i] @ both[j] / 0.5).exp() for j in range(8) if j != i]
        terms.append(-((both[i] @ both[(i + 4) % 8] / 0.5).exp() / sum(cosines)).log())
    assert torch.allclose(gopro.contrastive(x, other), sum(terms) / 8, rtol=1e-5), "the loss must be SimCLR's"
    assert gopro.contrastive(x[:1], other[:1]) == 0, "one image has nobody to be told from"


def test_gopros_weights_weigh_its_losses(task):
    made = fitted("gopro", task, contrast=2.0, steadiness=3.0).eval()
    answers, moco, augmix, contrast = made.parts(task.bind(made).support)
    assert moco == 0 and augmix == 0, "with one view of each image nothing moves"
    assert torch.allclose(made.loss(task.bind(made).support), answers + 2 * contrast), "the losses must be weighed"


def test_gopro_as_released_compares_with_the_first_images_augmentations(task):
    made = fitted("gopro", task).eval()
    batch = task.bind(made).support
    _, _, ours, _ = made.parts(batch)
    made.as_released = True
    _, _, theirs, _ = made.parts(batch)
    assert ours == 0 < theirs, "other images' prompts must differ from the first's"


def test_views_of_contrastive_learning_are_drawn_by_value_and_change_colours():
    picture, preprocess = ToyImages("test", 5).image(0), toy_backbone().preprocess
    views = torch.stack([preprocess.view(picture, "moco", str(seed)) for seed in range(30)])
    assert torch.equal(views[3], preprocess.view(picture, "moco", "3")), "a seed must give one view"
    grey = [view for view in views if torch.equal(view[0], view[1]) and torch.equal(view[1], view[2])]
    assert 0 < len(grey) < 15, f"about a fifth must be without colours; got {len(grey)} of 30"
