"""Pictures to stored features: beside a loop of `transformers`, a `DataLoader`'s way, and tower and decoding alone.

``python -m benchmarks.extraction [--tower small|vit-b-16] [--pictures N] [--batch B] [--precision P] [--device cuda]``
prints pictures a second of each, by the wall's clock with several threads, by the processor's with one. The limit is
what tower and decoding allow: on a GPU the smaller rate of the two, on a processor both have the same cores.
"""

import argparse
import functools
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adaptkit import Pooled, Preprocess
from adaptkit.features import cohorts
from adaptkit.features.cache import FeatureCache
from adaptkit.features.decoding import Decoding, cores
from adaptkit.features.parts import Part, row_id
from adaptkit.features.sources import PictureFiles
from adaptkit.features.store import Store
from adaptkit.io.digests import FileDigests
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.lane import Lane
from adaptkit.towers.precision import Precision, autocast
from benchmarks.frame import Result, Row, Size, case, ensure_close, gemm_rate
from benchmarks.photographs import photographs

MEAN, STD, SIDE = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 224
TOWERS = {"small": (32, 1, 112), "vit-b-16": (768, 12, 16)}  # width, blocks, side of a patch
ROOM = {"32-true": 1e-4, "bf16-mixed": 5e-2}  # of unit-norm rows; the plain ways scale pixels in another order


