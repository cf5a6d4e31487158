"""Models of OpenCLIP: a name with the tag of published weights or a file, a folder as it saves them, or the hub's.

``open_clip:ViT-B-32/laion2b_s34b_b79k`` is a model and a tag, ``open_clip:ViT-B-32/FILE.safetensors`` a model and a
file. ``open_clip:FOLDER`` has ``open_clip_config.json`` beside its weights. ``open_clip:timm/ViT-B-16-SigLIP`` is such
a folder on the hub. Weights are read as tensors only, in float32; no code of a checkpoint runs.

Source: Ilharco et al., OpenCLIP, doi:10.5281/zenodo.5143773; CLIP, arXiv:2103.00020; CoCa, arXiv:2205.01917; EVA,
arXiv:2303.15389; SigLIP, arXiv:2303.15343; MobileCLIP, arXiv:2311.17049; MetaCLIP, arXiv:2309.16671.
Deviations: what is transparent is laid over white, and pictures of few colours are resized in all colours; OpenCLIP
drops transparency, and resizes palettes without a filter. Opaque pictures are the same, bit for bit. Long sentences are
cut where CLIPA's tokenizers leave out words at random. A file alone does not say its preprocessing: it gets that of the
model's published weights where they agree, else OpenAI's. Positions of a file for another resolution are refused, not
interpolated.
"""

import contextlib
from importlib.util import find_spec
from pathlib import Path

import torch

from adaptkit import hookimpl
from adaptkit.io.errors import alike
from adaptkit.io.hub import is_id, nearest
from adaptkit.io.paths import expanded
from adaptkit.towers.checkpoint import read_mapping
from adaptkit.towers.hub import cached
from adaptkit.towers.openclip import OpenCLIPBackbone, openclip_preprocess
from adaptkit.towers.openclip_files import (
    CONFIG,
    FoundModel,
    ensure_activation_fits,
    files_of_tag,
    folder_of_hub,
    in_folder,
    is_whole,
    put_weights,
    weights_of_tag,
)
from adaptkit.towers.openclip_sizes import ensure_openclip_sizes

HOW = "'open_clip:' must be followed by a model of OpenCLIP with a tag or a file, or by a folder with " + CONFIG


def load(name):
    try:
        import open_clip
    except ImportError as cause:
        raise ValueError(f"open_clip must be installed; {cause}; pip install 'adaptkit-vlm[open-clip]'") from None
    found = find(name, open_clip)
    ensure_openclip_sizes(found)
    model = made(found)
    said = f"'preprocess_cfg' of {found.where}"
    preprocess = openclip_preprocess(found.preprocess, model.visual.image_size, said)
    put_weights(model, found)
    with in_folder(found.where):
        return OpenCLIPBackbone(model, tokenizer(found, open_clip), preprocess, found.settings)


def find(name, open_clip):
    """What the name stands for: settings, preprocessing and weights."""
    folder = expanded(name)
    if name and folder.is_dir():
        return from_folder(folder)
    model, _, rest = name.partition("/")
    if model in open_clip.list_models():
        return of_model(model, rest, open_clip)
    if "/" in name and is_id(name.partition("@")[0]):
        return from_folder(folder_of_hub(name, alike(model, open_clip.list_models())))
    raise ValueError(f"{HOW}; got {name!r}{alike(model, open_clip.list_models()) or nearest(folder, Path.is_dir)}")


