"""How much of a sentence a text tower reads: what is cut is said, and refused where two classes become equal by it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

from torch import Tensor

from adaptkit.io.notices import notice
from adaptkit.towers.backbone import Backbone

WORD = "X"  # one token to any tokenizer
MOST_WORDS = 4096  # words; a tokenizer that keeps so many cuts nothing
SHOWN_OF_IT = 60  # characters of a sentence that errors show
_lengths: WeakKeyDictionary[Backbone, int] = WeakKeyDictionary()


def read_whole(backbone: Backbone, classes: Sequence[Sequence[str]]) -> None:
    """Say which sentences the text tower cuts, and refuse classes that differ beyond the cut only.

    Args:
        backbone: whose tokenizer cuts.
        classes: the sentences of each.

    Raises:
        ValueError: naming two sentences of classes that are the same once they are cut.
    """
    length = tokens_read(backbone)
    every = list(dict.fromkeys(s for own in classes for s in own))
    long = [s for s in every if length and len(s.encode()) > length - 3]  # a token takes a byte or more
    if not long or not (lost := cut(backbone, long)):
        return
    kept = _kept(backbone, [s for own in classes if {*own} & {*long} for s in own])
    met: dict[frozenset[tuple[int, ...]], Sequence[str]] = {}
    for own in classes:
        if {*own} & {*long}:
            before = met.setdefault(frozenset(kept[s] for s in own), own)
            one, two = sorted({*before} - {*own})[:1], sorted({*own} - {*before})[:1]
            if one and two and {*before, *own} & {*lost} and without_case(one[0]) != without_case(two[0]):
                raise ValueError(
                    f"classes must differ within the {length} tokens that the text tower reads; got "
                    f"{both_ends(one[0])!r} and {both_ends(two[0])!r}, equal once they are cut; shorten them"
                )
    notice(
        f"sentences are cut at the {length} tokens that the text tower reads: {len(lost)} of {len(every)}, the first "
        f"{both_ends(lost[0])!r}"
    )


def tokens_read(backbone: Backbone) -> int:
    """How many tokens of a sentence are read, special ones counted; 0 where nothing is cut."""
    if backbone not in _lengths:
        ids = backbone.tokenize([" ".join([WORD] * MOST_WORDS)])["input_ids"]
        _lengths[backbone] = ids.shape[1] if ids.shape[1] < MOST_WORDS else 0
    return _lengths[backbone]


def cut(backbone: Backbone, sentences: Sequence[str]) -> list[str]:
    """Those of some sentences that lose their ends, in their order."""
    full = [s for s, is_full in zip(sentences, fill_all(backbone, sentences), strict=True) if is_full]
    words = [s.split() for s in full]
    shorter = fill_all(backbone, [" ".join(w[:-1]) for w in words]) if full else []
    left = partial(words_left, backbone)
    return [
        s
        for s, w, without_last in zip(full, words, shorter, strict=True)
        if without_last or len(w) == 1 or left("") > left(" ".join(w[:-1])) + left(w[-1])
    ]


def fill_all(backbone: Backbone, sentences: Sequence[str]) -> list[bool]:
    """Whether each sentence takes all that is read, so that one word more is lost."""
    ids = backbone.tokenize([*sentences, *(f"{s} {WORD}".strip() for s in sentences)])["input_ids"]
    return (ids[: len(sentences)] == ids[len(sentences) :]).all(-1).tolist()


def words_left(backbone: Backbone, text: str) -> int:
    """How many words of one token are read after a text."""
    longer = [" ".join(filter(None, [text, *[WORD] * n])) for n in range(tokens_read(backbone) + 1)]
    return fill_all(backbone, longer).index(True)


def without_case(text: str) -> str:
    """A text without case and spacing."""
    return " ".join(text.casefold().split())


def both_ends(text: str) -> str:
    """A sentence, or its two ends, for people to recognise it."""
    half = SHOWN_OF_IT // 2
    return text if len(text) <= SHOWN_OF_IT else f"{text[:half]} ... {text[-half:]}"


def _kept(backbone: Backbone, sentences: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each sentence, as far as they are read."""
    ids: Tensor = backbone.tokenize(sentences)["input_ids"]
    return {s: tuple(row) for s, row in zip(sentences, ids.tolist(), strict=True)}