@functools.cache
def backbone(kind: str) -> CLIPBackbone:
    """A CLIP of random weights whose image tower is the one wanted."""
    from transformers import CLIPConfig, CLIPModel

    width, depth, patch = TOWERS[kind]
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth, "patch_size": patch}
    vision |= {"num_attention_heads": max(1, width // 64), "image_size": SIDE}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=min(width, 512)))
    return CLIPBackbone(model, toy_tokenizer, Preprocess(size=SIDE, mean=MEAN, std=STD))


def spent(device: torch.device) -> float:
    """Seconds of the wall; on a processor with one thread, of all processes that this one started and waited for."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    if torch.get_num_threads() > 1 or device.type != "cpu":
        return time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def took(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds of some work, and what it gives."""
    began = spent(device)
    done = work()
    return spent(device) - began, done


def tower_alone(tower: CLIPBackbone, count: int, batch: int, precision: Precision) -> float:
    """Seconds of so many pictures that are ready where the tower is."""
    pixels = torch.rand(batch, 3, SIDE, SIDE, device=tower.device)

    def work() -> None:
        with torch.no_grad(), autocast(precision, tower.device):
            for _ in range(max(1, count // batch)):
                tower.encode_image(pixels)

    return took(work, tower.device)[0] * count / (max(1, count // batch) * batch)


def decoding_alone(tower: CLIPBackbone, files: PictureFiles, count: int) -> float:
    """Seconds until all pictures are pixels in memory, so many at once, as adaptkit decodes them."""
    items = [(i, -1) for i in range(len(files))]
    ids = np.stack([row_id(files.key(i), -1) for i, _ in items])
    part = Part(Pooled(unit=False), False, None, tower, np.array(items), ids)  # type: ignore[arg-type]
    rows = [[cohorts.Row(cohorts.Cohort(part.kind(-1), (part,)), i, -1, (i,))] for i, _ in items]

    def work() -> None:
        decoding = Decoding(files, [part], count)
        decoding.help(len(items), 1e-5, 256)
        ahead = max(64, decoding.ahead)
        for at in range(0, len(items), ahead):
            group = [one for f in decoding.submit(rows[at : at + ahead]) for one in f.result()]
            decoding.batch(group, Lane(torch.device("cpu")))
            decoding.release(group)
        decoding.close()

    return took(work, torch.device("cpu"))[0]


def by_us(
    tower: CLIPBackbone, files: PictureFiles, batch: int, precision: Precision, folder: Path
) -> tuple[float, Tensor]:
    """Extraction into a new store, and the rows as they are read from it."""
    hook = plugins.manager().hook
    how = {"hook": hook, "load": pick_backbone, "dtype": "float32", "precision": precision, "batch_size": batch}

    def work() -> Tensor:
        cache = FeatureCache(tower, Store(folder), **how)  # type: ignore[arg-type]
        return cache.images(files, Pooled(), torch.arange(len(files)))

    return took(work, tower.device)


def by_transformers(
    tower: CLIPBackbone, paths: Sequence[Path], batch: int, precision: Precision
) -> tuple[float, Tensor]:
    """The loop of a model's page: open, process, `get_image_features`; one thread decodes, and then the tower works."""
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    processor = kind(size={"shortest_edge": SIDE}, crop_size=SIDE, image_mean=MEAN, image_std=STD)

    def work() -> Tensor:
        rows = []
        for at in range(0, len(paths), batch):
            images = [Image.open(path) for path in paths[at : at + batch]]
            inputs = processor(images=images, return_tensors="pt").to(tower.device)
            with torch.no_grad(), autocast(precision, tower.device):
                rows.append(embedded(tower, inputs["pixel_values"]).float().cpu())
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    return took(work, tower.device)


class Decoded(torch.utils.data.Dataset):
    """What a benchmark's dataset does in workers: open, resize, crop, scale."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.open(self.paths[i]).convert("RGB")
        width, height = (side * SIDE // min(image.size) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - SIDE) // 2, (height - SIDE) // 2
        image = image.crop((left, top, left + SIDE, top + SIDE))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def by_loader(
    tower: CLIPBackbone, paths: Sequence[Path], batch: int, precision: Precision, workers: int
) -> tuple[float, Tensor]:
    """CLIP_benchmark's way: a `DataLoader` with as many workers as cores, autocast, features concatenated."""

    def work() -> Tensor:
        pinned = tower.device.type == "cuda"
        loader = torch.utils.data.DataLoader(Decoded(paths), batch, num_workers=workers, pin_memory=pinned)
        rows = []
        for pixels in loader:
            with torch.no_grad(), autocast(precision, tower.device):
                rows.append(embedded(tower, pixels.to(tower.device)).float().cpu())
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    return took(work, tower.device)


def embedded(tower: CLIPBackbone, pixels: Tensor) -> Tensor:
    """What `get_image_features` gives, in all versions."""
    found = tower.model.get_image_features(pixel_values=pixels)
    return found if isinstance(found, Tensor) else found.pooler_output


def compared(kind: str, count: int, batch: int, precision: Precision, device: str, workers: int) -> dict[str, float]:
    """Seconds of each way for so many pictures; all give the same rows."""
    tower = backbone(kind).to(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = photographs(folder, count)
        files = PictureFiles("photographs", paths, [0] * count, FileDigests(folder / "digests"))
        tower_alone(tower, batch, batch, precision)  # warm
        took_by = {"tower alone": tower_alone(tower, count, batch, precision)}
        for at_once in sorted({1, 2, cores()} if workers else {1}):
            took_by[f"decoding alone, {at_once} at once"] = decoding_alone(tower, files, at_once)
        took_by["adaptkit, into a store"], ours = by_us(tower, files, batch, precision, folder / "store")
        took_by["transformers' loop"], loop = by_transformers(tower, paths, batch, precision)
        took_by["DataLoader"], loader = by_loader(tower, paths, batch, precision, workers)
        for rows in (loop, loader):
            ensure_close(ours, rows, ROOM[precision], "rows")
    return took_by


def limit(found: dict[str, float], device: str) -> float:
    """Seconds that no way can do without: the cores of a processor do both, a GPU spares them the tower."""
    tower, decoding = found["tower alone"], min(s for name, s in found.items() if name.startswith("decoding"))
    return max(tower, decoding) if device != "cpu" else tower + decoding


def row(kind: str, count: int, size: Size, way: str) -> Row:
    """A plain way beside ours; the limit is that of tower and decoding."""
    small = size.C < 100
    found = compared("small" if small else kind, count, 8 if small else 32, "32-true", "cpu", 0 if small else cores())
    flops = limit(found, "cpu") * gemm_rate()
    return Row(found[way], found["adaptkit, into a store"], f"{count} pictures", flops)


@case("extraction, decoding decides")
def decoding_decides(size: Size) -> Row:
    """A small tower: what is left is decoding, as beside a GPU."""
    return row("small", 12 if size.C < 100 else 512, size, "transformers' loop")


@case("extraction, the tower decides")
def tower_decides(size: Size) -> Row:
    """A ViT-B/16 on a processor."""
    return row("vit-b-16", 12 if size.C < 100 else 64, size, "DataLoader")


def main() -> None:
    """Print pictures a second of each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    parser.add_argument("--tower", choices=TOWERS, default="vit-b-16")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=ROOM, default="32-true")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    found = compared(asked.tower, asked.pictures, asked.batch, asked.precision, asked.device, cores())
    least = limit(found, asked.device)
    card = torch.cuda.get_device_name() if asked.device == "cuda" else "processor"
    print(f"{card}, {cores()} cores, {torch.get_num_threads()} threads, {asked.tower}, {asked.precision}\n")
    print("| way | pictures a second | share of the limit |\n|---|---|---|")
    for way, seconds in found.items():
        print(f"| {way} | {asked.pictures / seconds:,.1f} | {least / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
