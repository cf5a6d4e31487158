"""CutMix (arXiv:1905.04899) and SWAT's stages (arXiv:2406.11148): what is pasted, and what is trained when."""

import itertools
import sys

import pytest
import torch

from adaptkit import adapt, method


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99, 1.0])
def test_a_piece_of_another_image_is_pasted_and_the_share_says_how_much(share):
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 10, 8)
    order, pasted = torch.tensor([1, 2, 3, 0]), sys.modules[type(method("cut-mix")).__module__].pasted
    for centre in torch.randint(100, (20, 2), generator=torch.Generator().manual_seed(0)):
        mixed, left, _ = pasted(pixels, order, share, centre)
        other = (mixed[:, 0] == order[:, None, None]).float().mean((1, 2))
        assert torch.allclose(other, torch.tensor(1 - left)), "the share must be of the pixels that stayed"
        assert set(mixed[0].unique().tolist()) <= {0.0, 1.0}, "of two images only"


def test_the_head_alone_learns_in_the_second_stage_and_the_pool_takes_part_in_the_first(toy):
    task, _ = toy
    seen, towers, schedule = [], [], {"steps": 4, "lr": 1e-3, "batch_size": 6}
    model = method("swat", first=0.5, schedule=schedule)
    loss, mixed_loss = model.loss, model.mixed_loss

    def watched(batch):
        towers.append([p.detach().clone() for p in model.tuned.values])
        return loss(batch)

    def counted(pixels, labels, weight):
        seen.append(len(labels))
        return mixed_loss(pixels, labels, weight)

    vars(model).update(loss=watched, mixed_loss=counted)
    adapt(model, task)
    images = 6 if task.pool is None else 12
    assert seen == [images] * 2, f"two of four steps must mix {images} images; got {seen}"
    moved = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(towers)]
    assert moved == [True, True, False], f"the tower must learn in the first stage alone; it moved {moved}"
    assert not torch.equal(model.head, task.text), "the head must have learned"
