"""Metrics of every kind against scikit-learn or a slow loop; degenerate inputs give a number or one error."""

import math
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from sklearn import metrics as sk
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.detection import detection, placements
from adaptkit.methods.evaluation.kinds import EVALUATIONS, evaluation
from adaptkit.methods.evaluation.maps import region_overlap, with_scores
from adaptkit.methods.evaluation.pimo import aupimo


def draw(kind, n=40, classes=7, ties=False, seed=0):
    """Answers and targets of one kind."""
    g = torch.Generator().manual_seed(seed)
    shape = {"detection": (n,), "maps": (n, 6, 5)}.get(kind, (n, classes))
    answers = torch.randn(shape, generator=g)
    if kind in ("classification", "ranking", "ordinal"):
        targets = torch.randint(classes, (n,), generator=g)
        answers = answers + 1.5 * one_hot(targets, classes)
    else:
        targets = (torch.rand(shape, generator=g) < 0.3).long()
        answers = answers + targets
    return (answers.round() if ties else answers), targets


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
@pytest.mark.parametrize("classes", [2, 5, 9])
def test_classification_is_what_it_was_bit_for_bit(classes, ties):
    logits, labels = draw("classification", classes=classes, ties=ties)
    log_p = logits.double().log_softmax(-1)
    was = {
        "accuracy": float((logits.argmax(-1) == labels).double().mean()),
        "macro_accuracy": float(multiclass_accuracy(logits, labels, num_classes=classes, average="macro")),
        "macro_f1": float(multiclass_f1_score(logits, labels, num_classes=classes, average="macro")),
        "ece": float(multiclass_calibration_error(logits.softmax(-1), labels, num_classes=classes, n_bins=15)),
        "nll": float(-log_p.gather(1, labels[:, None]).mean()),
        "brier": float((log_p.exp() - one_hot(labels, classes)).square().sum(-1).mean()),
    }
    if classes > 5:
        was["top5_accuracy"] = float(multiclass_accuracy(logits, labels, classes, average="micro", top_k=5))
    kind = evaluation("classification")
    assert kind.metrics(logits, labels) == was, "every number must be the old formula's"
    right = logits.argmax(-1) == labels
    assert (kind.right(logits, labels) == right).all(), "right must be what argmax says"
    assert kind.objective(logits, labels) == was["accuracy"], "a search maximises accuracy"
    assert torch.equal(kind.loss(logits, labels), cross_entropy(logits, labels)), "the loss is cross-entropy"
    shares = [float(right[labels == c].double().mean()) if (labels == c).any() else None for c in range(classes)]
    assert kind.per_class(logits, labels) == pytest.approx(shares), "and classes have their own shares"


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
def test_detection_is_what_it_was_bit_for_bit(ties):
    scores, targets = draw("detection", n=300, ties=ties)
    inside, outside = scores[targets == 1], scores[targets == 0]
    both = torch.cat([inside, outside]).numpy()
    labels = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).numpy()
    fpr, tpr, _ = sk.roc_curve(labels, both, drop_intermediate=False)
    end = int(tpr.searchsorted(1.0)) + 1
    nearest = end - 1 - int(abs(tpr[:end][::-1] - 0.95).argmin())
    was = {
        "auroc": float(sk.roc_auc_score(labels, both)),
        "aupr": float(sk.average_precision_score(labels, both)),
        "fpr95": float(fpr[nearest]),
    }
    assert detection(inside, outside) == was, "every number must be the old formula's"
    assert evaluation("detection").metrics(scores, targets) == was, "also by kind"


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
def test_parts_in_the_area_are_shares_of_pairs_and_have_it_as_their_mean(ties):
    scores, targets = draw("detection", ties=ties)
    area = sk.roc_auc_score(targets.numpy(), scores.numpy())
    assert float(placements(scores, targets).mean()) == pytest.approx(area), "the mean is the area"
    i = int(targets.argmax())
    pairs = [1.0 if scores[i] > s else 0.5 if scores[i] == s else 0.0 for s in scores[targets == 0]]
    weight = len(scores) / 2 / int(targets.sum())
    assert float(placements(scores, targets)[i]) == pytest.approx(weight * np.mean(pairs)), "a part counts pairs"


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
def test_multi_label_metrics_are_those_of_scikit_learn(ties):
    logits, targets = draw("multi-label", ties=ties)
    targets[:, 3] = 0  # a label that no item has
    targets[5] = 0  # an item without labels
    got = evaluation("multi-label").metrics(logits, targets)
    scores, true = logits.numpy(), targets.numpy()
    seen = true.any(0)
    told = scores > 0
    assert got["mAP"] == pytest.approx(sk.average_precision_score(true[:, seen], scores[:, seen])), "mean over labels"
    assert got["lrap"] == pytest.approx(sk.label_ranking_average_precision_score(true, scores)), "mean over items"
    for how in ("micro", "macro"):
        want = sk.f1_score(true, told, average=how, zero_division=0)
        assert got[f"{how}_f1"] == pytest.approx(want), f"{how} F1 at one half"
    loss = evaluation("multi-label").loss(logits, targets)
    assert torch.equal(loss, binary_cross_entropy_with_logits(logits, targets.float())), "the loss is binary"
    assert evaluation("multi-label").per_class(logits, targets)[3] is None, "a label that none has must have no number"


