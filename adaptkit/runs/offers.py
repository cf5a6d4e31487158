"""The files of datasets that can be got: where they are, how large, who states their digests, what a hand must do.

A dataset that can be got has a mapping ``fetch``: ``files``, each as `Remote`; ``places`` in the dataset's folder that
a hand fills; and ``steps``, what the hand does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.io.paths import expanded
from adaptkit.runs import plugins


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One file of a dataset, as its publisher or a library that is well kept describes it.

    Attributes:
        name: of the file, in the dataset's folder.
        addresses: where it is, tried in turn; none where it must be got by hand, or lies in another archive.
        size: bytes; ``None`` where nobody states them.
        about: bytes, roughly, where no more is stated.
        digests: any of which it must have, with who states it.
        unpack: places by what goes there, where it is an archive.
        then: an archive that lies in this one.
        by_hand: where a hand finds it, and why it must.
    """

    name: str
    addresses: Sequence[str] = ()
    size: int | None = None
    about: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    unpack: Mapping[str, str] = field(default_factory=dict)
    then: Remote | None = None
    by_hand: str = ""

    @property
    def bytes(self) -> int:
        """How many bytes it has, as far as anybody states; 0 for unknown."""
        return self.size or self.about or 0

    def there(self, folder: Path, alike: Sequence[str] = ()) -> bool:
        """Whether what it gives lies in the dataset's folder; images may lie in any of the `alike` ones in it."""
        if self.then:
            return self.then.there(folder, alike)
        places = [[place, *(alike if place in alike else ())] for place in self.unpack.values() or [self.name]]
        return all(any((folder / name).exists() for name in names if name) for names in places)


@dataclass(frozen=True)
class Offer:
    """What can be got of a dataset."""

    name: str
    title: str
    licence: str
    folders: Sequence[str]
    images: Sequence[str]
    files: Sequence[Remote]
    places: Sequence[str]
    steps: Sequence[str]

    @property
    def bytes(self) -> int:
        """How many bytes its files have, as far as anybody states."""
        return sum(remote.bytes for remote in self.files)

    @property
    def size(self) -> str:
        """How much there is to get, in words; more than that, where the size of something is not stated."""
        return "> " * bool(self.places or not all(remote.bytes for remote in self.files)) + gigabytes(self.bytes)

    def filled(self, folder: Path) -> bool:
        """Whether the places that a hand fills are there, in any of the folders that images may lie in."""
        return all(any((folder / at / place).exists() for at in self.images) for place in self.places)

    @property
    def hand(self) -> str:
        """Why a hand is needed, "" where none is."""
        return next((r.by_hand for r in self.files if not r.addresses), self.steps[0] if self.places else "")


def offers() -> dict[str, Offer]:
    """Every dataset that can be got, by name."""
    have = {name: load for name, load in plugins.table("datasets").items() if getattr(load, "fetch", None)}
    return {name: _held(name, load) for name, load in have.items()}


def _held(name: str, load: Any) -> Offer:  # noqa: ANN401 (a loader of any plugin)
    try:
        return _offer(name, getattr(load, "entry", {}), load.fetch)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"`fetch` of dataset {name!r} must have files, each with a name; got {error!r}") from error


def _offer(name: str, entry: Mapping[str, Any], fetch: Mapping[str, Any]) -> Offer:
    known = entry.get("digests", {})
    entry = {"title": name, "licence": "see the dataset's page", "folders": [name], "images": (), **entry}
    files = [
        _remote({"digests": {known[file["name"]]: "data check"}} if file["name"] in known else {}, file)
        for file in fetch["files"]
    ]
    more = fetch.get("places", ()), fetch.get("steps", ())
    return Offer(name, entry["title"], entry["licence"], entry["folders"], entry["images"], files, *more)


def _remote(more: Mapping[str, Any], file: Mapping[str, Any]) -> Remote:
    then = {"then": _remote({}, file["then"])} if "then" in file else {}
    return Remote(**{**more, **file, **then})


def place_of(offer: Offer, root: Path) -> Path:
    """Where a dataset lies below a folder, by whichever of its names is there."""
    base = expanded(root).absolute()
    return next((base / name for name in offer.folders if (base / name).is_dir()), base / offer.folders[0])


def gigabytes(count: int) -> str:
    """Bytes as people say them."""
    size, unit = next(((size, unit) for size, unit in ((1e9, "GB"), (1e6, "MB")) if count >= size), (1e3, "kB"))
    return f"{count / size:,.1f} {unit}"
