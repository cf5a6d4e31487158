"""Whether a setting asks of a dataset what it has, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.features.composites import part_read
from adaptkit.features.datasets import Splits
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.method import Method
from adaptkit.runs import streams
from adaptkit.runs.setting import Setting
from adaptkit.towers.backbone import Backbone


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


def check_gallery(splits: Splits, setting: Setting) -> None:
    """Items are searched by a ranking alone, and what is tuned would need validation queries of a gallery of their own.

    Raises:
        ValueError: when another kind has a gallery, or hyperparameters are to be chosen on images.
    """
    if splits.kind != "ranking":
        raise ValueError(f"a gallery must be left out for {splits.kind}; got one in {splits.name}")
    if setting.select not in ("none", "few-val"):
        raise ValueError(f"select must be 'none' where a gallery is searched; got {setting.select!r}")
    if setting.domains:
        raise ValueError(f"domains must be left out where a gallery is searched; got {setting.domains!r}")


def check_parts(methods: Mapping[str, Method], splits: Splits, backbone: Backbone) -> None:
    """Methods, by label, read what a dataset's queries, pairs and gallery have.

    Raises:
        ValueError: naming the first that does not.
    """
    for label, built in methods.items():
        asked = built.gallery_needs()
        if bool(asked) != (splits.gallery is not None):
            wants = "a gallery of items" if asked else "the sentences of the classes"
            raise ValueError(f"methods must search what {splits.name} has; got {label!r}, which searches {wants}")
        for source, needs in ((splits.test, built.all_needs()), (splits.train, built.all_needs(of_support=True))):
            for need in needs:
                try:
                    own, plain = part_read(source, need)
                    if len(own):
                        plain.prepare(own.open(0)[1], backbone, -1, "")
                except ValueError as error:
                    raise ValueError(f"{label} cannot read {splits.name}: {error}") from error
        for need in asked.values():
            try:
                need.prepare(splits.gallery.open(0)[1], backbone, -1, "")  # type: ignore[union-attr]
            except ValueError as error:
                raise ValueError(f"{label} cannot read the gallery of {splits.name}: {error}") from error


def check_kind(splits: Splits, setting: Setting) -> None:
    """A setting asks of a dataset what its kind has.

    Raises:
        ValueError: when the kind is unknown, or the setting parts images by class where they have no one class.
    """
    evaluation(splits.kind)
    if splits.gallery is not None:
        check_gallery(splits, setting)
    if splits.kind == "classification":
        check_classes(splits, setting.classes)
        return
    if (named := streams.named(setting.stream)[0]) != "shuffled":
        raise ValueError(f"stream must be 'shuffled' where images have no one class each; got {named!r}")
    for name in ("classes", "near", "far", "bins", "sequence"):
        if getattr(setting, name) not in ("all", [], {}, None, 1):
            got = f"{getattr(setting, name)!r} for {splits.name}, which asks for {splits.kind}"
            raise ValueError(f"{name} must be left out where images have no one class each; got {got}")