def slow_rank(scores, own):
    """One plus how many others score as much as the best of one's own."""
    best = max(scores[j] for j in own)
    return 1 + sum(s >= best for j, s in enumerate(scores) if j not in own)


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_ranking_metrics_are_those_of_a_slow_loop(ties, several):
    scores, places = draw("ranking", n=25, classes=12, ties=ties)
    owned = [{p, (p + 5) % 12} if several else {p} for p in places.tolist()]
    targets = torch.tensor([[int(j in own) for j in range(12)] for own in owned]) if several else places
    ranks = [slow_rank(row, own) for row, own in zip(scores.tolist(), owned, strict=True)]
    want = {f"recall@{k}": np.mean([r <= k for r in ranks]) for k in (1, 5, 10)}
    want |= {"median_rank": median(ranks), "mrr": np.mean([1 / r for r in ranks])}
    kind = evaluation("ranking")
    assert kind.metrics(scores, targets) == pytest.approx(want), "a rank counts who stands before"
    assert kind.objective(scores, targets) == pytest.approx(want["mrr"]), "a search maximises reciprocal ranks"
    if not several:
        assert float(kind.loss(scores, places)) == pytest.approx(float(cross_entropy(scores, places))), "of one item"
    assert "recall@5" not in kind.metrics(scores[:, :5], torch.zeros(25).long()), "five of five are always found"


