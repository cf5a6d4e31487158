"""Whether adaptkit is well on this machine: what it stands on, what it finds, and whether it computes what it should.

Nothing here prints the environment: there are tokens in it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from adaptkit.io.files import ensure_writable
from adaptkit.runs import plugins
from adaptkit.runs.references import datasets_of

PACKAGE = "adaptkit-vlm"
INSTALL = f"pip install {PACKAGE}"
STANDS_ON = (
    "torch",
    "transformers",
    "pytorch-lightning",
    "torchmetrics",
    "scikit-learn",
    "safetensors",
    "numpy",
    "pillow",
)
LITTLE = 2_000_000_000  # bytes; less is worth a note
TOOLS = ("test",)  # extras that nobody needs who uses adaptkit


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: of adaptkit or of the machine.
        status: ``fine``, ``note`` for what may be as somebody wants it, or ``wrong``.
        what: was found.
        todo: what to do about it, "" for nothing.
    """

    part: str
    status: str
    what: str
    todo: str = ""


def health(home: Path, *, deep: bool = False) -> Iterator[Finding]:
    """Look at everything, one thing after the other; what cannot be looked at is a finding, too.

    Args:
        home: the folder of features and results.
        deep: hash every file of the cache, and load the larger backbones, which takes longer.
    """
    looks = installed, devices, memory, lambda: disk(home), plugged, offline, lambda: cache(home, deep), extras
    for look in (*looks, lambda: self_test(deep)):
        try:
            yield from look()
        except ImportError as error:
            yield Finding("versions", "wrong", f"{error.name or 'a package'} cannot be imported: {error}", INSTALL)


def installed() -> Iterator[Finding]:
    """Of adaptkit and of what it stands on."""
    yield Finding("versions", "fine", f"python {platform.python_version()}, {platform.platform(terse=True)}")
    for name in (PACKAGE, *STANDS_ON):
        have = _version(name)
        status, todo = ("fine", "") if have else ("wrong", INSTALL)
        yield Finding("versions", status, f"{name} {have or 'is not installed'}", todo)


def devices() -> Iterator[Finding]:
    """What can compute."""
    import torch

    kind = torch.backends.cpu.get_cpu_capability()
    yield Finding("devices", "fine", f"cpu: {torch.get_num_threads()} threads of {os.cpu_count()}, {kind}")
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        yield Finding("devices", "fine", f"cuda:{i}: {card.name}, {card.total_memory / 1e9:.1f} GB")
    if torch.version.cuda and not torch.cuda.is_available():
        todo = "look whether nvidia-smi answers; without a GPU, torch for the CPU is smaller"
        yield Finding("devices", "note", f"cuda: torch is built for {torch.version.cuda}, and none is found", todo)
    if torch.backends.mps.is_available():
        yield Finding("devices", "fine", "mps")


def memory() -> Iterator[Finding]:
    """How much there is, where the system says so."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        yield Finding("memory", "note", "this system does not say")
        return
    yield Finding("memory", "fine", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it not in use")


def disk(home: Path) -> Iterator[Finding]:
    """Whether features and results can be written, and how many."""
    at = next(path for path in (home.absolute(), *home.absolute().parents) if path.exists())
    free, other = shutil.disk_usage(at).free, "choose another folder by --home or ADAPTKIT_HOME"
    yield Finding(
        "disk", "note" if free < LITTLE else "fine", f"{home}: {free / 1e9:.1f} GB free", other * (free < LITTLE)
    )
    try:
        ensure_writable(home)
    except OSError as error:
        yield Finding("disk", "wrong", f"{home} cannot be written to: {error.strerror}", other)


def plugged() -> Iterator[Finding]:
    """What plugins bring, and which could not be loaded."""
    counts = ", ".join(f"{len(plugins.table(role))} {role}" for role in plugins.ROLES)
    yield Finding("plugins", "fine", counts)
    for name, trace in sorted(plugins.broken.items()):
        last = trace.strip().splitlines()[-1]
        yield Finding("plugins", "wrong", f"{name!r} could not be loaded: {last}", "mend or remove it; adaptkit list")


def offline() -> Iterator[Finding]:
    """Those that need no network, as far as their plugins can say, and what is known of their zero-shot accuracy."""
    for scheme, load in plugins.table("backbones").items():
        for name in sorted({*getattr(load, "offline", list)()}):
            known = len(datasets_of(f"{scheme}:{name}"))
            told = f"zero-shot is known on {known} datasets, for run --verify" if known else "no zero-shot reference"
            yield Finding("backbones", "fine", f"{scheme}:{name}: here; {told}")


def cache(home: Path, deep: bool) -> Iterator[Finding]:
    """Whether every table of features can be read; with `deep`, every byte of it."""
    from adaptkit.features.store import Store

    store = Store(home / "features")
    tables = store.tables()
    held = f"{len(tables)} tables, {sum(table.bytes for table in tables) / 1e6:,.1f} MB"
    flaws = store.verify() if deep else store.unusable()
    yield Finding("cache", "fine", f"{held}{', every file hashed' if deep else '; --deep hashes every file'}")
    for flaw in flaws:
        yield Finding("cache", "wrong", flaw, "adaptkit cache verify --repair, then adaptkit cache gc")


def extras() -> Iterator[Finding]:
    """What else can be installed, and what of it is."""
    try:
        asked = importlib.metadata.requires(PACKAGE) or []
        named = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return
    needs = [Requirement(text) for text in asked]
    for extra in named:
        if extra in TOOLS:
            continue
        wanted = [r for r in needs if r.marker and not r.marker.evaluate() and r.marker.evaluate({"extra": extra})]
        short = [r.name for r in wanted if not r.specifier.contains(_version(r.name) or "0", prereleases=True)]
        if short:
            todo = f"pip install '{PACKAGE}[{extra}]', if it is wanted"
            yield Finding("extras", "note", f"{extra}: without {', '.join(short)}", todo)
        else:
            yield Finding("extras", "fine", f"{extra}: here")


def self_test(deep: bool) -> Iterator[Finding]:
    """Whether a stored picture and sentence come out as they were stored."""
    from adaptkit.report import self_test as stored

    want = stored.stored()
    if stored.pixels() != want["pixels"]:
        yield Finding("self-test", "wrong", "a PNG is decoded to other pixels", "install pillow again")
    for name in want["backbones"]:
        if name == "packaged:lite0-minilm" and not deep:
            continue  # it takes seconds to load
        try:
            far = stored.differences(name)
        except ValueError as error:
            yield Finding("self-test", "note", f"{name}: {str(error).splitlines()[0]}")
            continue
        what = f"{name}: {f'embeddings differ, {far}' if far else 'embeddings are as stored'}"
        todo = "install torch and transformers again, in versions of constraints.txt" if far else ""
        yield Finding("self-test", "wrong" if far else "fine", what, todo)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
