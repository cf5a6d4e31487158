"""The state of a training on disk, so that one that was killed goes on: safetensors with JSON inside, and no code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adaptkit import __version__
from adaptkit.features.cache import CachedRows
from adaptkit.features.items import Images, InMemory
from adaptkit.io import code
from adaptkit.io.files import atomic_write, canonical, digest
from adaptkit.io.jsons import parse_json
from adaptkit.io.notices import notice
from adaptkit.methods.method import Method

PATTERN = "training-*.safetensors"


@dataclass
class Keeping:
    """Where trainings keep their state, and how many have begun; one adaptation may train several methods."""

    folder: Path
    begun: int = 0


_keeping = ContextVar[Keeping | None]("_keeping", default=None)


@contextmanager
def keeping(folder: Path | None) -> Iterator[None]:
    """Let trainings in here keep their state in a folder; ``None`` leaves it as it is."""
    token = _keeping.set(Keeping(folder) if folder else _keeping.get())
    try:
        yield
    finally:
        _keeping.reset(token)


def next_file() -> Path | None:
    """The file of the training that begins, ``None`` where none is kept."""
    if (kept := _keeping.get()) is None:
        return None
    kept.begun += 1
    return kept.folder / PATTERN.replace("*", str(kept.begun))


def forget_trainings(folder: Path) -> None:
    """Remove what trainings kept in a folder, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for file in folder.glob(PATTERN):
        file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def training_digest(method: Method, images: Images, total: int, options: Mapping[str, object]) -> str:
    """Digest of all that a training depends on as it begins: code, options, weights, images, and what will be drawn.

    Args:
        method: fitted.
        images: that it is trained on.
        total: optimiser steps.
        options: for the Trainer.
    """
    modules = {type(m).__module__ for m in method.modules() if isinstance(m, Method)}
    plain = {key: value for key, value in options.items() if isinstance(value, bool | int | float | str | None)}
    parts = [__version__, torch.__version__, repr(method), total, plain, code.of_modules({*modules, __name__})]
    out = hashlib.sha256(canonical([*map(str, parts)]))
    for name, x in sorted(method.state_dict().items()):
        out.update(name.encode() + _bytes(x))
    for state in draws():
        out.update(_bytes(state))
    index, rows = images.index, images.rows
    if isinstance(rows, InMemory):
        for x in rows.held.values():
            out.update(_bytes(x))
        index, rows = rows.images.index[index], rows.images.rows
    if isinstance(rows, CachedRows):
        out.update("".join(rows.source.key(i) for i in index.tolist()).encode())
    out.update(_bytes(index) + (b"" if images.labels is None else _bytes(images.labels)))
    return out.hexdigest()


def draws() -> list[Tensor]:
    """States of torch's generators, the processor's first."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]


def draw_on(states: list[Tensor]) -> None:
    """Let torch's generators draw what they would have drawn."""
    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state_all(states[1:])


def write_training(file: Path, identity: str, state: object) -> None:
    """Write a training's state, whole or not at all.

    Raises:
        ValueError: when it holds what is neither a tensor nor plain.
    """
    tensors: dict[str, Tensor] = {}
    told = canonical(taken_apart(state, tensors)).decode()
    about = {"identity": identity, "state": told, "sum": _sum(tensors, identity, told)}
    atomic_write(file, save(tensors, about))


def read_training(file: Path, identity: str) -> Any:  # noqa: ANN401 (what was written)
    """The state in a file; ``None`` where there is none, it is damaged, or of another training, which a notice says."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as held:
            about = held.metadata() or {}
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (it is no mapping)
        told = about.get("state", "")
        if about.get("sum") != _sum(tensors, about.get("identity", ""), told):
            raise ValueError("its sum differs")
        node = parse_json(told)
    except (OSError, ValueError, SafetensorError) as error:
        notice(f"the checkpoint {file} is damaged and not used: {error}; the training begins anew")
        return None
    if about["identity"] != identity:
        told = "other code, options, images or seed (torch.manual_seed before ak.adapt)"
        notice(f"the checkpoint {file} is of another training and not used: {told}; the training begins anew")
        return None
    return put_together(node, tensors)


def taken_apart(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 (a state)
    """A JSON value for a state, and the tensors that it names.

    Raises:
        ValueError: when it holds what is neither a tensor nor plain.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, float):
        return {"float": value.hex()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return {type(value).__name__: [taken_apart(v, tensors) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[taken_apart(key, tensors), taken_apart(v, tensors)] for key, v in value.items()]}
    raise ValueError(f"the state of a training must be tensors, numbers and text; got {type(value).__name__}")


def put_together(node: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 (a state)
    """What `taken_apart` took apart."""
    if not isinstance(node, dict):
        return node
    ((kind, held),) = node.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "float":
        return float.fromhex(held)
    if kind == "dict":
        return {put_together(key, tensors): put_together(v, tensors) for key, v in held}
    items = [put_together(v, tensors) for v in held]
    return items if kind == "list" else tuple(items)


def is_plain(value: object) -> bool:
    """Whether `taken_apart` takes a value."""
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(v) for key, v in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))  # type: ignore[call-overload]
    return value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)


def _bytes(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b""


def _sum(tensors: Mapping[str, Tensor], identity: str, told: str) -> str:
    return digest(save(dict(tensors)) + identity.encode() + told.encode())
