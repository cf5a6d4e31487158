"""Searches by intervals count what `argmax` counts in every cell; kernels of all betas come from a few."""

import itertools

import pytest
import torch

from adaptkit import Images, Task, ZeroShot, adapt, method, tune
from adaptkit.methods.adapt import cell_by_cell
from adaptkit.methods.kernels import kernel_sums, skeleton
from adaptkit.methods.search import Linear, count, unfold

GRID = {"a": (1.0, -2.0, 3.0), "b": (0.0, 2.0, 1.0, 2.0), "c": (1.0, 2.0, 4.0, 0.5, 3.0)}
WHOLE = [(), ("c",), ("b",), ("a",), ("c", "a"), ("a", "b", "c")]


def draw_sweep(named, rows, classes, generator, of_whole_numbers):
    """Answers in random blocks of rows and of cells, with and without an axis of cells."""

    def numbers(*shape):
        if of_whole_numbers:  # so that many classes are equal, and many lines the same
            return torch.randint(-2, 3, shape, generator=generator).float()
        return torch.randn(shape, generator=generator)

    cells = torch.zeros([len(v) for n, v in GRID.items() if n not in named]).numel()
    for some in (rows // 3, rows - rows // 3):
        left = cells
        while left:
            k = int(torch.randint(1, left + 1, (), generator=generator))
            left -= k
            swap = named and left % 2  # the cells differ in what is fixed and every other slope, or in the rest
            axis = [() if k == 1 or (i % 2 == 0) == bool(swap) else (k,) for i in range(1 + len(named))]
            fixed, *slopes = (numbers(*first, some, classes) for first in axis)
            yield Linear(fixed, dict(zip(named, slopes, strict=True)))


@pytest.mark.parametrize("of_whole_numbers", [True, False], ids=["ties", "no ties"])
@pytest.mark.parametrize("named", WHOLE, ids=",".join)
def test_intervals_count_what_argmax_counts_in_every_cell(named, of_whole_numbers):
    for seed in range(20):
        answers = list(draw_sweep(named, 24, 2 + seed % 4, torch.Generator().manual_seed(seed), of_whole_numbers))
        labels = torch.arange(24) % (2 + seed % 4)
        want = unfold(answers, GRID, 24).argmax(-1).eq(labels).sum(-1).view(3, 4, 5)
        got = count(answers, GRID, labels)
        assert torch.equal(got, want), f"seed {seed}: {int((got != want).sum())} of 60 cells are counted wrongly"


def test_cells_are_unfolded_in_the_order_of_the_grid():
    fixed, a, b = torch.arange(24.0).view(2, 3, 4), torch.full((3, 4), 100.0), torch.full((2, 3, 4), 1000.0)
    grid = {"a": (1.0, 2.0), "k": (7.0, 8.0), "b": (3.0, 4.0, 5.0)}
    got = unfold([Linear(fixed, {"b": b, "a": a})], grid, 3)
    want = [
        fixed[k] + grid["a"][i] * 100 + grid["b"][j] * 1000 for i, k, j in itertools.product(*map(range, (2, 2, 3)))
    ]
    assert torch.equal(got, torch.stack(want)), "the last hyperparameter must vary fastest, whatever order they come in"


def test_of_equal_classes_the_first_wins():
    same = torch.ones(2, 3)  # three classes that are equal everywhere, and rows of the first and of the last
    for slope in (same, torch.tensor([[-1.0, 1.0, 1.0]]).expand(2, 3)):
        got = count([Linear(same, {"c": slope})], {"c": (-1.0, 0.0, 1.0)}, torch.tensor([0, 2]))
        want = [1, 1, 1] if slope is same else [1, 1, 0]
        assert got.tolist() == want, f"ties must go to the class of lowest number; got {got.tolist()}"


@pytest.mark.parametrize("rows", [11, 13])
def test_a_sweep_that_leaves_rows_or_cells_out_is_an_error(rows):
    with pytest.raises(ValueError, match="a sweep must answer 12 rows in"):
        count([torch.zeros(rows, 3)], {"c": (1.0,)}, torch.zeros(12).long())
    with pytest.raises(ValueError, match="and 1 cells of the next"):
        count([torch.zeros(12, 3)], {"c": (1.0, 2.0)}, torch.zeros(12).long())


@pytest.mark.parametrize("betas", [(3.0,), (0.5, 0.1), tuple(1 + 0.245 * i for i in range(200)), (50.0, 0.1, 7.0) * 9])
def test_kernels_of_all_betas_are_sums_over_the_keys_of_each_class(betas):
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([3, 0, 0, 5, 3, 3, 0, 5])  # classes 1, 2 and 4 have no key
    affinity, weights = 2 * torch.rand(8, 11, generator=draw) - 1, torch.rand(8, 2, generator=draw)
    got = torch.cat(list(kernel_sums(affinity, labels, 6, betas, 0.3, weights))).double()
    want = torch.zeros(len(betas), 2, 11, 6, dtype=torch.double)
    for i, beta in enumerate(betas):
        for s, label in enumerate(labels.tolist()):
            want[i, :, :, label] += 0.3 * weights[s, :, None] * (beta * (affinity[s].double() - 1)).exp()
    off = ((got - want.flatten(0, 1)).abs().amax(-1) / want.flatten(0, 1).amax(-1)).max()
    assert off < 5e-6, f"sums are off by {off:.2g} of the largest of their row"


def test_a_few_betas_stand_for_many():
    betas = tuple(1 + 0.245 * i for i in range(200))
    few, _ = skeleton(betas, 2)
    assert len(few) < 25 and set(few) <= set(betas), f"200 kernels must be made of a dozen or two; got {len(few)}"


SEARCHES = {
    "tip-adapter": {"search_steps": (9, 5)},
    "tip-x": {"search_steps": (3, 5, 4)},
    "caps-adapter": {"search_steps": (2, 3, 3, 4)},
    "ape": {"search_steps": (6, 3, 4)},
    "ape-t": {"search_steps": (6, 3), "schedule": {"epochs": 1}},
    "cafo": {"search_steps": (6, 3), "schedule": {"epochs": 0}},
    "gda": {},
    "timo-s": {},
    "proker": {"betas": (0.5, 3.0, 3), "lams": (0.001, 1.0, 3)},
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (1, 5, 2, 2)], ids=["balanced", "unbalanced"])
def test_a_method_counts_the_same_cell_by_cell(name, counts):
    draw = torch.Generator().manual_seed(3)
    text = torch.randn(4, 12, generator=draw)
    labels = torch.arange(4).repeat_interleave(torch.tensor(counts))[torch.randperm(sum(counts), generator=draw)]
    truth = torch.arange(150) % 4

    def images(of, spread):
        return torch.nn.functional.normalize(text[of] + spread * torch.randn(len(of), 12, generator=draw), dim=-1)

    task = Task.from_arrays((images(labels, 1.0), labels), text, val=(images(truth, 2.0), truth), logit_scale=20.0)
    torch.manual_seed(0)
    model = adapt(method(name, **SEARCHES[name]), task)
    got = tune(model, task.val).correct
    val = task.val.bind(model.needs()).load()
    with torch.no_grad():
        logits = torch.stack(list(cell_by_cell(model, val.blind())))
    best = logits.topk(2).values
    right, near = logits.argmax(-1).eq(truth).sum(-1), (best[..., 0] - best[..., 1] < 1e-4).sum(-1)
    off = (got.flatten() - right).abs()
    assert (off <= near).all(), f"{name} counts {int((off > near).sum())} of {len(off)} cells wrongly"
    assert right.unique().numel() > 1, "the grid must matter, or nothing is tested"


def test_a_search_blocks_many_rows_and_sums_them():
    class Lines(ZeroShot):
        tilt: float = 0.0

        def grid(self):
            return {"tilt": (0.0, 1.0, 5.0)}

        def sweep(self, val):
            for x in val.x.split(7):
                yield Linear(self.zero_shot(x), {"tilt": torch.tensor([3.0, 0.0, 0.0]).expand(len(x), 3)})

        def forward(self, batch):
            return self.zero_shot(batch.x) + self.tilt * torch.tensor([3.0, 0.0, 0.0])

    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 8, generator=draw), torch.arange(40) % 3
    model = adapt(Lines(), Task.from_arrays((x[:0], y[:0]), torch.randn(3, 8, generator=draw), logit_scale=5.0))
    fast = tune(model, Images.from_arrays(torch.nn.functional.normalize(x, dim=1), y)).correct
    Lines.sweep = ZeroShot.sweep
    slow = tune(model, Images.from_arrays(torch.nn.functional.normalize(x, dim=1), y)).correct
    assert torch.equal(fast, slow), f"blocks of rows must be added up; got {fast.tolist()}, not {slow.tolist()}"
