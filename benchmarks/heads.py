"""Linear heads that are trained on features in full batches."""

import warnings
from dataclasses import replace
from unittest import mock

import torch
import torch.nn.functional as F
from adaptkit_plugins.adapters import linear_probe as probe
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from adaptkit import Task, adapt, method, predict, unit
from adaptkit.methods.logistic import SoftmaxRegression
from benchmarks.frame import Row, Size, case, ensure_close, features, timed

ITERATIONS = 300  # of the paper


@case("lp++", C100=4, C1000=1.5)
def lp_plus_plus(size: Size) -> Row:
    """300 iterations, validated each; the paper's run also computes the text logits, and often the test's, in each."""
    task, test, _ = features(size)
    count = min(ITERATIONS, max(2, 10**9 // (size.S * size.C) // 8))
    task = replace(task, val=task.val[: size.S])
    bound = task.bind(method("lp-plus-plus"))
    x, labels, text, val = bound.support.views[:, 0], bound.support.labels, bound.text, bound.val.load()

    def our_run() -> Tensor:
        torch.manual_seed(0)
        return predict(adapt(method("lp-plus-plus", iterations=count, as_released=True), task), test)

    def plain_run() -> Tensor:
        torch.manual_seed(0)
        bias = torch.empty(size.C).uniform_(-(size.D**-0.5), size.D**-0.5)
        weight = F.one_hot(labels, size.C).float().T @ x
        own = (x * text[labels]).sum(1).view(size.C, -1).mean(1).mean()
        alpha = torch.full((size.C,), float(250 * own), requires_grad=True)
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        rate = 4 * len(x) / float(torch.linalg.eigh((x.T @ x).double())[0][-1])
        rate_alpha = len(x) / (4 * float((x @ text.T).square().sum(0).max()))
        descent, best = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9), -1.0
        for i in range(1, count + 1):
            loss = F.cross_entropy(x @ weight.T + bias + (x @ text.T) * alpha, labels)
            descent.zero_grad()  # alpha's gradient is never cleared
            loss.backward()
            descent.step()
            with torch.no_grad():
                if i % 10 == 0:
                    alpha -= rate_alpha * alpha.grad
                logits = val.x @ weight.T + bias + (val.x @ text.T) * alpha
                right = float((logits.argmax(1) == val.labels).float().mean())
                if right >= best:
                    best, answers = right, test @ weight.T + bias + (test @ text.T) * alpha
        return answers

    ours, got = timed(our_run)
    plain, want = timed(plain_run)
    ensure_close(got, want, 2e-4 * max(1.0, float(want.abs().max())), "test logits")
    whole = ITERATIONS / count
    flops = ITERATIONS * 6 * size.S * size.C * size.D
    return Row(plain * whole, ours * whole, f"{count} of {ITERATIONS} iterations, both", flops)


@case("linear-probe fit and search", C100=5, C1000=5)
def linear_probe(size: Size) -> Row:
    """7 penalties and then up to 9 between them; plainly scikit-learn solves each from zero, to its tolerance."""
    task, *_ = features(size)
    bound = task.bind(method("linear-probe"))
    x, labels, val = 10 * bound.support.x, bound.support.labels, bound.val.load()  # of the norm that CLIP's have
    task = Task.from_arrays((x, labels), bound.text, val=(10 * val.x, val.labels))
    made = list[SoftmaxRegression]()

    def kept(*options: object) -> SoftmaxRegression:
        made.append(SoftmaxRegression(*options))  # type: ignore[arg-type]
        return made[0]

    with mock.patch.object(probe, "SoftmaxRegression", kept):
        ours, _ = timed(lambda: adapt(method("linear-probe"), task))
    centred = (x - x.mean(0)).double()

    def plain_run(c: float) -> tuple[Tensor, Tensor]:
        solver = LogisticRegression(C=c, max_iter=1000, tol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solver.fit(centred.numpy(), labels.numpy())
        weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
        right = (10 * val.x.double() - x.mean(0)) @ weight.T + bias
        return weight, bias + 0 * right.sum()

    def gradient(weight: Tensor, bias: Tensor, c: float) -> float:
        wrong = (centred @ weight.T + bias).softmax(1) - F.one_hot(labels, size.C)
        return float((c * wrong.T @ centred + weight).norm() / weight.norm())

    plain, told = 0.0, []
    for c in (1e-2, 1e2):
        seconds, (weight, bias) = timed(lambda c=c: plain_run(c))
        got, got_bias = made[0].solve(c)
        if c < 1:  # a weak penalty is where scikit-learn's stop is far from the optimum
            ensure_close(got, weight, 2e-3 * float(weight.abs().max()), "weights")
        plain += seconds / 2
        own = gradient(got, got_bias + got @ x.mean(0).double(), c)
        told.append(f"{own:.0e} for {gradient(weight, bias, c):.0e}")
    number = len(made[0].found)
    flops = 2 * size.C * size.D * (2 * size.S * made[0].spent + size.N * number)
    return Row(plain * number, ours, f"2 of {number} penalties; relative gradients {', '.join(told)}", flops)


@case("in-map proxies", C100=2, C1000=2)
def in_map(size: Size) -> Row:
    """2000 steps of gradient descent on all queries, each over all of them at once."""
    task, x, _ = features(size)
    model = adapt(method("in-map"), task)
    count = min(model.iterations, max(100, 10**10 // (size.N * size.C * size.D)))
    labels = model.labels(x)

    def plain_run(count: int) -> Tensor:
        proxies, rate, last = task.text, 10.0, torch.inf
        for _ in range(count):
            gradient = (x @ proxies.T / 0.04).softmax(1).T @ x - labels.T @ x
            norm = float(gradient.norm())
            rate, last = rate / 2 if norm > last else rate, norm
            proxies = unit(proxies - rate / (len(x) * 0.04) * gradient)
        return proxies

    plain, _ = timed(lambda: plain_run(count))
    ours, _ = timed(lambda: model.proxies(x, labels))
    steps, model.iterations = model.iterations, 20  # later, rounding decides when a rate is halved
    ensure_close(model.proxies(x, labels), plain_run(20), 1e-4, "proxies")
    return Row(plain * steps / count, ours, f"{count} of {steps} steps", 4 * steps * size.N * size.C * size.D)


@case("clap fit and 100 steps", C100=1, C1000=1)
def clap(size: Size) -> Row:
    """20 views of each image: how far the text believes in each class, then steps of 256 images in a plain loop."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(size.S) % size.C
    views = unit(torch.randn(size.S, 20, size.D, generator=draw))
    text, rows = unit(torch.randn(size.C, size.D, generator=draw)), min(256, size.S)
    task, count = Task.from_arrays((views, labels), text), 100

    def our_run(steps: int = count) -> Tensor:
        torch.manual_seed(0)
        return adapt(method("clap"), task, trainer={"max_steps": steps}).multipliers

    our_run(1)  # Lightning takes seconds to import, once

    def plain_run() -> Tensor:
        torch.manual_seed(0)
        belief = (100.0 * views.flatten(0, 1) @ text.T).softmax(-1).view(size.S, 20, -1).mean(1)
        own = belief.gather(1, labels[:, None])[:, 0]
        held = torch.zeros(size.C).index_add_(0, labels, own) / labels.bincount()
        weight = text.clone().requires_grad_()
        descent = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        for _ in range(count):
            batch = torch.randperm(size.S)[:rows]
            x = views[batch, torch.randint(20, (rows,))]
            loss = F.cross_entropy(100.0 * x @ unit(weight).T, labels[batch])
            loss = loss + (held * (weight - text).square().sum(-1)).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
        return held

    ours, got = timed(our_run)
    plain, want = timed(plain_run)
    ensure_close(got, want, 1e-5, "multipliers")
    flops = 2 * size.C * size.D * (20 * size.S + 3 * count * rows)
    return Row(plain, ours, f"all, {count} steps", flops)
