"""The tables of features under one folder: opened by what determines their rows, verified, and swept."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from adaptkit.features.entries import DamagedShardWarning
from adaptkit.features.tables import COPY, FORMAT, HEAL, StoredTable
from adaptkit.io.files import atomic_write, digest, remove
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import read_file

__all__ = ["FORMAT", "DamagedShardWarning", "Store", "StoredTable"]


class Store:
    """The tables under one folder, which need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._tables: dict[Path, StoredTable] = {}

    def table(self, spec: Mapping[str, object]) -> StoredTable:
        """The table of a spec, which determines the bytes of a row; asked again, the same object."""
        table = StoredTable(self.root, spec)
        return self._tables.setdefault(table.folder, table)

    def tables(self) -> list[StoredTable]:
        """Every table on disk that can be opened; `verify` names the others."""
        return [table for _, table in self._open() if isinstance(table, StoredTable)]

    def verify(self) -> list[str]:
        """Hash everything; one sentence, which names the file, for each thing wrong."""
        found = []
        for folder, table in self._open():
            try:
                found += table.flaws() if isinstance(table, StoredTable) else [table]
            except (OSError, ValueError) as error:  # of its log
                found.append(f"{folder} cannot be read: {error}")
        return [flaw for flaw in found if flaw]

    def unusable(self) -> list[str]:
        """What is wrong with tables that cannot be opened, without reading what the others hold."""
        return [table for _, table in self._open() if isinstance(table, str) and table]

    def repair(self) -> list[str]:
        """Write again each ``spec.json`` that is missing or garbled, from its copy; names what it wrote.

        Tables from before there were copies leave it to the next run that adds rows to them.
        """
        healed = []
        for folder, table in self._open():
            path = folder / "spec.json"
            if isinstance(table, StoredTable) or not table or _older(folder):
                continue
            try:
                text = read_file(folder / COPY)
            except (OSError, ValueError):
                continue
            if digest(text)[:32] == folder.name:
                with FileLock(folder / ".lock"):
                    if not path.is_dir():
                        path.unlink(missing_ok=True)  # a link or a pipe in its place is not written through
                    atomic_write(path, text)
                healed.append(str(path))
        return healed

    def gc(self, keep: Iterable[StoredTable] | None = None, older_than_days: float | None = None) -> int:
        """Remove litter, damaged shards, and tables not in `keep` nor written for so many days; returns bytes freed."""
        kept, freed = {table.folder for table in keep or ()}, 0
        for folder, table in self._open():
            if isinstance(table, StoredTable):
                freed += table.gc(None if folder in kept else older_than_days)
            else:
                with FileLock(folder / ".lock"):
                    what = folder.rglob("*") if _older(folder) else folder.glob("*.tmp")  # nobody will read the older
                    freed += remove(path for path in what if path.is_file() and path.name[0] != ".")
        return freed

    def _open(self) -> Iterator[tuple[Path, StoredTable | str]]:
        """Each folder, and its table or what is wrong with it; nothing is if only its first writer was killed."""
        for folder in sorted(self.root.glob("[0-9a-f]" * 32)):
            path = folder / "spec.json"
            if _older(folder):
                yield folder, f"{path} was made by an older version of adaptkit, which is never read; `gc` removes it"
                continue
            try:
                table = self.table(read_json(path))
                if table.folder != folder:
                    raise ValueError(f"its folder must be called {table.folder.name}; remove the folder")
                yield folder, table
            except (OSError, TypeError, ValueError) as error:
                begun = path.exists() or (folder / "log.jsonl").exists()
                yield folder, f"{path} cannot be used: {error}; {HEAL}" if begun else ""


def _older(folder: Path) -> bool:
    """Whether a table is of a format before this one."""
    try:
        spec = read_json(folder / "spec.json")
    except (OSError, ValueError):
        return False
    made = spec.get("format") if isinstance(spec, dict) else None
    return isinstance(made, int) and made < FORMAT
