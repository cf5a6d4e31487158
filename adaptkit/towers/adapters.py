"""Low-rank adapters in the files of PEFT, merged into the weights that they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.io.paths import expanded
from adaptkit.towers.checkpoint import read_mapping

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
PLAIN_LORA = {"peft_type": "LORA", "use_dora": False, "fan_in_fan_out": False, "lora_bias": False}
"""Keys of a config, and what they must say where they are there: other kinds are not ``W + scale * B A``."""


def split_adapter(name: str) -> tuple[str, str]:
    """A backbone's name and the folder of its adapter, which follows the last ``#``; "" for none.

    A folder whose own name has a ``#`` is a folder. Hub ids have none, and in paths it is rarer than ``+`` or ``@``.

    >>> split_adapter("openai/clip-vit-base-patch32#my_lora"), split_adapter("openai/clip-vit-base-patch32")
    (('openai/clip-vit-base-patch32', 'my_lora'), ('openai/clip-vit-base-patch32', ''))
    """
    if "#" not in name or expanded(name).is_dir():
        return name, ""
    base, _, adapter = name.rpartition("#")
    return base, adapter


@torch.no_grad()
def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add ``scale * B A`` to each weight that a low-rank adapter has an update of, and put what it saved whole.

    Args:
        model: its base, with its weights.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        ValueError: for an adapter of another kind, or of another model.
    """
    config, held = read_adapter(folder)
    own = dict(model.named_parameters())
    for key in sorted(held):
        path = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if path.endswith(UP):
            continue
        if path.endswith(DOWN):
            path = path.removesuffix(DOWN)
            up = held.get(f"{key.removesuffix(DOWN)}{UP}")
            weight = own.get(f"{path}.weight")
            if up is None or weight is None:
                raise ValueError(f"an adapter must be one of its base; got {key!r} in {str(folder)!r}, without place")
            update = scale(config, path, len(held[key])) * product(up.float(), held[key].float())
        else:
            weight, update = own.get(path), held[key].float()
            if weight is None:
                raise ValueError(f"an adapter must hold lora_A and lora_B alone; got {key!r} in {str(folder)!r}")
            update = update - weight if update.shape == weight.shape else update
        if update.shape != weight.shape:
            shapes = f"{tuple(weight.shape)}, as its base; got {tuple(update.shape)}"
            raise ValueError(f"the update {key!r} in {str(folder)!r} must have shape {shapes}")
        weight.add_(update.to(weight))


def product(up: Tensor, down: Tensor) -> Tensor:
    """``B A``, of maps ``(W', r)`` and ``(r, W)`` or of convolutions, the second of one pixel."""
    made = up.flatten(1) @ down.flatten(1)
    return made.view(len(up), *down.shape[1:])


def scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """What an update is multiplied by."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    named = (alpha for key, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path))
    alpha = next(named, config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of an adapter; nothing in its files runs.

    Raises:
        ValueError: saying what the folder lacks, or what it holds instead.
    """
    files = [folder / name for name in ADAPTER_FILES if (folder / name).is_file()]
    if not files or not (folder / "adapter_config.json").is_file():
        lacks = "adapter_config.json" if files else ADAPTER_FILES[0]
        raise ValueError(f"what follows '#' must be an adapter's folder; got {str(folder)!r} without {lacks}")
    config = read_mapping(folder / "adapter_config.json")
    for key, want in PLAIN_LORA.items():
        if config.get(key, want) not in (want, None):
            said = f"{key!r} in {str(folder / 'adapter_config.json')!r} must be {want!r}; got {config[key]!r}"
            raise ValueError(f"{said}; merge it with peft and save the whole model")
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ValueError(f"'lora_alpha' in {str(folder / 'adapter_config.json')!r} must be a number; got {alpha!r}")
    return config, tensors_of(files[0])


def tensors_of(file: Path) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        ValueError: for a file that holds none.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            held: Any = load_file(file)
        else:
            held = torch.load(file, map_location="cpu", weights_only=True)
        if held and all(isinstance(value, Tensor) for value in held.values()):
            return held
        said = "what are none" if held else "nothing"
    except Exception as cause:  # of many kinds, and long
        said = " ".join(str(cause).split())
    raise ValueError(f"an adapter must hold tensors; got {str(file)!r}: {said}")
