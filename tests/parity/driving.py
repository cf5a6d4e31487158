"""Train a fitted method on a golden's batches, step by step, as Lightning would; and hold a search against its grid."""

import itertools

from adaptkit import predict


def fitted(model, task):
    """The method fitted, not trained, and the support as it reads it."""
    bound = task.bind(model)
    model.train()
    model.fit(bound)
    return model, bound.support


def steps(golden, model, support, epochs):
    """Rows, loss and rate of every optimiser step; the step is taken when the next is asked for."""
    order, split = golden["in_batch_order"], int(golden["in_batch_split"])
    batches = [rows for rows in (order[:split], order[split:]) if len(rows)]
    schedule = model.schedule
    total = schedule.length(len(batches), shots=1)
    optimizer = schedule.make([p for p in model.parameters() if p.requires_grad])
    for step in range(epochs * len(batches)):
        rows, rate = batches[step % len(batches)], schedule.rate(step, len(batches), total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model.loss(support[rows])
        optimizer.zero_grad()
        loss.backward()
        yield rows, loss.item(), rate
        optimizer.step()


def same_counts(golden, key, model, val, search, room):
    """Right answers in each cell of a search; a cell may be off by those images whose best two logits are so close."""
    want, cells = golden[key].double(), list(itertools.product(*model.grid().values()))
    assert want.shape == search.correct.shape, f"the grid must have shape {tuple(want.shape)}"
    off = (want - search.correct).abs().flatten()
    for i in off.nonzero().flatten().tolist():
        model.refit(dict(zip(model.grid(), cells[i], strict=True)))
        best = predict(model, val).topk(2).values
        ties = int((best[:, 0] - best[:, 1] < room).sum())
        assert off[i] <= ties, f"{golden.name}: {key} is off by {off[i]:.3g} at {cells[i]}, where {ties} are near-ties"
    model.refit(search.values)
    golden.seen[key] = float(off.max())