def from_folder(folder):
    """As OpenCLIP saves it."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"a folder of OpenCLIP must hold {CONFIG} and weights; got {str(folder)!r} without {CONFIG}")
    config = read_mapping(folder / CONFIG)
    settings, spec = config.get("model_cfg"), config.get("preprocess_cfg", {})
    for key, value in (("model_cfg", settings), ("preprocess_cfg", spec)):
        if not isinstance(value, dict):
            raise ValueError(f"{key!r} in {str(folder / CONFIG)!r} must be a mapping; got {value!r}")
    return FoundModel(settings, {**defaults(), **spec}, FoundModel.file_of(folder), folder=folder)


def of_model(model, rest, open_clip):
    """A model that OpenCLIP knows by name, and a tag or a file."""
    from open_clip.pretrained import get_pretrained_cfg

    tags, file = {tag: get_pretrained_cfg(model, tag) for tag in tags_of(model, open_clip)}, expanded(rest)
    settings = open_clip.get_model_config(model)
    tag = rest.lower().replace("-", "_")
    if tag in tags:
        ensure_same_gelu(model, rest, settings, tags[tag], open_clip)
        return FoundModel(settings, {**defaults(), **tags[tag]}, weights_of_tag(model, rest, tags[tag]), model, rest)
    fits = [known for known in tags if fits_gelu(settings, tags[known])]
    if rest and file.is_file():
        agreed = {str(sorted((key, tags[known].get(key)) for key in defaults())) for known in tags}
        spec = {**defaults(), **(next(iter(tags.values())) if len(agreed) == 1 else {})}
        ensure_activation_fits(rest, quick=bool(settings.get("quick_gelu")))
        return FoundModel(settings, spec, file, model)
    said = f"a tag, one of {', '.join(fits)}, or a file" if fits else "a file"
    if not fits and tags:
        said += f", or {model}-quickgelu with one of {', '.join(tags)}"
    hint = alike(rest, fits) or nearest(file, Path.is_file) if rest else "; without weights a model answers at random"
    raise ValueError(f"what follows 'open_clip:{model}/' must be {said}; got {rest!r}{hint}")


def tags_of(model, open_clip):
    """Of the model's published weights."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    return list_pretrained_tags_by_model(model)


def fits_gelu(settings, tag):
    """Whether weights were trained with the model's activation; towers of `timm` have their own."""
    return bool(tag.get("quick_gelu")) == bool(settings.get("quick_gelu"))


def ensure_same_gelu(model, tag, settings, said, open_clip):
    """Refuse QuickGELU's weights under a name without it, and the reverse."""
    if fits_gelu(settings, said):
        return
    other = model.removesuffix("-quickgelu") if settings.get("quick_gelu") else f"{model}-quickgelu"
    want = "QuickGELU" if said.get("quick_gelu") else "GELU"
    todo = f"write open_clip:{other}/{tag}" if other in open_clip.list_models() else "take weights of its own"
    raise ValueError(f"weights must have the model's activation; got {model}/{tag}, trained with {want}; {todo}")


def defaults():
    """OpenCLIP's preprocessing where nothing else is said."""
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    return {key: value for key, value in asdict(PreprocessCfg()).items() if key not in ("size", "fill_color")}


def made(found):
    """The model of a config, with random weights; no other weights are fetched for its parts."""
    from copy import deepcopy

    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    settings = deepcopy(found.settings)
    apart = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    settings["vision_cfg"] |= {"timm_model_pretrained": False} if "timm_model_name" in settings["vision_cfg"] else {}
    settings["text_cfg"] |= {"hf_model_pretrained": False} if "hf_model_name" in settings["text_cfg"] else {}
    kind = CoCa if apart and "multimodal_cfg" in settings else CustomTextCLIP if apart else CLIP
    try:
        with torch.random.fork_rng(devices=[]):
            return kind(**settings).eval()
    except Exception as cause:  # of many kinds, and long
        raise ValueError(f"{found.where} must be a model of OpenCLIP: {' '.join(str(cause).split())}") from None


def tokenizer(found, open_clip):
    """The model's own; with a folder, from its files."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = found.settings["text_cfg"]
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if mode := text.get("tokenizer_mode"):
        raise ValueError(f"'tokenizer_mode' must be left out; got {mode!r}, whose tokens are not read")
    if not (named := text.get("hf_tokenizer_name")):
        return SimpleTokenizer(**{key: value for key, value in options.items() if key != "reduction_mask"})
    place = str(found.folder) if found.folder else named
    try:
        with contextlib.redirect_stderr(None):
            return HFTokenizer(place, **options)
    except Exception as cause:  # of many kinds, and long
        got = " ".join(str(cause).split())
        raise ValueError(f"the tokenizer {named!r} must load from {place!r}; got {got}") from None


def offline():
    """What Hugging Face's cache holds for OpenCLIP: repositories as it saves them, and models with a tag."""
    if not find_spec("open_clip"):
        return
    yield from (repo for repo, folder in cached(CONFIG) if is_whole(folder))
    if held := {(repo, file.name) for repo, folder in cached("*") for file in folder.iterdir()}:
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg

        for model, tag in open_clip.list_pretrained():
            said = get_pretrained_cfg(model, tag)
            repo, names = files_of_tag(said)
            if fits_gelu(open_clip.get_model_config(model), said) and any((repo, name) in held for name in names):
                yield f"{model}/{tag}"


load.offline = offline


@hookimpl
def backbones():
    return {"open_clip": load}
