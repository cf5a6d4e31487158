"""CLIP, MetaCLIP 2 and SigLIP as `transformers` spells their modules; `tokens` knows its tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from adaptkit.towers.backbone import Backbone, Tokens
from adaptkit.towers.preprocess import Preprocess

Tokenizer = Callable[[Sequence[str]], dict[str, Tensor]]
NOTES = ("transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures")  # no effect on features
LINEARS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out", "fc1": "fc1", "fc2": "fc2"}

BLOCK_PARTS = {
    "image.tokens": "vision_model.embeddings",
    "image.prenorm": "vision_model.pre_layrnorm",
    "image.norm": "vision_model.post_layernorm",
    "image.head": "vision_model.head",
    "image.projection": "visual_projection",
    "text.tokens": "text_model.embeddings.token_embedding",
    "text.positions": "text_model.embeddings.position_embedding",
    "text.norm": "text_model.final_layer_norm",
    "text.projection": "text_projection",
}


class CLIPBackbone(Backbone):
    """A `CLIPModel` or `MetaClip2Model` of `transformers`. Sentences are cut after the longest: exact, and faster.

    Positions after end-of-text reach nothing: attention is causal and the embedding is read at end-of-text. Position
    embeddings, masks, pooling and projections stay in `transformers`; taps sit at its own modules.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, preprocess: Preprocess) -> None:
        self.model, self.tokenizer, self.preprocess = model, tokenizer, preprocess
        vision, text = model.vision_model, model.text_model
        modules = dict(model.named_modules())
        points = {name: modules[path] for name, path in BLOCK_PARTS.items() if path in modules}
        for tower, layers in (("image", vision.encoder.layers), ("text", text.encoder.layers)):  # type: ignore[union-attr]
            points |= block_points(tower, layers, LINEARS)  # type: ignore[arg-type]
        self.points = points
        self.width = {"image": vision.config.hidden_size, "text": text.config.hidden_size}  # type: ignore[union-attr, dict-item]
        self.depth = {"image": len(vision.encoder.layers), "text": len(text.encoder.layers)}  # type: ignore[union-attr, arg-type]
        self.logit_scale = float(model.logit_scale.detach().exp())  # type: ignore[operator]
        self.dim = self.joint_width()
        self.freeze()

    def architecture(self) -> str:
        """Layers and the settings of both towers, but for the library's own notes."""
        towers = (self.model.vision_model.config, self.model.text_model.config)  # type: ignore[union-attr]
        settings = [{k: v for k, v in t.to_dict().items() if k not in NOTES} for t in towers]  # type: ignore[operator, union-attr]
        return f"{super().architecture()}{settings}"

    def joint_width(self) -> int:
        """Width of the joint space."""
        return int(self.model.projection_dim)  # type: ignore[arg-type]

    def tokenize(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Token ids only: a causal tower needs no mask."""
        return {"input_ids": self.tokenizer(sentences)["input_ids"]}

    def image(self, pixels: Tensor, project: bool) -> Tensor:
        """Pooled at the class token."""
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[operator]
        return self.model.visual_projection(pooled) if project else pooled  # type: ignore[operator]

    @property
    def takes_packs(self) -> bool:  # type: ignore[override]
        """Where `text` is this class's, and attention one that takes any mask."""
        attention = self.model.text_model.config._attn_implementation  # type: ignore[union-attr]
        return type(self).text is CLIPBackbone.text and attention in ("sdpa", "eager")

    def text(self, tokens: Tokens) -> Tensor:
        """Pooled at end-of-text; where ``ends`` are given, there, of rows as `adaptkit.towers.packing` makes them."""
        ids = tokens["input_ids"]
        if "ends" in tokens:
            return self.model.text_projection(self._packed(tokens))  # type: ignore[operator]
        ids = ids[:, : int(self.ends(ids).max()) + 1]
        return self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output)  # type: ignore[operator]

    def _packed(self, tokens: Tokens) -> Tensor:
        """What leaves the last norm where sentences end, ``(P, W)``. Rows may be longer than any sentence."""
        text, mask = self.model.text_model, tokens["attention_mask"]
        if text.config._attn_implementation == "eager":  # type: ignore[union-attr]
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
        x = self.points["text.tokens"](tokens["input_ids"]) + self.points["text.positions"](tokens["position_ids"])
        x = text.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state  # type: ignore[operator, union-attr]
        return self.points["text.norm"](x.flatten(0, 1)[tokens["ends"]])

    @property
    def end(self) -> int | None:
        """The number of end-of-text; ``None`` where it is a sentence's largest, as in CLIP's first configs."""
        config = self.model.text_model.config  # type: ignore[union-attr]
        end = config.eos_token_id  # type: ignore[union-attr]
        if not isinstance(end, int):
            raise ValueError(f"eos_token_id of the text tower must be one number; got {end!r}; edit config.json")
        return None if end == 2 and config.model_type == "clip_text_model" else end  # type: ignore[union-attr]

    def ends(self, ids: Tensor) -> Tensor:
        """Position of end-of-text, ``(P,)``, by the rule of the tower's own pooling."""
        end = self.end
        return ids.argmax(-1) if end is None else (ids == end).int().argmax(-1)


