"""Five patterns and their names, drawn by a formula: runs anywhere, with no download.

``toy-pairs`` asks for images by a text beside an image, ``toy-sequences`` for short sequences.
"""

from adaptkit import hookimpl


def load(place=""):
    from adaptkit.testing.toy import toy_splits

    return toy_splits()


def pairs(place=""):
    from adaptkit.testing.toy_pairs import toy_pairs

    return toy_pairs()


def sequences(place=""):
    from adaptkit.testing.toy_pairs import toy_sequences

    return toy_sequences()


@hookimpl
def datasets():
    return {"toy": load, "toy-pairs": pairs, "toy-sequences": sequences}
