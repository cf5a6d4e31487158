"""From images to the classifier that does best on them, in a stated time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from adaptkit.automatic.budget import Budget
from adaptkit.automatic.contest import Contest
from adaptkit.automatic.labelled import Labelled, labelled_of, open_whole, read_features
from adaptkit.automatic.learning import in_memory, learn
from adaptkit.automatic.outcome import chosen_of
from adaptkit.automatic.page import auto_page
from adaptkit.automatic.portfolio import DEFAULT, portfolio
from adaptkit.automatic.result import BACKBONES, CLIP, AutoResult
from adaptkit.features.datasets import Splits
from adaptkit.io.errors import must_be
from adaptkit.io.files import atomic_write, ensure_writable
from adaptkit.io.machine import MACHINE_KEYS
from adaptkit.io.ranges import Range, Seed, hold
from adaptkit.report.looking.found import Look
from adaptkit.report.looking.look import look_at
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.saving.classifier import save_classifier, vacant

Minutes = Annotated[float, Range(0.01, 10_000)]
"""How long it may take."""
SECONDS_A_LOOK = 0.02  # seconds that it takes to look at an image
SHARE_LOOKING = 0.2  # of the time that is left, for looking at the images


def auto(
    dataset: str | Splits,
    *,
    minutes: float = 10.0,
    backbone: str = "",
    out: Path | str | None = None,
    seed: int = 1,
    home: Path | None = None,
    progress: bool = False,
    say: Callable[[str], object] = lambda _: None,
    **machine: Any,  # noqa: ANN401 (keys of a recipe)
) -> AutoResult:
    """Find the method that does best on labelled images, say how good it is expected to be, and save it.

    Methods are tried on images that they did not learn from, while the time lasts; Ctrl-C ends that with what is there.

    Args:
        dataset: e.g. ``"folder:my_photos"``, or a dataset that is open; its test images are left alone.
        minutes: that it may take; the features of the images are the most of it, and are kept.
        backbone: e.g. ``"hf:openai/clip-vit-base-patch16"``; by default the best that needs no hub.
        out: new or empty folder for the classifier and the page; by default nothing is written.
        seed: of the folds and of training. What there is time for depends on the machine.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        progress: show bars while extracting.
        say: told, in lines, what happens.
        machine: ``device``, ``batch_size``, ``workers`` and ``precision``, as in a recipe.

    Raises:
        ValueError: for images that are not of one class each, or of one class all, and for a folder that is in use.

    >>> found = auto("toy", backbone="toy:0", minutes=0.1)
    >>> found.interval[0] < found.accuracy < found.interval[1]
    True
    """
    budget, folder = started(minutes, seed), free(out)
    workspace = opened_by(open_whole(dataset, home), backbone, home, progress, machine)
    found = best(workspace, budget, seed, say)
    notes = [*backbone_note(workspace, backbone), *found.notes]
    found = replace(found, minutes=(budget.used / 60, minutes), notes=notes)
    return found if folder is None else saved_to(found, folder)


def started(minutes: float, seed: int) -> Budget:
    """The time that may be used, from now on."""
    hold(minutes, Minutes, "minutes")
    hold(seed, Seed, "seed")
    return Budget(60 * minutes)


def free(out: Path | str | None) -> Path | None:
    """The folder that is written to, which is new or empty; ``None`` for none."""
    if out is None:
        return None
    folder = vacant(Path(out))
    ensure_writable(folder)
    return folder


def opened_by(
    splits: Splits, backbone: str, home: Path | None, progress: bool, machine: Mapping[str, Any]
) -> Workspace:
    """A workspace of the asked backbone, or of the first that is installed."""
    if odd := sorted({*machine} - {*MACHINE_KEYS}):
        raise ValueError(must_be("an option of auto", MACHINE_KEYS, odd[0]))
    names = [backbone] if backbone else [*BACKBONES]
    for name in names:
        try:
            setting = Setting(dataset=splits.name, backbone=name, select="none", **machine)
            return Workspace(setting, home=home, progress=progress, splits=splits)
        except ValueError:
            if name == names[-1]:
                raise
    raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}; got none")


def backbone_note(workspace: Workspace, asked: str) -> list[str]:
    """Which backbone it is, where nobody named one."""
    if asked:
        return []
    what = {
        BACKBONES[0]: "an ImageNet classifier joined to a sentence encoder, no CLIP",
        BACKBONES[1]: "a CLIP of 1.9 million weights that knows emoji, and little else",
    }[workspace.setting.backbone]
    return [f"the backbone is {workspace.setting.backbone}, {what}; a CLIP does better: --backbone {CLIP}"]


def best(workspace: Workspace, budget: Budget, seed: int, say: Callable[[str], object]) -> AutoResult:
    """The best method on all images that may be learned from."""
    splits = workspace.splits
    say(f"backbone: {workspace.setting.backbone}")
    notes = splits.said()
    whole = labelled_of(splits)
    found, views = read_features(whole, workspace, budget)
    if len(found.labels) < len(whole.labels):
        notes.append(
            f"there was time for {len(found.labels):,} of {len(whole.labels):,} images; the rest were left out"
        )
    seen, groups = looked_at_in_time(splits, found, workspace, budget, notes)
    found = found.together(groups) if groups else found
    say(f"images: {len(found.labels):,} in {len(splits.classnames):,} classes, {views} random views of each")
    images = in_memory(found.images(workspace))
    task = workspace.about(range(len(splits.classnames)), images[:0])
    contest = Contest(task, images, found.groups, portfolio(len(images), views), budget, seed=seed, say=say)
    contest.run()
    if not contest.count:
        contest.entries.sort(key=lambda entry: entry.candidate.spec.name != DEFAULT)
        notes.append("nothing can be estimated: fewer than two classes have two different images")
    chosen = chosen_of(contest)
    notes += contest_notes(contest, found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = learn(chosen.entry.candidate, task, images, found.groups, seed)
    counts = found.labels.bincount(minlength=len(splits.classnames)).tolist()
    return AutoResult(splits.name, workspace, method, chosen, found, counts, seen, notes, (0.0, 0.0))


def splits_of(splits: Splits, found: Labelled) -> Splits:
    """A dataset of the labelled images in use alone."""
    return replace(splits, train=found.source, val=None)


def looked_at_in_time(
    splits: Splits, found: Labelled, workspace: Workspace, budget: Budget, notes: list[str]
) -> tuple[Look | None, Sequence[int]]:
    """What is seen of the images, and which of them show the same, where there is time to look."""
    cost = SECONDS_A_LOOK * (len(found.labels) + len(splits.test))
    if cost > SHARE_LOOKING * budget.left:
        notes.append("there was no time to look for images that nearly show the same; copies were found")
        return None, ()
    seen = look_at(splits_of(splits, found), workspace.cache)
    return seen, seen.groups("train")


def contest_notes(contest: Contest, found: Labelled) -> list[str]:
    """What the estimate does not say."""
    notes = [*found.left_out]
    if contest.interrupted:
        notes.append("it was stopped: this is the best so far")
    alone = len(contest.labels) - len(contest.tested)
    if contest.count and alone:
        notes.append(f"{alone:,} images are of classes with too few to be tested; the estimate does not cover these")
    if found.alone:
        notes.append(f"the labels of {found.alone:,} test images were left alone")
    return notes


def saved_to(result: AutoResult, folder: Path) -> AutoResult:
    """The result with its classifier and its page in a folder."""
    task = result.workspace.about(range(len(result.counts)), result.found.images(result.workspace)[:0])
    known, chosen = result.chosen.expected, result.chosen
    said = {}
    if known is not None and chosen.ece is not None and chosen.confusion is not None:
        numbers = {key: getattr(known, key) for key in ("accuracy", "low", "high", "images", "folds", "repeats")}
        errors = {"ece_before": chosen.ece[0], "ece_after": chosen.ece[1]}
        said = {**numbers, **errors, "confusion": chosen.confusion.tolist()}
    save_classifier(
        folder / "classifier",
        result.method,
        task,
        backbone=result.workspace.setting.backbone,
        protocol={**result.workspace.setting.plain(), "chosen by": "adaptkit auto", "images": sum(result.counts)},
        source=result.workspace.splits.source,
        temperature=chosen.temperature,
        expected=said,
    )
    result = replace(result, folder=folder)
    atomic_write(folder / "page.html", auto_page(result).encode())
    return result
