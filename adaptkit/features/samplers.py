"""Named samplers: which images a few-shot run sees, drawn exactly as the code bases draw that published the numbers.

A sampler is a pure function ``(train_labels, val_labels, shots, seed) -> (train rows, val rows)``, both in the order
drawn; `sample` checks the arguments first. The generators are instances; their streams are those of the global ones
that the code bases seed. Classes come in the order in which their labels first appear, where nothing else is said.

``val_labels`` of ``None`` stand for a dataset without validation images, as ImageNet. Val rows are then ``None``, too,
or, where the code base holds back training images instead, rows of the training set that are none of the train rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from adaptkit.io.errors import must_be
from adaptkit.io.shots import ALL_SHOTS

Labels = Sequence[int]
Indices = list[int]
Sample = tuple[Indices, Indices | None]
Sampler = Callable[[Labels, Labels | None, int, int], Sample]

LADDER = (1, 2, 4, 8, 16)  # shots, in the order in which GDA's script draws them
SPARING = ("coop", "val-first", "probe")  # samplers that take so few validation images, whatever the shots
FEW = 4  # validation images of a class, at most


def sample(sampler: str, train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """Draw by name.

    Args:
        sampler: a name in `SAMPLERS`.
        train_labels: ``(N,)`` class ids in the order of the split file.
        val_labels: ``(M,)`` class ids in the order of the split file, or ``None`` without validation images.
        shots: images of each class; of all there are, `ALL_SHOTS`, none is drawn twice.
        seed: of the generator.

    Raises:
        ValueError: for an unknown sampler, shots below 1, a negative seed, or a class that is too small to draw from.
    """
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(must_be("sampler", SAMPLERS, sampler))
    for what, value, least in (("shots", shots, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{what} must be a whole number from {least}; got {value!r}")
    if shots == ALL_SHOTS:
        few = sampler in SPARING and val_labels is not None
        val = draw(val_labels or [], FEW, random.Random(seed)) if few else whole(val_labels)
        return draw(train_labels, shots, random.Random(seed)), val
    return SAMPLERS[sampler](train_labels, val_labels, shots, seed)


def coop(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """Dassl's: CoOp, and what is built on it; cross-modal adaptation publishes the same rows.

    Draws: K training images class by class, then, from the same stream, min(K, 4) validation images class by class.
    Repeats: no; a class with fewer images gives all of them, undrawn.
    Val: min(K, 4) a class; ``None`` without validation images (the release then takes the test images).
    """
    rng = random.Random(seed)
    train = draw(train_labels, shots, rng)
    return train, None if val_labels is None else draw(val_labels, min(shots, FEW), rng)


def val_first(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """CLIP-LoRA's and TransCLIP's.

    Draws: min(K, 4) validation images class by class, then, from the same stream, K training images class by class.
    Repeats: yes; a class with fewer images is drawn from with replacement.
    Val: min(K, 4) a class; without validation images, K + min(K, 4) training images of each class are drawn at once,
    and the last min(K, 4) are for validation.
    """
    rng, few = random.Random(seed), min(shots, FEW)
    if val_labels is None:
        return held_back(train_labels, shots, few, rng)
    val = draw(val_labels, few, rng, repeat=True)
    return draw(train_labels, shots, rng, repeat=True), val


def tip(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """Tip-Adapter's and APE's, whose releases know only seed 1; GDA's base-to-new and robustness scripts.

    Draws: K training images class by class, and nothing else: the rows of `coop` where every class has K images.
    Repeats: yes; a class with fewer images is drawn from with replacement.
    Val: all of it, in file order; ``None`` without validation images (the releases then take the test images).
    """
    return draw(train_labels, shots, random.Random(seed), repeat=True), whole(val_labels)


def gda(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """GDA's few-shot script, which seeds once and then draws for 1, 2, 4, 8 and 16 shots from one stream.

    Draws: those for each smaller number of shots in that list, thrown away; then K training images class by class. Only
    1 shot equals `tip`. For numbers of shots that the script does not run, this is our reading of it.
    Repeats: yes; a class with fewer images is drawn from with replacement.
    Val: all of it, in file order; ``None`` without validation images (the release then takes the test images).
    """
    rng = random.Random(seed)
    for smaller in LADDER:
        if smaller < shots:
            draw(train_labels, smaller, rng, repeat=True)
    return draw(train_labels, shots, rng, repeat=True), whole(val_labels)


def lp_plus_plus(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """LP++'s on Caltech101, DTD, Flowers, Pets and ImageNet; ProLIP's on every dataset. The seed is the task, 1 to 10.

    Draws: K training images class by class, then, from the same stream, K validation images class by class.
    Repeats: yes; a class with fewer images is drawn from with replacement.
    Val: K a class; without validation images, 2 K training images of each class are drawn at once, and the last K are
    for validation.
    """
    rng = random.Random(seed)
    if val_labels is None:
        return held_back(train_labels, shots, shots, rng)
    train = draw(train_labels, shots, rng, repeat=True)
    return train, draw(val_labels, shots, rng, repeat=True)


def lp_plus_plus_pool(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """LP++'s on EuroSAT, Aircraft, Food101, Cars, SUN397 and UCF101: its ten tasks see the same images, reordered.

    Draws: as `lp_plus_plus` with seed 1; then, with the seed, K of the K images of each class, train before val.
    Repeats: yes; a class with fewer images is drawn from with replacement the first time.
    Val: K a class; without validation images, as `lp_plus_plus`.
    """
    if val_labels is None:
        return lp_plus_plus(train_labels, None, shots, seed)
    pool, val_pool = lp_plus_plus(train_labels, val_labels, shots, 1)
    rng = random.Random(seed)
    train = draw([train_labels[row] for row in pool], shots, rng, repeat=True)
    val = draw([val_labels[row] for row in val_pool or ()], shots, rng, repeat=True)
    return [pool[row] for row in train], [(val_pool or [])[row] for row in val]


def probe(train_labels: Labels, val_labels: Labels | None, shots: int, seed: int) -> Sample:
    """CoOp's linear probe, which draws from features extracted in file order, with seeds 1 to 10.

    Draws: NumPy's legacy generator; classes by label; K training images class by class, then the validation images.
    Repeats: no; a class with fewer images is an error.
    Val: 1, 2, 4, 4, 4 a class at 1, 2, 4, 8, 16 shots; ``None`` without validation images.
    """
    rng = np.random.RandomState(seed)
    classes = np.unique(np.asarray(train_labels, dtype=int))

    def choose(labels: Labels, k: int) -> Indices:
        rows: Indices = []
        for c in classes:
            own = np.flatnonzero(np.asarray(labels) == c)
            rows += rng.choice(own, size=enough(own, k, int(c)), replace=False).tolist()
        return rows

    train = choose(train_labels, shots)
    return train, None if val_labels is None else choose(val_labels, min(shots, FEW))


SAMPLERS: dict[str, Sampler] = {
    "coop": coop,
    "val-first": val_first,
    "tip": tip,
    "gda": gda,
    "lp++": lp_plus_plus,
    "lp++-pool": lp_plus_plus_pool,
    "probe": probe,
}
"""Every sampler by the name that recipes and results write."""


def draw(labels: Labels, shots: int, rng: random.Random, *, repeat: bool = False) -> Indices:
    """Rows of `shots` images of each class; of a smaller class all, or, with `repeat`, some of them again."""
    short = (lambda rows: rng.choices(rows, k=shots)) if repeat else list
    picked = (rng.sample(rows, shots) if len(rows) >= shots else short(rows) for rows in by_class(labels).values())
    return [row for rows in picked for row in rows]


def held_back(labels: Labels, shots: int, few: int, rng: random.Random) -> tuple[Indices, Indices]:
    """Rows of `shots` images of each class, and of `few` others."""
    drawn = [rng.sample(rows, enough(rows, shots + few, c)) for c, rows in by_class(labels).items()]
    return [row for rows in drawn for row in rows[:shots]], [row for rows in drawn for row in rows[shots:]]


def by_class(labels: Labels) -> dict[int, Indices]:
    """The rows of each label, labels in the order in which they first appear."""
    rows: dict[int, Indices] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def whole(labels: Labels | None) -> Indices | None:
    """Every row."""
    return None if labels is None else list(range(len(labels)))


def enough(rows: Sequence[int] | np.ndarray, k: int, label: int) -> int:
    """`k`, or a ``ValueError`` when a class has fewer images."""
    if len(rows) < k:
        raise ValueError(f"a class must have {k} images to draw from; got {len(rows)} with label {label}")
    return k
