"""Training images by the labels that a model gives them: no true label is read. Rules say which images.

``pseudo-label``, UPL's: the surest `shots` of those whose likeliest class it is; one that is no image's likeliest gets
none. ``fpl``: an image goes to the likeliest class that does not hold `shots` surer ones, so that every class has as
many, if there are enough. ``ifpl``: as ``fpl``, but the method `by` is adapted to these images to label all anew, and
so on for `rounds`. ``grip``: as ``ifpl``, but with a few of each class at first, and on in equal steps to `shots`.
``cpl``: as ``fpl``, of an image's candidate classes alone.

There are no labelled validation images to draw: ask for ``select: none``, and methods keep their default
hyperparameters; so does `by`. As released, ``fpl``, ``ifpl`` and ``grip`` hold a fifth of the pseudo-labelled images
out from ten a class on, which ``select: few-val`` chooses hyperparameters on.

Source: Huang et al., Unsupervised Prompt Learning for Vision-Language Models, arXiv:2204.03649 (``pseudo-label``);
Menghini et al., Enhancing CLIP with CLIP: Exploring Pseudolabeling for Limited-Label Prompt Tuning, arXiv:2306.01669
(``fpl``, ``ifpl`` and ``grip``, of unlabelled images alone); Zhang et al., Candidate Pseudolabel Learning,
arXiv:2406.10502 (``cpl``).
Deviations: UPL's release ranks by logits, not by probabilities, without a threshold: ``pseudo-label`` with
``as_released``. The released ``fpl`` asks in the order of the files, once: an image that a surer one pushes out is
lost, and one that its likeliest class has no room for enters all others that have some. From ten a class on a fifth of
these images, drawn at random, is held out, to choose the epoch on; ``ifpl`` and ``grip`` do both in all rounds.
``as_released`` of these does so, too, by the seed of the support; the grid of `by` is searched on the fifth. GRIP's
last round takes all images, a C-th of them a class; here that is for `shots` to say, and the method of the recipe is
trained in that round. The released ``cpl`` fills classes from images in an order of its own.
"""

from dataclasses import replace

import numpy as np
import torch

from adaptkit import Pooled, adapt, hookimpl, method, predict
from adaptkit.io.ranges import Share, Size
from adaptkit.methods.candidates import candidate_bounds, candidates

BY = "fpl-prompts"  # what labels images in the paper


def pseudo_label(
    task, train, val, *, shots, seed, threshold: Share = 0.0, others: tuple[str, ...] = (), as_released: bool = False
):
    """`threshold` is the probability that an image must exceed; `others` are further backbones; `seed` draws nothing.

    With `others` labels are those of the mean logits of all backbones, as UPL* has them.
    """
    train, names = train.blind(), ("", *others)
    seen = train.bind({f"x{k}": Pooled(backbone=name) for k, name in enumerate(names)})
    texts = [task.text_by(name) if name else task.text for name in names]  # (C, D_k) each
    logits = torch.stack([task.backbone.logits(getattr(seen, f"x{k}"), text) for k, text in enumerate(texts)]).mean(0)
    sure = surest(logits, shots) if as_released else surest(logits.softmax(-1), shots, threshold)
    return train[sure[0]].label(sure[1]), None


def fpl(task, train, val, *, shots, seed, as_released: bool = False):
    """`seed` draws what `as_released` holds out, which also asks in the release's order; else nothing."""
    train = train.blind()
    return chosen(train, zero_shot(task, train), shots, seed, as_released)


def ifpl(task, train, val, *, shots, seed, by: str | dict = BY, rounds: Size = 10, as_released: bool = False):
    """As many of each class in all rounds; the rest as in `grip`."""
    return labelled_in_rounds(task, train, [shots] * rounds, seed, by, as_released)


