"""What `adaptkit.auto` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.automatic.labelled import Labelled
from adaptkit.automatic.outcome import Chosen
from adaptkit.methods.method import Method
from adaptkit.report.looking.found import Look
from adaptkit.runs.workspace import Workspace

BACKBONES = ("packaged:lite0-minilm", "packaged:emoji-clip")  # those that need no hub, the better one first
CLIP = "hf:openai/clip-vit-base-patch16"


@dataclass(frozen=True, eq=False)
class AutoResult:
    """What `auto` found.

    Attributes:
        dataset: as it was named.
        workspace: the backbone and the cache.
        method: the chosen one, which learned from all labelled images.
        chosen: why it was chosen, and how good it is expected to be.
        found: the labelled images that were used.
        counts: ``(C,)`` of each class.
        look: what was seen of the images; ``None`` where there was no time.
        notes: what whoever reads it must know, in lines.
        minutes: used, and stated.
        folder: with ``classifier`` and ``page.html``; ``None`` where nothing was written.
    """

    dataset: str
    workspace: Workspace = field(repr=False)
    method: Method
    chosen: Chosen = field(repr=False)
    found: Labelled = field(repr=False)
    counts: Sequence[int]
    look: Look | None = field(repr=False)
    notes: Sequence[str]
    minutes: tuple[float, float]
    folder: Path | None = None

    @property
    def name(self) -> str:
        """Of the chosen method."""
        return self.chosen.entry.candidate.spec.name

    @property
    def accuracy(self) -> float | None:
        """Expected on other images, between 0 and 1; ``None`` where nothing can be estimated."""
        return None if self.chosen.expected is None else self.chosen.expected.accuracy

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the expected accuracy, 95 %."""
        known = self.chosen.expected
        return None if known is None else (known.low, known.high)
