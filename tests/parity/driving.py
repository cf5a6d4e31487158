"""Train a fitted method on a golden's batches, step by step, as Lightning would."""


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