def grip(task, train, val, *, shots, seed, by: str | dict = BY, rounds: Size = 10, as_released: bool = False):
    """`by` is a method as recipes write it; `seed` is that of its training; `as_released` as in `fpl`."""
    steps = [-(-i * shots // rounds) for i in range(1, rounds + 1)]
    return labelled_in_rounds(task, train, steps, seed, by, as_released)


def cpl(task, train, val, *, shots, seed, sure: Share = 0.6, top: Share = 0.9):
    """`sure` and `top` are those of the method `cpl`; `seed` draws nothing."""
    train = train.blind()
    confidence = zero_shot(task, train)
    chosen = candidates(confidence, *candidate_bounds(confidence, sure, top))
    return share(train, confidence.masked_fill(~chosen, -torch.inf), shots), None


def labelled_in_rounds(task, train, steps, seed, by, as_released):
    """The last of supports of so many images a class, each labelled by a method that is adapted to the one before."""
    if not steps:
        raise ValueError("rounds must be 1 or more; got 0")
    train = train.blind()
    support, held = chosen(train, zero_shot(task, train), steps[0], seed, as_released)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for shots in steps[1:]:
            labeller = adapt(method(by), replace(task, support=support, val=held))
            support, held = chosen(train, predict(labeller, train).softmax(-1), shots, seed, as_released)
    return support, held


def chosen(train, confidence, shots, seed, as_released):
    """Images with the labels they get by their probabilities ``(N, C)``; what is held out of them, or None."""
    if not as_released:
        return share(train, confidence, shots), None
    images = leaderboards(train, confidence, shots)
    if shots < 10:
        return images, None
    rows = np.random.RandomState(seed).permutation(len(images))  # what numpy's choice draws without replacement
    most = int(0.8 * len(images))
    return images[torch.tensor(rows[:most])], images[torch.tensor(sorted(rows[most:]))]


def zero_shot(task, images):
    """Probabilities, ``(N, C)``."""
    return task.backbone.logits(images.bind({"x": Pooled()}).x, task.text).softmax(-1)


def surest(confidence, shots, threshold=-torch.inf):
    """At most `shots` rows per likeliest class, surest first, above a threshold.

    Args:
        confidence: ``(N, C)``, probabilities or any scores.
        shots: of each class.
        threshold: that the largest of a row must exceed.

    Returns:
        Row numbers, labels and confidences, ``(S,)`` each, in the order of classes.
    """
    best, labels = confidence.max(1)
    order = best.argsort(descending=True, stable=True)
    order = order[best[order] > threshold]
    order = order[labels[order].argsort(stable=True)]  # by class, surest first within it
    counts = labels[order].bincount(minlength=confidence.shape[1])
    rank = torch.arange(len(order)).to(order) - (counts.cumsum(0) - counts)[labels[order]]
    rows = order[rank < shots]
    return rows, labels[rows], best[rows]


def share(images, confidence, shots):
    """Those images that get a class: each the likeliest that does not hold `shots` surer ones."""
    wish = confidence.clone()  # minus infinity where an image cannot go
    while True:
        rows, labels, sure = surest(wish, shots)
        refused = wish.amax(1) > -torch.inf
        refused[rows] = False
        if not refused.any():
            return images[rows].label(labels)
        wish[refused, wish[refused].argmax(1)] = -torch.inf
        full = labels.bincount(minlength=wish.shape[1]) >= shots
        least = torch.where(full, torch.inf, -torch.inf).to(wish).scatter_reduce(0, labels, sure, "amin")
        wish[wish < least] = -torch.inf


def leaderboards(images, confidence, shots):
    """Those images that get a class, or several, where each is asked once, in the order of `images`.

    A class that has `shots` compares a newcomer with its last: that is who came last, until it first gives way to a
    surer one, and from then on the least sure. Who is refused by the likeliest class asks all the others.
    """
    held = [[] for _ in range(confidence.shape[1])]  # by class, (confidence, row)
    for row, sure in enumerate(confidence.tolist()):
        for place, c in enumerate(sorted(range(len(sure)), key=lambda c: -sure[c])):
            if len(held[c]) < shots:
                held[c].append((sure[c], row))
            elif held[c][-1][0] < sure[c]:
                held[c] = sorted([*held[c], (sure[c], row)], key=lambda one: -one[0])[:-1]
            else:
                continue
            if place == 0:
                break
    rows = [row for ones in held for _, row in ones]
    return images[rows].label(torch.tensor([c for c, ones in enumerate(held) for _ in ones], device=images.device))


@hookimpl
def supports():
    return {"pseudo-label": pseudo_label, "fpl": fpl, "ifpl": ifpl, "grip": grip, "cpl": cpl}
