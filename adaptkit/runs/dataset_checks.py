"""Whether a setting asks of a dataset what it has, before anything is computed."""

from __future__ import annotations

from adaptkit.features.datasets import Splits
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.runs import streams
from adaptkit.runs.setting import Setting


def check_classes(splits: Splits, which: str) -> None:
    """Refuse a dataset where there is nothing to tell apart.

    Args:
        splits: of any number of classes.
        which: ``"all"`` of them are learned, or the ``"base"`` half, and those of the other half are new.

    Raises:
        ValueError: when there are fewer than two classes in what is learned, or among the new ones.
    """
    least, count = (4, len(splits.classnames)) if which == "base" else (2, len(splits.classnames))
    if count < least:
        halves = ", two to learn and two that are new, where classes is 'base'" if which == "base" else ""
        raise ValueError(f"{splits.name} must have at least {least} classes{halves}; got {count}")


def check_kind(splits: Splits, setting: Setting) -> None:
    """A setting asks of a dataset what its kind has.

    Raises:
        ValueError: when the kind is unknown, or the setting parts images by class where they have no one class.
    """
    evaluation(splits.kind)
    if splits.kind == "classification":
        check_classes(splits, setting.classes)
        return
    if (named := streams.named(setting.stream)[0]) != "shuffled":
        raise ValueError(f"stream must be 'shuffled' where images have no one class each; got {named!r}")
    for name in ("classes", "near", "far", "bins", "sequence"):
        if getattr(setting, name) not in ("all", [], {}, None, 1):
            got = f"{getattr(setting, name)!r} for {splits.name}, which asks for {splits.kind}"
            raise ValueError(f"{name} must be left out where images have no one class each; got {got}")
