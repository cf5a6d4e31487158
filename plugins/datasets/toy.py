"""Five patterns and their names, drawn by a formula: runs anywhere, with no download."""

from adaptkit import hookimpl


def load(place=""):
    from adaptkit.testing.toy import toy_splits

    return toy_splits()


@hookimpl
def datasets():
    return {"toy": load}
