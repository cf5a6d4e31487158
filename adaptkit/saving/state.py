"""An adapted method as JSON and tensors, and back: every attribute by name, and nothing that runs when it is read.

A method is built again without its constructor and without `fit`: options, buffers, parameters, nested modules and
whatever else it keeps are put where they were.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from adaptkit.features.items import Images
from adaptkit.io.ranges import hold_options
from adaptkit.methods.blocks import TellingTokens, TokenBlock
from adaptkit.methods.class_cache import ClassCache
from adaptkit.methods.class_scatters import ClassScatters
from adaptkit.methods.coalitions import InteractionPredictor
from adaptkit.methods.graph import Graph
from adaptkit.methods.method import Method
from adaptkit.methods.prefix_learner import Mixer
from adaptkit.methods.running_gaussian import RunningGaussian
from adaptkit.methods.schedule import Schedule
from adaptkit.methods.settle import OWN
from adaptkit.methods.tower_end import TunedEnd
from adaptkit.methods.tuned_weights import TunedWeights
from adaptkit.runs import plugins
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.once import Once
from adaptkit.towers.prompting import Prompts

Node = Any  # a JSON value


def dump(method: Method, backbone: Backbone) -> tuple[Node, dict[str, Tensor]]:
    """Take an adapted method apart.

    Args:
        method: as adapted.
        backbone: that it was adapted to, which is not saved.

    Returns:
        A JSON value; and the tensors it names: the `state_dict`, and those that are kept elsewhere.

    Raises:
        ValueError: when the method keeps something that is not data, naming it.
    """
    tensors: dict[str, Tensor] = {}
    return _dump(method, "", backbone, tensors), tensors


def rebuild(node: Node, tensors: Mapping[str, Tensor], backbone: Backbone) -> Method:
    """Put a method together again, frozen and ready to answer.

    Raises:
        ValueError: when a class is unknown, or these are not what `dump` returned.
    """
    try:
        method = _build(node, tensors, backbone)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"a saved method must be whole; got {type(error).__name__} on reading it: {error}") from error
    if not isinstance(method, Method):
        raise ValueError(f"a saved method must be one; got {type(method).__name__}")
    return method.eval()


def _dump(value: object, where: str, backbone: Backbone, tensors: dict[str, Tensor]) -> Node:
    def each(items: Mapping[str, object]) -> dict[str, Node]:
        return {name: _dump(v, f"{where}.{name}".lstrip("."), backbone, tensors) for name, v in items.items()}

    kind, value = type(value), value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": where}
    if value is backbone:
        return {"backbone": ""}
    if isinstance(value, Images):
        return None  # what was learned from is not saved
    if isinstance(value, Once):
        value = Once()  # it remembers what it can compute again
    if isinstance(value, Prompts):
        value = value.unpacked()  # so do they
    if isinstance(value, list | tuple) and kind in (list, tuple, torch.Size):
        items = each({str(i): v for i, v in enumerate(value)})
        return {"list" if kind is list else "tuple": [*items.values()]}
    if isinstance(value, dict) and kind is dict and all(isinstance(key, str) for key in value):
        return {"dict": each(value)}
    name = _name(kind)
    if not hasattr(value, "__dict__") or not name or _hooked(value):
        raise ValueError(
            f"to be saved, {where} must be a tensor, a number, text, or made of these; got {kind.__name__}"
        )
    if not isinstance(value, nn.Module):
        return {"class": name, "keeps": each(vars(value))}
    parts = {
        "keeps": {name: v for name, v in vars(value).items() if name not in OWN},
        "buffers": value._buffers,
        "parameters": value._parameters,
        "modules": value._modules,
    }
    return {"class": name, **{part: each(held) for part, held in parts.items() if held}}


def _build(node: Node, tensors: Mapping[str, Tensor], backbone: Backbone) -> Any:  # noqa: ANN401 (whatever was saved)
    def each(part: str) -> dict[str, Any]:
        return {name: _build(v, tensors, backbone) for name, v in node.get(part, {}).items()}

    if not isinstance(node, dict):
        return node
    if "class" not in node:
        ((kind, held),) = node.items()
        if kind in ("list", "tuple"):
            items = [_build(v, tensors, backbone) for v in held]
            return items if kind == "list" else tuple(items)
        return {
            "tensor": lambda: tensors[held],
            "dict": lambda: each("dict"),
            "float": lambda: float(held),
            "backbone": lambda: backbone,
        }[kind]()
    cls = _find(node["class"])
    if cls is None:
        raise ValueError(
            "a saved class must be a registered method, a class in a registered method's own file, or one of "
            f"{', '.join((*HELPERS, *LAYERS))}; got {node['class']!r}"
        )
    if issubclass(cls, Method) and (
        absent := {f.name for f in fields(cls)} - {*node.get("keeps", {}), *node.get("modules", {})}
    ):
        raise ValueError(f"a saved {cls.__name__} must hold every option; got none for {sorted(absent)}")
    made: Any = object.__new__(cls)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
        made._buffers.update(_only(Tensor, cls, each("buffers")))
        weights = _only(Tensor, cls, each("parameters"))
        frozen = {n: t if t is None else nn.Parameter(t, requires_grad=False) for n, t in weights.items()}
        made._parameters.update(frozen)
        made._modules.update(_only(nn.Module, cls, each("modules")))
    kept = _kept(cls, each("keeps"))
    if issubclass(cls, Method):
        hold_options(cls, {f.name: kept[f.name] for f in fields(cls) if f.name in kept}, "a saved " + cls.__name__)
    vars(made).update(kept)
    return made


LAYERS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *(nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Embedding),
        *(nn.MultiheadAttention, NonDynamicallyQuantizableLinear),  # the latter is the former's last map
        *(nn.LayerNorm, nn.BatchNorm1d, nn.GroupNorm, nn.Dropout, nn.Identity, nn.Flatten),
        *(nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax),
        *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict),
    )
}
"""Layers of torch that a saved method may hold: they compute, and do nothing else."""

TUNED = (TunedEnd, TunedWeights)
OF_TOKENS = (TokenBlock, TellingTokens, InteractionPredictor)
HELPERS: dict[str, type] = {
    cls.__name__: cls
    for cls in (ClassCache, ClassScatters, Graph, Mixer, Once, Prompts, RunningGaussian, Schedule, *TUNED, *OF_TOKENS)
}
"""What methods are built with, of adaptkit."""


def _name(cls: type) -> str:
    """A class's name in a saved method: a registered method's, or ``torch:``, ``adaptkit:`` or a method's and its own.

    "" for a class that is none of these.
    """
    registered = plugins.table("methods")
    names = [name for name, kind in registered.items() if kind is cls]
    own = [f"{name}:{cls.__qualname__}" for name, kind in registered.items() if kind.__module__ == cls.__module__]
    every = (*names, f"torch:{cls.__name__}", f"adaptkit:{cls.__name__}", *own)
    return next((name for name in every if _find(name) is cls), "")


def _find(name: object) -> type | None:
    """A class by its name in a saved method. Only names that stand in a table are found; no attribute is walked."""
    if not isinstance(name, str):
        return None
    of, colon, own = name.partition(":")
    registered: dict[str, type] = plugins.table("methods")
    if not colon:
        return registered.get(name) or plugins.pick("methods", name)  # which says what there is
    if of in ("torch", "adaptkit"):
        return (LAYERS if of == "torch" else HELPERS).get(own)
    if of not in registered:
        return None
    module = registered[of].__module__
    found = vars(sys.modules[module]).get(own)
    if not isinstance(found, type) or found.__module__ != module:  # imported there, not defined
        return None
    return found if issubclass(found, nn.Module) or is_dataclass(found) else None


def _only(kind: type, cls: type, held: dict[str, Any]) -> dict[str, Any]:
    """Parts by name, or a ``ValueError`` where one is of another kind."""
    for name, value in held.items():
        if not isinstance(value, kind | None):
            raise ValueError(
                f"a saved {cls.__name__} must hold a {kind.__name__} in {name!r}; got {type(value).__name__}"
            )
    return held


def _kept(cls: type, held: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name, or a ``ValueError`` when one would stand in the place of what the class does."""
    for name in held:
        if name in OWN or name.startswith("__") or callable(getattr(cls, name, None)):
            raise ValueError(f"a saved {cls.__name__} must keep values only; got one for {name!r}")
    return held


def _hooked(value: object) -> bool:
    """Whether a module runs more than its class says."""
    return isinstance(value, nn.Module) and bool(value._forward_hooks or value._forward_pre_hooks)
