"""Where the predictions behind results are kept: in memory, or beside the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from adaptkit.report.errors.gallery import Gallery
from adaptkit.runs.results import Result
from adaptkit.runs.told import PREDICTIONS, Told, file_beside, read_told


class Keeper(Protocol):
    """What knows the predictions behind results."""

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set; nothing where it was not kept."""
        ...

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set."""
        ...


@dataclass
class HeldPredictions:
    """Predictions in memory, as `adaptkit.api.compare` has them.

    Attributes:
        pairs: results with what was told.
        galleries: by test set.
    """

    pairs: list[tuple[Result, list[Told]]] = field(default_factory=list)
    galleries: dict[str, Gallery] = field(default_factory=dict)

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set."""
        return next((told for own, told in self.pairs if own is result), [])

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set."""
        return self.galleries.get(told.name)


@dataclass(frozen=True)
class InFolders:
    """Predictions beside the records of runs.

    Attributes:
        folders: of the runs.
        home: where features are kept; ``None`` is the default.
        dataset: where the images are now, if not where the recipe says.
    """

    folders: Sequence[Path]
    home: Path | None = None
    dataset: str = ""

    def file(self, result: Result) -> Path | None:
        """The file of a record's predictions, if there is one."""
        name = Path(file_beside(f"*.{result.tag}", result.step)).name
        found = [path for f in self.folders for path in sorted((f / PREDICTIONS).glob(name))] if result.tag else []
        return found[0] if found else None

    def told(self, result: Result) -> list[Told]:
        """What was answered, test set by test set.

        Raises:
            ValueError: when the file is not as it was written, or another record's.
        """
        path = self.file(result)
        return [] if path is None else read_told(path, result)

    def gallery(self, result: Result, told: Told) -> Gallery | None:
        """Pictures of the images of one test set, and of the support that is drawn again."""
        from adaptkit.report.errors.reopening import reopened_sets

        path = self.file(result)
        if path is None:
            return None
        run = path.parents[1]
        return Gallery(lambda: reopened_sets(run, self.home, self.dataset, result, told.name), told.asked["digests"])
