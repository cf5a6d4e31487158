"""How many images fit into one pass of a tower."""

from __future__ import annotations

import gc

import torch

from adaptkit.towers.backbone import Backbone
from adaptkit.towers.precision import Precision, autocast

ON_PROCESSOR = 16  # more are no faster there, and hold more
TRIED = 1, 9  # images of the two passes whose memory is compared
HALF = 0.5  # of the free memory: needs may keep tokens of several blocks
ENOUGH_ROWS = 512  # images; a GPU is busy with fewer


def fitting_batch(backbone: Backbone, precision: Precision) -> int:
    """Images of one pass: on a processor a number that is good there, on a GPU as many as half its free memory holds.

    What an image takes there is measured in two passes. Of rows only the last digits depend on it, as on any batch.
    """
    if backbone.device.type != "cuda":
        return ON_PROCESSOR
    free = torch.cuda.mem_get_info(backbone.device)[0]
    few, tried = (peak_of_pass(backbone, precision, rows) for rows in TRIED)
    return as_many(free, (tried - few) / (TRIED[1] - TRIED[0]))


def peak_of_pass(backbone: Backbone, precision: Precision, rows: int) -> int:
    """Bytes that a pass of so many empty images holds on a GPU at most, beyond what was there."""
    size, device = backbone.preprocess.size, backbone.device
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.no_grad(), autocast(precision, device), backbone.unaltered():
        backbone.encode_image(torch.zeros(rows, 3, size, size, device=device))
    return torch.cuda.max_memory_allocated(device) - before


def as_many(free: float, each: float) -> int:
    """A power of two: how many of so many bytes each the share of what is free holds, one at least.

    >>> as_many(free=8e9, each=30e6), as_many(free=1e6, each=30e6), as_many(free=80e9, each=1e6)
    (128, 1, 512)
    """
    rows = max(1, min(ENOUGH_ROWS, int(HALF * free / max(1.0, each))))
    return 1 << (rows.bit_length() - 1)
