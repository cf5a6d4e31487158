"""What was found, in a few lines, with the commands that go on from it."""

from __future__ import annotations

from shlex import quote

from adaptkit.automatic.certainty import Expected
from adaptkit.automatic.outcome import Chosen
from adaptkit.automatic.result import CLIP, AutoResult
from adaptkit.io.jsons import strict_json
from adaptkit.io.text import columns

METHODS_SHOWN = 8  # methods in the terminal


def summary_lines(result: AutoResult) -> list[str]:
    """The summary that the command prints."""
    used, stated = result.minutes
    lines = [
        f"{result.dataset}: {sum(result.counts):,} labelled images in {len(result.counts):,} classes, "
        f"{min(result.counts):,} to {max(result.counts):,} each",
        *(f"note: {note}" for note in result.notes),
        "",
        columns(table_rows(result.chosen)),
        *([f"and {more} more, which the page shows"] if (more := len(result.chosen.tried) - METHODS_SHOWN) > 0 else []),
        "",
        *verdict_lines(result),
        f"time: {used:.1f} of {stated:g} minutes",
    ]
    if result.folder is not None:
        lines += ["", f"page: {result.folder / 'page.html'}", "next:", *(f"  {line}" for line in next_commands(result))]
    return lines


def table_rows(chosen: Chosen, most: int = METHODS_SHOWN) -> list[list[str]]:
    """Methods that were tried, the chosen one first: accuracy out of fold, and how sure the difference is."""
    rows = [["method", "accuracy, %", "against the first", "repeats", "s per fold"]]
    shown = chosen.tried[:most]
    return rows + [[one.label, one.percent, one.said, str(one.repeats), f"{one.seconds:.2f}"] for one in shown]


def verdict_lines(result: AutoResult) -> list[str]:
    """What is chosen, how good it is expected to be, and whether it is better than the others."""
    chosen, known = result.chosen, result.chosen.expected
    label = chosen.entry.label
    if known is None:
        return [f"chosen: {label}, without an estimate: how often it is right cannot be known from these images"]
    lines = [
        f"chosen: {label}; expected to be right about {known.text()} of new images, if they come as these did",
        f"  95 % interval, {how_known(known, chosen)}, corrected for the choice",
    ]
    if rivals := chosen.rivals:
        lines.append(f"  not told apart from it: {', '.join(rivals)}")
    if chosen.ece is not None:
        before, after = (100 * value for value in chosen.ece)
        lines.append(
            f"  temperature {chosen.temperature:.3g}: calibration error {before:.1f} % before, {after:.1f} % after"
        )
    return lines


def how_known(known: Expected, chosen: Chosen) -> str:
    """What the estimate is made of."""
    if chosen.entry.unlearned:
        return f"by its answers to {known.images:,} images, from which it learns nothing"
    if known.folds == 1:
        return f"by {known.images:,} images that were held back once: there was no time for more"
    times = f"{known.repeats} times " if known.repeats > 1 else ""
    return f"by {times}{known.folds}-fold cross-validation on {known.images:,} images"


def summary_values(result: AutoResult) -> dict[str, object]:
    """The same as plain values; accuracies are between 0 and 1."""
    chosen, (used, stated) = result.chosen, result.minutes
    known = chosen.expected
    expected = known and {"accuracy": known.accuracy, "interval": (known.low, known.high), "seen": known.seen}
    tried = [
        {
            "method": one.label,
            "accuracy": one.accuracy,
            "repeats": one.repeats,
            "seconds": one.seconds,
            "p": one.verdict and one.verdict.p,
            "told_apart": one.verdict and one.verdict.differs,
            "why": one.why,
        }
        for one in chosen.tried
    ]
    return {
        "dataset": result.dataset,
        "backbone": result.workspace.setting.backbone,
        "images": sum(result.counts),
        "classes": list(result.workspace.splits.classnames),
        "method": chosen.entry.candidate.spec.plain,
        "expected": expected,
        "temperature": chosen.temperature,
        "calibration_error": chosen.ece and {"before": chosen.ece[0], "after": chosen.ece[1]},
        "tried": tried,
        "notes": result.notes,
        "minutes": {"used": used, "stated": stated},
        "folder": result.folder,
        "next": next_commands(result),
    }


def next_commands(result: AutoResult) -> list[str]:
    """What to run next."""
    folder = quote(str(result.folder / "classifier")) if result.folder else "FOLDER"
    lines = [f"adaptkit predict {folder} photos --out labels.csv"]
    if result.found.alone:
        spec = result.chosen.entry.candidate.spec
        asked = strict_json([{spec.name: spec.options}] if spec.options else [spec.name], indent=None)
        setting = result.workspace.setting
        keys = {"methods": asked, "dataset": result.dataset, "backbone": setting.backbone}
        keys |= {} if setting.precision == "auto" else {"precision": setting.precision}
        settings = " ".join(f"--set {quote(f'{key}={value}')}" for key, value in keys.items())
        lines.append(
            f"adaptkit run few_shot --shots all --seeds 1 {settings}"
            "  # the same method, learned from the part train alone, measured on the test images, once"
        )
    if not result.workspace.setting.backbone.startswith(("hf:", "open_clip:")):
        lines.append(f"adaptkit auto {quote(result.dataset)} --backbone {CLIP}  # a CLIP from the hub")
    return lines
