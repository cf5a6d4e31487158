"""Images found for each class by its text, in a pool without labels: the support set of SuS-X, by retrieval.

Each class gets the `shots` images nearest to its embedding (the paper's "photo" prompts are the recipe's), or, given a
`file`, to ten of the sentences that a language model wrote about it, each in turn giving the nearest image that is not
there yet. The pool is the training images without their labels, or all images below the folder `pool`, laid out as the
dataset ``folder`` wants it; its labels and splits are not read. With method ``tip-x`` over it, this is SuS-X; generated
images (SuS-SD) enter as a dataset of their own, with support ``few-shot``.

Source: Udandarao et al., SuS-X: Training-Free Name-Only Transfer of Vision-Language Models, arXiv:2211.16198 (SuS-LC).
Deviations: the paper's pool is LAION-5B, searched through its public index; here the task's own backbone searches.
As there, an image may be found for two classes. There are no labelled validation images to draw: ask
for ``select: none`` or, as the paper does, ``full-val``.
"""

import random

import torch

from adaptkit import Images, Pooled, hookimpl, unit
from adaptkit.features.cache import CachedRows
from adaptkit.features.datasets import Joined
from adaptkit.io.paths import expanded, resolved
from adaptkit.runs.plugins import pick

SENTENCES = 10  # of a class at most, drawn by the seed


def sus_x(task, train, val, *, shots, seed, pool: str = "", file: str = ""):
    """`pool` is a folder, `file` sentences by class as the prompts `llm` read them."""
    images = (below(pool, train) if pool else train).blind().bind({"x": Pooled()})
    if len(images) < shots:
        raise ValueError(f"shots must be at most the images of the pool, {len(images)}; got {shots}")
    x, texts = images.x, task.text.split(1)  # (N, D), C times (1, D)
    if file:
        rng, written = random.Random(seed), pick("prompts", "llm")(task.classnames, None, file=file)
        drawn = [rng.sample(own, min(SENTENCES, len(own))) for own in written]
        rows = unit(task.encode([s for own in drawn for s in own])).to(x)
        texts = rows.split([len(own) for own in drawn])
    found = torch.cat([in_turn(text @ x.T, shots) for text in texts])
    return images[found].label(torch.arange(len(texts)).repeat_interleave(shots)), None


def in_turn(similarity, shots):
    """The rows that `shots` turns give, ``(T, N)`` to ``(shots,)``: of each text the nearest not given before."""
    order, given = similarity.topk(shots).indices, []  # at most shots - 1 of a text's were given before
    for turn in range(shots):
        given.append(next(i for i in order[turn % len(order)].tolist() if i not in given))
    return torch.tensor(given)


def below(folder, train):
    """All images of a folder, through the cache of the training images."""
    if not isinstance(train.rows, CachedRows):
        raise ValueError(f"pool must be '' where images are arrays; got {folder!r}")
    scheme, _, place = train.rows.source.name.removesuffix(" train").partition(":")
    if scheme == "folder" and resolved(expanded(place)) == resolved(expanded(folder)):
        raise ValueError(f"pool must be another folder than the dataset's, which holds its test images; got {folder!r}")
    splits = pick("datasets", "folder")(folder)
    source = Joined([part for part in (splits.train, splits.val, splits.test) if part is not None])
    return Images(CachedRows(train.rows.cache, source), torch.arange(len(source)), device=train.device)


@hookimpl
def supports():
    return {"sus-x": sus_x}
