"""Images without labels: what can be answered from the names of classes, and no word of how good that is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptkit.automatic.auto import free, opened_by, started
from adaptkit.automatic.budget import Budget
from adaptkit.features.datasets import Splits
from adaptkit.features.items import Images
from adaptkit.features.looking import sound_pictures
from adaptkit.features.needs import Pooled
from adaptkit.io.files import atomic_write
from adaptkit.io.home import home as default_home
from adaptkit.io.paths import expanded, read_text
from adaptkit.io.safe import csv_text
from adaptkit.methods.adapt import adapt_quietly
from adaptkit.methods.predicting import predict
from adaptkit.methods.task import Task
from adaptkit.runs.build import method
from adaptkit.runs.failures import cause_of
from adaptkit.runs.workspace import Workspace
from adaptkit.saving.classifier import save_classifier
from adaptkit.saving.pictures import Pictures, as_images, find_pictures

ASKED_METHODS = ("zero-shot", "zlap", "trans-clip", "gda-em")  # that need no labelled image; all but the first see all


@dataclass(frozen=True, eq=False)
class UnlabelledResult:
    """What methods answer about images without labels.

    Attributes:
        paths: of the N images that can be read.
        classnames: C names.
        answers: logits ``(N, C)`` by method.
        lines: what there is to say.
        folder: with ``classifier`` (zero-shot) and ``labels.csv``.
    """

    paths: Sequence[Path] = field(repr=False)
    classnames: Sequence[str]
    answers: Mapping[str, Tensor] = field(repr=False)
    lines: Sequence[str]
    folder: Path


def names_asked(text: str) -> list[str]:
    """Names of classes, with commas between them, or from a file with one a line.

    Raises:
        ValueError: when there are fewer than two, or one twice.
    """
    file = expanded(text)
    listed = read_text(file).splitlines() if "," not in text and file.is_file() else text.split(",")
    names = [name.strip() for name in listed if name.strip()]
    if len(names) < 2 or len({*names}) < len(names):
        raise ValueError(f"classes must be two different names or more, as in a,b,c; got {text!r:.80}")
    return names


def auto_unlabelled(
    place: Path | str,
    classes: Sequence[str],
    *,
    out: Path | str,
    minutes: float = 10.0,
    backbone: str = "",
    seed: int = 1,
    home: Path | None = None,
    progress: bool = False,
    say: Callable[[str], object] = lambda _: None,
    **machine: Any,  # noqa: ANN401 (keys of a recipe)
) -> UnlabelledResult:
    """Answer images without labels by zero-shot and by transductive methods, as long as there is time.

    How often any of them is right cannot be known without labels; how often they agree is told, and is no accuracy.

    Args:
        place: a folder of images, at any depth.
        classes: names of the classes.
        out: new or empty folder for the zero-shot classifier and all answers.
        minutes: after which no method is begun; features are extracted for all images.
        backbone: as in `auto`.
        seed: of what draws.
        home: where features are kept; default ``$ADAPTKIT_HOME``.
        progress: show bars while extracting.
        say: told, in lines, what happens.
        machine: as in `auto`.

    >>> from tempfile import mkdtemp
    >>> from adaptkit.report import self_test
    >>> picture = Path(self_test.__file__).with_suffix(".png")
    >>> auto_unlabelled(picture, ["cat", "dog"], out=mkdtemp(), backbone="toy:0").answers["zero-shot"].shape
    torch.Size([1, 2])
    """
    budget, folder = started(minutes, seed), free(out) or Path(out)
    paths, left = readable_below(place, home)
    workspace = opened_by(unlabelled_splits(place, classes, paths), backbone, home, progress, machine)
    answers, lines = saved_answers(workspace, paths, folder, budget, seed, say)
    return UnlabelledResult(paths, classes, answers, [*left, *lines, *agreement_lines(answers)], folder)


def unlabelled_splits(place: Path | str, classes: Sequence[str], paths: Sequence[Path]) -> Splits:
    """A dataset that has nothing to learn from."""
    return Splits(f"folder:{place}", tuple(classes), train=Pictures([]), test=Pictures(paths))


def saved_answers(
    workspace: Workspace,
    paths: Sequence[Path],
    folder: Path,
    budget: Budget,
    seed: int,
    say: Callable[[str], object],
) -> tuple[dict[str, Tensor], list[str]]:
    """What each method answers, and why some do not; the zero-shot classifier and the answers are written."""
    images, names = as_images(paths, workspace.cache), workspace.splits.classnames
    task = workspace.about(range(len(names)), images[:0].label(torch.zeros(0, dtype=torch.long)), pool=images)
    images.bind({"x": Pooled()}).load()  # extracted
    answers, lines = answered_in_time(task, images, budget, seed, say)
    save_zero_shot(folder / "classifier", task, workspace)
    atomic_write(folder / "labels.csv", csv_text(answer_rows(paths, names, answers)).encode())
    return answers, lines


def readable_below(place: Path | str, home: Path | None) -> tuple[list[Path], list[str]]:
    """The pictures of a folder that can be read, and why others are left out.

    Raises:
        ValueError: when none can be read.
    """
    found, _ = find_pictures([expanded(str(place))])
    _, bad = sound_pictures(Pictures(found), (home or default_home()) / "sound")
    left = [f"left out: {why}" for why in bad.values()]
    if len(bad) == len(found):
        raise ValueError(f"a picture must be readable; got none in {str(place)!r}; the first: {left[0]}")
    return [path for i, path in enumerate(found) if i not in bad], left


def answered_in_time(
    task: Task, images: Images, budget: Budget, seed: int, say: Callable[[str], object]
) -> tuple[dict[str, Tensor], list[str]]:
    """What each method answers, and why some do not."""
    answers, lines = dict[str, Tensor](), list[str]()
    for name in ASKED_METHODS:
        if answers and not budget.fits(0):
            lines.append(f"{name}: no time left")
            continue
        try:
            torch.manual_seed(seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers[name] = predict(adapt_quietly(method(name), task), images).cpu()
            say(f"{name}: done")
        except Exception as error:
            lines.append(f"{name} failed: {cause_of(error, None, 'auto')}")
    return answers, lines


def save_zero_shot(folder: Path, task: Task, workspace: Workspace) -> None:
    """The one of these methods that answers an image alone, as a classifier."""
    save_classifier(
        folder,
        adapt_quietly(method("zero-shot"), task),
        task,
        backbone=workspace.setting.backbone,
        protocol={**workspace.setting.plain(), "chosen by": "adaptkit auto, without labels"},
        source="none: it learned from no image",
    )


def answer_rows(paths: Sequence[Path], classes: Sequence[str], answers: Mapping[str, Tensor]) -> list[list[str]]:
    """A row for each image: its path, and each method's answer."""
    told = {name: logits.argmax(1).tolist() for name, logits in answers.items()}
    rows = [[str(path), *(classes[own[i]] for own in told.values())] for i, path in enumerate(paths)]
    return [["path", *told], *rows]


def agreement_lines(answers: Mapping[str, Tensor]) -> list[str]:
    """How often the methods answer as zero-shot does, named as what it is."""
    first = answers.get("zero-shot")
    if first is None:
        return []
    same = {
        name: float((logits.argmax(1) == first.argmax(1)).double().mean())
        for name, logits in answers.items()
        if name != "zero-shot"
    }
    said = ", ".join(f"{name} on {100 * share:.1f} %" for name, share in same.items())
    sure = float(first.softmax(1).amax(1).mean())
    return [
        f"answers that agree with zero-shot: {said or 'no other method answered'}",
        f"mean confidence of zero-shot: {100 * sure:.1f} %",
        "how often any of them is right cannot be known without labels; neither number above is an accuracy",
    ]
