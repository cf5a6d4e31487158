"""A dataset and a backbone that need no download: five patterns, their names, and two small random towers."""

from __future__ import annotations

import atexit
import hashlib
import random
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adaptkit.features.datasets import Splits
from adaptkit.features.items import Images
from adaptkit.features.sources import Drawn
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import Backbone, unit
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.preprocess import Preprocess

CLASSES = ("cat", "dog", "owl", "fox", "hen")
SIDE = 32
LENGTH = 48  # tokens that the toy's text tower reads


class ToyImages(Drawn):
    """`n` images of one class's pattern each, under noise. Image `i` has label ``i % C``."""

    def __init__(self, name: str = "toy", n: int = 100, noise: float = 0.15) -> None:
        self.name, self.noise, self.labels = name, noise, [i % len(CLASSES) for i in range(n)]

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, i: int) -> str:
        """The image is a function of this."""
        return hashlib.sha256(f"{self.name}/{i}/{self.noise}".encode()).hexdigest()

    def image(self, i: int) -> Image.Image:
        """The pattern, with noise seeded by the key."""
        rng = np.random.default_rng(int(self.key(i)[:16], 16))
        noisy = pattern(self.labels[i]) + self.noise * rng.standard_normal((SIDE, SIDE, 3))
        return Image.fromarray((255 * noisy.clip(0, 1)).astype(np.uint8))


def pattern(c: int) -> np.ndarray:
    """The pattern of a class, ``(32, 32, 3)`` between 0 and 1: a random 4 x 4 mosaic."""
    mosaic = np.random.default_rng(c).random((4, 4, 3))
    return mosaic.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)


def toy_splits() -> Splits:
    """The toy dataset: train, validation and test images, and a domain with more noise."""
    train, val, test = ToyImages("train"), ToyImages("val", 40), ToyImages("test", 60)
    noisy = {"noisy": ToyImages("noisy", 45, noise=0.4)}
    return Splits("toy", CLASSES, train, test, val, domains=noisy, source="drawn by a formula")


def toy_tokenizer(sentences: Sequence[str], vocab: int = 96) -> dict[str, Tensor]:
    """One token per word, as many as are read, start and end of text around them, padded to the longest."""
    start, end = vocab - 2, vocab - 1
    words = [[1 + sum(map(ord, w)) % (vocab - 4) for w in s.replace(".", " .").split()] for s in sentences]
    rows = [[start, *row[: LENGTH - 2], end] for row in words]
    longest = max(map(len, rows))
    return {"input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows])}


@cache
def toy_backbone(seed: str = "0") -> Backbone:
    """A random CLIP, two blocks to a tower, whose text projection is solved so that class names fit their patterns."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
    end = {"eos_token_id": 95, "bos_token_id": 94, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={
            **tower,
            **end,
            "hidden_size": 24,
            "intermediate_size": 48,
            "vocab_size": 96,
            "max_position_embeddings": LENGTH,
        },
        vision_config={**tower, "hidden_size": 32, "intermediate_size": 64, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(seed).getrandbits(32))
        model = CLIPModel(config)
        for p in model.parameters():  # the library's initial weights are tiny; spread them so that features differ
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    preprocess = Preprocess(size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    model.double().eval().requires_grad_(False)
    images = torch.stack([preprocess(ToyImages("anchor", 5, 0.1).image(c)) for c in range(len(CLASSES))]).double()
    x = model.get_image_features(images).pooler_output
    pooled = model.text_model(**toy_tokenizer([f"a photo of a {c}." for c in CLASSES])).pooler_output
    mean = unit(x).mean(0)
    apart = unit(unit(x) - mean) + 0.3 * mean  # like CLIP's: a common direction, and on it what tells classes apart
    solved = torch.linalg.lstsq(pooled, apart).solution.T.contiguous()
    model.text_projection.weight.data = (solved * 2**12).round() / 2**12  # the last bits differ between processes
    model.float()
    model.logit_scale.data.fill_(3.0)
    return CLIPBackbone(model, toy_tokenizer, preprocess)


def toy_task(shots: int = 8, *, seed: int = 1, home: Path | None = None) -> tuple[Task, Images]:
    """A few-shot task on the toy data, with validation and pool images, and its labelled test images."""
    from adaptkit.api import load

    return load("toy", backbone="toy:0", shots=shots, seed=seed, select="full-val", home=home or passing_home())


@cache
def passing_home() -> Path:
    """A home that goes when the process does."""
    home = tempfile.mkdtemp(prefix="adaptkit-toy-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return Path(home)
