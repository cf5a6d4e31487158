"""What is tuned for each image anew: several images at once, over any prompt, by rewards, towards known statistics."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from adaptkit import Preprocess, Task, adapt, load_classifier, method, predict, save_classifier
from adaptkit.methods.adapt import retarget
from adaptkit.runs import plugins
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.testing.report import brief
from tests.test_prompting import siglip

SHORT = {"schedule": {"steps": 2, "warmup": 0}}
BASES = {
    "coop": {"coop": {"n": 3, **SHORT}},
    "coop per class": {"coop": {"n": 3, "per_class": True, **SHORT}},
    "kgcoop": {"kgcoop": SHORT},
    "maple": {"maple": SHORT},
}
PROMPTED = [name for name, cls in plugins.table("methods").items() if cls.tunable and cls.output == "logits"]
OPTIONS = {"tpt": {"steps": 2}, "c-tpt": {"two_step": True}, "rlcf": {}}


def task_of(backbone, classes=CLASSES, shots=2):
    """A few images a class, as pixels."""
    names, labels = list(classes), torch.arange(shots * len(classes)) % len(classes)
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    draw = torch.Generator().manual_seed(0)
    side = backbone.preprocess.size
    centres = torch.randn(len(names), 3, side, side, generator=draw)
    pixels = centres[labels] + torch.randn(len(labels), 3, side, side, generator=draw)
    return Task.from_arrays((pixels, labels), text, classnames=names, backbone=backbone, pool=pixels[::2])


@pytest.fixture
def task():
    return task_of(toy_backbone())


def views_of(task, images=5, views=6):
    """Pixels of views, ``(N, V, 3, H, W)``."""
    side, draw = task.backbone.preprocess.size, torch.Generator().manual_seed(1)
    one = torch.randn(images, 1, 3, side, side, generator=draw)
    return one + 0.5 * torch.randn(images, views, 3, side, side, generator=draw)


def made(name, task, **options):
    torch.manual_seed(0)
    return adapt(method(name, **{"views": 6, "keep": 0.5, **options}), task)


def alone(model, monkeypatch):
    """The same method, tuned one image at a time."""
    model = copy.deepcopy(model)
    monkeypatch.setattr(type(model), "together", lambda self: 1)
    return model


@pytest.mark.parametrize("base", [None, "coop", "coop per class"])
@pytest.mark.parametrize("name", OPTIONS)
def test_images_tuned_together_answer_as_each_alone(name, base, task):
    model = made(name, task, **OPTIONS[name], **({"base": method(BASES[base])} if base else {}))
    assert model.together() > 5, "so few classes must leave room for all images at once"
    pixels = views_of(task)
    at_once, reverse = predict(model, pixels), predict(model, pixels.flip(0)).flip(0)
    one_by_one = predict(model, pixels, batch_size=1)
    assert torch.allclose(at_once, one_by_one, atol=1e-3), "images must not see one another"
    assert torch.allclose(at_once, reverse, atol=1e-3), "nor their order matter"


@pytest.mark.parametrize("name", OPTIONS)
def test_sentences_are_encoded_once_where_all_images_start(name, task, monkeypatch):
    model, calls, encode = made(name, task, **OPTIONS[name]), [], type(task.backbone).encode_text
    monkeypatch.setattr(type(task.backbone), "encode_text", lambda b, tokens: calls.append(0) or encode(b, tokens))
    model = alone(model, monkeypatch)
    want = predict(model, views_of(task))
    shared = len(calls)
    monkeypatch.setattr(type(model), "begun", lambda self: None)
    assert torch.allclose(predict(model, views_of(task)), want, atol=1e-3), "the same answers either way"
    assert len(calls) - shared > shared, f"each of five images must save a pass; got {shared} and {len(calls) - shared}"


def test_as_many_images_are_tuned_at_once_as_their_sentences_are_encoded_at_once(task, monkeypatch):
    model, seen = made("tpt", task), []
    model.prompts = type(model.prompts)(task.backbone, CLASSES, init="a photo of a", chunk=2 * len(CLASSES) + 1)
    episode = type(model).episode
    monkeypatch.setattr(type(model), "episode", lambda self, s, b: seen.append(len(s["views"])) or episode(self, s, b))
    predict(model, views_of(task))
    assert seen == [2, 2, 1], f"two images of five classes fit into eleven sentences; got {seen}"


@pytest.mark.parametrize("name", PROMPTED)
def test_any_prompt_is_tuned_from_where_training_left_it(name, task):
    still = made("tpt", task, base=brief(name, 2), steps=0)
    pixels, state = views_of(task, images=2), copy.deepcopy(still.state_dict())
    assert torch.allclose(predict(still, pixels), predict(still.base, pixels[:, 0]), atol=1e-4), "no step, no change"
    tuned = copy.deepcopy(still)
    tuned.set({"steps": 1, "lr": 0.05})
    assert not torch.allclose(predict(tuned, pixels), predict(still, pixels), atol=1e-2), "a step must show"
    assert all(torch.equal(value, state[key]) for key, value in tuned.state_dict().items()), "and be forgotten"


def test_prompts_are_named_by_the_methods_that_learn_them():
    assert {"coop", "cocoop", "kgcoop", "maple", "vpt", "ivlp", "prompt-src"} <= {*PROMPTED}, f"got {PROMPTED}"


def test_words_of_a_base_are_tuned_as_the_base_itself_would_be(task, monkeypatch):
    model, pixels = made("tpt", task, base=method(BASES["kgcoop"]), steps=2), views_of(task)
    want = predict(model, pixels)
    monkeypatch.setattr(type(model), "words", lambda self: None)
    assert model.together() == 1, "over a base whose answers are not understood images are tuned one by one"
    assert torch.allclose(predict(model, pixels), want, atol=1e-3), "both ways must tune the same"


def test_what_a_base_must_be_is_said_in_a_line(task):
    with pytest.raises(ValueError, match="base must be a method that names prompts as tunable"):
        made("tpt", task, base=method("gda"))
    with pytest.raises(ValueError, match="base must answer by class embeddings of words alone"):
        made("c-tpt", task, base=method(BASES["maple"]))
    with pytest.raises(ValueError, match="base must run the image tower once"):
        made("prompt-align", task, base=method(BASES["coop"]))
    with pytest.raises(ValueError, match="tunes must be 'prompt' with a base"):
        made("rlcf", task, base=method(BASES["coop"]), tunes="image-tower")


def test_the_spread_is_the_mean_distance_from_the_mean(task):
    model = made("c-tpt", task, weight=3.0)
    text = normalize(torch.randn(2, 5, 16), dim=-1)
    want = [-3 * sum((row - one.mean(0)).norm() for row in one) / 5 for one in text]
    assert torch.allclose(model.closeness(text), torch.stack(want)), "of the classes of each image"
    spread = [-made("c-tpt", task, weight=w).closeness(text_after(w, task)) / w for w in (1e-6, 50.0)]
    assert (spread[1] > spread[0]).all(), f"the heavier it weighs, the wider classes must lie; got {spread}"


def text_after(weight, task):
    """Class embeddings that C-TPT ends at."""
    model = made("c-tpt", task, weight=weight, steps=3)
    seen = {"views": normalize(task.backbone.encode_image(views_of(task).flatten(0, 1)), dim=-1).unflatten(0, (5, 6))}
    with torch.no_grad():
        return model.see(model.tuned(model.start(5), seen), seen).text


@pytest.mark.parametrize("k", [1, 2, 9])
def test_the_reward_is_the_judges_above_its_mean(k, task):
    model = made("rlcf", task, k=k)
    logits, judged = torch.randn(2, 3, 5), normalize(torch.randn(2, 3, 16), dim=-1)
    want = []
    for image in range(2):
        losses = []
        for view in range(3):
            best = logits[image, view].argsort(descending=True)[:k]
            reward = (2.5 * (judged[image, view] @ model.judged_text[best].T)).clamp_min(0)
            reward = reward - reward.mean() if len(best) > 1 else reward
            losses += [r * cross_entropy(logits[image, view], c) for r, c in zip(reward, best, strict=True)]
        want.append(sum(losses) / len(losses))
    answer = replace(model.see(model.start(2), {"views": judged}), logits=logits)
    assert torch.allclose(model.objective(answer, {"judged": judged}), torch.stack(want), atol=1e-5)


def test_the_image_tower_is_tuned_and_left_as_it_was(task):
    still, moved = (made("rlcf", task, tunes="image-tower", steps=steps, tower_lr=1e-3) for steps in (0, 3))
    pixels, before = views_of(task), task.backbone.digest()
    zero_shot = predict(adapt(method("zero-shot"), task), pixels[:, 0])
    assert torch.allclose(predict(still, pixels), zero_shot, atol=1e-4), "no step is zero-shot"
    assert not torch.allclose(predict(moved, pixels), zero_shot, atol=1e-2), "steps must show"
    assert task.backbone.digest() == before, "and leave the tower alone"
    assert not [*moved.parameters()] and not any("image." in key for key in moved.state_dict()), "and the method small"


@pytest.mark.parametrize("tunes", ["prompt", "image-tower"])
def test_momentum_carries_what_images_teach(tunes, task):
    options = {"tunes": tunes, "tower_lr": 1e-3, "momentum": True}
    last = made("rlcf", task, **options, decay=0.0, every=1)
    assert last.scope == "stream" and made("rlcf", task).scope == "sample", "with momentum earlier images count"
    pixels = views_of(task, images=3)
    answers = predict(last, pixels)
    fresh = predict(made("rlcf", task, tunes=tunes, tower_lr=1e-3), pixels)
    assert torch.allclose(answers[0], fresh[0], atol=1e-4), "the first image has none before it"
    assert not torch.allclose(answers[1], fresh[1], atol=1e-3), "the second starts where the first ended"
    slow = predict(made("rlcf", task, **options, decay=0.0, every=2), pixels)
    assert torch.allclose(slow[:2], fresh[:2], atol=1e-4) and not torch.allclose(slow[2], fresh[2], atol=1e-3)
    assert torch.allclose(predict(made("rlcf", task, **options, every=1, share=0.0), pixels), fresh, atol=1e-4)
    assert torch.equal(predict(last, pixels), answers), "and a stream is forgotten when it ends"


def test_known_statistics_are_those_of_the_proxys_tokens(task):
    model = made("prompt-align", task, base=method(BASES["maple"]))
    pixels, kept = task.support.bind(model.base.needs()).pixels, []
    with torch.no_grad(), task.backbone.taps({"image.block.0": lambda _, out: kept.append(out) or out}):
        model.base(task.support)
    assert len(kept[0]) == len(pixels), "one sequence of tokens for each support image"
    assert torch.allclose(model.source_mean[0], kept[0].mean(0), atol=1e-5), "means by token and channel"
    assert torch.allclose(model.source_variance[0], kept[0].var(0, correction=0), atol=1e-4), "and variances"
    pool = made("prompt-align", task, base=method(BASES["maple"]), proxy="pool")
    assert torch.allclose(pool.source_mean[0], kept[0][::2].mean(0), atol=1e-5), "of the pool, where it is the proxy"
    with pytest.raises(ValueError, match="proxy must name images"):
        made("prompt-align", replace(task, pool=None), base=method(BASES["maple"]), proxy="pool")


def test_alignment_brings_tokens_nearer(task):
    options = {"base": method(BASES["maple"]), "lr": 1e-3, "align_keep": 1.0, "steps": 3}
    model, pixels = made("prompt-align", task, **options), views_of(task)[:1]
    seen = {"pixels": pixels}
    with torch.no_grad():
        before, after = (
            model.distance(model.see(state, seen).blocks, 6)
            for state in (model.start(1), model.tuned(model.start(1), seen))
        )
        released = made("prompt-align", task, **{**options, "base": method(BASES["maple"])}, as_released=True)
        blocks = released.see(released.start(1), seen).blocks
    assert after < before, f"tokens must come nearer to the known ones; got {before} to {after}"
    assert len(blocks) == 2, "two blocks are all there are"
    tokens = blocks[0][0]  # (V, T, W)
    means = (tokens.mean(0) - released.source_mean[0]).abs().mean()
    variances = (tokens.var(0, correction=0) - released.source_variance[0]).abs().mean()
    want = (means + variances) / 4
    assert torch.allclose(released.distance(blocks, 6)[0], want), "half of the first block's, over both"


def test_other_classes_are_answered_for_with_the_statistics_of_the_first(task, tmp_path):
    new = task_of(toy_backbone(), ("bee", "a very long name of an animal that nobody knows"))
    new = replace(new, support=new.support[:0], pool=None)
    for name, base in (("tpt", "coop"), ("rlcf", None), ("c-tpt", None), ("prompt-align", "maple")):
        model, pixels = made(name, task, **({"base": method(BASES[base])} if base else {})), views_of(task)
        elsewhere = retarget(model, new)
        answers = predict(elsewhere, pixels)
        assert answers.shape == (5, 2), f"{name} must answer for two classes"
        if name == "prompt-align":
            assert torch.equal(elsewhere.source_mean, model.source_mean), "known statistics must stay"
        save_classifier(tmp_path / name, elsewhere, new, backbone="toy:0")
        assert torch.equal(predict(load_classifier(tmp_path / name).method, pixels), answers), "bit for bit"


@pytest.mark.parametrize("name", ["tpt", "c-tpt", "rlcf", "prompt-align"])
def test_siglip_is_tuned_too(name):
    backbone = siglip()
    backbone.preprocess = Preprocess(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    task = task_of(backbone)
    model = made(name, task, **({"base": method(BASES["maple"])} if name == "prompt-align" else {}))
    answers = predict(model, views_of(task))
    assert answers.shape == (5, 5) and answers.isfinite().all(), f"{name} must answer with SigLIP"


@pytest.mark.parametrize("name", ["tpt", "c-tpt", "rlcf", "prompt-align"])
def test_two_classes_with_one_shot_are_enough(name):
    task = task_of(toy_backbone(), CLASSES[:2], shots=1)
    model = made(name, task, keep=0.0, **({"base": method(BASES["maple"])} if name == "prompt-align" else {}))
    answers = predict(model, views_of(task, images=1, views=6))
    assert answers.shape == (1, 2) and answers.isfinite().all(), f"{name} must answer for two classes by one view"


def test_a_second_backbone_judges(task):
    judge = torch.randn(5, 7)
    given = Task.from_arrays(
        (task.support.bind({"pixels": method("maple").needs()["pixels"]}).pixels, task.support.labels),
        task.text,
        classnames=CLASSES,
        backbone=task.backbone,
        text_by={"other": judge},
    )
    model = made("rlcf", given, judge="other")
    arrays = {"views": normalize(torch.randn(4, 6, 16), dim=-1), "judged": normalize(torch.randn(4, 6, 7), dim=-1)}
    assert model.needs()["judged"].backbone == "other", "the judge looks at the views itself"
    one, two = predict(model, arrays), predict(model, {**arrays, "judged": arrays["judged"].flip(0)})
    assert not torch.allclose(one, two, atol=1e-3), "another judgement must lead elsewhere"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("tpt", {"base": "gda"}, "base must be a method that names prompts as tunable, e.g. coop; got GDA"),
        ("c-tpt", {"base": "maple"}, "base must answer by class embeddings of words alone, e.g. coop; got MaPLe"),
        ("rlcf", {"base": "coop", "tunes": "image-tower"}, "rlcf.tunes must be 'prompt' with a base"),
        ("mma", {"start": 5, "end": 2}, "mma.start must be at most mma.end, 2; got 5"),
        ("eco", {"lengths": []}, "eco.lengths must be at least one number; got none"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_anything_runs(name, options, said):
    with pytest.raises(ValueError, match=said):
        method({name: options})
