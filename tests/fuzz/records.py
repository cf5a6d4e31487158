"""Damaged records, logs, specs, digests, split files, lists of indices, texts, tables and saved classifiers."""

import contextlib
import io
import json
import random
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import adaptkit as ak
from adaptkit import cli
from adaptkit.features.split_files import read_split
from adaptkit.features.store import Store
from adaptkit.io.digests import FileDigests
from adaptkit.io.files import canonical, digest
from adaptkit.report import formats, page, runs
from adaptkit.report.comparison import Comparison
from adaptkit.runs.failures import read_failures
from adaptkit.runs.results import digest_of
from tests.fuzz import damage

RECIPE = (
    "{dataset: toy, backbone: toy:0, select: none, shots: [1, 2], seeds: [1], domains: [noisy],"
    " methods: [zero-shot, {gda: {views: 2}}]}"
)


def say(*words):
    """A command in this process: its exit code and what it complained of."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as left:
            code = left.code
    return code, error.getvalue()


class World:
    """Sound files of every kind below a folder, and what reads each."""

    def __init__(self, root):
        self.root = root
        (root / "x.yaml").write_text(RECIPE)
        code, error = say("--home", root / "home", "run", root / "x.yaml", "--quiet")
        if code:
            raise SystemExit(error)
        self.results, self.store = root / "home" / "results" / "x", root / "home" / "features"
        self.failure()
        task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1, home=root / "home")
        ak.save_classifier(root / "saved", ak.adapt(ak.method("tip-adapter"), task), task, backbone="toy:0")
        self.pictures(test)
        self.targets = [
            *((path, self.compare) for path in self.results.glob("*.json")),
            *((path, self.compare) for path in self.results.glob("failed/*.json")),
            *((path, self.read_store) for path in self.store.glob("*/*.json*")),
            (root / "saved" / "config.json", self.load),
            (root / "split.json", lambda: read_split(root / "split.json")),
            (root / "photos.csv", lambda: self.load_data("csv", "photos.csv")),
            (root / "digests", self.digests),
            *((root / name, lambda name=name: self.support(name)) for name in ("indices.json", "indices.jsonl")),
            (root / "texts.json", lambda: self.prompts("texts.json")),
        ]

    def failure(self):
        """What a cell that failed leaves."""
        record = {"method": "gda", "shots": 1, "seed": 3, "protocol": {"dataset": "toy"}, "tag": "abc"}
        (self.results / "failed").mkdir()
        text = json.dumps({**record, "cause": "ValueError: x", "file": "failed/x.txt"})
        (self.results / "failed" / "x.json").write_text(text)

    def pictures(self, test):
        """Pictures, and files that list them."""
        from PIL import Image

        rows = []
        for n in range(8):
            name = f"photos/{'ab'[n % 2]}{n}.png"
            (self.root / "photos").mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * n, np.uint8)).save(self.root / name)
            rows.append((name, n % 2, "ab"[n % 2]))
        (self.root / "photos.csv").write_text(
            "path,label,split\n"
            + "".join(f"{p},{c},{'test' if i < 4 else 'train'}\n" for i, (p, _, c) in enumerate(rows))
        )
        (self.root / "split.json").write_text(json.dumps({part: rows for part in ("train", "val", "test")}))
        listed = [{"impath": path, "label": label, "classname": name} for path, label, name in rows]
        (self.root / "indices.json").write_text(json.dumps({"train": {"data": listed}, "val": {"data": listed[:2]}}))
        lines = [json.dumps({"_impath": path, "_label": label}) + "\n" for path, label, _ in rows]
        (self.root / "indices.jsonl").write_text("".join(lines))
        (self.root / "texts.json").write_text(json.dumps({"sentences": {"classes": {"a": ["x", "y"], "b": ["z"]}}}))
        digests = FileDigests(self.root / "digests")
        body = canonical({str(path): [[1, 2, 3, 4], "ab"] for path, *_ in rows})
        digests.index.write_bytes(digest(body).encode() + b"\n" + body)

    def compare(self):
        """As ``adaptkit compare`` and ``run`` read results."""
        found = runs.read_runs([self.results])
        comparison = Comparison(found, "", "")
        for write in (formats.markdown, page.page):
            write(comparison)
        ak.read_results(self.results).frame() if len(found[0].results) % 2 else list(read_failures(self.results))

    def read_store(self):
        """As ``adaptkit cache`` and a run read features."""
        store = Store(self.store)
        store.verify()
        for table in store.tables():
            table.missing(np.zeros((1, 16), np.uint8))
            f"{table.rows:,} {table.bytes:,} {table.seconds:.1f}"
        if say("--home", self.root / "home", "cache", "ls")[0]:
            raise ValueError("refused")

    def load(self):
        """As ``adaptkit predict`` reads a classifier."""
        ak.load_classifier(self.root / "saved", home=self.root / "home")

    def load_data(self, scheme, name):
        """As a run loads a dataset."""
        from adaptkit.runs.loading import pick_dataset

        return pick_dataset(f"{scheme}:{self.root / name}", self.root / "home")

    def support(self, name):
        """As a run reads who is in the support."""
        from adaptkit_plugins.supports import indices

        indices.read(self.root / name, 1, 1)

    def prompts(self, name):
        """As a run reads sentences."""
        from adaptkit_plugins.prompts.llm import llm

        llm(("a", "b"), None, file=str(self.root / name))

    def digests(self):
        """As a dataset asks for digests."""
        found = FileDigests(self.root / "digests")
        found.of(self.root / "photos.csv")
        found.save()


def altered(path, whole, dice):
    """The text of a file, damaged; records and digests that say so of themselves may say it truly."""
    if path.suffix != ".json":
        made = damage.bytes_of(whole, dice)
        if path.suffix == ".jsonl" and dice.random() < 0.6:
            lines = whole.splitlines()
            n = dice.randrange(len(lines))
            lines[n] = json.dumps(damage.value_of(json.loads(lines[n]), dice)).encode()
            made = b"\n".join(lines) + b"\n"
        if path.name == "digests" and dice.random() < 0.8:
            body = damage.text_of(whole.partition(b"\n")[2], dice)
            made = digest(body).encode() + b"\n" + body
        return made
    made = damage.text_of(whole, dice)
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(made)
        if isinstance(record, dict) and "digest" in record and dice.random() < 0.9:
            record.pop("protocol_hash" if dice.random() < 0.8 else "digest", None)
            record.pop("digest", None)
            made = json.dumps({**record, "digest": digest_of(record)}).encode()
    return made


def fuzz(cases, root, seed=0):
    """Damage and read so many times."""
    world = World(root)

    def one(n):
        dice = random.Random(f"{seed}/{n}")
        path, read = world.targets[dice.randrange(len(world.targets))]
        whole = path.read_bytes()
        path.write_bytes(altered(path, whole, dice))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
                return "read"
        finally:
            path.write_bytes(whole)

    return damage.count("damaged records and index files", cases, one)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(damage.report(*fuzz(int(sys.argv[1]), Path(folder), *sys.argv[2:])))
