"""Methods that look at all queries at once."""

import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import cg
from torch import Tensor

from adaptkit import adapt, method, predict, unit
from benchmarks.frame import Row, Size, case, ensure_close, features, timed


@case("trans-clip", C100=20, C1000=20)
def trans_clip(size: Size) -> Row:
    """Class by class: distances of all queries to its mean, and their weighted squares for the variance."""
    task, x, _ = features(size)
    model, rows = adapt(method("trans-clip"), task), min(size.N, 10**6 // size.C)

    def mixture(x: Tensor) -> Tensor:
        log_y = (100.0 * x @ task.text.T).log_softmax(1)
        z, var = log_y.exp(), torch.full_like(x[0], 1 / size.D)
        top = log_y.topk(min(8, len(x)), 0)
        mu = unit(torch.stack([top.values[:, c].softmax(0) @ x[top.indices[:, c]] for c in range(size.C)]))
        near = (x @ x.T).topk(4, 1)
        w = torch.zeros(len(x), len(x)).scatter_(1, near.indices[:, 1:], near.values[:, 1:])
        for turn in range(11):
            likelihood = torch.stack([-((x - m).square() / var).sum(1) / 2 for m in mu], 1) / 50
            for _ in range(5):
                z = (log_y + likelihood + (w @ z + w.T @ z) / 6).softmax(1)
            if turn < 10:
                mu = unit(z.T @ x / z.sum(0)[:, None])
                var = sum(z[:, c] @ (x - mu[c]).square() for c in range(size.C)) / z.sum()
        return z

    plain, want = timed(lambda: mixture(x[:rows]))
    ensure_close(predict(model, x[:rows]).exp(), want, 1e-4, "assignments")
    ours, _ = timed(lambda: predict(model, x))
    flops = 2 * size.N * size.D * (size.N + 22 * size.C)
    return Row(plain * size.N / rows, ours, f"{rows} of {size.N} rows", flops)


@case("zlap propagation", C100=3, C1000=3)
def zlap(size: Size) -> Row:
    """Class by class: conjugate gradients on the sparse system, to a residual of one millionth."""
    task, x, _ = features(size)
    model = adapt(method("zlap"), task)
    graph, _ = model.graph(x)
    nodes = len(graph)
    arrays = (t.numpy() for t in (graph.weight, graph.to, graph.start))
    system = eye_array(nodes) - 0.3 * csr_array(tuple(arrays), shape=(nodes, nodes))
    tried = min(size.C, 100)

    def propagated() -> Tensor:
        unit_columns = torch.eye(nodes, tried).T.numpy()
        return torch.stack([torch.from_numpy(cg(system, y, rtol=1e-6)[0]) for y in unit_columns], 1)

    ours, got = timed(lambda: model.solve(graph), 3)
    plain, want = timed(propagated)
    ensure_close(got[size.C :, :tried], want[size.C :], 1e-4 * float(want[size.C :].max()), "scores")
    flops = 2 * 8 * len(graph.weight) * size.C  # eight products with the graph reach the residual
    return Row(plain * size.C / tried, ours, f"{tried} of {size.C} classes", flops)
