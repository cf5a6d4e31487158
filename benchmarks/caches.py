"""Searches of caches that add votes of support images to zero-shot logits."""

import itertools

import torch
import torch.nn.functional as F
from adaptkit_plugins.training_free.ape import likeness
from torch import Tensor

from adaptkit import adapt, method, predict, tune
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from benchmarks.frame import Row, Size, case, ensure_close, ensure_count, features, timed


def arrays(task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Keys, their one-hot labels, class embeddings, validation images and their labels."""
    bound = task.bind(method("tip-adapter"))
    keys, owners, val = bound.support.views[:, 0], bound.support.labels, bound.val
    return keys, F.one_hot(owners, len(task.text)).float(), task.text, val.x, val.labels


def searched(name: str, task: Task, **options: object) -> tuple[Method, Task, list[tuple[float, ...]]]:
    """A fitted method that has not searched yet, its task, and the cells of its grid."""
    model = method(name, **options)
    bound = task.bind(model)
    model.fit(bound)
    return model.eval(), bound, list(itertools.product(*model.grid().values()))


@case("tip-adapter search", C100=100, C1000=300)
def tip_adapter(size: Size) -> Row:
    """200 x 20 cells of beta and alpha; the paper computes everything in each of them."""
    task, *_ = features(size)
    keys, values, text, x, labels = arrays(task)
    model, bound, cells = searched("tip-adapter", task)
    ours, search = timed(lambda: tune(model, bound.val), 2)

    def cell(beta: float, alpha: float) -> Tensor:
        affinity = x @ keys.T
        return 100.0 * x @ text.T + ((-1) * (beta - beta * affinity)).exp() @ values * alpha

    tried = [len(cells) // 3, len(cells) - 1]
    plain, logits = timed(lambda: [cell(*cells[i]) for i in tried])
    for i, answer in zip(tried, logits, strict=True):
        ensure_count(int(search.correct.flatten()[i]), answer, labels, 2e-4, f"cell {cells[i]}")
    flops = 2 * size.N * size.D * (size.S + size.C)
    return Row(plain * len(cells) / len(tried), ours, f"{len(tried)} of {len(cells)} cells", flops)


@case("tip-x divergences", C100=100, C1000=100)
def tip_x_divergences(size: Size) -> Row:
    """Of each key's class distribution from each image's, term by term; as many pairs at a time as fit."""
    task, *_ = features(size)
    keys, _, text, x, _ = arrays(task)
    model, bound, _ = searched("tip-x", task)
    ours, found = timed(lambda: torch.cat(list(model.divergences(bound.val.x))), 2)
    p, q = ((rows @ text.T / model.temperature).softmax(-1) for rows in (x, keys))
    rows = max(1, min(size.N, 10**9 // (5 * size.S * size.C)))

    def divergences() -> Tensor:
        some, others = p[:rows].repeat_interleave(len(q), 0), torch.cat([q] * rows)
        return (some * (some.log() - others.log())).sum(-1).view(rows, -1)

    plain, want = timed(divergences)
    ensure_close(found[:rows], want, 2e-6, "divergences")
    return Row(plain * size.N / rows, ours, f"{rows} of {size.N} rows", 2 * size.N * size.S * size.C)


@case("tip-x search", C100=300, C1000=300)
def tip_x(size: Size) -> Row:
    """20 x 200 x 50 cells of alpha, beta and gamma; the paper starts anew for each pair of alpha and beta."""
    task, *_ = features(size)
    keys, values, text, x, labels = arrays(task)
    model, bound, cells = searched("tip-x", task, search_steps=(20, 200, 50))
    ours, search = timed(lambda: tune(model, bound.val))
    divergences = torch.cat(list(model.divergences(x)))

    def line(alpha: float, beta: float, gammas: list[float]) -> list[Tensor]:
        affinity, answers = x @ keys.T, []
        cache = ((-1) * (beta - beta * affinity)).exp() @ values
        zero_shot = 100.0 * x @ text.T
        scaled = (divergences - divergences.min()) / (divergences.max() - divergences.min())
        scaled = scaled * (affinity.max() - affinity.min()) + affinity.min()
        like = -scaled @ values
        for gamma in gammas:
            answers.append((zero_shot + like * gamma + cache * alpha).topk(5, 1).indices[:, :1])
        return answers

    gammas = list(model.grid()["gamma"])
    first = (len(cells) // 3) // len(gammas) * len(gammas)
    plain, answers = timed(lambda: line(*cells[first][:2], gammas))
    for i, answer in enumerate(answers):
        model.refit(dict(zip(model.grid(), cells[first + i], strict=True)))
        if i % 10 == 0:
            logits = predict(model, bound.val)
            ensure_count(int(search.correct.flatten()[first + i]), logits, labels, 2e-4, f"cell {cells[first + i]}")
            ensure_count(int((answer[:, 0] == labels).sum()), logits, labels, 2e-3, f"plain cell {cells[first + i]}")
    flops = 2 * size.N * (size.S * (size.D + size.C) + size.C * size.D)
    return Row(plain * len(cells) / len(gammas), ours, f"{len(gammas)} of {len(cells)} cells", flops)


@case("ape criterion", C100=1000, C1000=1000)
def ape_criterion(size: Size) -> Row:
    """Mean product of members of different classes, in each channel: the paper loops over all pairs of images."""
    task, *_ = features(size)
    keys, _, text, *_ = arrays(task)
    members = torch.cat([text[:, None], keys.view(size.C, size.K, size.D)], 1)  # (C, 1 + K, D)
    owners = torch.arange(size.C).repeat_interleave(1 + size.K)
    few = min(size.C, 8)
    ours, _ = timed(lambda: likeness(members.flatten(0, 1), owners), 5)

    def pairs(members: Tensor) -> Tensor:
        total, count = torch.zeros_like(members[0, 0]), 0
        for i, j in itertools.permutations(range(few), 2):
            for m in range(1 + size.K):
                for n in range(1 + size.K):
                    total += members[i, m] * members[j, n]
                    count += 1
        return total / count

    plain, _ = timed(lambda: pairs(members))
    exact = members[:few].double()  # in single precision the loop's own rounding is as large as the golden's room
    ensure_close(likeness(exact.flatten(0, 1), owners[: few * (1 + size.K)]), pairs(exact), 1e-12, "the criterion")
    share = size.C * (size.C - 1) / (few * (few - 1))
    return Row(plain * share, ours, f"{few} of {size.C} classes", 2 * members.numel())


@case("ape search", C100=300, C1000=300)
def ape(size: Size) -> Row:
    """200 x 20 x 20 cells of beta, alpha and gamma; the paper weighs and sums the cache anew in each."""
    task, *_ = features(size)
    _, values, text, x, labels = arrays(task)
    model, bound, cells = searched("ape", task, search_steps=(200, 20, 20))
    ours, search = timed(lambda: tune(model, bound.val))
    affinity = model.reduce(x) @ model.keys.T

    def cell(beta: float, alpha: float, gamma: float) -> Tensor:
        weighted = values * (model.divergence[:, None] * gamma).exp()
        cache = ((-1) * (beta - beta * affinity)).exp() @ weighted
        return 100.0 * x @ text.T + cache * alpha

    tried = [len(cells) // 3, len(cells) - 1]
    plain, logits = timed(lambda: [cell(*cells[i]) for i in tried])
    for i, answer in zip(tried, logits, strict=True):
        ensure_count(int(search.correct.flatten()[i]), answer, labels, 2e-4, f"cell {cells[i]}")
    flops = 2 * size.N * (size.S * model.keys.shape[1] + size.C * size.D)
    return Row(plain * len(cells) / len(tried), ours, f"{len(tried)} of {len(cells)} cells", flops)


@case("gda fit and search", C100=5, C1000=3)
def gda(size: Size) -> Row:
    """Fit, seven alphas, test: the paper computes both kinds of logits for every alpha."""
    task, test, _ = features(size)
    keys, values, text, x, labels = arrays(task)
    owners = values.argmax(1)

    def plain_run() -> Tensor:
        means = torch.stack([keys[owners == c].mean(0) for c in range(size.C)])
        centred = torch.cat([keys[owners == c] - means[c] for c in range(size.C)])
        covariance, n = torch.cov(centred.T), len(centred)
        ridge = covariance.trace() * torch.eye(size.D)
        weight = size.D * torch.linalg.pinv((n - 1) * covariance + ridge) @ means.T
        bias = torch.tensor(size.C).float().reciprocal().log() - (means.T * weight).sum(0) / 2
        best, chosen = -1.0, 0.0
        for alpha in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0):
            logits = 100.0 * x @ text.T + alpha * (x @ weight + bias)
            right = float((logits.argmax(1) == labels).float().mean())
            if right > best:
                best, chosen = right, alpha
        return 100.0 * test @ text.T + chosen * (test @ weight + bias)

    ours, got = timed(lambda: predict(adapt(method("gda"), task), test), 3)
    plain, want = timed(plain_run, 3)
    ensure_close(got, want, 2e-3 * float(want.abs().max()), "test logits")
    flops = 2 * size.D**2 * (size.S + size.C) + size.D**3 + 8 * size.N * size.C * size.D
    return Row(plain, ours, "all", flops)
