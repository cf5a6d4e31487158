"""Checkpoints through `transformers`: CLIP and SigLIP, and DINO or another ViT as a second eye.

``hf:checkpoints/mine`` is a folder. ``hf:openai/clip-vit-large-patch14``, or ``...@revision``, is looked up in Hugging
Face's cache, then on the hub if that answers within three seconds. Weights are read as tensors only, in float32; no
code of a checkpoint runs; preprocessing is the checkpoint's own.

Source: CLIP, arXiv:2103.00020; SigLIP, arXiv:2303.15343; DINO, arXiv:2104.14294; DINOv2, arXiv:2304.07193.
Deviations: none known. SigLIP 2 works at fixed resolution (model_type siglip), not as NaFlex (siglip2). A second eye's
embedding is its class token after the last norm, without pooler.
"""

import contextlib
from pathlib import Path

from torch import nn

from adaptkit import Backbone, Preprocess, hookimpl
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest
from adaptkit.io.hub import host_answers, is_id, nearest
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import expanded
from adaptkit.towers.clip import LINEARS, CLIPBackbone, SiglipBackbone, block_points, no_tokenizer

READERS = {"clip": CLIPBackbone, "siglip": SiglipBackbone}
EYES = ("dinov2", "vit")
NEEDED = ("config.json", "*processor_config.json", "*.safetensors")
OLD_WEIGHTS = "pytorch_model.bin"  # read with weights_only, so that no code in it runs
VOCABULARIES = ("tokenizer.json", "vocab.json", "*.model")


class SecondEye(Backbone):
    """A tower that sees and cannot read, for needs that name it."""

    tokenize = staticmethod(no_tokenizer)

    def __init__(self, model, preprocess):
        self.model, self.preprocess, self.dim = model, preprocess, model.config.hidden_size
        layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
        self.points = {"image.tokens": model.embeddings, **block_points("image", layers, LINEARS)}
        self.width, self.depth = {"image": self.dim}, {"image": len(layers)}
        self.freeze()

    def image(self, pixels, project):
        return self.model(pixels).last_hidden_state[:, 0]


def load(name):
    folder = find(name)
    if absent := missing(folder):
        raise ValueError(f"a checkpoint must hold {', '.join(NEEDED)}; got {str(folder)!r} without {absent[0]}")
    kind = read(folder / "config.json").get("model_type")
    if kind not in (*READERS, *EYES):
        raise ValueError(must_be(f"model_type in {str(folder / 'config.json')!r}", [*READERS, *EYES], kind))
    if kind in READERS and not any(any(folder.glob(file)) for file in VOCABULARIES):  # or an empty one is made up
        raise ValueError(f"a {kind} checkpoint must hold one of {', '.join(VOCABULARIES)}; got {str(folder)!r}")
    preprocess = preprocessing(min(folder.glob(NEEDED[1])))
    model, words = towers(folder, kind)
    if kind in EYES:
        return SecondEye(model, preprocess)
    backbone = READERS[kind](model, tokenizer(words, model.config), preprocess)
    backbone.vocabulary = digest(words.backend_tokenizer.to_str().encode())
    return backbone


def missing(folder):
    """What a checkpoint's folder lacks."""
    absent = [file for file in NEEDED if not any(folder.glob(file))]
    return [] if absent == [NEEDED[2]] and (folder / OLD_WEIGHTS).is_file() else absent


def towers(folder, kind):
    """Model and tokenizer, with `transformers` kept quiet."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    words, verbosity, bars = None, logging.get_verbosity(), logging.is_progress_bar_enabled()
    options = {"weights_only": True, "dtype": "float32", "output_loading_info": True, "local_files_only": True}
    options |= {"add_pooling_layer": False} if kind == "vit" else {}  # DINO comes without
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model, info = AutoModel.from_pretrained(folder, **options)
        if kind in READERS:
            words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as cause:  # of many kinds, and long
        hint = "; try pip install 'adaptkit-vlm[siglip]'" * isinstance(cause, ImportError)
        raise ValueError(f"a checkpoint must load; got {str(folder)!r}: {' '.join(str(cause).split())}{hint}") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if absent := info["missing_keys"]:  # they would be random
        raise ValueError(f"a checkpoint must hold every weight; got {str(folder)!r} without {min(absent)}")
    return model, words


def tokenizer(words, config):
    """Sentences to tokens, cut at the tower's length; SigLIP reads its padding, so there is always all of it."""
    length, padding = (
        config.text_config.max_position_embeddings,
        "longest" if config.model_type == "clip" else "max_length",
    )
    options = {"padding": padding, "truncation": True, "max_length": length, "return_tensors": "pt"}
    return lambda sentences: words(list(sentences), **options)


