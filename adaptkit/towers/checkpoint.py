"""The files of a checkpoint of `transformers`, and whether what they hold is what its config has a place for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adaptkit.io.jsons import read_json
from adaptkit.towers.formats import foreign_folder

NEEDED = ("config.json", "*processor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The kinds of weights, in the order in which `transformers` looks; an index names its shards."""

BITS_OF_TOKENIZERS = 100  # they write 10^30 for a length without end
UNREAD = ("position_ids", "pooler.", "mask_token")  # of older or larger models, with no effect on features


def read_mapping(file: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping.

    Raises:
        ValueError: naming the file, when it is none.
    """
    try:
        found = read_json(file, BITS_OF_TOKENIZERS)
    except (OSError, ValueError) as cause:
        raise ValueError(f"{str(file)!r} must be JSON: {cause}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{str(file)!r} must be a mapping in JSON; got {type(found).__name__}")
    return found


def missing(folder: Path) -> str:
    """What a checkpoint's folder lacks; "" for nothing.

    Raises:
        ValueError: for an index that leads out of the folder, or is none.
    """
    for file in NEEDED:
        if not any(folder.glob(file)):
            return file
    shards = set(shard_of_each(folder).values())
    return next((name for name in sorted(shards) if not (folder / name).is_file()), "" if shards else WEIGHTS[0])


def ensure_whole(folder: Path) -> None:
    """Refuse a folder that is no whole checkpoint, by what it is where that can be told.

    Raises:
        ValueError: saying what it lacks or is, and what to do.
    """
    absent, adapts = missing(folder), (folder / "adapter_config.json").is_file()
    if absent or adapts:  # an adapter beside whole weights would count or not, as peft is installed or not
        without = f" without {absent}" if absent else ""
        also = f", or {', '.join(WEIGHTS[1:])}" if absent == WEIGHTS[0] else ""
        raise ValueError(
            f"a checkpoint must hold {', '.join(NEEDED)} and weights in the format of transformers; got "
            f"{str(folder)!r}{without}{also}{foreign_folder(folder)}"
        )


def shard_of_each(folder: Path) -> dict[str, str]:
    """The file of each weight, by name, as an index says it; one file of all weights under ""; {} where there is none.

    Raises:
        ValueError: for an index that is no map from weights to files of this folder.
    """
    kind = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    if not kind.endswith(".index.json"):
        return {"": kind} if kind else {}
    shards = read_mapping(folder / kind).get("weight_map")
    if not isinstance(shards, Mapping) or not shards:
        raise ValueError(f"'weight_map' in {str(folder / kind)!r} must map weights to files; got {shards!r}")
    for key, name in shards.items():
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or not name.strip("."):
            raise ValueError(f"{key!r} in {str(folder / kind)!r} must be in a file of its folder; got {name!r}")
    return {str(key): str(name) for key, name in shards.items()}


def holder(folder: Path, key: str) -> str:
    """The file that holds, or should hold, a weight."""
    shards = shard_of_each(folder)
    return repr(str(folder / next((name for known, name in shards.items() if known in ("", key)), ".")))


def ensure_fits(folder: Path, info: Mapping[str, Iterable[Any]], parts: Iterable[str]) -> None:
    """Refuse weights that are not those of the config: what is missing would be random, what is over belongs elsewhere.

    Args:
        folder: of the checkpoint.
        info: of `transformers`' loading.
        parts: the model's own parts, by name.

    Raises:
        ValueError: naming the first weight, its file, and the shapes.
    """
    if unlike := sorted(info["mismatched_keys"]):
        key, got, want = unlike[0]
        raise ValueError(
            f"weight {key!r} in {holder(folder, key)} must have shape {tuple(want)}, as config.json says; got "
            f"{tuple(got)}; bring config and weights of one model"
        )
    over = sorted(key for key in info["unexpected_keys"] if not any(word in key for word in UNREAD))
    if absent := sorted(info["missing_keys"]):
        instead = f"; it holds {over[0]!r}, which is not of transformers' model" if over else ""
        raise ValueError(
            f"a checkpoint must hold every weight; got {str(folder)!r} without {absent[0]} and "
            f"{len(absent) - 1} more{instead}".replace(" and 0 more", "")
        )
    parts = {*parts}
    for key in over:
        if key.split(".")[0] in parts:
            raise ValueError(
                f"a weight must have a place in the model of config.json; got {key!r} in {holder(folder, key)}, one of "
                f"{len(over)} that have none; bring config and weights of one model"
            )
