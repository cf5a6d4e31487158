"""Tensor functions that methods share, where a shortcut could go wrong."""

import pytest
import torch

from adaptkit.methods.graph import Graph, knn
from adaptkit.methods.ops import in_parts


@pytest.mark.parametrize("bank", [0, 5, 300, 2048, 2111])  # none, few, and with whole groups and a rest behind them
@pytest.mark.parametrize("k", [0, 1, 4])
def test_nearest_neighbours_are_those_of_a_full_sort(bank, k):
    generator = torch.Generator().manual_seed(bank)
    x, rows = (torch.randn(n, 8, generator=generator) for n in (20, bank))
    values, at = knn(x, rows, k, room=10000)
    want = (x @ rows.T).sort(descending=True, stable=True)
    assert torch.equal(at, want.indices[:, :k]), "neighbours must be the rows with the largest products"
    torch.testing.assert_close(values, want.values[:, :k], msg="and come with these")


def test_a_graph_is_the_matrix_of_its_edges():
    generator = torch.Generator().manual_seed(0)
    edge, weight = torch.randint(30, (2, 90), generator=generator), torch.randn(90, generator=generator)
    f, dense = torch.randn(30, 3, generator=generator), torch.zeros(40, 30)
    dense.index_put_((edge[0], edge[1]), weight, accumulate=True)  # edges repeat, and some rows have none
    graph = Graph(edge, weight, 40)
    torch.testing.assert_close(graph @ f, dense @ f, msg="a product must sum over a row's edges")
    torch.testing.assert_close(graph.times(f, slice(7, 22)), (dense @ f)[7:22], msg="also of some rows")


def test_parts_are_joined_in_order():
    views = torch.arange(30.0).view(10, 3, 1)
    sizes = []
    doubled, sums = in_parts(lambda a, b: (sizes.append(len(a)), (a + b, a.sum((1, 2))))[1], views, views, rows=12)
    assert sizes == [4, 4, 2], "as many images at a time as have twelve views"
    assert torch.equal(doubled, 2 * views) and torch.equal(sums, views.sum((1, 2))), "parts must come in order"
