"""Weights of OpenCLIP: which file holds them, and whether they are the model's, all of them."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptkit.towers.activation import OPENCLIP_CONFIG, TRAINED, ActivationWarning
from adaptkit.towers.formats import foreign_file
from adaptkit.towers.hub import first_file, from_hub, snapshot

CONFIG = OPENCLIP_CONFIG
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
PICKLED = (".bin", ".pt", ".pth")
TEXTS = ("*.json", "*.txt", "*.model")
NO_WEIGHTS = ("position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size", "num_batches_tracked")


@dataclass(frozen=True)
class FoundModel:
    """What a name stands for.

    Attributes:
        settings: the model's config, ``model_cfg``.
        preprocess: how its images are made, ``preprocess_cfg``.
        file: of the weights.
        model: OpenCLIP's name of it, "" for a folder's own.
        tag: of published weights, or "".
        folder: that holds config and tokenizer, if one does.
    """

    settings: dict[str, Any]
    preprocess: Mapping[str, Any]
    file: Path
    model: str = ""
    tag: str = ""
    folder: Path | None = None

    @property
    def where(self) -> str:
        """To name in errors."""
        return repr(str(self.folder or "/".join(filter(None, (self.model, self.tag or str(self.file))))))

    @staticmethod
    def file_of(folder: Path) -> Path:
        """The file of weights in a folder as OpenCLIP saves it.

        Raises:
            ValueError: where there is none, or it is not clear which.
        """
        for name in WEIGHT_FILES:
            if (folder / name).is_file():
                return folder / name
        others = sorted(file for kind in (".safetensors", *PICKLED) for file in folder.glob(f"*{kind}"))
        if len(others) != 1:
            got = f"{len(others)} files" if others else "none"
            raise ValueError(f"a folder of OpenCLIP must hold {WEIGHT_FILES[0]}; got {got} in {str(folder)!r}")
        return others[0]


@contextlib.contextmanager
def in_folder(where: str) -> Iterator[None]:
    """Name the model in what is said about it."""
    try:
        yield
    except ValueError as cause:
        raise ValueError(f"{cause}; in {where}") from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name, as they were saved, in single precision; nothing in the file runs.

    Raises:
        ValueError: for a file that holds no tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            held: Any = load_file(file)
        elif file.suffix in PICKLED:
            held = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise ValueError(f"its name must end in .safetensors, or {', '.join(PICKLED)}")
        held = held.get("state_dict", held)
        short = {name.removeprefix("module."): value for name, value in held.items()}
    except Exception as cause:  # of many kinds, and long
        what = foreign_file(file) if "TorchScript" in str(cause) else ""
        said = "" if what else f": {' '.join(str(cause).split())}"
        raise ValueError(f"weights must be tensors in a file of OpenCLIP; got {str(file)!r}{what}{said}") from None
    if odd := next((name for name, value in short.items() if not isinstance(value, Tensor)), None):
        raise ValueError(f"weights must be tensors; got {odd!r} in {str(file)!r}")
    return short


def put_weights(model: Any, found: FoundModel) -> None:  # noqa: ANN401 (OpenCLIP's own)
    """Load weights into a model: all of its own, and no others.

    Raises:
        ValueError: naming the first weight that is missing, over, or of another shape or kind.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.factory import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    held, own = convert_state_dict(model, read_weights(found.file)), model.state_dict()
    if "positional_embedding" in held and "positional_embedding" not in own:
        held = convert_to_custom_text_state_dict(held)
    if found.tag:  # as its publishers mean it
        resize_pos_embed(held, model)
        resize_text_pos_embed(held, model)
    for name in ("logit_scale", "logit_bias"):  # a number, or a list of one
        if name in held and name in own and held[name].numel() == 1:
            held[name] = held[name].reshape(own[name].shape)
    ensure_same_weights(held, own, found)
    model.load_state_dict({name: held[name].to(own[name].dtype) for name in own if name in held}, strict=False)


