"""Two small random towers that know five patterns: runs anywhere, with no download. ``toy:0``, ``toy:1``, ...

Beside numbers: no CLIP, but two small random towers; its numbers say nothing of any other backbone
"""

from adaptkit import hookimpl


def load(seed):
    from adaptkit.testing.toy import toy_backbone

    return toy_backbone.__wrapped__(seed or "0")  # each its own: a run must be able to load it anew


load.offline = lambda: ["0"]


@hookimpl
def backbones():
    return {"toy": load}
