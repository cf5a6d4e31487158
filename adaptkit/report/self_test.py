"""A picture and a sentence whose embeddings are stored: a machine that gets others computes something else.

``self_test.png`` and ``self_test.json`` were made by ``python -m tools.self_test``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from adaptkit.io.files import digest
from adaptkit.io.jsons import read_json
from adaptkit.io.pictures import decode
from adaptkit.runs import plugins

SENTENCE = "a drawing of a red circle."
STORED = 64  # numbers of an embedding that are stored
CLOSE = 1e-3  # of a number of a unit embedding; other processors and versions differ by a hundredth of it


def stored_picture() -> Image.Image:
    """The stored picture, decoded."""
    return decode(Path(__file__).with_name("self_test.png"), "the picture of the self-test").convert("RGB")


def pixels() -> str:
    """Digest of the stored picture's pixels, as this machine decodes them."""
    return digest(np.asarray(stored_picture()).tobytes())


def beginnings(name: str) -> dict[str, list[float]]:
    """The beginnings of the picture's and the sentence's unit embeddings, by a backbone that is loaded anew."""
    scheme, _, rest = name.partition(":")
    backbone = plugins.pick("backbones", scheme)(rest)
    with torch.no_grad():
        x = backbone.encode_image(backbone.preprocess(stored_picture())[None])[0]
        text = backbone.encode_text([SENTENCE])[0]
    found = {"image": x, "text": text}
    return {what: torch.nn.functional.normalize(v.float(), dim=0)[:STORED].tolist() for what, v in found.items()}


def stored() -> Mapping[str, Any]:
    """What the embeddings must be, by backbone; and the digest of the pixels."""
    return read_json(Path(__file__).with_name("self_test.json"))


def differences(name: str) -> str:
    """How a backbone's embeddings differ from those that are stored; "" where they do not.

    Raises:
        ValueError: when the backbone cannot be loaded here.
    """
    got, want = beginnings(name), stored()["backbones"][name]
    far = {what: max(abs(a - b) for a, b in zip(got[what], want[what], strict=True)) for what in want}
    return ", ".join(f"{what} by {most:.1e}" for what, most in far.items() if not most <= CLOSE)
