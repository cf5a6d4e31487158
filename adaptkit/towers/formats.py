"""What a file or folder is that is no checkpoint of `transformers`, and what to do with it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from adaptkit.io.jsons import read_json

ANOTHER = "take the same model from the hub as transformers reads it, with config.json and model.safetensors"
SCRIPT = "convert_clip_original_pytorch_to_hf.py of the transformers repository"
OF_OPENCLIP = (
    "a checkpoint of OpenCLIP",
    f"write open_clip: and its folder, with 'adaptkit-vlm[open-clip]' installed, or convert it with {SCRIPT}",
)
OPENAI = (
    "a TorchScript archive, as OpenAI publishes CLIP",
    "take its weights from the hub: hf:openai/clip-vit-base-patch32",
)
ADAPTER = (
    "an adapter of PEFT, not a whole model",
    "write hf:, its base {base}, # and this folder: it is merged",
)
LORA = "a LoRA, not a whole model", "merge it into its base model, save that, and name that folder"
DIFFUSERS = (
    "a pipeline of diffusers, whose text tower has no image tower",
    "take the CLIP checkpoint that it was built on",
)
STATE = "weights of transformers without their folder", "name the folder that also holds config.json"
LIGHTNING = (
    "a training checkpoint of Lightning",
    "load it where it was trained and write the model with save_pretrained; then name that folder",
)
UNKNOWN = "a file of weights without a config", "name a folder that transformers' save_pretrained wrote"

TELLING = {  # in folders, the most telling first
    "adapter_config.json": ADAPTER,
    "adapter_model.*": ADAPTER,
    "pytorch_lora_weights.*": LORA,
    "model_index.json": DIFFUSERS,
    "open_clip_*": OF_OPENCLIP,
    "modules.json": (
        "a model of sentence-transformers",
        "name the folder of its CLIP model inside it, e.g. 0_CLIPModel",
    ),
    "snapshots": ("a folder of the hub's cache", "name the model by its id, or a folder inside snapshots/"),
    "*.gguf": ("a GGUF file, of llama.cpp", ANOTHER),
    "*.onnx": ("an ONNX export", ANOTHER),
    "onnx": ("an ONNX export", ANOTHER),
    "*.h5": ("weights of TensorFlow", ANOTHER),
    "*.msgpack": ("weights of Flax", ANOTHER),
    "*.npz": ("weights of JAX, as big_vision publishes SigLIP", ANOTHER),
    "*.ckpt": LIGHTNING,
    "*.fp16.safetensors": ("a variant of the weights", "rename it to model.safetensors"),
}
MAGIC = {b"GGUF": TELLING["*.gguf"], b"\x89HDF": TELLING["*.h5"]}


def foreign_folder(folder: Path) -> str:
    """What a folder without what `transformers` needs looks like, and what to do: a clause for an error, or ""."""
    found = next((what for pattern, what in TELLING.items() if any(folder.glob(pattern))), None)
    if found is None:
        weights = sorted(file for suffix in ("pt", "pth", "bin") for file in folder.glob(f"*.{suffix}"))
        return foreign_file(weights[0]) if weights else ""
    return clause(found, folder)


def foreign_file(file: Path) -> str:
    """What a file that was named in a folder's place is, and what to do: a clause for an error, or ""."""
    found = next((what for pattern, what in TELLING.items() if file.match(pattern)), None)
    with file.open("rb") as opened:
        found = MAGIC.get(opened.read(4), found)
    if found is None:
        found = _by_content(file)
    return clause(found, file) if found else ""


def clause(found: tuple[str, str], path: Path) -> str:
    """``"; this is an adapter of PEFT; merge it ..."``, with its base named where the folder says it."""
    what, todo = found
    base = ""
    if found is ADAPTER:
        try:
            base = read_json(path / "adapter_config.json")["base_model_name_or_path"]
        except (OSError, ValueError, LookupError, TypeError):
            base = ""
    return f"; this is {what}; {todo.format(base=repr(base)) if base else todo.replace('{base} ', '')}"


def _by_content(file: Path) -> tuple[str, str] | None:
    """What the tensors of a file say; nothing in it runs."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
            if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
                return OPENAI
        return _by_names(_names(file))
    except Exception:  # of many kinds; a file that cannot be read says nothing
        return None


def _names(file: Path) -> Iterable[str]:
    """Names of a file's tensors."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return [*opened.keys()]
    held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if "pytorch-lightning_version" in held:
        return ["pytorch-lightning_version"]
    return [*held.get("state_dict", held.get("model", held))]


def _by_names(names: Iterable[str]) -> tuple[str, str]:
    """What a model with tensors of these names is."""
    short = [name.removeprefix("module.").removeprefix("model.") for name in names]
    if "pytorch-lightning_version" in short:
        return LIGHTNING
    if any("lora_" in name for name in short):
        return LORA
    if any(name.startswith(("visual.", "transformer.resblocks.")) for name in short):
        return OF_OPENCLIP
    return STATE if any(name.startswith(("vision_model.", "text_model.")) for name in short) else UNKNOWN
