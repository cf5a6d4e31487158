"""Extraction through a ViT-B/16 with random weights: several needs at once, and how much of the time is the tower's.

Plain code opens each picture and runs the tower anew for each thing that is wanted of it, as scripts of one method each
do. The tower alone gets pixels that are ready.
"""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from adaptkit import Layers, Need, Patches, Pooled
from adaptkit.features.cache import FeatureCache
from adaptkit.features.sources import PictureFiles
from adaptkit.features.store import Store
from adaptkit.io.digests import FileDigests
from adaptkit.runs.plugins import manager
from adaptkit.towers.backbone import Backbone
from adaptkit.towers.precision import Precision, autocast
from benchmarks.frame import Row, Size, case, clock, ensure_close
from benchmarks.photographs import photographs
from benchmarks.towers import backbone

GFLOP = 35.1e9  # of one image through a ViT-B/16
BATCHES = (1, 4, 16, 64)
TIMES = 2
SMALL = 6  # pictures


@contextmanager
def pictures(count: int) -> Iterator[PictureFiles]:
    """So many JPEG files, all read once."""
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), count)
        files = PictureFiles("photographs", paths, [0] * count, FileDigests(Path(folder) / "index"))
        for i in range(count):
            files.open(i)
        yield files


def needs_of(tower: Backbone) -> dict[Need, Callable[[Tensor, list[Tensor]], Tensor]]:
    """What is wanted, and how plain code makes it of the pooled embedding and of what leaves the blocks."""
    project, middle = tower.model.visual_projection, tower.depth["image"] // 2
    return {
        Pooled(unit=False): lambda pooled, _: project(pooled),  # type: ignore[operator]
        Pooled(unit=False, projected=False): lambda pooled, _: pooled,
        Patches(block=middle): lambda _, left: left[middle + 1],
        Layers(blocks=(0, -1), tokens="class"): lambda _, left: torch.stack([left[1], left[-1]], 1)[:, :, :1],
    }


def plain(tower: Backbone, images: PictureFiles, take: Callable[[Tensor, list[Tensor]], Tensor], batch: int) -> Tensor:
    """One thing that is wanted of some pictures, as a script of its own gets it."""
    rows = []
    for at in range(0, len(images), batch):
        pixels = [tower.preprocess(images.open(i)[1]) for i in range(at, min(at + batch, len(images)))]
        with torch.no_grad():
            out = tower.model.vision_model(torch.stack(pixels), output_hidden_states=True)  # type: ignore[operator]
            rows.append(take(out.pooler_output, [*out.hidden_states]))
    return torch.cat(rows)


def extracted(
    tower: Backbone, images: PictureFiles, needs: list[Need], batch: int, precision: Precision
) -> tuple[float, list[Tensor]]:
    """Seconds that our extraction takes, with all that it writes, and the rows that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(
            tower,
            Store(Path(folder)),
            hook=manager().hook,
            load=lambda _: tower,
            batch_size=batch,
            precision=precision,
            dtype="float32",
        )
        began, every = clock(), range(len(images))
        cache.fill_together(images, dict.fromkeys(needs, every))
        took = clock() - began
        return took, [cache.images(images, need, torch.tensor(every)) for need in needs]


@case("passes for four needs", C100=3)
def several(size: Size) -> Row:
    """Four needs of the same pictures: one reading and one pass for all, beside one of each for each."""
    small = size.C < 100
    tower, count = backbone(small), SMALL if small else 32
    wanted = needs_of(tower)
    with pictures(count) as images:
        began = clock()
        want = [plain(tower, images, take, 8) for take in wanted.values()]
        spent = clock() - began
        took, got = extracted(tower, images, [*wanted], 8, "32-true")
    for need, ours, theirs in zip(wanted, got, want, strict=True):
        ensure_close(ours, theirs, 1e-4 * float(theirs.abs().max()), str(need))
    return Row(spent, took, f"{count} pictures", count * (1e6 if small else GFLOP))


def share(batch: int, precision: Precision, size: Size) -> Row:
    """The tower alone on pixels that are ready, beside extraction with all it does: the ratio is the tower's share."""
    small = size.C < 100
    tower, count = backbone(small), SMALL if small else max(32, batch)
    with pictures(count) as images:
        spent, took = side_by_side(tower, images, batch, precision)
    return Row(min(spent), min(took), f"{count} pictures", count * (1e6 if small else GFLOP))


def side_by_side(
    tower: Backbone, images: PictureFiles, batch: int, precision: Precision
) -> tuple[list[float], list[float]]:
    """Seconds of the tower alone and of extraction, in turn, of equal rows."""
    pixels = torch.stack([tower.preprocess(images.open(i)[1]) for i in range(len(images))])

    def alone() -> Tensor:
        with torch.no_grad(), autocast(precision, tower.device):
            return torch.cat([tower.encode_image(some).float() for some in pixels.split(batch)])

    with torch.no_grad():
        tower.encode_image(pixels[:2])  # warm
    spent, took = [], []
    for _ in range(TIMES):
        began = clock()
        want = alone()
        spent.append(clock() - began)
        seconds, (got,) = extracted(tower, images, [Pooled(unit=False)], batch, precision)
        took.append(seconds)
    room = 1e-4 if precision == "32-true" else 2e-2  # a pass may have fewer rows, and another order of sums
    ensure_close(got, want, room * float(want.abs().max()), f"rows in batches of {batch}")
    return spent, took


for arithmetic in ("32-true", "bf16-mixed"):
    for rows in BATCHES:
        case(f"share {arithmetic} by {rows}", C100=0.9)(functools.partial(share, rows, arithmetic))
