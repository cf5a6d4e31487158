"""Softmax regression, held to scikit-learn's at a tight tolerance."""

import warnings

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from adaptkit.methods import logistic
from adaptkit.methods.logistic import SoftmaxRegression


def rows_of(classes=6, each=5, width=12, spread=1.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=draw)
    labels = torch.arange(classes).repeat_interleave(each)
    return centres[labels] + spread * torch.randn(len(labels), width, generator=draw) + 3, labels


def from_elsewhere(x, labels, c):
    centre = x.double().mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = LogisticRegression(C=c, max_iter=10**5, tol=1e-12).fit(x.double() - centre, labels)
    return torch.from_numpy(solver.coef_)


@pytest.mark.parametrize("small", [0, 2**17])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_the_optimum_is_scikit_learns(monkeypatch, small, spread):
    monkeypatch.setattr(logistic, "LOGITS_IN_DOUBLE", small)
    x, labels = rows_of(spread=spread)
    solver = SoftmaxRegression(x, labels, 6, tol=1e-5)
    for c in (1e-4, 1e-1, 1e1, 1e3):
        weight, want = solver.solve(c)[0], from_elsewhere(x, labels, c)
        off = float((weight - want).norm() / want.norm())
        assert off < 2e-4, f"weights for c = {c} must be the optimum's; got {off:.1g} off"


def test_the_optimum_does_not_depend_on_what_was_solved_before():
    x, labels = rows_of()
    penalties = [10.0**i for i in range(-6, 7, 2)]
    up, down = (SoftmaxRegression(x, labels, 6, tol=1e-6) for _ in range(2))
    ups = {c: up.solve(c)[0] for c in penalties}
    downs = {c: down.solve(c)[0] for c in reversed(penalties)}
    for c in penalties:
        torch.testing.assert_close(ups[c], downs[c], rtol=1e-4, atol=1e-4 * float(ups[c].abs().max()))
    cold = sum(SoftmaxRegression(x, labels, 6, tol=1e-6).solve(c) is None for c in penalties)
    assert cold == 0, "each must have a solution alone"


def test_neighbouring_penalties_take_few_passes_over_the_rows():
    solver = SoftmaxRegression(*rows_of(classes=20, each=8, width=40), 20)
    for c in (10.0**i for i in range(-6, 7, 2)):
        solver.solve(c)
    grid = solver.spent
    for c in (10**3.0, 10**5.0, 10**4.5, 10**4.25):
        solver.solve(c)
    assert grid < 200, f"seven penalties must take fewer than 200 passes; got {grid}"
    assert solver.spent - grid < 40, f"four between them must take fewer than 40 passes; got {solver.spent - grid}"


@pytest.mark.parametrize("small", [0, 2**17])
def test_rows_that_tell_nothing_leave_the_weights_at_nothing(monkeypatch, small):
    monkeypatch.setattr(logistic, "LOGITS_IN_DOUBLE", small)
    weight, bias = SoftmaxRegression(torch.ones(6, 4), torch.arange(6) % 3, 3).solve(10.0)
    assert weight.abs().max() < 1e-5 and bias.abs().max() < 1e-5, f"of equal rows nothing is learned; got {weight}"
    weight, bias = SoftmaxRegression(torch.randn(3, 4), torch.zeros(3, dtype=torch.long), 1).solve(10.0)
    assert not weight.any() and not bias.any(), f"of one class nothing is learned; got {weight}"
    weight, bias = SoftmaxRegression(torch.ones(1, 4), torch.zeros(1, dtype=torch.long), 2).solve(10.0)
    assert weight.isfinite().all() and bias[0] > bias[1], f"of one row the bias tells its class; got {bias}"
