"""Where features and results live."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def home() -> Path:
    """``$ADAPTKIT_HOME``, or the platform's cache folder."""
    return Path(os.environ.get("ADAPTKIT_HOME") or user_cache_path("adaptkit"))
