"""One adapted classifier in a folder: tensors in safetensors, the rest in JSON, and a model card; no code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save as write_tensors
from torch import Tensor

from adaptkit import __version__
from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Images
from adaptkit.io.files import atomic_write, digest
from adaptkit.io.text import distinct
from adaptkit.methods.evaluation.maps import map_of
from adaptkit.methods.method import Method
from adaptkit.methods.predicting import Answered, Asked, accuracy, predict, predict_batches
from adaptkit.methods.task import NoTowers, Task
from adaptkit.runs.loading import open_cache, pick_backbone, pick_device
from adaptkit.runs.setting import Setting
from adaptkit.saving import state
from adaptkit.saving.config import CONFIG, as_written, calibrated, read_saved, remove_saved, sealed, write_saved
from adaptkit.saving.kinds import ensure_kind
from adaptkit.saving.model_card import model_card
from adaptkit.saving.origin import ensure_towers, folder_of, identity, open_backbone
from adaptkit.saving.pictures import Picture, as_images, asked_texts
from adaptkit.towers.backbone import Backbone

CARD = "README.md"
ASKED_AGAIN = 64  # images that a saved classifier must answer as before


@dataclass(frozen=True)
class Classifier:
    """A saved classifier, loaded.

    Attributes:
        method: adapted and frozen.
        backbone: the towers it was adapted to; a stand-in that encodes nothing, where it was adapted to features.
        classnames: C names that all differ, in the order of the logits.
        config: what `save_classifier` wrote about it.
        cache: where the features of pictures are kept; ``None`` without towers.

    >>> import tempfile
    >>> import adaptkit as ak
    >>> folder, (task, test) = tempfile.mkdtemp(), ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.save_classifier(folder, ak.adapt(ak.method("gda"), task), task, backbone="toy:0")
    >>> classifier = ak.load_classifier(folder)
    >>> classifier(test).shape, classifier.classnames[0]
    (torch.Size([60, 5]), 'cat')
    """

    method: Method
    backbone: Backbone
    classnames: tuple[str, ...]
    config: Mapping[str, Any]
    cache: FeatureCache | None

    def __call__(self, images: Images | Tensor | np.ndarray | Mapping[str, Tensor] | Sequence[Picture]) -> Tensor:
        """Pictures (paths, or images in memory), or features ``(N, D)``, to ``(N, C)`` logits or ``(N,)`` scores.

        Of a task of maps to these, ``(N, H, W)``, or ``(N, 2, H, W)`` with scores of images; see `image_scores`.
        """
        with as_written():
            return predict(self.method, self._asked(images)) / self.temperature

    @property
    def searches(self) -> bool:
        """Whether it ranks the items of a gallery, `classnames`, for texts, and does not label pictures."""
        return bool(self.method.gallery_needs())

    @property
    def temperature(self) -> float:
        """By which logits are divided, so that probabilities are as large as answers are often right."""
        return float(self.config.get("temperature", 1.0))

    def batches(self, parts: Iterable[Asked | Sequence[Picture]]) -> Iterator[Answered]:
        """What calling it with one part after another gives, batch by batch; see `predict_batches`."""
        blocks = predict_batches(self.method, map(self._asked, parts))
        while True:
            with as_written():
                found = next(blocks, None)
            if found is None:
                return
            yield found[0], found[1] / self.temperature

    def _asked(self, images: Asked | Sequence[Picture]) -> Asked:
        if isinstance(images, Images | Tensor | np.ndarray | Mapping):
            return images
        if self.cache is None:
            raise ValueError("images must be features for a classifier that was adapted to features; got pictures")
        return asked_texts(self.method, images, self.cache) if self.searches else as_images(images, self.cache)


def save_classifier(
    folder: Path | str,
    method: Method,
    task: Task,
    *,
    backbone: str = "",
    test: Images | None = None,
    protocol: Mapping[str, Any] | None = None,
    source: str = "",
    temperature: float = 1.0,
    expected: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapted method, load it again, and make sure that it answers as before.

    Args:
        folder: new or empty.
        method: as adapted.
        task: that it was adapted to.
        backbone: name that the towers of `task` load by, e.g. ``"hf:openai/clip-vit-base-patch16"``; "" for arrays.
        test: labelled images to state the accuracy on.
        protocol: how it was adapted, by name, e.g. ``{"dataset": "toy", "shots": 4}``; JSON values.
        source: of the images, with their licence.
        temperature: that the loaded classifier divides logits by.
        expected: of its accuracy on other images, for the card.

    Raises:
        ValueError: when the folder is in use, or the method cannot be saved.
    """
    folder = vacant(Path(folder))
    said = {"protocol": dict(protocol or {}), "source": source, **_tested(method, test)}
    config, data = _described(method, task, backbone, {**said, **calibrated(temperature, expected)})
    write_saved(folder, config, data)
    try:
        again = load_classifier(folder, device=torch.device(task.support.device).type)
        _ensure_answers(again, method, test)
        atomic_write(folder / CARD, model_card(method, config).encode())
    except BaseException:
        remove_saved(folder)
        raise


