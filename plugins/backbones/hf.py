"""Checkpoints through `transformers`: CLIP, MetaCLIP 2 and SigLIP, and DINO or another ViT as a second eye.

``hf:checkpoints/mine`` is a folder. ``hf:openai/clip-vit-large-patch14``, or ``...@revision``, is looked up in Hugging
Face's cache, then on the hub if that answers within three seconds. Weights are read as tensors only, in float32; no
code of a checkpoint runs; preprocessing is the checkpoint's own. ``hf:BASE#FOLDER`` has an adapter of PEFT merged in.

Source: CLIP, arXiv:2103.00020; MetaCLIP 2, arXiv:2507.22062; SigLIP, arXiv:2303.15343; SigLIP 2, arXiv:2502.14786;
DINO, arXiv:2104.14294; DINOv2, arXiv:2304.07193; registers, arXiv:2309.16588; DINOv3, arXiv:2508.10104.
Deviations: SigLIP 2 works at fixed resolution (model_type siglip), not as NaFlex (siglip2). A second eye's embedding is
its class token after the last norm, without pooler. Images are resized in 8 bits, where `transformers` resizes DINOv3's
as floating point.
"""

import contextlib
from functools import partial
from pathlib import Path

from torch import nn

from adaptkit import Backbone, hookimpl
from adaptkit.io.errors import must_be
from adaptkit.io.hub import is_id, nearest
from adaptkit.io.paths import expanded
from adaptkit.towers.activation import ensure_activation
from adaptkit.towers.adapters import merge_adapter, split_adapter
from adaptkit.towers.checkpoint import NEEDED, ensure_fits, ensure_floats, ensure_whole, missing, read_mapping
from adaptkit.towers.clip import LINEARS, CLIPBackbone, SiglipBackbone, block_points, no_tokenizer
from adaptkit.towers.formats import foreign_file
from adaptkit.towers.hub import cached, from_hub, snapshot
from adaptkit.towers.processor import read_preprocess
from adaptkit.towers.sizes import ensure_sizes
from adaptkit.towers.tokens import Words

READERS = {"clip": CLIPBackbone, "metaclip_2": CLIPBackbone, "siglip": SiglipBackbone}
EYES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
ANY_SIZE = EYES[:3]  # their positions are interpolated, or rotary
ALONE = "this is one tower alone; take the checkpoint with both"
OTHERS = {
    "siglip2": "this is NaFlex, whose images keep their shape; take SigLIP 2 at a fixed resolution, of model_type "
    "siglip, e.g. google/siglip2-base-patch16-224",
    "dinov3_convnext": "take DINOv3 with a ViT, e.g. facebook/dinov3-vits16-pretrain-lvd1689m",
    **{f"{kind}_{tower}_model": ALONE for kind in ("siglip2", *READERS) for tower in ("text", "vision")},
}
VOCABULARIES = ("tokenizer.json", "vocab.json", "*.model")
TEXTS, SAFE = ("*.json", "*.txt", "*.model"), "model*.safetensors"
BINS = "pytorch_model*.bin"  # of older repositories; read with weights_only, so that no code in it runs
EYE_LINEARS = {**LINEARS, "o_proj": "out", "up_proj": "fc1", "down_proj": "fc2"}


class SecondEye(Backbone):
    """A tower that sees and cannot read, for needs that name it."""

    tokenize = staticmethod(no_tokenizer)

    def __init__(self, model, preprocess):
        self.model, self.preprocess, self.dim = model, preprocess, model.config.hidden_size
        layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
        self.points = {"image.tokens": model.embeddings, **block_points("image", layers, EYE_LINEARS)}
        self.width, self.depth = {"image": self.dim}, {"image": len(layers)}
        self.freeze()

    def image(self, pixels, project):
        return self.model(pixels).last_hidden_state[:, 0]


def load(name):
    from transformers import CONFIG_MAPPING

    name, adapter = split_adapter(name)
    folder = find(name)
    ensure_whole(folder)
    config = read_mapping(folder / "config.json")
    kind = config.get("model_type")
    if kind not in (*READERS, *EYES):
        raise ValueError(wrong_kind(folder, kind))
    if "quantization_config" in config:
        raise ValueError(f"a checkpoint must hold plain weights; got {str(folder)!r}, quantised; take the original")
    if kind in READERS and not any(any(folder.glob(file)) for file in VOCABULARIES):  # or an empty one is made up
        raise ValueError(f"a {kind} checkpoint must hold one of {', '.join(VOCABULARIES)}; got {str(folder)!r}")
    ensure_sizes(config, CONFIG_MAPPING[kind], folder)
    file = min(folder.glob(NEEDED[1]))
    preprocess = read_preprocess(read_mapping(file), file)
    model, words = towers(folder, kind)
    ensure_square(model.config, preprocess, file)
    if adapter:
        merge_adapter(model, expanded(adapter))
    with in_folder(folder):
        if kind in EYES:
            return SecondEye(model, preprocess)
        ensure_activation(folder, name, model.config)
        file = folder / "tokenizer_config.json"
        words = Words(words, model.config, read_mapping(file) if file.is_file() else {})
        backbone = READERS[kind](model, words, preprocess)
        words.ensure_end(backbone)
    backbone.vocabulary = words.vocabulary
    return backbone


