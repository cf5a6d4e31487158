"""Five patterns and their names, drawn by a formula: runs anywhere, with no download.

``toy-pairs`` asks for images by a text beside an image, ``toy-alike`` by an image alone, ``toy-sequences`` for short
sequences, and ``toy-defects`` for holes in patterns.
"""

from adaptkit import hookimpl


def load(place=""):
    from adaptkit.testing.toy import toy_splits

    return toy_splits()


def pairs(place=""):
    from adaptkit.testing.toy_pairs import toy_pairs

    return toy_pairs()


def alike(place=""):
    from adaptkit.testing.toy_pairs import toy_alike

    return toy_alike()


def sequences(place=""):
    from adaptkit.testing.toy_pairs import toy_sequences

    return toy_sequences()


def defects(place=""):
    from adaptkit.testing.toy_defects import toy_defects

    return toy_defects()


@hookimpl
def datasets():
    found = {"toy-alike": alike, "toy-pairs": pairs, "toy-sequences": sequences}
    return {"toy": load, "toy-defects": defects, **found}
