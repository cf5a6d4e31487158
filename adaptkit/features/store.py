"""The tables of features under one folder: opened by what determines their rows, verified, and swept."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from adaptkit.features.tables import FORMAT, DamagedShardWarning, StoredTable
from adaptkit.io.files import remove

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
        found = [table.flaws() if isinstance(table, StoredTable) else [table] for _, table in self._open()]
        return [flaw for flaws in found for flaw in flaws if flaw]

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
                table = self.table(json.loads(path.read_bytes()))
                if table.folder != folder:
                    raise ValueError(f"its folder must be called {table.folder.name}; remove the folder")
                yield folder, table
            except (OSError, TypeError, ValueError) as error:
                begun = path.exists() or (folder / "log.jsonl").exists()
                yield folder, f"{path} cannot be used: {error}" if begun else ""


def _older(folder: Path) -> bool:
    """Whether a table is of a format before this one."""
    try:
        spec = json.loads((folder / "spec.json").read_bytes())
    except (OSError, ValueError):
        return False
    made = spec.get("format") if isinstance(spec, dict) else None
    return isinstance(made, int) and made < FORMAT
