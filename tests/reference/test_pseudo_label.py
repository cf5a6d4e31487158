"""Pseudo-labelled supports: what they take, and that they never look at a label."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from adaptkit_plugins.supports.pseudo_label import leaderboards, zero_shot

from adaptkit import Task, adapt, method, predict
from adaptkit.features.items import Images
from adaptkit.runs import plugins


def task_and_images(n=40, classes=5, dim=6):
    rng = np.random.default_rng(0)
    text, x = rng.standard_normal((classes, dim)), rng.standard_normal((n, dim))
    nothing = (np.zeros((0, dim)), np.zeros(0, int))
    return Task.from_arrays(nothing, text, logit_scale=5.0), x.astype(np.float32)


def test_each_class_has_its_surest_images_and_no_more_than_shots():
    task, x = task_and_images()
    p = task.backbone.logits(torch.nn.functional.normalize(torch.tensor(x), dim=-1), task.text).softmax(-1).numpy()
    support, val = plugins.pick("supports", "pseudo-label")(task, Images.from_arrays(x), None, shots=3, seed=1)
    want = []
    for c in range(5):
        mine = [i for i in range(len(x)) if p[i].argmax() == c]
        want += [(i, c) for i in sorted(mine, key=lambda i: -p[i].max())[:3]]
    got = list(zip(support.index.tolist(), support.labels.tolist(), strict=True))
    assert got == want, f"rows and labels must be {want}; got {got}"
    assert val is None, "pseudo-labels must come without labelled validation images"


@pytest.mark.parametrize("rule", ["pseudo-label", "fpl", "grip"])
def test_true_labels_change_nothing(rule):
    task, x = task_and_images()
    choose = partial(plugins.pick("supports", rule), **({"by": "tip-adapter"} if rule == "grip" else {}))
    supports = [choose(task, Images.from_arrays(x, np.full(len(x), c)), None, shots=2, seed=1)[0] for c in (0, 4)]
    assert torch.equal(supports[0].index, supports[1].index), "the images depend on labels that must not be read"
    assert torch.equal(supports[0].labels, supports[1].labels), "the pseudo-labels depend on the true ones"


def deferred(p, shots):
    """Gale and Shapley's algorithm: images propose, the likeliest class first; classes keep the surest."""
    wishes = {i: list(np.argsort(-p[i], kind="stable")) for i in range(len(p))}
    held = {c: [] for c in range(p.shape[1])}
    free = list(wishes)
    while free:
        i = free.pop()
        if wishes[i]:
            c = wishes[i].pop(0)
            held[c] = sorted([*held[c], i], key=lambda j: -p[j, c])
            free += held[c][shots:]
            held[c] = held[c][:shots]
    return [(i, c) for c in held for i in held[c]]


@pytest.mark.parametrize("shots", [1, 3, 8, 20])
def test_fpl_gives_an_image_to_the_likeliest_class_without_enough_surer_ones(shots):
    task, x = task_and_images()
    p = task.backbone.logits(torch.nn.functional.normalize(torch.tensor(x), dim=-1), task.text).softmax(-1).numpy()
    support, val = plugins.pick("supports", "fpl")(task, Images.from_arrays(x), None, shots=shots, seed=1)
    got = list(zip(support.index.tolist(), support.labels.tolist(), strict=True))
    assert got == deferred(p, shots), f"rows and labels must be {deferred(p, shots)}; got {got}"
    assert len(got) == min(40, 5 * shots), "every class has as many, as long as there are images"
    assert val is None, "pseudo-labels must come without labelled validation images"


def test_grip_grows_by_the_answers_of_the_method_it_is_given():
    task, x = task_and_images()
    train, options = Images.from_arrays(x, np.zeros(len(x), int)), {"by": {"gda": {"alpha": 10.0}}, "rounds": 3}
    support, val = plugins.pick("supports", "grip")(task, train, None, shots=6, seed=1, **options)
    want = plugins.pick("supports", "fpl")(task, train, None, shots=2, seed=1)[0]
    for shots in (4, 6):
        gda = adapt(method("gda", alpha=10.0), replace(task, support=want))
        pairs = deferred(predict(gda, x).softmax(-1).numpy(), shots)
        rows, labels = map(torch.tensor, zip(*pairs, strict=True))
        want = train[rows].label(labels)
    assert torch.equal(support.index, want.index), "each round labels all images by what the last one learned"
    assert torch.equal(support.labels, want.labels), "and relabels them"
    assert val is None
    once = plugins.pick("supports", "grip")(task, train, None, shots=6, seed=1, by="gda", rounds=1)[0]
    zero_shot = plugins.pick("supports", "fpl")(task, train, None, shots=6, seed=1)[0]
    assert torch.equal(once.index, zero_shot.index), "a single round is FPL's"
    assert not torch.equal(support.index, once.index), "the rounds must change something, or this test is too easy"


def test_grip_draws_from_the_seed_alone():
    task, x = task_and_images()
    rows = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        by = {"proker": {"features": 4}}  # drawn at random
        chosen = plugins.pick("supports", "grip")(task, Images.from_arrays(x), None, shots=4, seed=1, by=by, rounds=2)
        rows.append(chosen[0].index)
        assert torch.initial_seed() == noise, "the generator of the run must be as before"
    assert torch.equal(*rows), "one seed, one support"
    with pytest.raises(ValueError, match="rounds must be 1 or more; got 0"):
        plugins.pick("supports", "grip")(task, Images.from_arrays(x), None, shots=4, seed=1, rounds=0)


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize("rule", ["fpl", "grip"])
def test_as_released_a_fifth_is_held_out_from_ten_a_class_on(rule):
    task, x = task_and_images(n=90)
    choose = partial(plugins.pick("supports", rule), task, Images.from_arrays(x), None, as_released=True)
    options = {"by": "zero-shot", "rounds": 2} if rule == "grip" else {}
    for shots in (9, 12):
        boards = leaderboards(Images.from_arrays(x), zero_shot(task, Images.from_arrays(x)), shots)
        support, held = choose(shots=shots, seed=3, **options)
        if shots < 10:
            assert torch.equal(support.index, boards.index), "with fewer than ten a class all are learned from"
            assert held is None, "with fewer than ten a class none is held out"
            continue
        np.random.seed(3)
        rows = np.random.choice(range(len(boards)), size=int(0.8 * len(boards)), replace=False)
        rest = sorted({*range(len(boards))} - {*rows.tolist()})
        for got, want in ((support, boards[torch.tensor(rows)]), (held, boards[torch.tensor(rest)])):
            assert torch.equal(got.index, want.index), "the fifth must be drawn as the release draws it"
            assert torch.equal(got.labels, want.labels), "pseudo-labels must stay with their images"