def _described(method: Method, task: Task, name: str, said: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What ``config.json`` says, what the caller `said` in its place, and the tensors as bytes."""
    if bool(name) == isinstance(task.backbone, NoTowers):
        raise ValueError(f"backbone must be the name that the task's towers load by, '' for arrays; got {name!r}")
    ensure_kind(task)
    node, tensors = state.dump(method, task.backbone)
    data = write_tensors(tensors)
    second = {need.backbone for need in method.all_needs()} - {""}
    config = {
        "adaptkit": __version__,
        "options": repr(method),
        "backbone": name,
        "lay": {other: place for other in (name, *second) if (place := folder_of(other))},
        "towers": {name: identity(task.backbone), **{other: identity(pick_backbone(other)) for other in second}},
        "classnames": task.labelnames,
        "prompts": task.prompts,
        **said,
        "sha256": digest(data),
        "method": node,
    }
    return sealed(config), data


def _ensure_answers(again: Classifier, method: Method, test: Images | None) -> None:
    """Refuse a classifier that does not answer the first test images as the method does."""
    if test is not None:
        rows = test[:ASKED_AGAIN]
        if not torch.allclose(
            predict(method, rows) / again.temperature, again(rows), rtol=1e-4, atol=1e-4
        ):  # some GPUs' sums vary
            raise ValueError(f"{type(method).__name__} must answer as before when it is loaded; it does not")


def vacant(folder: Path) -> Path:
    """A folder, or a ``ValueError`` when something is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"a classifier must be saved to a new or empty folder; got {str(folder)!r}")
    return folder


def load_classifier(
    folder: Path | str,
    *,
    backbone: str = "",
    device: str = "auto",
    home: Path | None = None,
    batch_size: int | Literal["auto", "saved"] = "saved",
    workers: int | Literal["auto"] = "auto",
) -> Classifier:
    """Load what `save_classifier` or ``adaptkit export`` wrote. Nothing is fitted, and no code of the folder runs.

    Args:
        folder: with ``model.safetensors`` and ``config.json``.
        backbone: name that the towers load by now, where it is another than when the classifier was saved; they must
            be the same towers.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and the like, or ``"mps"``.
        home: where features of pictures are kept; default ``$ADAPTKIT_HOME``.
        batch_size: pictures in one pass of a tower; ``"saved"`` is as many as when it was adapted.
        workers: pictures decoded at once; ``"auto"`` is one for each core.

    Raises:
        ValueError: when the folder is no classifier, or its backbone is not the one that was adapted.
    """
    config, tensors = read_saved(folder := Path(folder))
    name, towers, protocol = (config[key] for key in ("backbone", "towers", "protocol"))
    classnames, where = distinct(config["classnames"]), pick_device(device)
    if not name:
        if backbone:
            raise ValueError(f"backbone must be '' for a classifier that was adapted to features; got {backbone!r}")
        alone = _stand_in(folder, towers[name])
        return Classifier(_built(config, tensors, alone).to(where), alone, classnames, config, None)
    own = open_backbone(config, backbone).to(where)
    asked = protocol if batch_size == "saved" else {**protocol, "batch_size": batch_size}
    how = {key: asked[key] for key in ("dtype", "precision", "batch_size") if key in asked}
    cache = open_cache(own, Setting(dataset="", backbone=backbone or name, workers=workers, **how), home=home)
    ensure_towers(config, {tower: own if tower == name else cache.tower(tower) for tower in towers}, backbone)
    built = _built(config, tensors, own).to(where)
    if unknown := {need.backbone or name for need in built.all_needs()} - {*towers}:
        raise ValueError(f"towers in {str(folder / CONFIG)!r} must identify every backbone; got none for {unknown}")
    return Classifier(built, own, classnames, config, cache)


def _built(config: Mapping[str, Any], tensors: Mapping[str, Tensor], backbone: Backbone) -> Method:
    """The method, which must have as many classes as there are names."""
    built, names = state.rebuild(config["method"], tensors, backbone), config["classnames"]
    if built._classes and built._classes != len(names):
        raise ValueError(
            f"classnames in {CONFIG} must be as many as the method's classes, {built._classes}; got {names}"
        )
    return built


def _stand_in(folder: Path, said: Mapping[str, Any]) -> NoTowers:
    """The towers of a classifier that was adapted to features."""
    try:
        return NoTowers(int(said["dim"]), float(said["logit_scale"]), float(said["logit_bias"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"towers in {str(folder / CONFIG)!r} must say dim, logit_scale and logit_bias; got {said}"
        ) from error


def _tested(method: Method, test: Images | None) -> dict[str, Any]:
    """Accuracy, between 0 and 1, and the number of test images; of maps the least and the largest number in them."""
    if test is not None and method.evaluation.kind == "maps":
        return {"tested": {}, "map_range": [float(end) for end in map_of(predict(method, test)).aminmax()]}
    if test is None or method.output == "score" or method.evaluation.kind != "classification":
        return {"tested": {}}
    return {"tested": {"accuracy": accuracy(method, test), "images": len(test)}}
