"""What ``adaptkit data get`` does: the files of a dataset, from where its publisher has them to where they are read."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from adaptkit.io.downloads import BY_ROOT, download, file_digest, wrong_file
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write, canonical, make_folder, naming
from adaptkit.io.home import home
from adaptkit.io.jsons import read_json
from adaptkit.io.unpacking import unpack
from adaptkit.runs.offers import Offer, Remote, gigabytes, offers, place_of

Tell = Callable[[str], object]


def get_dataset(name: str, root: Path, *, keep: bool = False, tell: Tell) -> bool:
    """Get what is missing of a dataset; what is there already stays as it is.

    Args:
        name: of a dataset.
        root: the folder that datasets lie in.
        keep: leave archives that were got where they are.
        tell: is told what happens, line by line.

    Returns:
        Whether nothing is left to be done by hand, and no file failed to come.

    Raises:
        ValueError: for a dataset that cannot be got, or a disk without room, before anything is got.
        OSError: when the folder cannot be written to.
    """
    known = offers()
    if name not in known:
        raise ValueError(must_be("a dataset to get", known, name))
    offer = known[name]
    folder = place_of(offer, root)
    missing = [remote for remote in offer.files if not remote.there(folder, offer.images)]
    tell(f"{name}: {offer.title}; licence: {offer.licence}")
    left: list[str] = []
    if missing:
        _hold_room(missing, folder, tell)
        make_folder(folder, BY_ROOT)
        with _alone(folder):
            left = [step for remote in missing for step in _get(offer, remote, folder, keep, tell)]
    if left or not offer.filled(folder):
        again = f"adaptkit data get {name} {BY_ROOT} {shlex.quote(str(folder.parent))}, which goes on from there"
        left += [*(step.replace("{folder}", str(folder)) for step in offer.steps), again]
    for number, step in enumerate(left, 1):
        tell(f"by hand, {number}: {step}")
    return not left


def _hold_room(missing: Sequence[Remote], folder: Path, tell: Tell) -> None:
    """Say what will be got, and refuse where the disk has no room for the archives and what comes out of them."""
    come = [remote for remote in missing if remote.addresses and not (folder / remote.name).exists()]
    parts = [part for remote in come if (part := folder / f"{remote.name}.part").is_file()]
    size = sum(remote.bytes for remote in come) - sum(part.stat().st_size for part in parts)
    unknown = sum(not remote.bytes for remote in come)
    if come:
        tell(f"to get: {gigabytes(size)}{f', and {unknown} files of unknown size' if unknown else ''}, into {folder}")
    need = size + sum(remote.bytes for remote in missing if remote.unpack)
    at = next(path for path in (folder, *folder.parents) if path.exists())
    if need > (free := shutil.disk_usage(at).free):
        needs = f"{at} must have {gigabytes(need)} free, for archives and what is in them"
        raise ValueError(f"{needs}; got {gigabytes(free)}; free some space or choose another folder by {BY_ROOT}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let nobody else get the same files into the same folder."""
    lock = FileLock(folder / ".get.lock")
    with naming(folder, BY_ROOT):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{folder} must be filled by one process at a time; got another; wait for it") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / ".get.lock").unlink()
        lock.release()


def _get(offer: Offer, remote: Remote, folder: Path, keep: bool, tell: Tell) -> Iterator[str]:
    """Get one file and unpack it, and the one inside of it; what is left to a hand."""
    where = f": {remote.by_hand}" if remote.by_hand else f", from any copy of {' or '.join(remote.addresses)}"
    by_hand = f"put {remote.name} into {folder}{where}"
    if not remote.addresses and not (folder / remote.name).exists():
        yield by_hand
        return
    try:
        inner, took = remote.then, False
        if inner is None or not (folder / inner.name).exists():
            took = _fetch(offer, remote, folder, keep, tell)
        if inner:
            _place(offer, inner, folder, took and not keep, tell)
    except ValueError as error:
        tell(f"failed: {error}")
        yield by_hand


def _fetch(offer: Offer, remote: Remote, folder: Path, keep: bool, tell: Tell) -> bool:
    """Get one file, unless it lies there already, and put it or what is in it in place; whether it came now."""
    path = folder / remote.name
    came = not path.exists()
    if came:
        digests = _digests(offer, remote)
        download(path, remote.addresses, size=remote.size, about=remote.about, digests=digests, tell=tell)
        tell(f"got {path}")
    _place(offer, remote, folder, came and not keep, tell)
    return came


def _place(offer: Offer, remote: Remote, folder: Path, drop: bool, tell: Tell) -> None:
    """Hold a file that is there to its digests, and put what is in it in place."""
    path, digests = folder / remote.name, _digests(offer, remote)
    if wrong := wrong_file(path, remote.size, digests):
        raise ValueError(f"{wrong}; move it away and get it again")
    if not digests:
        found = file_digest(path, "sha256")
        tell(f"{remote.name}: {found}; nobody states one, so the next of this name is held to it")
        with suppress(OSError):  # a home that cannot be written to remembers nothing
            atomic_write(_memory(offer, remote), canonical({"digest": found}))
    if remote.unpack:
        for made in unpack(path, folder, remote.unpack):
            tell(f"unpacked {made}")
        if drop:
            path.unlink()


def _digests(offer: Offer, remote: Remote) -> list[str]:
    """What a file is held to: the digests that somebody states, or else that of the first that came here."""
    if remote.digests:
        return [*remote.digests]
    try:
        return [str(read_json(_memory(offer, remote))["digest"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _memory(offer: Offer, remote: Remote) -> Path:
    return home() / "fetched" / f"{offer.name}-{remote.name}.json"
