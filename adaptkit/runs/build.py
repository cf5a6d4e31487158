"""From names and options, as recipes and notebooks write them, to methods."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from adaptkit.io.errors import must_be
from adaptkit.io.values import PLAIN, Spec, builders, convert
from adaptkit.methods.method import Method
from adaptkit.methods.unlabelled import pool_reads
from adaptkit.runs import plugins, streams
from adaptkit.runs.named_plugins import use_named
from adaptkit.runs.recipe import Recipe
from adaptkit.runs.reporters import check_reporters
from adaptkit.runs.setting import named_sets

AnyMethod = Spec | str | Mapping[str, Any] | Method


def method(spec: AnyMethod, /, **options: Any) -> Method:  # noqa: ANN401 (an option's type is the method's affair)
    """Build a method from its name and options.

    Args:
        spec: ``"gda"``, ``{"gda": {"alpha": 2.0}}`` as a recipe writes it, the `Spec` of either, or a method, which is
            returned.
        options: hyperparameters; they win over those in `spec`.

    Raises:
        ValueError: for an unknown method or option, or a value of the wrong type, with what is allowed.

    >>> import adaptkit as ak
    >>> ak.method({"gda": {"alpha": 2.0}}, views=4).alpha
    2.0
    >>> ak.method("gda", alfa=2.0)
    Traceback (most recent call last):
    ValueError: an option of gda must be one of alpha, ...; got 'alfa'; did you mean 'alpha'?
    """
    if isinstance(spec, Method):
        if options:
            raise ValueError(
                f"options must come with a method's name; got {type(spec).__name__}, which is built already"
            )
        return spec
    asked = Spec.of(spec)
    cls = plugins.pick("methods", asked.name)
    hints = typing.get_type_hints(cls, include_extras=True)
    declared = {f.name: f for f in fields(cls)}
    values = {}
    for key, value in {**asked.whole, **options}.items():
        if key not in declared:
            raise ValueError(must_be(f"an option of {asked.name}", declared, key))
        values[key] = convert(value, hints[key], f"{asked.name}.{key}", declared[key])
    return cls(**values)


builders[Method] = method


def check_recipe(recipe: Recipe, *, trust: bool = False) -> Recipe:
    """Every name and option of a recipe against the plugins that are there, before anything is computed.

    Args:
        recipe: as it was read.
        trust: run the plugin files that it names; else they must have been loaded by whoever reads the recipe.

    Raises:
        ValueError: naming the first that is wrong, in one line.
    """
    try:
        recipe = without_inherited(use_named(recipe, trust=trust or recipe.trust))
        plugins.pick("datasets", recipe.dataset.partition(":")[0])
        plugins.pick("backbones", recipe.backbone.partition(":")[0])
        arguments("prompts", recipe.prompts)
        arguments("supports", recipe.support)
        streams.named(recipe.stream)
        for spec in recipe.methods:
            built = method(spec)
            check_needs(built)
        for name, options in recipe.defaults.items():
            method(Spec(name, options))
        if recipe.classes == "base" and "new" not in (*recipe.near, *recipe.far):
            check_elsewhere(recipe)
        check_reporters(recipe.report, plugins.manager().get_plugins())
        if len(set(recipe.seeds)) < len(recipe.seeds):
            raise ValueError(f"seeds must differ; got {recipe.seeds}")
    except ValueError as error:
        raise ValueError(f"{recipe.name}: {error}") from error
    return recipe


def without_inherited(recipe: Recipe) -> Recipe:
    """A recipe without the test sets that are a part of the dataset which another was put in the place of."""
    if not recipe.inherited:
        return recipe
    theirs = [n for n in recipe.inherited if n != "new" and n.partition(":")[0] not in plugins.table("datasets")]
    kept: dict[str, Any] = {}
    for key in ("domains", "near", "far"):
        sets = {name: behind for name, behind in named_sets(getattr(recipe, key)).items() if behind not in theirs}
        kept[key] = sets if isinstance(getattr(recipe, key), Mapping) else [*sets]
    return replace(recipe, inherited=tuple(theirs), **kept)


def check_needs(built: Method) -> None:
    """What is wrong with a need's options shows here; any other error of a method is for its own cells to fail by."""
    try:
        built.all_needs(), built.all_needs(of_support=True), pool_reads(built)
    except ValueError:
        raise
    except Exception:
        return


def check_elsewhere(recipe: Recipe) -> None:
    """Every method of a recipe must be able to answer for classes that it did not adapt to.

    Raises:
        ValueError: naming the first that is not.
    """
    for label, spec in recipe.labels().items():
        if not answers_elsewhere(method(spec)):
            raise ValueError(f"methods must be able to answer for classes they did not adapt to; got {label!r}")


def check_outside(recipe: Recipe) -> None:
    """Methods that answer with a score have images of other things to tell from the test images.

    Raises:
        ValueError: naming the first that has none.
    """
    for label, spec in recipe.labels().items():
        built = method(spec)
        scores = built.output == "score" and built.answers == ("classification",)
        if scores and recipe.sequence == 1 and not recipe.near and not recipe.far:
            raise ValueError(
                f"{recipe.name}: near or far must name images of other things for {label!r}, which scores how well an "
                "image fits; got none; name another dataset there, or domains of this one"
            )


def answers_elsewhere(built: Method) -> bool:
    """Whether a method, and those below it, can answer for classes that it did not adapt to."""
    able = type(built).retarget is not Method.retarget or not built.support_needs()
    return able and all(answers_elsewhere(child) for child in built.children_methods())


def arguments(role: str, spec: Spec) -> tuple[Any, dict[str, Any]]:
    """A function of a table and its options, converted to the types it declares, and held to its own ``check``.

    Raises:
        ValueError: for an unknown name or option, or a value of the wrong type.
    """
    name, given = spec.name, spec.options
    function = _picked(role, spec)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (TypeError, NameError):  # a partial, a class, a name that is imported for type checkers only
        hints = {
            n: PLAIN_NAMES.get(p.annotation, p.annotation) for n, p in inspect.signature(function).parameters.items()
        }
        hints = {n: h for n, h in hints.items() if h is not inspect.Parameter.empty and not isinstance(h, str)}
    choices = [p for p in inspect.signature(function).parameters if p not in GIVEN]
    for option in given:
        if option not in choices:
            hint = OWN_SENTENCES if role == "prompts" else ""
            raise ValueError(must_be(f"an option of {name}", choices or ["none"], option) + hint)
    options = {o: convert(v, hints.get(o, Any), f"{name}.{o}") for o, v in given.items()}
    if check := getattr(function, "check", None):
        check(**options)
    return function, options


def _picked(role: str, spec: Spec) -> Any:  # noqa: ANN401 (what a table holds depends on the role)
    """An entry of a table; of prompts, an error says how one writes sentences of one's own."""
    if role == "prompts" and spec.options and spec.name not in plugins.table(role):
        raise ValueError(must_be("a key of prompts", plugins.table(role), spec.name) + OWN_SENTENCES)
    try:
        return plugins.pick(role, spec.name)
    except ValueError as error:
        if role == "prompts":
            raise ValueError(f"{error}{OWN_SENTENCES}") from error
        raise


OWN_SENTENCES = "; write sentences of your own as prompts: {templates: 'a photo of a {}.'}"
PLAIN_NAMES = {kind.__name__: kind for kind in PLAIN}  # an annotation may be text
GIVEN = ("task", "train", "val", "shots", "seed", "classnames", "splits")  # arguments that are no options