def slow_overlap(maps, masks, limit):
    """The area, by a loop over thresholds and regions."""
    regions = [
        numbered == r for mask in masks for numbered, n in [label(mask, np.ones((3, 3)))] for r in range(1, n + 1)
    ]
    owners = [i for i, mask in enumerate(masks) for _ in range(label(mask, np.ones((3, 3)))[1])]
    points = [(0.0, 0.0)]
    for t in sorted({*maps.ravel().tolist()}, reverse=True):
        told = maps >= t
        overlap = np.mean([told[i][region].mean() for i, region in zip(owners, regions, strict=True)])
        points.append((told[~masks].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1, x1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0), limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_region_overlap_is_that_of_a_slow_loop(ties, limit):
    maps, masks = draw("maps", n=6, ties=ties)
    maps, masks = maps.numpy(), masks.numpy().astype(bool)
    masks[0] = False  # an image without anomalies
    want = slow_overlap(maps, masks, limit)
    assert region_overlap(maps, masks, limit) == pytest.approx(want, abs=1e-12), "regions count the same, each"


@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
def test_map_metrics_are_those_of_scikit_learn_over_pixels(ties):
    maps, masks = draw("maps", ties=ties)
    got = evaluation("maps").metrics(maps, masks)
    area = sk.roc_auc_score(masks.flatten(), maps.flatten())
    assert got["pixel_auroc"] == pytest.approx(area), "the area over pixels"
    assert got["pixel_ap"] == pytest.approx(sk.average_precision_score(masks.flatten(), maps.flatten())), "precision"
    right = evaluation("maps").right(maps, masks)
    assert right.shape == (40,) and float(right.mean()) == pytest.approx(area), "images have parts in it"
    perfect = evaluation("maps").metrics(masks.float(), masks)
    assert perfect["aupro"] == pytest.approx(1.0), "a map that is its mask is the best"


@pytest.mark.parametrize("as_grades", [False, True], ids=["logits", "grades"])
def test_ordinal_metrics_are_those_of_a_slow_loop(as_grades):
    logits, grades = draw("ordinal")
    given = logits.argmax(-1).double() + (0.3 if as_grades else 0)
    error = (given - grades).abs().tolist()
    got = evaluation("ordinal").metrics(given if as_grades else logits, grades)
    assert got["mae"] == pytest.approx(np.mean(error)), "the mean error"
    assert got["within_one"] == pytest.approx(np.mean([e <= 1 for e in error])), "one grade off is near"
    assert got["accuracy"] == pytest.approx(np.mean([e < 0.5 for e in error])), "rounded"
    signs = torch.sign(given[:, None] - given) * torch.sign(grades[:, None] - grades).double()
    pairs = [float((torch.sign(v[:, None] - v) != 0).sum()) for v in (given, grades)]
    assert got["kendall"] == pytest.approx(float(signs.sum()) / math.sqrt(pairs[0] * pairs[1])), "pairs in order"
    ranks = [torch.stack([(v > u).double() + (v == u) / 2 for u in v], 1).sum(1).numpy() for v in (given, grades)]
    assert got["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1]), "ranks in line"


DEGENERATE = {
    "one class in the targets": ("classification", torch.randn(5, 3), torch.ones(5).long(), None),
    "equal logits": ("classification", torch.zeros(5, 3), torch.arange(5) % 3, None),
    "one class to choose": ("classification", torch.zeros(5, 1), torch.zeros(5).long(), "must be"),
    "no item": ("classification", torch.zeros(0, 3), torch.zeros(0).long(), "must be"),
    "logits of labels for a class": ("classification", torch.zeros(5, 3), torch.zeros(5, 3).long(), "must be"),
    "none inside": ("detection", torch.randn(5), torch.zeros(5), "targets must be 0 for some"),
    "equal scores": ("detection", torch.zeros(4), torch.tensor([0, 1, 0, 1]), None),
    "no label anywhere": ("multi-label", torch.randn(4, 3), torch.zeros(4, 3), "have a label somewhere"),
    "every label": ("multi-label", torch.randn(4, 3), torch.ones(4, 3), None),
    "one label of one item": ("multi-label", torch.zeros(1, 1), torch.ones(1, 1), None),
    "a label of two": ("multi-label", torch.zeros(1, 2), torch.tensor([[0, 2]]), "targets must be 0 or 1"),
    "a gallery of one": ("ranking", torch.zeros(3, 1), torch.zeros(3).long(), None),
    "equal similarities": ("ranking", torch.zeros(3, 4), torch.arange(3), None),
    "a query without items": ("ranking", torch.zeros(2, 2), torch.tensor([[0, 1], [0, 0]]), "an item in the gallery"),
    "a place outside": ("ranking", torch.zeros(2, 2), torch.tensor([0, 2]), "places from 0 to 1"),
    "no anomaly": ("maps", torch.randn(2, 3, 3), torch.zeros(2, 3, 3), "masks must be 0 for some"),
    "anomalies alone": ("maps", torch.randn(2, 3, 3), torch.ones(2, 3, 3), "masks must be 0 for some"),
    "a flat map": ("maps", torch.zeros(1, 2, 2), torch.tensor([[[0, 1], [0, 0]]]), None),
    "maps of another size": ("maps", torch.zeros(1, 2, 2), torch.zeros(1, 3, 3), "must be"),
    "equal grades": ("ordinal", torch.zeros(4), torch.arange(4), None),
    "one grade in the targets": ("ordinal", torch.randn(4, 3), torch.ones(4).long(), None),
    "grades in halves": ("ordinal", torch.zeros(4), torch.zeros(4), "must be"),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_inputs_give_numbers_or_one_error(case):
    kind, answers, targets, error = DEGENERATE[case]
    if error:
        with pytest.raises(ValueError, match=error) as raised:
            evaluation(kind).metrics(answers, targets)
        assert "\n" not in str(raised.value), "an error must be one line"
    else:
        found = evaluation(kind).metrics(answers, targets)
        assert found and all(map(math.isfinite, found.values())), f"{case} must give finite numbers; got {found}"


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_every_kind_pairs_items_by_a_metric_it_has_and_can_be_trained_on(kind):
    answers, targets = draw(kind)
    each, found = evaluation(kind), evaluation(kind).metrics(answers, targets)
    sign = -1 if each.paired in each.falling else 1
    mean = float(each.right(answers, targets).double().mean())
    assert sign * mean == pytest.approx(found[each.paired]), f"{each.paired} must be the mean of what is right"
    assert {each.headline[0], each.paired} <= {*found}, "headlines must be among the metrics"
    better = each.objective(answers, targets) > each.objective(-answers, targets)
    assert better, "answers that lean to the targets must be better than their opposites"
    leaf = answers.clone().requires_grad_()
    each.loss(leaf, targets).backward()
    assert leaf.grad.isfinite().all() and leaf.grad.any(), "a loss must have a gradient"


def test_an_unknown_kind_and_a_kind_that_lacks_a_verb_are_named():
    with pytest.raises(ValueError, match=r"kind must be one of .*; got 'multilabel'; did you mean 'multi-label'"):
        evaluation("multilabel")
    for verb in ("loss", "right", "objective", "metrics", "fits"):
        with pytest.raises(NotImplementedError, match=rf"Half must define {verb}\(answers, targets\)"):
            getattr(type("Half", (Evaluation,), {})(), verb)(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("kind", ["classification", "multi-label", "ranking", "ordinal"])
def test_answers_that_are_no_numbers_are_refused(kind):
    answers, classes = torch.tensor([[float("nan"), 0.0, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    targets = torch.tensor([[1, 0, 0], [0, 1, 1]]) if kind == "multi-label" else classes
    with pytest.raises(ValueError, match="answers must be finite numbers; got 1 of 6 that are not"):
        evaluation(kind).metrics(answers, targets)


def anomalies():
    """Twelve maps of 100 x 100, half of normal images, and their masks."""
    masks = torch.zeros(24, 100, 100, dtype=torch.long)
    masks[12:, 20:50, 30:60] = 1
    return masks + 2 * torch.rand(24, 100, 100, generator=torch.Generator().manual_seed(0)), masks


def test_maps_are_worth_what_slow_sums_say_of_images_and_pixels():
    maps, masks = anomalies()
    found = evaluation("maps").metrics(maps, masks)
    anomalous, scores = masks.flatten(1).any(1), maps.flatten(1).amax(1)
    pairs = [float(a > b) for a in scores[anomalous] for b in scores[~anomalous]]
    assert found["image_auroc"] == pytest.approx(sum(pairs) / len(pairs)), "an image's score is its map's maximum"
    best = max(2 * (own & anomalous).sum() / (own.sum() + anomalous.sum()) for own in (scores >= t for t in scores))
    assert found["image_f1"] == pytest.approx(float(best)), "the best threshold must be found"
    inside = maps[anomalous][masks[anomalous].bool()].view(12, -1)
    limits = torch.linspace(1.7, 2, 500)
    false = torch.stack([(maps[~anomalous] >= t).float().mean() for t in limits])
    rows = (false >= 1e-2) & (false <= 1e-1)
    seen = torch.stack([(inside >= t).float().mean() for t in limits])[rows]
    area = float(torch.trapezoid(seen.flip(0), false[rows].log().flip(0))) / np.log(10)
    wide = aupimo(maps.numpy(), masks.bool().numpy(), bounds=(1e-2, 1e-1))
    assert np.nanmean(wide) == pytest.approx(area, abs=0.02), "the slow area is over fewer thresholds"
    assert np.isnan(wide).tolist() == (~anomalous).tolist() and 0 < found["aupimo"] < 1, "normal images have none"


def test_an_answer_may_hold_scores_of_images_and_maps_of_another_size():
    maps, masks = anomalies()
    kind, anomalous = evaluation("maps"), masks.flatten(1).any(1)
    scores = with_scores(maps, anomalous.float())
    assert kind.metrics(scores, masks)["image_auroc"] == 1.0, "the scores that are given must count"
    assert kind.metrics(scores, masks)["pixel_auroc"] == kind.metrics(maps, masks)["pixel_auroc"], "maps are the same"
    coarse = torch.nn.functional.avg_pool2d(masks.float(), 10)
    assert kind.metrics(coarse, masks)["aupro"] > 0.9, "a coarse map must be stretched over its mask"
    assert torch.equal(kind.right(scores, masks), kind.right(maps, masks)), "pixels alone are paired"
    assert kind.loss(scores, masks) == kind.loss(maps, masks), "and learned from"
    kept = kind.kept_of(kind.condense(scores, masks))
    assert torch.equal(kept["score"], anomalous.float()), "the image's score is kept"


def test_where_no_image_is_normal_nothing_is_said_of_images():
    maps, masks = anomalies()
    found = evaluation("maps").metrics(maps[12:], masks[12:])
    assert set(found) == {"pixel_auroc", "pixel_ap", "pixel_f1", "aupro"}, f"pixels can be told apart; got {found}"
    few = evaluation("maps").metrics(maps[9:], masks[9:])
    assert "aupimo" not in few and "image_auroc" in few, "30,000 normal pixels cannot show a share of 0.00001"
