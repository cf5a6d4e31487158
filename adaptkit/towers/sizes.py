"""The numbers of a checkpoint's config, held to what towers can have before one is built from them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptkit.towers.checkpoint import shard_of_each
from adaptkit.towers.processor import LARGEST, is_number

SPARE = 2**24  # weights that a config may ask for beyond its files: what is wrong by less is told by its name
WHOLE = {
    "num_hidden_layers": (1, 256),
    "num_attention_heads": (1, 2**12),
    "hidden_size": (1, 2**16),
    "intermediate_size": (1, 2**18),
    "projection_dim": (1, 2**16),
    "projection_size": (1, 2**16),
    "vocab_size": (1, 2**24),
    "max_position_embeddings": (1, 2**20),
    "num_register_tokens": (0, 2**12),
    "num_channels": (3, 3),
    "image_size": (1, LARGEST),
    "patch_size": (1, LARGEST),
}
"""Whole numbers by their key, from and to: far above every tower that was published."""

SIDES = ("image_size", "patch_size")  # one number, or a height and a width, which only one tower alone reads
REAL: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("layer_norm_eps", "attention_dropout", "hidden_dropout_prob"), (0, 1)),
    **dict.fromkeys(("attention_probs_dropout_prob", "drop_path_rate"), (0, 1)),
    **dict.fromkeys(("initializer_range", "initializer_factor"), (0, 1e3)),
    **dict.fromkeys(("logit_scale_init_value", "layerscale_value"), (-1e3, 1e3)),
    "mlp_ratio": (1e-3, 64),
    "rope_theta": (1e-3, 1e9),
}
"""Numbers by their key, from and to."""


def ensure_sizes(config: Mapping[str, Any], kind: Any, folder: Path) -> None:  # noqa: ANN401 (transformers' own)
    """Refuse a number in config.json that no tower has, or that makes towers much larger than the weights.

    Args:
        config: what the file says.
        kind: the class of `transformers` that reads it, whose fields have the defaults.
        folder: of the checkpoint.

    Raises:
        ValueError: naming the first key.
    """
    where = f"in {str(folder / 'config.json')!r} must be"
    held = SPARE + sum((folder / name).stat().st_size for name in {*shard_of_each(folder).values()})
    for part, said, fields in _parts(config, kind):
        if not isinstance(said, Mapping):
            raise ValueError(f"{part!r} {where} a mapping; got {reprlib.repr(said)}")
        prefix = f"{part}." if part else ""
        for key in (key for key in said if hasattr(fields, str(key))):
            allowed = _allowed(key, said[key], pairs=not part)
            if allowed:
                raise ValueError(f"{prefix + key!r} {where} {allowed}; got {reprlib.repr(said[key])}")
        sizes = {key: said.get(key, getattr(fields, key)) for key in (*WHOLE, *REAL) if hasattr(fields, key)}
        if "hidden_size" not in sizes:
            continue
        for key, allowed in _unfit(sizes):
            raise ValueError(f"{prefix + key!r} {where} {allowed}; got {sizes[key]!r}")
        if (asked := _weights(sizes)) > held:
            listed = ", ".join(f"{key} {sizes[key]!r}" for key in WHOLE if key in sizes)
            raise ValueError(
                f"the sizes {f'of {part!r} ' * bool(part)}{where} those of the weights, {held - SPARE:,} bytes; got "
                f"about {asked:,} weights, from {listed}; bring config and weights of one model"
            )


def _parts(config: Mapping[str, Any], kind: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """The config itself and those of its towers: name, content and class; old files write some twice."""
    yield "", config, kind
    for part, fields in kind.sub_configs.items():
        for name in (part, f"{part}_dict"):
            if config.get(name) is not None:
                yield name, config[name], fields


def _allowed(key: str, value: object, pairs: bool) -> str:
    """What a value must be; "" where it is that. A side may be a height and a width where `pairs` are read."""
    if key in WHOLE:
        low, high = WHOLE[key]
        numbers = value if isinstance(value, list) and len(value) == 2 and pairs and key in SIDES else [value]
        good = all(type(n) is int and low <= n <= high for n in numbers)
        return "" if good else f"a whole number from {low:,} to {high:,}" if low < high else str(low)
    if key in REAL:
        least, most = REAL[key]
        good = is_number(value) and least <= value <= most  # type: ignore[operator]
        return "" if good else f"a number from {least:g} to {most:g}"
    return "a finite number" if isinstance(value, float) and not is_number(value) else ""


def _unfit(sizes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys whose value does not fit another, with what they must be."""
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % heads:
        yield "num_attention_heads", f"a divisor of hidden_size, {width}"
    if "rope_theta" in sizes and width // heads % 4:
        yield "num_attention_heads", f"such that hidden_size, {width}, divided by it is a multiple of 4"
    if "image_size" in sizes and _side(sizes, "patch_size", max) > _side(sizes, "image_size", min):
        yield "patch_size", f"at most image_size, {sizes['image_size']}"


def _side(sizes: Mapping[str, Any], key: str, one: Any) -> int:  # noqa: ANN401 (min or max)
    return int(one(sizes[key]) if isinstance(sizes[key], list | tuple) else sizes[key])


def _weights(sizes: Mapping[str, Any]) -> int:
    """About how many weights a tower has, and not more than it has."""
    width = sizes["hidden_size"]
    inner = sizes.get("intermediate_size") or int(width * sizes["mlp_ratio"])
    rows = sum(sizes.get(key) or 0 for key in ("vocab_size", "max_position_embeddings", "num_register_tokens"))
    if "image_size" in sizes:
        patch = _side(sizes, "patch_size", min)
        rows += 3 * patch**2 + (0 if "rope_theta" in sizes else (_side(sizes, "image_size", min) // patch) ** 2)
    return int(width * (sizes["num_hidden_layers"] * (4 * width + 2 * inner) + rows))
