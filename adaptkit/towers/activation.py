"""Whether a CLIP checkpoint's activation is the one that it was trained with: nothing in the weights tells."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from adaptkit.io.notices import Notice
from adaptkit.towers.checkpoint import read_mapping

OPENCLIP_CONFIG = "open_clip_config.json"
TRAINED = (  # by names of the checkpoints' publishers, the first that fits
    (r"quickgelu", "quick_gelu"),
    (r"clip-vit-(base|large)-patch(14|16|32)(-336(px)?)?$", "quick_gelu"),  # OpenAI's
    (r"metaclip-[bhlg]\d", "quick_gelu"),
    (r"\bdfn\d?b?-", "quick_gelu"),
    (r"laion2b|datacomp", "gelu"),
)


class ActivationWarning(Notice):
    """A checkpoint's name says another activation than its config: features would be a little wrong, silently."""


def ensure_activation(folder: Path, name: str, config: Any) -> None:  # noqa: ANN401 (transformers' own)
    """Refuse or doubt the ``hidden_act`` of a config of CLIP, by what else is known of the checkpoint.

    Args:
        folder: of the checkpoint; OpenCLIP's config in it is believed.
        name: that it was asked for by; like the config's own name, reason for a warning only.
        config: of the whole model.

    Raises:
        ValueError: where OpenCLIP's config in the same folder says another.
    """
    if config.model_type != "clip":
        return
    acts = {config.vision_config.hidden_act, config.text_config.hidden_act}
    own = read_mapping(folder / OPENCLIP_CONFIG).get("model_cfg") if (folder / OPENCLIP_CONFIG).is_file() else None
    if isinstance(own, dict):
        want = "quick_gelu" if own.get("quick_gelu") else "gelu"
        if acts != {want}:
            raise ValueError(
                f"hidden_act of both towers in config.json must be {want!r}, as {OPENCLIP_CONFIG} beside it says; got "
                f"{' and '.join(map(repr, sorted(acts)))}; correct whichever is wrong"
            )
        return
    if len(acts) > 1:
        said = f"the same in both towers; got {' and '.join(map(repr, sorted(acts)))}"
    else:
        names = (name, str(read_mapping(folder / "config.json").get("_name_or_path")), folder.name)
        known = (act for known in names for rule, act in TRAINED if re.search(rule, known, re.IGNORECASE))
        want = next(known, *acts)
        if acts == {want}:
            return
        said = f"{want!r}, which the checkpoint's name speaks for; got {acts.pop()!r}"
    warnings.warn(
        f"hidden_act in {str(folder / 'config.json')!r} must be {said}; features are a little wrong if it is not what "
        "the model was trained with",
        ActivationWarning,
        stacklevel=3,
    )
