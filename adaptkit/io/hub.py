"""What plugins that reach for a model hub share: quick answers about what is there, and images that are checked."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from urllib import error, request


def host_answers(url: str, seconds: float = 3) -> bool:
    """Whether a host answers in time. In a thread, because looking up its address has no time limit of its own."""
    heard = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            with contextlib.suppress(error.HTTPError):  # an answer, too
                request.urlopen(url, timeout=seconds).close()
            heard.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return heard.is_set()


def is_id(name: str) -> bool:
    """Whether this could be a repository on the hub: ``owner/name``, or a name."""
    return re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) is not None


def nearest(path: Path, good: Callable[[Path], bool]) -> str:
    """``"; did you mean 'photos'?"``: the neighbour with the most similar name, or nothing."""
    near = get_close_matches(path.name, [p.name for p in path.parent.glob("*") if good(p)], n=1)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""
