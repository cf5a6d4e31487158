"""From names and options, as recipes and notebooks write them, to methods."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from adaptkit import plugins
from adaptkit.contract import Method
from adaptkit.recipe import Recipe
from adaptkit.values import builders, convert, parse

Spec = str | Mapping[str, Any] | Method


def method(spec: Spec, /, **options: Any) -> Method:  # noqa: ANN401 (an option's type is the method's affair)
    """Build a method from its name and options.

    Args:
        spec: ``"gda"``, ``{"gda": {"alpha": 2.0}}`` as a recipe writes it, or a method, which is returned.
        options: hyperparameters; they win over those in `spec`.

    Raises:
        ValueError: for an unknown method or option, or a value of the wrong type, with what is allowed.
    """
    if isinstance(spec, Method):
        if options:
            raise ValueError(
                f"options must come with a method's name; got {type(spec).__name__}, which is built already"
            )
        return spec
    name, given = parse(spec)
    cls = plugins.pick("methods", name)
    hints = typing.get_type_hints(cls)
    declared = {f.name: f for f in fields(cls)}
    values = {}
    for key, value in {**given, **options}.items():
        if key not in declared:
            raise ValueError(plugins.must_be(f"an option of {name}", declared, key))
        values[key] = convert(value, hints[key], f"{name}.{key}", declared[key])
    return cls(**values)


builders[Method] = method


def check(recipe: Recipe) -> Recipe:
    """Every name and option of a recipe against the plugins that are there, before anything is computed.

    Raises:
        ValueError: naming the first that is wrong, in one line.
    """
    try:
        for file in recipe.plugins:
            plugins.add_file(file if file.is_absolute() else recipe.folder / file)
        plugins.pick("datasets", recipe.dataset.partition(":")[0])
        plugins.pick("backbones", recipe.backbone.partition(":")[0])
        plugins.pick("prompts", recipe.prompts)
        name, options = parse(recipe.support)
        choices = [
            p for p in inspect.signature(plugins.pick("supports", name)).parameters if p not in SUPPORT_ARGUMENTS
        ]
        for option in options:
            if option not in choices:
                raise ValueError(plugins.must_be(f"an option of support {name!r}", choices, option))
        for spec in recipe.methods:
            method(spec)
    except ValueError as error:
        raise ValueError(f"{recipe.name}: {error}") from error
    return recipe


SUPPORT_ARGUMENTS = ("task", "train", "val", "shots", "seed")