def wrong_kind(folder, kind):
    """What to say about a model_type: a hint for those that are known, the nearest for what may be misspelt."""
    from transformers import CONFIG_MAPPING

    what, allowed = f"model_type in {str(folder / 'config.json')!r}", [*READERS, *EYES]
    if not isinstance(kind, str):
        return f"{what} must be one of {', '.join(allowed)}; got {kind!r}"
    if kind in OTHERS:
        return f"{what} must be one of {', '.join(allowed)}; got {kind!r}; {OTHERS[kind]}"
    if kind in CONFIG_MAPPING:  # another model, not another spelling
        return f"{what} must be one of {', '.join(allowed)}; got {kind!r}; its towers are not read"
    return must_be(what, allowed, kind)


@contextlib.contextmanager
def in_folder(folder):
    """Name the checkpoint in what is said about it."""
    try:
        yield
    except ValueError as cause:
        raise ValueError(f"{cause}; in checkpoint {str(folder)!r}") from None


def towers(folder, kind):
    """Model and tokenizer, with `transformers` kept quiet."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    words, verbosity, bars = None, logging.get_verbosity(), logging.is_progress_bar_enabled()
    own = {"local_files_only": True, "trust_remote_code": False}
    options = {**own, "weights_only": True, "dtype": "float32", "output_loading_info": True}
    options |= {"ignore_mismatched_sizes": True}  # they are refused below, by name
    options |= {"add_pooling_layer": False} if kind == "vit" else {}  # DINO comes without
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model, info = AutoModel.from_pretrained(folder, **options)
        if kind in READERS:
            words = AutoTokenizer.from_pretrained(folder, **own)
    except Exception as cause:  # of many kinds, and long
        needs = isinstance(cause, ImportError) and ("sentencepiece" in str(cause).lower() or "protobuf" in str(cause))
        hint = "; try pip install 'adaptkit-vlm[siglip]'" * needs
        raise ValueError(f"a checkpoint must load; got {str(folder)!r}: {' '.join(str(cause).split())}{hint}") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    ensure_floats(folder, model.state_dict())
    ensure_fits(folder, info, (name for name, _ in model.named_children()))
    return model, words


def ensure_square(config, preprocess, file):
    """Refuse preprocessing for a tower of another size, before an image meets it."""
    vision = getattr(config, "vision_config", config)
    side, patch = (max(n) if isinstance(n, list | tuple) else n for n in (vision.image_size, vision.patch_size))
    if config.model_type in ANY_SIZE:
        good, want = preprocess.size >= patch, f"at least {patch}, a patch"
    else:
        good, want = preprocess.size == side, f"{side}, the image_size in config.json"
    if not good:
        raise ValueError(f"the square of {str(file)!r} must have side {want}; got {preprocess.size}")


def find(name):
    """The folder of a checkpoint, downloaded if need be."""
    path, (repo, _, revision) = expanded(name), name.partition("@")
    if name and path.is_dir():
        return path
    asked = f"{name!r}{nearest(path, Path.is_dir)}"
    if path.exists() or not is_id(repo):
        what = foreign_file(path) if path.is_file() else ""
        raise ValueError(f"what follows 'hf:' must be a folder or an id of the hub; got {asked}{what}")
    place, at = repo.split("/")[-1], f"--revision {revision} " if revision else ""
    return from_hub(
        repo,
        partial(snapshot, repo, revision, TEXTS, (SAFE, BINS)),
        "what follows 'hf:' must be a folder or",
        f"{at}--local-dir {place}; bring that folder and write hf:{place}, or bring the whole cache and set HF_HOME to "
        "it",
        asked=asked,
        whole=lambda folder: not missing(folder),
    )


def offline():
    """Ids in Hugging Face's cache whose config names a model that is read here."""
    for repo, folder in cached("config.json"):
        with contextlib.suppress(OSError, ValueError):
            if read_mapping(folder / "config.json").get("model_type") in (*READERS, *EYES) and not missing(folder):
                yield repo


load.offline = offline


@hookimpl
def backbones():
    return {"hf": load}
