"""Everything a comparison holds fixed, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from adaptkit.plugins import must_be

Select = Literal["none", "few-val", "full-val", "oracle"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything a comparison holds fixed, by name.

    Attributes:
        dataset: a name in ``adaptkit list datasets``, with a place after a colon where it takes one.
        backbone: a scheme and a name, e.g. ``"hf:openai/clip-vit-base-patch16"``.
        prompts: who writes the sentences about classes: a name, or one name with options.
        support: who chooses the labelled images: a name, or one name with options.
        select: the images hyperparameters are chosen on: ``"none"``, ``"few-val"`` (at most 4 a class), ``"full-val"``,
            or ``"oracle"`` (the test images; every table marks it).
        dtype: of stored features.
        precision: of the towers' arithmetic while extracting.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        batch_size: images in one forward pass of a tower.
    """

    dataset: str
    backbone: str
    prompts: str | Mapping[str, Any] = "templates"
    support: str | Mapping[str, Any] = "few-shot"
    select: Select = "few-val"
    dtype: Literal["float16", "float32"] = "float16"
    precision: Precision = "32-true"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse what no dataset, backbone or method could make sense of."""
        for name, hint in get_type_hints(Setting).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(must_be(name, get_args(hint), getattr(self, name)))
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