def ensure_same_weights(held: Mapping[str, Tensor], own: Mapping[str, Tensor], found: FoundModel) -> None:
    """Refuse weights that are not those of the model.

    Raises:
        ValueError: naming the first.
    """
    file, todo = repr(str(found.file)), "bring config and weights of one model"
    absent = [name for name in own if name not in held and not name.endswith(NO_WEIGHTS)]
    over = [name for name in held if name not in own and not name.endswith(NO_WEIGHTS)]
    if absent or over:
        name, what = (absent or over)[0], "without" if absent else "with"
        more = f" and {len(absent or over) - 1} more" if len(absent or over) > 1 else ""
        kind = "every weight of the model" if absent else "weights of the model alone"
        raise ValueError(f"{file} must hold {kind}, {found.model or found.where}; got it {what} {name}{more}; {todo}")
    for name, want in own.items():
        if name in held and held[name].shape != want.shape:
            shapes = f"must have shape {tuple(want.shape)}; got {tuple(held[name].shape)}"
            raise ValueError(f"weight {name!r} in {file} {shapes}; {todo}")
        if name in held and want.is_floating_point() and not held[name].is_floating_point():
            raise ValueError(f"weight {name!r} in {file} must be a floating-point number; got {held[name].dtype}")


def ensure_activation_fits(name: str, quick: bool) -> None:
    """Warn of a file whose name speaks for another activation than the model's: nothing in the weights tells."""
    said = Path(name).name if Path(name).parent == Path() else f"{Path(name).parent.name}/{Path(name).name}"
    known = [*TRAINED, (r"openai|(^|/)(RN50|RN101|ViT-[BL])[^/]*\.pt$", "quick_gelu")]
    want = next((act for rule, act in known if re.search(rule, said, re.IGNORECASE)), None)
    if want and quick != (want == "quick_gelu"):
        warnings.warn(
            f"the model's activation must be {want!r}, which the name of {name!r} speaks for; write the model's name "
            f"{'with' if want == 'quick_gelu' else 'without'} -quickgelu; features are a little wrong if it is so",
            ActivationWarning,
            stacklevel=4,
        )


def weights_of_tag(model: str, tag: str, said: Mapping[str, Any]) -> Path:
    """The file of published weights: in the cache of the hub, or downloaded.

    Raises:
        ValueError: when it is not there and nothing can be fetched, with what to do.
    """
    repo, names = files_of_tag(said)
    shown = names[0] if names == WEIGHT_FILES else names[-1]  # the file that is said to be published
    return from_hub(
        repo,
        partial(first_file, repo, names),
        f"weights {model}/{tag} must be",
        f"{shown} --local-dir {model}; bring that file and write open_clip:{model}/{model}/{shown}",
    )


def files_of_tag(said: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The repository of published weights, and what their file may be called there, the safest first.

    >>> files_of_tag({"hf_hub": "timm/vit_base_patch32_clip_224.openai/model.bin"})
    ('timm/vit_base_patch32_clip_224.openai', ('model.safetensors', 'model.bin'))
    """
    repo, _, file = said["hf_hub"].rpartition("/")
    return repo, (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHT_FILES


def folder_of_hub(name: str, hint: str = "") -> Path:
    """The folder of a repository as OpenCLIP saves it, downloaded if need be.

    Args:
        name: ``owner/name``, with a revision after ``@``, if one is wanted.
        hint: what else the name may mean, to put behind it in an error.

    Raises:
        ValueError: when it is not there and nothing can be fetched.
    """
    repo, _, revision = name.partition("@")
    return from_hub(
        repo,
        partial(snapshot, repo, revision, TEXTS, WEIGHT_FILES),
        "what follows 'open_clip:' must be a folder, a model of OpenCLIP, or",
        f"--local-dir {repo.split('/')[-1]}; bring that folder and name it",
        asked=f"{name!r}{hint}",
        whole=is_whole,
    )


def is_whole(folder: Path) -> bool:
    """Whether a folder holds config and weights of OpenCLIP."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHT_FILES)
