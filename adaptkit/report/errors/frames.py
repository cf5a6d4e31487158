"""Arrays as pandas tables, where somebody has pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(values: Any, **more: Any) -> DataFrame:  # noqa: ANN401 (what pandas takes)
    """A pandas table.

    Raises:
        ImportError: without pandas.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("a frame needs pandas; pip install pandas") from error
    return DataFrame(values, **more)
