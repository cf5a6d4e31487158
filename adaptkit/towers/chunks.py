"""Many sentences through a tower, some at a time: how many, and how their memory is spared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adaptkit.towers.backbone import Backbone

WHOLE_SENTENCES = 256  # sentences, each by itself, that a processor takes at once
HELD = 24  # numbers of the tower's width that a token leaves in each block for the backward pass; 20 were measured
SHARE = 0.5  # of a device's free memory that sentences may take


def at_once(backbone: Backbone, length: int) -> int:
    """How many sentences of a length can be encoded at once, so that a backward pass needs none of them again.

    On a GPU those that fit into half of what is free, on a processor always the same.
    """
    device = backbone.device
    if device.type != "cuda":
        return WHOLE_SENTENCES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    sentence = 4 * HELD * backbone.width["text"] * backbone.depth["text"] * length  # bytes
    return max(1, int(SHARE * free / sentence))


def chunked(encode: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """``encode(rows)``, `size` rows at a time: the same values and gradients, in the memory of one part.

    With gradients each part is computed again in the backward pass: taps must be set inside `encode`, not around this.
    """
    parts = rows.split(size)
    if len(parts) == 1:
        return encode(rows)
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in parts])
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in parts])
