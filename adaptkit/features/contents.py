"""What a table holds, as this process knows it: kept up with the log, held against the shards whenever it is asked."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np

from adaptkit.features.batches import RowBatch
from adaptkit.features.entries import ENTRY, MERGED, DamagedShardWarning, Ledger, ShardLine, is_entry
from adaptkit.features.places import Places, flaw, read_places
from adaptkit.features.shards import Shard, halves
from adaptkit.io.files import Signature, signature
from adaptkit.io.logs import Log

STEP = 4096  # rows of a shard that are read at once
SINGLY = 64  # shards whose ids are sorted each for itself; more of them at once are sorted together


class Contents:
    """The shards of a table and where their rows are. Reads the log on, and looks only at what is new or asked for."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self.table, self.folder, self.index, self._dtype = folder.name, folder / "shards", folder / "index", dtype
        self.log = Log(folder / "log.jsonl", *ENTRY, more=[MERGED], sound=is_entry)
        self.ledger = Ledger()
        self.runs: list[Places] = []
        self._read: tuple[object, int] = None, 0  # the records that were told, and how many
        self._gone: list[str] = []  # shards that are still to be forgotten, and those to be known
        self._come: list[str] = []
        self._news: dict[str, str] = {}  # what is still to be said of shards
        self._shards: dict[int, Shard] = {}
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._told: dict[str, Places] = {}  # by which run, of each shard
        self._said: dict[str, str] = {}  # what was wrong with shards, by their names
        self._index: Signature | None = None
        self._wrong: set[Path] = set()
        self._bad: set[int] = set()  # places of rows that are damaged

    def told(self, surely: bool = False) -> Ledger:
        """The shards that count by what the log says now; nothing is looked at."""
        self.log.refresh(surely)
        records, (known, count) = self.log.records, self._read
        if records is known and len(records) == count:
            return self.ledger
        if records is not known:
            before, self.ledger, count = self.ledger.live, Ledger(), 0
        gone = [name for entry in records[count:] for name in self.ledger.add(entry)]
        if records is not known:
            live = self.ledger.live
            gone = [name for name, entry in before.items() if live.get(name, {}).get("sha256") != entry["sha256"]]
        self._gone += gone
        self._come += [entry["shard"] for entry in records[count:]]
        self._read = records, len(records)
        return self.ledger

    def refresh(self, surely: bool = False) -> None:
        """Know the shards that the log tells of, and look again at damaged ones if it tells of any others."""
        self.told(surely)
        while self._gone or self._come:
            gone, come = len(self._gone), len(self._come)
            again = [name for name in self._said if name not in self._numbers]  # it may be back
            for name in self._gone:
                self._drop(name)
            names = [name for name in dict.fromkeys([*self._come, *again]) if name in self.ledger.live]
            self._take([name for name in names if name not in self._told])
            self._gone, self._come = self._gone[gone:], self._come[come:]  # only now: it may have been interrupted
            if self._news:
                self.told(surely=True)  # was it replaced meanwhile?
        self._speak()

    def find(self, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Whether each of the uint8 ``(N, 16)`` ids is stored and sound, bool; if all are, `out` gets bytes of rows."""
        high, low = halves(ids)
        self.refresh()
        while True:
            places = self._locate(high, low)
            if out is not None and (places < 0).any():
                break
            if self._visit(places, ids, out):
                break
        return places >= 0

    @property
    def shape(self) -> list[int] | None:
        """Of a row, if there is any."""
        return next((shard.entry["shape"] for shard in self._shards.values()), None)

    def shard(self, entry: ShardLine) -> Shard:
        """A new look at a shard."""
        return Shard(self.folder, entry, self._dtype)

    def index_flaws(self) -> dict[Path, str]:
        """Files that should tell where rows are, with what is wrong with them."""
        return {path: flaw(path, self._ids) for path in sorted(self.index.glob("*.safetensors"))}

    def _ids(self, name: str) -> np.ndarray | None:
        entry = self.ledger.live.get(name)
        shard = self.shard(entry) if entry else None
        return shard.ids()[0] if shard and not shard.open() else None

    def _drop(self, name: str) -> None:
        """Forget a shard."""
        number = self._numbers.pop(name, None)
        if number is not None:
            self._shards.pop(number)
            self._bad = {place for place in self._bad if place >> 32 != number} if self._bad else self._bad
        self._unrun(name)

    def _unrun(self, name: str) -> None:
        run = self._told.pop(name, None)
        if run is not None and not run.lose(name):
            self.runs.remove(run)

    def _take(self, names: list[str]) -> None:
        """Know some shards from now on."""
        for name in names:
            if name in self._numbers:  # of a look that was interrupted
                continue
            self._numbers[name], self._shards[self._next] = self._next, self.shard(self.ledger.live[name])
            self._next += 1
        if any(name not in self.ledger.young for name in names):
            self.scan()
        self._sort([name for name in names if name not in self._told])

    def scan(self) -> None:
        """Use what files tell of where rows are, if there are other files than before; each shard by the largest."""
        now = signature(self.index) if self.index.is_dir() else None
        if now == self._index:
            return
        self._index = now
        known = {run.path for run in self.runs}
        found = [
            run
            for path in sorted(self.index.glob("*.safetensors"))
            if path not in known | self._wrong
            for run in [read_places(path)]
            if run
        ]
        for run in sorted(found, key=lambda run: -len(run.names)):
            for name in self._numbers.keys() & set(run.names):
                if name not in self._told or len(self._told[name].names) < len(run.names):
                    self._unrun(name)
                    self._tell(run, name)
            if run.told:
                self.runs.append(run)

    def _tell(self, run: Places, name: str) -> None:
        run.tell(name, self._numbers[name], self.ledger.live[name]["rows"])
        self._told[name] = run

    def _sort(self, names: list[str]) -> None:
        """Read and sort the ids of shards; warn of those that are not what the log says."""
        ids: dict[str, np.ndarray] = {}
        for name in names:
            shard = self._shards[self._numbers[name]]
            said = shard.open()
            own, sound = shard.ids()
            if own is None:  # or it was merged since it was opened: then the log no longer tells of it
                self._warn(name, f"{said or f'{shard.path} is missing'}; its rows count as missing")
                self._drop(name)
                continue
            self._said.pop(name, None)
            ids[name] = own
            if not sound:
                self._warn(name, f"{shard.path} has ids that are not what was written; their rows count as missing")
        groups = [[name] for name in ids] if len(ids) <= SINGLY else [list(ids)]
        for group in groups:
            run = Places.of(group, [ids[name] for name in group])
            for name in group:
                self._tell(run, name)
            self.runs.append(run)

    def _warn(self, name: str, said: str) -> None:
        if self._said.get(name) != said:
            self._said[name] = said
            self._news[name] = said

    def _speak(self) -> None:
        """Say what was found damaged, once everything is in order: a warning may be an error."""
        news, self._news = self._news, {}
        self._said = {name: said for name, said in self._said.items() if name in self.ledger.live}
        for said in (said for name, said in news.items() if name in self._said):
            warnings.warn(said, DamagedShardWarning, stacklevel=5)

    def _locate(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The place of each id, -1 for none: by the newest that tells of it."""
        places, todo = np.full(len(high), -1), np.argsort(high)  # near ones are found faster one after another
        bad = np.array(sorted(self._bad), int)
        for run in reversed(self.runs):
            found = run.find(high[todo], low[todo])
            if len(bad):
                found[np.isin(found, bad)] = -1
            if (hit := found >= 0).any():
                places[todo[hit]] = found[hit]
                todo = todo[~hit]
            if not len(todo):
                break
        return places

    def _visit(self, places: np.ndarray, ids: np.ndarray, out: np.ndarray | None) -> bool:
        """Look at the rows at some places, or read them; False if something was not what it was thought to be."""
        order = np.argsort(places, kind="stable")
        order = order[int((places < 0).sum()) :]
        numbers, batch = places[order] >> 32, RowBatch(self.table, ids, out)
        cuts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(order)]
        for start, end in pairwise(cuts):
            for first in range(start, end, STEP):
                mine = order[first : min(end, first + STEP)]
                batch.add(self._shards[int(numbers[first])], places[mine] & 0xFFFFFFFF, mine)
                if batch.full and (odd := batch.read()):
                    return self._mend(*odd)
        return self._mend(*odd) if (odd := batch.read()) else True

    def _mend(self, shard: Shard, at: np.ndarray | None, ids: np.ndarray) -> bool:
        """Believe no more a shard that is not what it was, rows that are not what was written, or who told of them."""
        name = shard.entry["shard"]
        if at is None:
            self.told(surely=True)  # of others in its place, perhaps
            if name in self.ledger.live and name not in self._gone:
                self._drop(name)
                self._come.append(name)
            self.refresh()
            return False
        run = self._told[name]
        if run.path and not all(shard.has(i, own) for i, own in zip(at, ids, strict=True)):
            self._wrong.add(run.path)
            lost = run.told
            for each in lost:
                self._unrun(each)
            self._sort(lost)
        else:
            self._bad |= {(self._numbers[name] << 32) + i for i in at.tolist()}
            self._warn(name, f"{shard.path} has rows that are not what was written; they count as missing")
        self._speak()
        return False
