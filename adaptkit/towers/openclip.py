"""Models of OpenCLIP as backbones: its own modules, rearranged so that every map that others tap is one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from adaptkit.towers.backbone import Backbone, Tokens
from adaptkit.towers.openclip_images import image_tower
from adaptkit.towers.openclip_text import OpenWords, TextTower, text_tower
from adaptkit.towers.preprocess import Preprocess
from adaptkit.towers.processor import are_three, ensure_followed, is_side


class OpenCLIPBackbone(Backbone):
    """A model of OpenCLIP, of any image tower and any text tower. What only writes captions (CoCa's) is left out.

    Features are those of its own ``encode_image`` and ``encode_text`` up to rounding. Sentences are cut after the
    longest where the tower is causal and read at end-of-text, as in `CLIPBackbone`; elsewhere rows keep their length.
    """

    def __init__(self, model: Any, tokenizer: Any, preprocess: Preprocess, settings: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Take a model apart.

        Args:
            model: of OpenCLIP, with its weights; it is of no use afterwards.
            tokenizer: of OpenCLIP.
            preprocess: of its image tower.
            settings: the model's config, ``model_cfg``, which says what weights do not.
        """
        self.settings, self.preprocess = settings, preprocess
        image, text = image_tower(model.visual, settings["embed_dim"]), text_tower(model)
        self.model = nn.ModuleDict({"image": image, "text": text})
        self.words_of = OpenWords(tokenizer, text, text.points()["text.tokens"].num_embeddings)  # type: ignore[arg-type]
        self.vocabulary, self.prefix = self.words_of.vocabulary, self.words_of.prefix
        self.points = {**image.points(), **text.points()}
        self.dim, self.pooled_width, self.takes_packs = image.dim, image.pooled_width, text.takes_packs
        self.width, self.depth = {"image": image.width, "text": text.width}, {"image": image.depth, "text": text.depth}
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.logit_bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
        self.freeze()

    def architecture(self) -> str:
        """Layers, and the settings of both towers."""
        return f"{super().architecture()}{json.dumps(self.settings, sort_keys=True, default=str)}"

    def tokenize(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Token ids only: what is padding, the towers know by its number."""
        return self.words_of(sentences)

    def image(self, pixels: Tensor, project: bool) -> Tensor:
        """Pooled as the tower does."""
        return self.model["image"](pixels, project)  # type: ignore[index]

    def text(self, tokens: Tokens) -> Tensor:
        """Pooled as the tower does; where ``ends`` are given, there, of rows as `packing` makes them."""
        tower, ids = self.model["text"], tokens["input_ids"]  # type: ignore[index]
        if "ends" in tokens:
            return tower.packed(tokens)
        return tower(ids[:, : int(self.ends(ids).max()) + 1] if tower.trims else ids)

    def ends(self, ids: Tensor) -> Tensor:
        """Position of end-of-text, ``(P,)``, by the rule of the tower's own pooling."""
        tower = self.model["text"]  # type: ignore[index]
        return tower.ends(ids) if isinstance(tower, TextTower) else super().ends(ids)


def openclip_preprocess(spec: Mapping[str, Any], size: object, where: str) -> Preprocess:
    """The preprocessing that a ``preprocess_cfg`` describes.

    Args:
        spec: what it says.
        size: of the image tower, a side or a height and a width.
        where: to name in errors.

    Raises:
        ValueError: naming the first key that asks for something else.
    """
    sides = [*size] if isinstance(size, list | tuple) else [size]
    rules = {
        "size": (len({*sides}) == 1 and is_side(sides[0]), "a square"),
        "mean": (are_three(spec.get("mean")), "three numbers"),
        "std": (are_three(spec.get("std"), positive=True), "three numbers above 0"),
        "interpolation": (spec.get("interpolation") in ("bicubic", "bilinear"), "'bicubic' or 'bilinear'"),
        "resize_mode": (spec.get("resize_mode") in ("shortest", "squash"), "'shortest' or 'squash'"),
        "mode": (spec.get("mode", "RGB") == "RGB", "'RGB'"),
    }
    ensure_followed(rules, {**spec, "size": size}, f"of {where}")
    fit = "crop" if spec["resize_mode"] == "shortest" else "squash"
    norm = {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])}
    return Preprocess(size=sides[0], fit=fit, resample=spec["interpolation"], centre="rounded", **norm)  # type: ignore[arg-type]
