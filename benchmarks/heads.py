"""Linear heads that are trained on features in full batches."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptkit import adapt, method, predict
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
