"""What methods promise that move the towers without labels, beyond the contract."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from adaptkit_plugins.backbones import hf
from adaptkit_plugins.unsupervised.nola import surest
from PIL import Image

from adaptkit import Images, Schedule, Task, adapt, method, predict, unit
from adaptkit.methods.adapt import retarget
from adaptkit.methods.on_queries import train_in_rounds, tuned_on
from adaptkit.saving.state import dump, rebuild
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.towers.augments import CHANGES, STRENGTHENED
from adaptkit.towers.weights import in_effect
from tests.checkpoints import IMAGE, make_clip, make_siglip

FROM_POOL = {"la-fter": {"n": 2, "text_steps": 3}, "nola": {"n": 2, "hidden": 3, "align": {"steps": 2}}, "dpa": {}}
ON_QUERIES = {"re-clip": {"k": 3}, "gta-clip": {"k": 2}}
SHORT = {"schedule": {"steps": 3, "batch_size": 4}}


def made_task(backbone, names=CLASSES, side=32, images=9, **more):
    """A pool of noise, and nobody to learn a label from."""
    pixels = torch.randn(images, 3, side, side)
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    nobody = (pixels[:0], torch.zeros(0, dtype=torch.long))
    return Task.from_arrays(nobody, text, classnames=names, backbone=backbone, pool=pixels, **more)


@pytest.fixture
def task():
    return made_task(toy_backbone())


def short(name, **options):
    return method(name, **{**(FROM_POOL | ON_QUERIES)[name], **SHORT, **options})


@pytest.mark.parametrize("name", FROM_POOL)
def test_the_pool_is_shown_without_labels_and_must_be_there(name, task):
    made = short(name)
    assert made.training_images(task.bind(made)).labels is None, "no label of a pool image may be seen"
    with pytest.raises(ValueError, match="pool must have unlabelled images"):
        adapt(short(name), replace(task, pool=None))


@pytest.mark.parametrize("name", [*FROM_POOL, *ON_QUERIES])
@pytest.mark.parametrize(("make", "depth"), [(make_siglip, 2), (make_clip, 1)])
def test_any_tower_may_be_tuned(name, make, depth, tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGE, "num_hidden_layers", depth)
    backbone = hf.load(str(make(tmp_path / "checkpoint")))
    task = made_task(backbone, ("a cat", "an owl"), backbone.preprocess.size, images=3)
    made, queries = adapt(short(name), task), torch.randn(4, 3, backbone.preprocess.size, backbone.preprocess.size)
    answers = predict(made, queries)
    assert answers.shape == (4, 2) and answers.isfinite().all(), f"{name} must answer by a tower of any kind"
    again = rebuild(*dump(made, backbone), backbone)
    assert torch.equal(predict(again, queries), answers), "saved and loaded it must answer the same"
    other = retarget(made, made_task(backbone, ("a dog", "a hen", "a fox"), backbone.preprocess.size))
    assert predict(other, queries).shape == (4, 3), "and for other classes"


@pytest.mark.parametrize("name", ON_QUERIES)
def test_training_on_queries_leaves_no_trace_and_asks_for_no_order(name, task):
    made, queries, order = adapt(short(name), task), torch.randn(7, 3, 32, 32), torch.tensor([3, 0, 6, 2, 5, 1, 4])
    state, before = torch.get_rng_state(), {n: t.clone() for n, t in made.state_dict().items()}
    first = predict(made, queries)
    assert torch.equal(torch.get_rng_state(), state), "the generator must be put back"
    assert not in_effect(), "the frozen weights must be back in their places"
    assert all(torch.equal(t, before[n]) for n, t in made.state_dict().items()), "the method must be as before"
    assert torch.equal(predict(made, queries), first), "and answer the same again"
    assert torch.equal(predict(made, queries[order]), first[order]), "whatever the order, bit for bit"
    untuned = predict(adapt(short(name, tune=False), task), queries)
    assert not torch.allclose(untuned, first), "but the training must change the answers"


@pytest.mark.parametrize("name", ON_QUERIES)
def test_what_cannot_be_tuned_is_said_at_once(name, task, monkeypatch):
    features = Task.from_arrays((torch.zeros(0, 16), torch.zeros(0).long()), task.text)
    queries = torch.randn(3, 16)
    alone, untuned = (predict(adapt(short(name, tune=tune), features), queries) for tune in (True, False))
    assert torch.equal(alone, untuned), "features alone are answered as without tuning"
    blocks = {n: p for n, p in task.backbone.points.items() if ".block." not in n}
    monkeypatch.setattr(type(task.backbone), "points", blocks)
    with pytest.raises(ValueError, match="tune must be false where there are no two transformer towers"):
        adapt(short(name), task)
    monkeypatch.undo()
    if name == "gta-clip":
        with pytest.raises(ValueError, match="tune must be false where the base reads more than embeddings; got DPA"):
            adapt(short(name, base=short("dpa")), task)


@pytest.mark.parametrize("name", FROM_POOL)
def test_biases_do_not_decay(name, task):
    made = short(name)
    made.fit(task.bind(made))
    learned = [p for p in made.parameters() if p.requires_grad]
    decayed, free = made.parameter_groups(learned)
    names = {id(p): n for n, p in made.tuned.of("image").items()}
    assert {names[id(p)].rpartition(".")[2] for p in free["params"]} == {"bias"}, "only biases are spared"
    assert free["weight_decay"] == 0 and len(free["params"]) + len(decayed["params"]) == len(learned), "nothing is lost"


@pytest.mark.parametrize("released", [False, True])
def test_the_teacher_of_lafter_moves_only_as_released(released, task):
    made = short("la-fter", as_released=released)
    made.fit(task.bind(made))
    pool = made.training_images(task)
    first = made.teacher_logits(pool)
    for p in made.tuned.parameters():
        p.data += 0.3 * torch.randn_like(p)
    moved = not torch.allclose(made.teacher_logits(pool), first, atol=1e-4)
    assert moved == released, "the frozen tower must teach, but as released the student's own"


def test_lafter_learns_a_head_from_sentences(task):
    made = short("la-fter", text_steps=400, text_lr=0.01, noise=0.0)
    made.fit(task.bind(made))
    assert (task.text @ made.teacher.T).argmax(1).tolist() == [0, 1, 2, 3, 4], "each sentence must be of its class"


def test_the_surest_images_of_a_class_may_be_those_it_is_second_for():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.7, 0.1, 0.2], [0.9, 0.06, 0.04], [0.2, 0.1, 0.7]])
    rows, labels = surest(p, 2)
    assert rows.tolist() == [2, 1, 0, 3], "class 0 takes its two surest, class 1 what it is second for, class 2 its own"
    assert labels.tolist() == [0, 0, 1, 2], "and an image stays with the first class that takes it"
    rows, labels = surest(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), 5)
    assert labels.tolist() == [0, 0], "what the first class took is not taken again"


def test_the_loss_of_dpa_is_the_papers(task):
    made = short("dpa", image_share=0.3, fairness=0.7, align=0.2, align_scale=10.0)
    made.fit(task.bind(made))
    weak, strong = made.training_images(task), torch.randn(9, 3, 32, 32)
    rows, scale = torch.tensor([4, 1, 7]), task.backbone.logit_scale
    batch = weak[rows]
    batch.rows.images.rows.arrays["strong"] = strong[:, None]
    x, s = (unit(task.backbone.encode_image(part[rows])).detach() for part in (task.pool.rows.arrays[""], strong))
    by_text, by_image = ((scale * x @ c.T).softmax(1) for c in (task.text, made.centres.clone()))
    levelled = F.normalize(by_text / by_text.mean(0), p=1, dim=1)
    labels = (0.3 * by_image + 0.7 * levelled).argmax(1)
    weight = torch.stack([p[range(3), labels] / p.amax(1) for p in (by_text, by_image)]).prod(0)
    logits, alike = scale * s @ task.text.T, 10 * made.centres @ task.text.T
    want = (weight * F.cross_entropy(logits, labels, reduction="none")).mean()
    want = want - 0.7 * logits.softmax(1).mean(0).log().mean() + 0.2 * F.cross_entropy(alike, torch.arange(5))
    assert torch.allclose(made.loss(batch), want, rtol=1e-4), "self-training, fairness and alignment must add up"
    assert torch.equal(made.labels[rows], labels), "and the labels must be remembered"


def test_dpa_keeps_no_images(task):
    made = adapt(short("dpa"), task)
    assert made.memory is None and made.labels is None and not made.seen, "images answer nothing, and must be forgotten"


@pytest.mark.parametrize("released", [False, True])
def test_one_round_of_reclip_is_the_papers(released, task):
    schedule = {"epochs": 1, "batch_size": 9, "lr": 0.05}
    made = adapt(method("re-clip", k=3, as_released=released, schedule=schedule), task)
    images, backbone = torch.randn(9, 3, 32, 32), task.backbone
    x = unit(backbone.encode_image(images))
    own = made.scores(task.text, x, made.projection).argmax(1)
    centroids, labels = made.centroids(x, own), own[5:]  # both branches agree before the first step
    names = [n for n in backbone.weight_names() if "norm" in n]
    weights = {n: backbone.weight(n).clone().requires_grad_() for n in names}
    with backbone.weights(weights):
        seen = backbone.logits(F.normalize(backbone.encode_image(images)), centroids)
        read = backbone.logits(x, F.normalize(backbone.encode_text([s for (s,) in task.prompts])))
    loss = F.cross_entropy(seen, labels) / (9 if released else 1) + F.cross_entropy(read, labels)
    grads = torch.autograd.grad(loss, [*weights.values()])
    stepped = {n: (w - 0.05 * (g + 1e-4 * w)).detach() for (n, w), g in zip(weights.items(), grads, strict=True)}
    with backbone.weights(stepped):
        x_after, text = unit(backbone.encode_image(images)), unit(backbone.encode_text([s for (s,) in task.prompts]))
    want = (backbone.logits(x_after, centroids) + backbone.logits(x, text)) / 2
    assert torch.allclose(predict(made, images), want, atol=1e-3), "one step of SGD on both towers' norms"


def test_gta_trains_projections_at_their_own_rate_and_spares_maps_as_released(task, monkeypatch):
    from adaptkit_plugins.transductive import gta_clip

    groups = []
    monkeypatch.setattr(gta_clip, "train_in_rounds", lambda begin, given, *_, **__: groups.append(given))
    for released in (False, True):
        predict(adapt(short("gta-clip", as_released=released), task), torch.randn(4, 3, 32, 32))
    every, spared = groups
    assert len(every) == len(task.backbone.weight_names()), "all weights of both towers are trained"
    maps = 2 * 2 * 5 * 2  # weights and biases of q, k, v, out and fc2 of two blocks in each of two towers
    assert len(every) - len(spared) == maps, "but, as released, not what is called proj"
    assert sum(group.get("lr") == 1e-6 for group in every) == 2, "the two projections have a rate of their own"


def test_rounds_look_anew_and_end_in_the_middle_where_steps_are_told():
    w, begun = torch.zeros(2, requires_grad=True), []

    def begin():
        begun.append(w.detach().clone())
        return torch.arange(5), lambda rows: None if 0 in rows.tolist() else (w - 1).square().sum()

    groups = [{"params": [w], "lr": 0.2}]
    schedule = Schedule(steps=4, batch_size=2, lr=0.1, optimizer="sgd", weight_decay=0.0, decay="constant")
    train_in_rounds(begin, groups, schedule, rounds=1)
    assert len(begun) == 2, "three steps make a round, so the fourth is the second's"
    assert not torch.equal(begun[0], begun[1]), "and it must see what the first one learned"
    assert groups[0]["lr"] == pytest.approx(0.2), "a group keeps its own rate"


def test_the_order_of_queries_is_that_of_their_pixels():
    queries = Images.from_arrays(torch.randn(6, 3, 4, 4)).bind({"pixels": method("re-clip").needs()["pixels"]})
    seen = []
    for order in (torch.arange(6), torch.tensor([5, 3, 1, 0, 2, 4])):
        tuned_on(queries[order], lambda images: seen.append(images.pixels) or torch.rand(6, 1))
    assert torch.equal(*seen), "however queries are ordered, training must meet them in one order"


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_view_depends_on_its_seed_alone(name):
    image = Image.effect_noise((20, 16), 80).convert("RGB")
    views = [CHANGES[name](image, random.Random(seed)) for seed in (1, 1, *range(2, 40))]
    assert all(view.size == image.size and view.mode == "RGB" for view in views), "a view must stay such an image"
    assert views[0].tobytes() == views[1].tobytes(), "one seed, one view"
    assert len({view.tobytes() for view in views}) > 20, "and other seeds other views"


def test_operations_of_no_strength_move_nothing():
    image = Image.effect_noise((20, 16), 80).convert("RGB")
    same = [operation(image, 0.0, 1).tobytes() == image.tobytes() for operation in STRENGTHENED[6:]]
    assert all(same), f"adding, enhancing, shearing and shifting by nothing must be nothing; got {same}"
