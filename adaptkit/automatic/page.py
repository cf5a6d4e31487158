"""What was found, as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptkit.automatic.outcome import Tried
from adaptkit.automatic.result import AutoResult
from adaptkit.automatic.summary import next_commands, verdict_lines
from adaptkit.io.safe import in_html
from adaptkit.report.errors.sections import answers_sections
from adaptkit.report.page.document import document

LIMITS = (
    "The estimate is of images that come as these did: from the same camera, place and time, as often of each class. "
    "Other images may be answered worse, and nothing here can say how much.",
    "An image of none of the classes gets one of their names, too.",
    "Where labels are wrong, the estimate counts right answers to them as errors.",
)


def auto_page(result: AutoResult) -> str:
    """The page."""
    rules = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    parts = [overview(result), tried_section(result), sections_of(result), data_section(result), limits(result)]
    return document(f"{result.dataset}: {result.name}", "".join(parts), rules)


def items(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return f"<ul>{''.join(f'<li>{in_html(one)}</li>' for one in lines)}</ul>" if lines else ""


def overview(result: AutoResult) -> str:
    """The numbers that matter, and how sure they are."""
    known, (used, stated) = result.chosen.expected, result.minutes
    tiles = {
        "expected accuracy": "unknown" if known is None else f"{100 * known.accuracy:.1f} %",
        "chosen method": result.name,
        "labelled images": f"{sum(result.counts):,}",
        "classes": f"{len(result.counts):,}",
        f"minutes, of {stated:g}": f"{used:.1f}",
    }
    boxes = "".join(f"<div><b>{in_html(value)}</b><span>{in_html(name)}</span></div>" for name, value in tiles.items())
    span = ""
    if known is not None:
        low, high, middle = (100 * value for value in (known.low, known.high, known.accuracy))
        span = (
            f'<div class="span" role="img" aria-label="95 % interval {low:.1f} to {high:.1f} %">'
            f'<i style="left:{low:.2f}%;width:{high - low:.2f}%"></i><b style="left:{middle:.2f}%"></b></div>'
            f'<div class="ends"><span>0 %</span><span>95 % interval: {low:.1f} to {high:.1f} %</span>'
            "<span>100 %</span></div>"
        )
    about = in_html(f"backbone {result.workspace.setting.backbone}")
    return f'<p>{about}</p><div class="tiles">{boxes}</div>{span}{items([v.strip() for v in verdict_lines(result)])}'


def tried_section(result: AutoResult) -> str:
    """Every method that was tried."""
    rows = "".join(tried_row(one) for one in result.chosen.tried)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("method", "accuracy, %", "repeats", "s per fold"))
    said = (
        "accuracy on labelled images that the method did not learn from; a difference counts where an exact paired "
        "test, corrected for all pairs, finds it (p &lt; 0.05)"
    )
    return (
        f"<section><h2>What was tried</h2><p>{said}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Methods"><table class="tried">'
        f'<thead><tr>{head}<th scope="col" style="text-align:left">against the first</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def tried_row(one: Tried) -> str:
    """A method's row."""
    bar = f'<span class="track"><span class="bar" style="width:{80 * (one.accuracy or 0):.0f}px"></span></span>'
    kind = "why bad" if one.verdict and one.verdict.differs else "why"
    return (
        f'<tr><th scope="row">{in_html(one.label)}</th><td>{one.percent}{bar}</td><td>{one.repeats}</td>'
        f'<td>{one.seconds:.2f}</td><td class="{kind}">{in_html(one.said)}</td></tr>'
    )


def sections_of(result: AutoResult) -> str:
    """Confusion, reliability and classes, of answers to images that the method did not learn from."""
    chosen = result.chosen
    if chosen.answers is None or chosen.rows is None:
        return ""
    labels = result.found.labels[chosen.rows].numpy()
    names = result.workspace.splits.labelnames
    said = "of the first cross-validation, at the chosen temperature; each image by a method that did not learn from it"
    told = answers_sections(labels, chosen.answers.softmax(1).numpy(), names)
    return f"<section><h2>What it gets wrong</h2><p>{said}</p>{told}</section>"


def data_section(result: AutoResult) -> str:
    """What was seen of the images."""
    looked = result.look.lines() if result.look else []
    return f"<section><h2>The images</h2>{items([*result.notes, *looked])}</section>"


def limits(result: AutoResult) -> str:
    """What cannot be known, and what to do next."""
    commands = "\n".join(map(in_html, next_commands(result)))
    return (
        f"<section><h2>What this cannot know</h2>{items(LIMITS)}</section>"
        f"<section><h2>Next</h2><pre>{commands}</pre></section>"
    )