class SiglipBackbone(CLIPBackbone):
    """A `transformers.SiglipModel`: no class token, a sigmoid's bias, and a text tower that reads its padding.

    Sentences are always padded to full length and no attention mask is passed, as in training; either slip moves the
    features by more than their size.
    """

    prefix = 0

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, preprocess: Preprocess) -> None:
        super().__init__(model, tokenizer, preprocess)
        self.points = {**self.points, "text.projection": model.text_model.head}  # type: ignore[dict-item, union-attr]
        self.logit_bias = float(model.logit_bias)  # type: ignore[arg-type]

    def joint_width(self) -> int:
        """Width of the joint space: SigLIP's text head projects to the image width."""
        return int(self.model.text_model.head.out_features)  # type: ignore[union-attr, arg-type]

    def image(self, pixels: Tensor, project: bool) -> Tensor:
        """Pooled by attention; there is no projection after it."""
        return self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[operator]

    def text(self, tokens: Tokens) -> Tensor:
        """Pooled at the last position, padding or not."""
        return self.model.text_model(input_ids=tokens["input_ids"]).pooler_output  # type: ignore[operator]

    def ends(self, ids: Tensor) -> Tensor:
        """The last position."""
        return torch.full(ids.shape[:1], -1, device=ids.device)


def block_points(tower: str, layers: Sequence[nn.Module], linears: dict[str, str]) -> dict[str, nn.Module]:
    """Points of a stack of transformer blocks; `linears` maps the ends of module names to those of points."""
    points: dict[str, nn.Module] = {}
    for i, block in enumerate(layers):
        points[f"{tower}.block.{i}"] = points[f"{tower}.block.{i - len(layers)}"] = block
        norms = (module for module in block.modules() if isinstance(module, nn.LayerNorm))
        points |= {f"{tower}.block.{i}.norm{j}": module for j, module in enumerate(norms, 1)}
        for name, module in block.named_modules():
            short = next((s for end, s in linears.items() if name.endswith(end)), None)
            if isinstance(module, nn.Linear) and short:
                points[f"{tower}.block.{i}.{short}"] = module
    return points


def named_blocks(tower: str, blocks: Sequence[nn.Module], parts: Mapping[str, str]) -> dict[str, nn.Module]:
    """Points of a stack of transformer blocks; `parts` maps paths inside a block to the ends of points' names."""
    points: dict[str, nn.Module] = {}
    for i, block in enumerate(blocks):
        points[f"{tower}.block.{i}"] = points[f"{tower}.block.{i - len(blocks)}"] = block
        inside = dict(block.named_modules())
        found = {short: inside[path] for path, short in parts.items() if path in inside}
        points |= {f"{tower}.block.{i}.{short}": m for short, m in found.items() if not isinstance(m, nn.Identity)}
    return points


def no_tokenizer(sentences: Sequence[str]) -> dict[str, Tensor]:
    """Stand-in for a checkpoint without a tokenizer: images only."""
    raise ValueError(f"a checkpoint must have a tokenizer to encode {len(sentences)} sentences; got none in its folder")


def torch_ids(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Rows of token ids of equal length as ``{"input_ids": (P, L)}``."""
    return {"input_ids": torch.tensor(rows, dtype=torch.long)}
