"""Which kinds of tasks a saved classifier may be adapted to."""

from __future__ import annotations

from adaptkit.methods.task import Task

SAVED = ("classification", "maps")


def ensure_kind(task: Task) -> None:
    """What is adapted to such a task can be saved.

    Raises:
        ValueError: when it cannot: of grades, and of several labels an image.
    """
    if task.kind not in SAVED and task.gallery is None:
        kinds = f"{', '.join(SAVED)} or of a gallery"
        raise ValueError(f"what is saved must be adapted to a task of {kinds}; got one of {task.kind}")
