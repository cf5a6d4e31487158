"""Grades: counted and degraded drawings, and who answers with a grade."""

from collections import Counter

import numpy as np
import pytest

from adaptkit.runs.loading import pick_dataset

GRADED = ("openmoji-counted", "openmoji-degraded")


@pytest.mark.parametrize("name", GRADED)
def test_a_drawing_is_in_one_split_and_has_one_grade(name):
    splits = pick_dataset(name)
    parts = [getattr(splits, part) for part in ("train", "val", "test")]
    drawn = [svg for part in parts for svg in part.drawings.svgs]
    assert len({*drawn}) == len(drawn) == sum(map(len, parts)), "no drawing may be seen twice"
    assert splits.kind == "ordinal" and len(splits.classnames) in (5, 6), "classes are grades"
    for part in parts:
        counts = Counter(part.labels)
        assert sorted(counts) == list(range(len(splits.classnames))), "every grade must be in every split"
        assert max(counts.values()) < 4 * min(counts.values()), f"no grade may be rare; got {counts}"
        assert len({part.key(i) for i in range(len(part))}) == len(part), "every image must have a key of its own"


def test_a_sheet_has_as_many_copies_as_its_grade_says():
    part = pick_dataset("openmoji-counted").train
    for i in range(0, len(part), 20):
        ink = np.asarray(part.image(i).convert("L")) < 250
        places = [ink[y : y + 32, x : x + 32].any() for y in (0, 32, 64) for x in (0, 32, 64)]
        assert sum(places) == part.labels[i] + 1, f"image {i} must show {part.labels[i] + 1} copies"
        assert np.array_equal(part.image(i), part.image(i)), "and be the same whenever it is drawn"


def test_a_drawing_of_a_lower_grade_is_further_from_itself():
    part = pick_dataset("openmoji-degraded").train
    off = {grade: [] for grade in range(5)}
    for i in range(0, len(part), 3):
        plain = np.asarray(part.drawings.image(i).resize((96, 96), 1), float)
        off[part.labels[i]].append(np.abs(np.asarray(part.image(i)) - plain).mean())
    means = [np.mean(off[grade]) for grade in range(5)]
    assert means == sorted(means, reverse=True) and means[-1] == 0.0, f"damage must fall with the grade; got {means}"


@pytest.mark.parametrize("name", GRADED)
def test_a_place_of_graded_drawings_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' must have no place; got 'dogs'; write just {name}"):
        pick_dataset(f"{name}:dogs")
