"""Weights from Hugging Face's hub: what its cache holds, else what it sends, or one line about what to bring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptkit.io.hub import host_answers


def from_hub(
    repo: str,
    find: Callable[..., Path],
    wanted: str,
    todo: str,
    *,
    asked: str = "",
    whole: Callable[[Path], bool] = Path.exists,
) -> Path:
    """What a repository holds: from the cache if it is whole there, else downloaded.

    Args:
        repo: ``owner/name``.
        find: takes ``local_files_only`` and gives a path, or raises where it is not there, as `first_file` does.
        wanted: what the error says must be in the cache, up to its "in".
        todo: what follows ``hf download REPO`` where there is network, and what to do with it.
        asked: the name that was given, as the error shows it; "" where the error names the repository.
        whole: whether a path in the cache holds all that is wanted.

    Raises:
        ValueError: when it is not there and nothing can be fetched.
    """
    from huggingface_hub import constants

    with contextlib.suppress(OSError):  # not there
        if whole(found := find(local_files_only=True)):
            return found
    hub = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE or not host_answers(hub):
        raise ValueError(
            f"{wanted} in {constants.HF_HUB_CACHE!r} while HF_HUB_OFFLINE is set or {hub} does not answer; got "
            f"{asked or f'none of {repo}'}\nwhere there is network: hf download {repo} {todo}"
        )
    try:
        return find(local_files_only=False)
    except Exception as cause:  # of many kinds, and long
        said = ": ".join(filter(None, (asked, " ".join(str(cause).split()))))
        raise ValueError(f"{repo!r} must be on {hub}; got {said}") from None


def first_file(repo: str, names: Sequence[str], local_files_only: bool) -> Path:
    """The first of some files that a repository holds.

    Raises:
        Exception: of the hub, about the last one, where it holds none.
    """
    from huggingface_hub import hf_hub_download

    for name in names[:-1]:
        with contextlib.suppress(Exception):  # of many kinds: it is not there, or does not come
            return Path(hf_hub_download(repo, name, local_files_only=local_files_only))
    return Path(hf_hub_download(repo, names[-1], local_files_only=local_files_only))


def snapshot(repo: str, revision: str, texts: Sequence[str], weights: Sequence[str], local_files_only: bool) -> Path:
    """The folder of a repository, with some of its files.

    Args:
        repo: ``owner/name``.
        revision: a branch, a tag or a commit; "" for the newest.
        texts: patterns of all files beside the weights.
        weights: patterns, of which the first counts that the repository has: it may hold the same weights twice.
        local_files_only: whether only the cache is looked at.
    """
    from huggingface_hub import snapshot_download

    own: dict[str, Any] = {"revision": revision or None, "local_files_only": local_files_only}
    for pattern in weights:
        folder = Path(snapshot_download(repo, allow_patterns=[*texts, pattern], **own))
        if any(folder.glob(pattern)):
            break
    return folder


def cached(*patterns: str) -> Iterator[tuple[str, Path]]:
    """Repositories in the cache, each with a folder that holds a file of one of some patterns."""
    from huggingface_hub import constants

    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")):
        if any(any(folder.glob(pattern)) for pattern in patterns):
            yield folder.parts[-3].removeprefix("models--").replace("--", "/"), folder
