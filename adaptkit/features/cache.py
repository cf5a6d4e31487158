"""Compute each feature row once; remember it under its whole provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adaptkit.features.ahead import Ahead
from adaptkit.features.answering import Answering, code_of
from adaptkit.features.captions import Captions
from adaptkit.features.composites import part_read
from adaptkit.features.extraction import Extraction
from adaptkit.features.items import Source
from adaptkit.features.live import Live
from adaptkit.features.needs import Need, Sentence
from adaptkit.features.parts import Index, Part, pairs, row_ids
from adaptkit.features.store import FORMAT, Store, StoredTable
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.precision import AskedPrecision, resolve
from adaptkit.towers.reading import read_whole

TRIES = 3  # to find the rows of files that change meanwhile


class FeatureCache:
    """Rows of features by need, read from disk or extracted on a miss.

    Attributes:
        computed: rows extracted by this object, by the name of their need.
        seconds: what extracting them took.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: Store,
        *,
        hook: Any,  # noqa: ANN401 (pluggy's relay)
        load: Callable[[str], Backbone],
        dtype: Literal["float16", "float32"] = "float16",
        precision: AskedPrecision = "32-true",
        batch_size: int = 32,
        progress: bool = False,
        decoders: int = 0,
    ) -> None:
        """Open.

        Args:
            backbone: the task's own.
            store: where rows are kept.
            hook: plugins' ``extract``, asked on a miss.
            load: another backbone by its full name, for needs that want one.
            dtype: of stored rows.
            precision: of the towers' arithmetic, named as Lightning names it; part of the key. "auto" is one of these.
            batch_size: images in one forward pass.
            progress: show bars while extracting.
            decoders: pictures decoded at once; 0 for as many as there are cores.
        """
        self.own, self.store, self.load = backbone, store, load
        self.precision = resolve(precision, backbone.device)
        self.answering = Answering(hook, self.precision)
        self.extraction = Extraction(self.answering, dtype, batch_size, progress, self._count, decoders)
        self.live = Live(self.compute, batch_size)
        self.dtype, self.batch_size = dtype, batch_size
        self.towers: dict[str, Backbone] = {"": backbone}
        self.tables: dict[tuple[Need, bool, str], StoredTable] = {}
        self.texts: dict[str, dict[str, Tensor]] = {}
        self.held: dict[str, set[str]] = {}
        self.computed: dict[str, int] = {}
        self.seconds = 0.0

    def __deepcopy__(self, memo: dict) -> FeatureCache:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process has it: what lies on disk it finds there, what is held here it reads anew."""
        how = {"dtype": self.dtype, "precision": self.precision, "batch_size": self.batch_size}
        return reopened, (self.answering.hook, self.own, self.store.root, self.load, how)

    def tower(self, name: str) -> Backbone:
        """The task's own backbone for "", or another, loaded when first asked for."""
        if name not in self.towers:
            self.towers[name] = self.load(name).to(self.own.device)
        return self.towers[name]

    def images(self, source: Source, need: Need, index: Tensor) -> Tensor:
        """``(N, ...)`` or, with views, ``(N, V, ...)`` rows as `need` reads them; float32."""
        if not need.stored or need.fresh:
            return self.live.read(source, need, index.tolist(), self.tower(need.backbone))
        if not len(index):
            return self.images(source, need, torch.zeros(1, dtype=torch.long))[:0]
        blocks = []
        for part in self._complete(source, self.parts(source, need, index.numpy())):
            rows = torch.from_numpy(part.table.read(part.ids)).float()
            blocks.append(rows.reshape(len(index), -1, *rows.shape[1:]))  # (N, 1, ...) plain, (N, V, ...) random
        rows = torch.cat(blocks, 1)
        return need.read(rows if need.views else rows[:, 0])

    def expect(self, source: Source, need: Need, index: Sequence[int]) -> Ahead | None:
        """Begin to decode what will be read next, in threads; nothing where rows are stored. See `Live`."""
        return (
            None if need.stored and not need.fresh else self.live.expect(source, need, index, self.tower(need.backbone))
        )

    def fill(self, source: Source, need: Need, index: Index) -> None:
        """Extract what is missing for a reading, without reading it."""
        self.fill_together(source, {need: index})

    def fill_together(self, source: Source, wanted: Mapping[Need, Index]) -> None:
        """Extract what is missing for some readings of a source: each item is opened once for all of them.

        Needs that read the same pixels by the same tower share its passes, where their rows are then the same bits.
        """
        parts: dict[StoredTable, Part] = {}
        for need, index in wanted.items():
            for part in self.parts(source, need, index):
                known = parts.get(part.table)
                parts[part.table] = part if known is None else known.joined(part)
        self._complete(source, [*parts.values()])

    def parts(self, source: Source, need: Need, index: Index) -> list[Part]:
        """The stored rows behind a reading."""
        parts = []
        random = need.views - need.plain_first
        if need.views == 0 or need.plain_first:
            parts.append(self._part(source, need, False, pairs(index, [-1])))
        if random > 0:
            parts.append(self._part(source, need, True, pairs(index, range(random))))
        return parts

    def cost(self, source: Source, need: Need, images: int) -> float:
        """Seconds that this many images of a need cost to extract, at the rate its tables were filled."""
        if not need.stored or need.fresh:
            return 0.0
        parts = self.parts(source, need, [])
        rows = [images * (need.views - need.plain_first if part.random else 1) for part in parts]
        return sum(n * part.table.seconds / max(1, part.table.rows) for n, part in zip(rows, parts, strict=True))

    def sentences(self, sentences: Sequence[str], backbone: str = "") -> Tensor:
        """P sentences to raw embeddings, ``(P, D)``, by any tower, each encoded once and kept on disk."""
        texts = self.texts.setdefault(backbone, {})
        if new := [s for s in dict.fromkeys(sentences) if s not in texts]:
            self.hold([[s] for s in new], backbone)
            rows = self.images(Captions(new), Sentence(unit=False, backbone=backbone), torch.arange(len(new)))
            texts |= dict(zip(new, rows, strict=True))
        return torch.stack([texts[s] for s in sentences])

    def hold(self, classes: Sequence[Sequence[str]], backbone: str = "") -> None:
        """Hold sentences against what a tower reads, each once, those that are held together as classes; see there.

        Raises:
            ValueError: for classes that are the same once their sentences are cut.
        """
        held = self.held.setdefault(backbone, set())
        if new := [own for own in classes if not held.issuperset(own)]:
            read_whole(self.tower(backbone), new)
            held.update(s for own in new for s in own)

    def _part(self, source: Source, need: Need, random: bool, items: np.ndarray) -> Part:
        need = need.table(random)
        backbone = self.tower(need.backbone)
        by = self.answering.by(need, backbone)
        if (need, random, str(by)) not in self.tables:
            spec = {**self._spec(backbone, need), **need.describe(), **need.made_with(backbone), "by": by}
            spec |= {"random": random, "dtype": need.dtype or self.dtype}
            self.tables[need, random, str(by)] = self.store.table(spec)
        table = self.tables[need, random, str(by)]
        return Part(need, random, table, backbone, items, row_ids(source, items))

    def _spec(self, backbone: Backbone, need: Need) -> dict[str, object]:
        parts = (need, backbone, backbone.preprocess) if need.visual else (need, backbone)
        classes: list[type] = [type(part) for part in parts]
        return {
            "code": code_of(*classes),
            "format": FORMAT,
            "tower": type(backbone).__name__,
            "fingerprint": backbone.fingerprint,
            "precision": self.precision,
        }

    def _complete(self, source: Source, parts: list[Part]) -> list[Part]:
        """The parts with every row stored. A file that was changed meanwhile has another key: it is planned again."""
        for _ in range(TRIES):
            self.extraction.complete(source, parts)
            if not (short := [part for part in parts if part.missing().any()]):
                return parts
            parts = [self._part(source, p.need, p.random, p.items) if p in short else p for p in parts]
        i, _ = short[0].items[int(short[0].missing().argmax())]
        raise ValueError(
            f"an image must stay as it is while its features are computed; got {TRIES} different ones of item {i} of "
            f"{source.name}; try again when nothing writes there"
        )

    def compute(self, need: Need, backbone: Backbone, ready: Sequence[Any]) -> Tensor:
        """Rows of some prepared items, from the first plugin that answers."""
        return self.answering.ask(need, backbone, ready)

    def _count(self, name: str, rows: int, seconds: float) -> None:
        self.computed[name] = self.computed.get(name, 0) + rows
        self.seconds += seconds


def reopened(hook: Any, own: Backbone, root: Path, load: Any, how: dict[str, Any]) -> FeatureCache:  # noqa: ANN401
    """A cache in another process than the one that opened it."""
    return FeatureCache(own, Store(root), hook=hook, load=load, **how)


@dataclass(frozen=True)
class CachedRows:
    """The rows of one source, through the cache."""

    cache: FeatureCache
    source: Source

    def read(self, name: str, need: Need, index: Tensor) -> Tensor:
        """One row per index."""
        return self.cache.images(*part_read(self.source, need), index)

    def fill(self, needs: Iterable[Need], index: Tensor) -> None:
        """Extract what some needs lack, each item opened once; see `FeatureCache.fill_together`."""
        wanted: dict[int, tuple[Source, list[Need]]] = {}
        for source, need in (part_read(self.source, need) for need in needs):
            wanted.setdefault(id(source), (source, []))[1].append(need)
        for source, own in wanted.values():
            self.cache.fill_together(source, dict.fromkeys(own, index.numpy()))

    def expect(self, need: Need, index: Tensor) -> Ahead | None:
        """Begin to decode the rows that are read next; see `FeatureCache.expect`."""
        return self.cache.expect(*part_read(self.source, need), index.tolist())
