"""Towers of `timm` as a second eye: they see and cannot read, and methods name them in their needs.

``timm:vit_small_patch14_dinov2.lvd142m`` is a model with the tag of published weights, looked up in Hugging Face's
cache, then on the hub. ``timm:resnet50/FILE.safetensors`` is a model and a file; ``timm:FOLDER`` holds ``config.json``
beside its weights, as `timm` saves it. Weights are read as tensors only, in float32; no code of a checkpoint runs.

Source: Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861; DINOv2, arXiv:2304.07193; DINOv3, arXiv:2508.10104.
Deviations: the embedding is what the classifier would read. What is transparent is laid over white; `timm` drops it.
"""

import math
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from adaptkit import Backbone, Preprocess, hookimpl
from adaptkit.io.errors import alike
from adaptkit.io.hub import nearest
from adaptkit.io.paths import expanded
from adaptkit.towers.checkpoint import read_mapping
from adaptkit.towers.clip import no_tokenizer
from adaptkit.towers.hub import cached, first_file, from_hub
from adaptkit.towers.openclip_files import read_weights
from adaptkit.towers.openclip_images import pooled_by
from adaptkit.towers.processor import are_three, ensure_followed, is_number, is_side
from adaptkit.towers.timm_points import trunk_points

HOW = "'timm:' must be followed by a model of timm with a tag or a file, or by a folder with config.json"
PLACES = ("hf_hub_id", "hf_hub_filename", "url", "file", "source", "custom_load")  # the weights are read already
OWN_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Tower:
    """What a name stands for: the architecture, its ``pretrained_cfg``, what it is built with, and its weights."""

    name: str
    cfg: dict
    options: dict
    file: Path


class TimmEye(Backbone):
    """A tower that sees and cannot read, for needs that name it."""

    tokenize = staticmethod(no_tokenizer)

    def __init__(self, model, preprocess):
        self.model, self.preprocess, self.points = model, preprocess, trunk_points(model)
        self.depth = {"image": len(model.blocks) if self.points else 0}
        with torch.no_grad():
            self.dim = self.image(torch.zeros(1, 3, preprocess.size, preprocess.size), True).shape[-1]
        self.pooled_width, self.width = self.dim, {"image": model.embed_dim if self.points else self.dim}
        self.freeze()

    def image(self, pixels, project):
        return pooled_by(self.model, pixels)


def load(name):
    try:
        import timm
    except ImportError as cause:
        raise ValueError(f"timm must be installed; {cause}; pip install 'adaptkit-vlm[timm]'") from None
    tower = find(name, timm)
    preprocess = read_preprocess(tower.cfg, tower.name)
    held = read_weights(tower.file)
    classifier = f"{tower.cfg.get('classifier') or 'head'}.weight"
    classes = len(held[classifier]) if classifier in held else 0
    cfg = {**tower.cfg, "num_classes": classes, "state_dict": held}
    cfg = {key: value for key, value in cfg.items() if key not in PLACES}
    try:
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(
                tower.name.partition(".")[0], pretrained=True, pretrained_cfg=cfg, num_classes=classes, **tower.options
            )
        model.eval().reset_classifier(0)
        return TimmEye(model, preprocess)
    except Exception as cause:  # of many kinds, and long
        said = " ".join(str(cause).split())[:400]
        raise ValueError(f"{str(tower.file)!r} must hold the weights of {tower.name}; got {said}") from None


def find(name, timm):
    """What the name stands for."""
    folder = expanded(name)
    if name and folder.is_dir():
        return of_folder(folder, timm)
    model, _, rest = name.partition("/")
    if not timm.is_model(model):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise ValueError(f"{HOW}; got {name!r}{alike(model, known) or nearest(folder, Path.is_dir)}")
    cfg = timm.get_pretrained_cfg(model)
    cfg = cfg.to_dict() if cfg is not None else {}
    if not rest:
        return Tower(model, cfg, {}, of_hub(model, cfg, timm))
    file = expanded(rest)
    if not file.is_file():
        raise ValueError(f"what follows 'timm:{model}/' must be a file; got {rest!r}{nearest(file, Path.is_file)}")
    return Tower(model, cfg, {}, file)


