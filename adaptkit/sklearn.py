"""Methods that answer image by image, as a scikit-learn classifier: in pipelines, searches and cross-validation."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from adaptkit.features.cache import FeatureCache
from adaptkit.features.items import Array, Images
from adaptkit.io.text import template
from adaptkit.methods.adapt import adapt
from adaptkit.methods.arrays import as_texts, embeddings
from adaptkit.methods.ops import class_sums
from adaptkit.methods.predicting import predict, predict_batches
from adaptkit.methods.task import Task
from adaptkit.runs.build import AnyMethod, method
from adaptkit.runs.loading import open_cache, pick_backbone, pick_device
from adaptkit.runs.setting import Setting
from adaptkit.saving import state
from adaptkit.saving.pictures import Picture, as_images
from adaptkit.towers.backbone import Backbone, unit


class AdaptedClassifier(ClassifierMixin, BaseEstimator):
    """A method of scope ``"sample"`` that answers with logits, as a scikit-learn classifier.

    ``X`` is features, ``(N, D)``, or, with a `backbone`, also pictures: paths, or images in memory. The class
    embeddings are `text`, or what the backbone makes of the class names, or, with neither, the unit-norm mean of each
    class's unit-norm features: what a method takes for zero-shot is then the nearest class mean.

    Hyperparameters stay as they are set; search them with ``GridSearchCV(..., {"options__alpha": [0.1, 1.0]})``.

    Args:
        method: a method's name, or ``{name: options}``.
        options: its hyperparameters, by name; ``options__NAME`` sets one.
        text: class embeddings, ``(C, D)``, in the order of the sorted labels.
        classnames: C names, in the order of the sorted labels; default the labels.
        backbone: a name, e.g. ``"hf:openai/clip-vit-base-patch16"``, or a loaded one.
        template: the sentence about a class, its name in place of ``{}``.
        logit_scale: factor from cosine to logit, where there is no backbone to say.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        random_state: of training.

    Attributes:
        classes_: the labels, sorted.
        method_: the adapted method.
    """

    def __init__(
        self,
        method: AnyMethod = "gda",
        *,
        options: Mapping[str, Any] | None = None,
        text: Array | None = None,
        classnames: Sequence[str] | None = None,
        backbone: str | Backbone | None = None,
        template: str = "a photo of a {}.",
        logit_scale: float = 100.0,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.method = method
        self.options = options
        self.text = text
        self.classnames = classnames
        self.backbone = backbone
        self.template = template
        self.logit_scale = logit_scale
        self.device = device
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; the method's options as ``options__NAME``, too."""
        inner = self.options if deep and isinstance(self.options, Mapping) else {}
        return super().get_params(deep) | {f"options__{name}": value for name, value in inner.items()}

    def set_params(self, **params: Any) -> AdaptedClassifier:  # noqa: ANN401 (any parameter)
        """Set parameters by name; the method's options as ``options__NAME``, whether or not they were set before."""
        inner = {name[len("options__") :]: params.pop(name) for name in [*params] if name.startswith("options__")}
        super().set_params(**params)
        if inner:
            self.options = {**(self.options or {}), **inner}
        return self

    def fit(self, X: Array | Sequence[Picture], y: Sequence[Any]) -> AdaptedClassifier:  # noqa: N803 (scikit-learn's)
        """Adapt the method to labelled features or pictures."""
        if not isinstance(self.options, Mapping | None) or not all(isinstance(key, str) for key in self.options or ()):
            raise ValueError(f"options must be a mapping of names to values; got {self.options!r:.80}")
        adapting = copy.deepcopy(method(self.method, **(self.options or {})))
        if (adapting.scope, adapting.output) != ("sample", "logits"):
            raise ValueError(
                f"method must have scope 'sample' and output 'logits'; got {type(adapting).__name__}, "
                f"{adapting.scope!r} and {adapting.output!r}"
            )
        rows = self._pictures(X)
        if rows is None:
            rows, y = validate_data(self, X, y, dtype=np.float32)
        else:
            check_consistent_length(rows, y)
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        task = self._task(rows, torch.from_numpy(labels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(check_random_state(self.random_state).randint(2**31 - 1))
            self.method_ = adapt(adapting, task.to(pick_device(self.device)))
        return self

    def decision_function(self, X: Array | Sequence[Picture]) -> np.ndarray:  # noqa: N803
        """Logits, ``(N, C)``; with two classes, the second's lead over the first, ``(N,)``."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Array | Sequence[Picture]) -> np.ndarray:  # noqa: N803
        """The softmax of the logits, ``(N, C)``."""
        return torch.from_numpy(self._logits(X)).softmax(-1).numpy()

    def predict(self, X: Array | Sequence[Picture]) -> np.ndarray:  # noqa: N803
        """The likeliest label of each row, ``(N,)``."""
        rows = self._rows(X)
        best = [answers.cpu().numpy().argmax(-1) for _, answers in predict_batches(self.method_, rows)]
        return self.classes_[np.concatenate(best)]

    def _logits(self, X: Array | Sequence[Picture]) -> np.ndarray:  # noqa: N803
        rows = self._rows(X)  # which looks whether it is fitted
        return predict(self.method_, rows).cpu().double().numpy()

    def _rows(self, X: Array | Sequence[Picture]) -> np.ndarray | Images:  # noqa: N803
        """Checked features, or pictures as they are read."""
        check_is_fitted(self)
        pictures = self._pictures(X)
        return validate_data(self, X, dtype=np.float32, reset=False) if pictures is None else self._read(pictures)

    def _pictures(self, X: Any) -> list[Picture] | None:  # noqa: ANN401, N803
        """Paths or images in memory as a list, and ``None`` for features."""
        rows = [*X] if isinstance(X, list | tuple) or getattr(X, "ndim", 0) == 1 else []
        if not rows or not all(isinstance(row, str | os.PathLike | Image.Image) for row in rows):
            return None
        if self.backbone is None:
            raise ValueError("X must be features, (N, D), where there is no backbone; got pictures")
        return rows

    def _read(self, pictures: list[Picture]) -> Images:
        return as_images(pictures, opened_cache(self.backbone, self.device))

    def _task(self, rows: np.ndarray | list[Picture], labels: Tensor) -> Task:
        """What the method learns from."""
        names = [*map(str, self.classes_)] if self.classnames is None else [*as_texts(self.classnames, "classnames")]
        if len(names) != len(self.classes_):
            raise ValueError(f"classnames must be as many as the labels in y, {len(self.classes_)}; got {len(names)}")
        if self.backbone is None:
            text = self.text
            if text is None:
                x = unit(torch.as_tensor(rows))
                text = unit(class_sums(x, labels, len(names)))
            if len(text := embeddings(text)) != len(names):
                raise ValueError(f"text must have a row for each label in y, {len(names)}; got {len(text)}")
            return Task.from_arrays((rows, labels), text, logit_scale=self.logit_scale, classnames=names)
        if self.text is not None:
            raise ValueError("text must be None where there is a backbone, which encodes the class names; got both")
        if self.classnames is None and not isinstance(self.classes_[0], str):
            raise ValueError(f"classnames must be given where labels are not names; got labels as {self.classes_[0]!r}")
        cache = opened_cache(self.backbone, self.device)
        write = template(self.template, "template").replace
        prompts = tuple((write("{}", name.replace("_", " ")),) for name in names)
        if isinstance(rows, list):
            return Task(cache.own, tuple(names), prompts, cache.sentences, self._read(rows).label(labels))
        text = unit(cache.sentences([sentence for (sentence,) in prompts]))
        return Task.from_arrays((rows, labels), text, classnames=names, prompts=prompts, backbone=cache.own)

    def __getstate__(self) -> dict[str, Any]:
        """Attributes to copy or keep; of a backbone that has a name, only that."""
        kept = super().__getstate__()
        if isinstance(self.backbone, str) and "method_" in kept:
            kept = {**kept, "method_": state.dump(self.method_, opened_cache(self.backbone, self.device).own)}
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """The reverse."""
        if isinstance(kept.get("method_"), tuple):
            own = opened_cache(kept["backbone"], kept["device"]).own
            node, tensors = kept["method_"]
            kept = {**kept, "method_": state.rebuild(node, tensors, own).to(own.device)}
        super().__setstate__(kept)


@functools.lru_cache(maxsize=1)  # a search fits hundreds of times
def opened_cache(backbone: str | Backbone, device: str) -> FeatureCache:
    """A backbone and its stored features."""
    towers = pick_backbone(backbone) if isinstance(backbone, str) else backbone
    name = backbone if isinstance(backbone, str) else ""
    return open_cache(towers.to(pick_device(device)), Setting(dataset="", backbone=name))
