"""The commit that a folder's files are of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECONDS = 5.0  # that git may take to answer, on a disk that is far away


def commit(folder: Path) -> str:
    """The commit of the repository that a folder lies in, with ``+changes`` where tracked files differ from it.

    Returns:
        "" where there is no git, no repository or no answer; it never asks anything and never waits for long.
    """
    found = ask(folder, "rev-parse", "--verify", "HEAD")
    if not found:
        return ""
    changes = ask(folder, "status", "--porcelain", "--untracked-files=no")
    return found + ("+unknown" if changes is None else "+changes" if changes else "")


def ask(folder: Path, *words: str) -> str | None:
    """What git prints, or ``None`` where it fails."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            env=quiet,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