def find(name):
    """The folder of a checkpoint, downloaded if need be."""
    from huggingface_hub import constants, errors, snapshot_download

    path, (repo, _, revision) = expanded(name), name.partition("@")
    if name and path.is_dir():
        return path
    got = f"got {name!r}{nearest(path, Path.is_dir)}"
    if path.exists() or not is_id(repo):
        raise ValueError(f"what follows 'hf:' must be a folder or an id of the hub; {got}")
    wanted = {"revision": revision or None, "allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"]}
    with contextlib.suppress(errors.LocalEntryNotFoundError):
        folder = Path(snapshot_download(repo, **wanted, local_files_only=True))
        if not missing(folder):
            return folder
    if constants.HF_HUB_OFFLINE or not host_answers(constants.ENDPOINT):
        place, at = repo.split("/")[-1], f" --revision {revision}" if revision else ""
        raise ValueError(
            f"what follows 'hf:' must be a folder or in {constants.HF_HUB_CACHE!r} while HF_HUB_OFFLINE is set or "
            f"{constants.ENDPOINT} does not answer; {got}\nwhere there is network: hf download {repo}{at} --local-dir "
            f"{place}; bring that folder and write hf:{place}, or bring the whole cache and set HF_HOME to it"
        )
    try:
        folder = Path(snapshot_download(repo, **wanted))
        if not any(folder.glob("*.safetensors")):  # older repositories
            folder = Path(snapshot_download(repo, **{**wanted, "allow_patterns": [OLD_WEIGHTS]}))
        return folder
    except Exception as cause:  # of many kinds, and long
        raise ValueError(f"{repo!r} must be on {constants.ENDPOINT}; {got}: {' '.join(str(cause).split())}") from None


def read(file):
    try:
        return read_json(file)
    except (OSError, ValueError) as cause:
        raise ValueError(f"{str(file)!r} must be JSON: {cause}") from None


def preprocessing(file):
    """The checkpoint's own. A size that is one number is the shortest side's before a crop, or else a square's."""
    spec = read(file)
    spec = {key: value for key, value in spec.get("image_processor", spec).items() if value is not None}
    size, crops = spec.get("size", 0), spec.get("do_center_crop", False)
    size = size if isinstance(size, dict) else {"shortest_edge": size} if crops else {"height": size, "width": size}
    box = spec.get("crop_size", 0) if crops else size
    side = box.get("height") if isinstance(box, dict) else box
    square = side and box in (side, {"height": side, "width": side})
    fits = size.get("shortest_edge") and len(size) == 1 if crops else square
    rules = {
        **{key: (spec.get(key, True), "true") for key in ("do_resize", "do_rescale", "do_normalize")},
        "size": (fits, "a shortest_edge with do_center_crop, an equal height and width without"),
        "crop_size": (square, "an equal height and width"),
        "rescale_factor": (abs(spec.get("rescale_factor", 1 / 255) - 1 / 255) < 1e-9, "1/255"),
        "resample": (spec.get("resample") in (2, 3), "2 (bilinear) or 3 (bicubic)"),
        **{key: (len(spec.get(key, ())) == 3, "three numbers") for key in ("image_mean", "image_std")},
    }
    for key, (good, allowed) in rules.items():
        if not good:
            raise ValueError(f"{key!r} in {str(file)!r} must be {allowed}; got {spec.get(key)!r}")
    norm = {"mean": tuple(spec["image_mean"]), "std": tuple(spec["image_std"])}
    fit, resample = "crop" if crops else "squash", "bilinear" if spec["resample"] == 2 else "bicubic"
    return Preprocess(size=side, edge=size.get("shortest_edge", 0), fit=fit, resample=resample, **norm)


@hookimpl
def backbones():
    return {"hf": load}
