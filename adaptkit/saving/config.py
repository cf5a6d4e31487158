"""The files of a saved classifier: read with every check that needs no method, and held to be as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import Tensor

from adaptkit import __version__
from adaptkit.io.files import atomic_write, canonical, digest, make_folder
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import read_file
from adaptkit.io.ranges import Positive, hold
from adaptkit.methods.settle import laid_out

CONFIG_FORMAT = 4  # says a temperature
UNCALIBRATED = 3  # says none: its temperature is 1. 2 had no digest of itself, 1 named classes by where they lay
# (both are refused: export again)
TENSORS, CONFIG = "model.safetensors", "config.json"


def sealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the digest of all that it says, by which an edit shows."""
    said = {key: value for key, value in config.items() if key != "digest"}
    return {**said, "digest": digest(canonical(json.loads(json.dumps(said))))}  # keys are text there


def read_saved(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a folder says, checked but for the method itself; and its tensors, laid out as those of a method are."""
    try:
        config, data = read_json(folder / CONFIG), read_file(folder / TENSORS)
        if config["format"] not in (UNCALIBRATED, CONFIG_FORMAT):
            known = f"{UNCALIBRATED} and {CONFIG_FORMAT}"
            raise ValueError(f"format {config['format']!r}, where this version reads {known}; export it again")
        hold(config.get("temperature", 1.0), Positive, "temperature")
        if config["sha256"] != digest(data):
            raise ValueError("tensors of another classifier")
        if config != sealed(config):
            raise ValueError(f"{CONFIG} was changed after it was written; export it again")
        towers, texts = config["towers"], (config["backbone"], *config["classnames"])
        if not all(isinstance(value, Mapping) for value in (towers, config["protocol"], *towers.values())):
            raise TypeError("towers and protocol must be mappings, each tower one of what identifies it")
        if not all(isinstance(text, str) for text in texts) or "method" not in config:
            raise TypeError("backbone and classnames must be text, and there must be a method")
        if not isinstance(config["classnames"], list):
            raise TypeError("classnames must be a list")
        if config["backbone"] not in towers:
            raise KeyError(f"towers must identify backbone {config['backbone']!r}")
        return config, {key: laid_out(tensor) for key, tensor in read_tensors(data).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        what = f"hold {CONFIG} and {TENSORS} as adaptkit {__version__} writes them"
        raise ValueError(f"a classifier's folder must {what}; got {str(folder)!r}: {error}") from error


def write_saved(folder: Path, config: Mapping[str, Any], data: bytes) -> None:
    """The tensors and what is said of them, or nothing."""
    make_folder(folder)
    try:
        atomic_write(folder / TENSORS, data)
        atomic_write(folder / CONFIG, json.dumps(config, indent=1, allow_nan=False).encode())
    except BaseException:
        remove_saved(folder)
        raise


def remove_saved(folder: Path) -> None:
    """Take away what was begun."""
    for name in (TENSORS, CONFIG):
        (folder / name).unlink(missing_ok=True)


def calibrated(temperature: float, expected: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a config says of a temperature and of what is expected, and the format that these make it."""
    hold(temperature, Positive, "temperature")
    heat = {} if temperature == 1.0 else {"temperature": temperature}
    known = {"expected": dict(expected)} if expected else {}
    return {"format": CONFIG_FORMAT if heat else UNCALIBRATED, **heat, **known}


@contextmanager
def as_written() -> Iterator[None]:
    """Say of a classifier that cannot answer that it is not what was saved: as it was saved it answered.

    Raises:
        ValueError: in place of what the method ran into.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"a saved classifier must be as it was written, to answer; got {got:.300}") from error