def of_folder(folder, timm):
    """As `timm` saves it."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"a folder of timm must hold config.json and weights; got {str(folder)!r} without config.json")
    config = read_mapping(folder / "config.json")
    name, cfg, options = config.get("architecture"), config.get("pretrained_cfg"), config.get("model_args") or {}
    if (
        not isinstance(name, str)
        or not timm.is_model(name)
        or not isinstance(cfg, dict)
        or not isinstance(options, dict)
    ):
        where = f"'architecture' and 'pretrained_cfg' in {str(folder / 'config.json')!r}"
        raise ValueError(f"{where} must be a model of timm and a mapping; got {name!r} and {cfg!r}")
    file = next((folder / own for own in OWN_FILES if (folder / own).is_file()), None)
    if file is None:
        raise ValueError(f"a folder of timm must hold one of {', '.join(OWN_FILES)}; got {str(folder)!r} without")
    return Tower(name, cfg, {key: value for key, value in options.items() if key != "num_classes"}, file)


def of_hub(model, cfg, timm):
    """The file of published weights: in the cache of the hub, or downloaded."""
    repo = cfg.get("hf_hub_id")
    if not repo:
        tags = [tag for tag in timm.list_pretrained(f"{model.partition('.')[0]}.*") if repo_of(tag, timm)]
        said = f"have a tag, one of {', '.join(tags)}" if tags else "come with a file, timm:NAME/FILE"
        raise ValueError(f"a model of timm must {said}; got {model!r}; without weights it answers at random")
    return from_hub(
        repo,
        partial(first_file, repo, OWN_FILES),
        f"weights of {model} must be",
        f"{OWN_FILES[0]} --local-dir {model}; bring that file and write timm:{model}/{model}/{OWN_FILES[0]}",
    )


def repo_of(model, timm):
    """Where the hub has a model's published weights, or nothing."""
    return getattr(timm.get_pretrained_cfg(model), "hf_hub_id", None)


def offline():
    """Models whose published weights Hugging Face's cache holds."""
    here = {repo for repo, _ in cached(*OWN_FILES)}
    if here and find_spec("timm"):
        import timm

        yield from (model for model in timm.list_pretrained() if repo_of(model, timm) in here)


load.offline = offline


def read_preprocess(cfg, name):
    """The preprocessing that a ``pretrained_cfg`` describes, as `timm` evaluates with it."""
    size, share = cfg.get("input_size") or (3, 224, 224), cfg.get("crop_pct") or 0.875
    mode, resample = cfg.get("crop_mode") or "center", cfg.get("interpolation") or "bicubic"
    square = isinstance(size, list | tuple) and len(size) == 3 and size[0] == 3 and size[1] == size[2]
    rules = {
        "input_size": (square and is_side(size[1]), "three channels of a square"),
        "crop_pct": (is_number(share) and 0.1 <= share <= 1, "a number from 0.1 to 1"),
        "crop_mode": (mode == "center" or (mode == "squash" and share == 1), "'center', or 'squash' with crop_pct 1"),
        "interpolation": (resample in ("bicubic", "bilinear"), "'bicubic' or 'bilinear'"),
        "mean": (are_three(cfg.get("mean")), "three numbers"),
        "std": (are_three(cfg.get("std"), positive=True), "three numbers above 0"),
    }
    ensure_followed(rules, cfg, f"of timm's {name}")
    norm = {"mean": tuple(cfg["mean"]), "std": tuple(cfg["std"])}
    fit, edge = "crop" if mode == "center" else "squash", math.floor(size[1] / share)
    return Preprocess(size=size[1], edge=edge, fit=fit, resample=resample, centre="rounded", **norm)


@hookimpl
def backbones():
    return {"timm": load}
