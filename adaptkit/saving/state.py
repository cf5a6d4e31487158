"""An adapted method as JSON and tensors, and back: every attribute by name, and nothing that runs when it is read.

A method is built again without its constructor and without `fit`: options, buffers, parameters, nested modules and
whatever else it keeps are put where they were.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.methods.method import Method
from adaptkit.runs import plugins
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.once import Once

Node = Any  # a JSON value
OWN = {*vars(nn.Module())}  # what every module has, whatever it computes


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
    except (AttributeError, KeyError, TypeError) as error:
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
    if isinstance(value, list | tuple) and kind in (list, tuple, torch.Size):
        items = each({str(i): v for i, v in enumerate(value)})
        return {"list" if kind is list else "tuple": [*items.values()]}
    if isinstance(value, dict) and kind is dict and all(isinstance(key, str) for key in value):
        return {"dict": each(value)}
    if not hasattr(value, "__dict__") or _find(_name(kind)) is not kind or _hooked(value):
        raise ValueError(
            f"to be saved, {where} must be a tensor, a number, text, or made of these; got {kind.__name__}"
        )
    if not isinstance(value, nn.Module):
        return {"class": _name(kind), "keeps": each(vars(value))}
    parts = {
        "keeps": {name: v for name, v in vars(value).items() if name not in OWN},
        "buffers": value._buffers,
        "parameters": value._parameters,
        "modules": value._modules,
    }
    return {"class": _name(kind), **{part: each(held) for part, held in parts.items() if held}}


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
            f"a saved class must be one of adaptkit, torch.nn or a plugin that is loaded; got {node['class']!r}"
        )
    made: Any = object.__new__(cls)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
        made._buffers.update(each("buffers"))
        frozen = {n: t if t is None else nn.Parameter(t, requires_grad=False) for n, t in each("parameters").items()}
        made._parameters.update(frozen)
        made._modules.update(each("modules"))
    vars(made).update(each("keeps"))
    return made


def _name(cls: type) -> str:
    """A registered method's name, or module and class."""
    registered = {kind: name for name, kind in plugins.table("methods").items()}
    return registered.get(cls) or f"{cls.__module__}:{cls.__qualname__}"


def _find(name: str) -> type | None:
    """A class by its name, if it may be built: from the core, a plugin, or `torch.nn`."""
    module, colon, path = name.partition(":")
    if not colon:
        return plugins.pick("methods", name)
    top = {"adaptkit", *(getattr(p, "__name__", "").partition(".")[0] for p in plugins.manager().get_plugins())}
    if module.partition(".")[0] not in top and not module.startswith("torch.nn."):
        return None
    try:
        found = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def _hooked(value: object) -> bool:
    """Whether a module runs more than its class says."""
    return isinstance(value, nn.Module) and bool(value._forward_hooks or value._forward_pre_hooks)
