"""Zero-shot accuracies that others report: backbone by dataset, each with its source and how near ours should be.

They say whether weights, preprocessing and prompts are right before anything is adapted. ``zero_shot.json`` beside this
file has them; a table whose prompts are not ours says so, and allows more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from adaptkit.io.jsons import read_json
from adaptkit.runs.published import Published
from adaptkit.runs.setting import Setting, named_sets

ZERO_SHOT = "zero-shot"


@cache
def _tables() -> Mapping[str, Any]:
    return read_json(Path(__file__).with_name("zero_shot.json"))


def weights_of(backbone: str) -> str:
    """What the weights of a backbone are called in the tables; "" where none has them."""
    return next((name for name, known in _tables()["weights"].items() if backbone in known), "")


def datasets_of(backbone: str) -> tuple[str, ...]:
    """The datasets that a reference is known of, for a backbone."""
    name = weights_of(backbone)
    return tuple(sorted({d for table in _tables()["tables"] if table["weights"] == name for d in table["accuracy"]}))


def references(setting: Setting) -> Iterator[Published]:
    """What is known of zero-shot in a setting: the nearest reference for its dataset, and for each of its domains."""
    if setting.classes != "all" or setting.prompts.options:
        return
    name = weights_of(setting.backbone)
    tables = [t for t in _tables()["tables"] if t["weights"] == name and setting.prompts.name in t["prompts"]]
    sets = {"accuracy": setting.dataset, **{f"{at}/accuracy": d for at, d in named_sets(setting.domains).items()}}
    for metric, dataset in sets.items():
        known = [table for table in tables if dataset.partition(":")[0] in table["accuracy"]]
        for table in sorted(known, key=lambda table: table["within"])[:1]:
            value, source = table["accuracy"][dataset.partition(":")[0]], f"{table['source']}; {table['about']}"
            yield Published(method=ZERO_SHOT, value=value, source=source, metric=metric, within=table["within"])
