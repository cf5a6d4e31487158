"""ProKeR, TIP-X, CapS-Adapter and APE once more, in numpy loops and double precision, where no golden reaches."""

import numpy as np
import pytest
import torch

from adaptkit import Task, accuracy, adapt, method, predict
from tests.reference.by_hand import close, draw, unit


def mean_keys(x):
    return np.array([unit(views.mean(0)) for views in x])


def ridge(text, keys, owners, queries, beta, lam):
    """f0(x) + sum_i k(x, s_i) a_i with (K / lambda + I) a = Y - f0(S)."""
    kernel = np.array([[np.exp(-beta * (1 - s @ t)) for t in keys] for s in keys])
    targets = np.eye(len(text))[owners] - keys @ text.T
    coefficients = np.linalg.solve(kernel / lam + np.eye(len(keys)), targets)
    return np.array([q @ text.T + sum(np.exp(-beta * (1 - q @ s)) * a for s, a in zip(keys, coefficients)) for q in queries])  # fmt: skip # noqa: B905, E501


def test_proker_takes_every_view_for_a_row_or_averages_them():
    text, x, labels, queries, _ = draw()
    task = Task.from_arrays((x, labels), text, logit_scale=30.0)
    stacked = ridge(text, unit(x).reshape(-1, x.shape[-1]), labels.repeat(x.shape[1]), queries, 2.0, 0.2)
    close(predict(adapt(method("proker", beta=2.0, lam=0.2), task), queries), 30 * stacked, "proker's logits")
    averaged = ridge(text, unit(unit(x).mean(1)), labels, queries, 2.0, 0.2)
    got = predict(adapt(method("proker", beta=2.0, lam=0.2, average=True), task), queries)
    close(got, 30 * averaged, "proker's logits over averaged views")


def test_prokers_fourier_features_come_close_to_its_kernel():
    text, x, labels, queries, _ = draw()
    task = Task.from_arrays((x, labels), text)
    exact, random = (adapt(method("proker", lam=0.2, features=n), task) for n in (0, 2**11))
    keys = exact.keys[:9]
    close(random.lift(keys, 1.5) @ random.lift(keys, 1.5).T, exact.lift(keys, 1.5)[:, :9].numpy(), "the kernel", 0.15)
    close(predict(random, queries), predict(exact, queries).numpy(), "the logits", 0.15)


def test_proker_says_what_to_do_when_its_kernel_does_not_fit(monkeypatch):
    import adaptkit_plugins.training_free.proker as plugin

    text, x, labels, _, _ = draw()
    monkeypatch.setattr(plugin, "LARGEST", 20)
    with pytest.raises(ValueError, match="at most 20 support rows for its exact kernel; got 21; use average=true"):
        adapt(method("proker"), Task.from_arrays((x, labels), text))
    adapt(method("proker", average=True), Task.from_arrays((x, labels), text))


def distribution(x, text, temperature):
    p = np.exp(x @ text.T / temperature)
    return p / p.sum()


def like(text, keys, labels, queries, affinity, temperature):
    """Minus the Kullback-Leibler divergences, rescaled to the range of the affinities, summed over each class."""
    kl = np.zeros((len(queries), len(keys)))
    for i, q in enumerate(queries):
        for j, k in enumerate(keys):
            p, r = distribution(q, text, temperature), distribution(k, text, temperature)
            kl[i, j] = sum(p * np.log(p / r))
    low, high = affinity.min(), affinity.max()
    scaled = low + (kl - kl.min()) / (kl.max() - kl.min()) * (high - low)
    return np.array([[-scaled[i, labels == c].sum() for c in range(len(text))] for i in range(len(queries))])


def cache(text, labels, affinity, beta):
    return np.array([[np.exp(beta * (row[labels == c] - 1)).sum() for c in range(len(text))] for row in affinity])


def test_tip_x_is_the_papers_formula():
    text, x, labels, queries, _ = draw()
    keys, scale = mean_keys(x), 30.0
    affinity = queries @ keys.T
    votes = 2 * cache(text, labels, affinity, 3.0) + 5 * like(text, keys, labels, queries, affinity, 0.25)
    model = method("tip-x", alpha=2.0, beta=3.0, gamma=5.0, temperature=0.25)
    got = predict(adapt(model, Task.from_arrays((x, labels), text, logit_scale=scale)), queries)
    close(got, scale * queries @ text.T + scale / 100 * votes, "tip-x's logits")  # weights are for a scale of 100


def test_tip_x_holds_few_similarities_at_a_time(monkeypatch):
    import adaptkit_plugins.training_free.tip_x as plugin

    text, x, labels, queries, _ = draw()
    tip = adapt(method("tip-x", gamma=5.0), Task.from_arrays((x, labels), text))
    want = predict(tip, queries)
    monkeypatch.setattr(plugin, "ROOM", 30)
    assert [len(block) for block in tip.divergences(torch.tensor(queries).float())] == [4] * 6 + [1], "blocks of rows"
    close(predict(tip, queries), want.numpy(), "logits block by block", 1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_caps_adapter_mixes_images_and_captions(given):
    text, x, labels, queries, _ = draw()
    captions = unit(text[labels] + 0.5 * np.random.default_rng(1).standard_normal(text[labels].shape))
    keys, sentences = mean_keys(x), captions if given else text[labels]
    affinity = 0.7 * queries @ keys.T + 0.3 * queries @ sentences.T
    votes = 2 * cache(text, labels, affinity, 3.0) + 5 * like(text, keys, labels, queries, affinity, 0.25)
    options = {"alpha": 2.0, "beta": 3.0, "gamma": 5.0, "delta": 0.3, "temperature": 0.25}
    model = method("caps-adapter", **options, captions="given" if given else "class")
    task = Task.from_arrays(({"views": x, "captions": captions}, labels), text, logit_scale=30.0)
    close(predict(adapt(model, task), queries), 30 * queries @ text.T + 0.3 * votes, "caps-adapter's logits")


def test_apes_criterion_is_the_mean_over_all_pairs_of_different_classes():
    text, x, labels, queries, _ = draw()
    keys = mean_keys(x)
    members = [np.vstack([text[c : c + 1], keys[labels == c]]) for c in range(len(text))]
    products = [f * g for a in range(3) for b in range(3) if a != b for f in members[a] for g in members[b]]
    score = 0.4 * text.var(0, ddof=1) - 0.6 * np.mean(products, 0)
    best = np.argsort(-score)[:5]
    small, short = unit(keys[:, best]), unit(text[:, best])
    want = 30 * queries @ text.T
    for key, label in zip(small, labels, strict=True):
        guess = np.exp(key @ short.T)
        surprise = np.log2((1 + 1e-6) / (guess[label] / guess.sum() + 1e-6))
        for i, q in enumerate(queries):
            want[i, label] += 0.3 * 2 * np.exp(-3 * (1 - unit(q[best]) @ key)) * np.exp(0.5 * surprise)
    ape = method("ape", alpha=2.0, beta=3.0, gamma=0.5, channels=5, weights=(0.6, 0.4))
    adapt(ape, Task.from_arrays((x, labels), text, logit_scale=30.0))
    assert ape.chosen.tolist() == best.tolist(), f"channels must be {best.tolist()}; got {ape.chosen.tolist()}"
    close(predict(ape, queries), want, "ape's logits")


def test_ape_t_and_cross_modal_keep_what_does_best_on_validation_images():
    text, x, labels, queries, truth = draw(queries=60, seed=2)
    schedule = {"steps": 40, "lr": 0.3}
    for name, options in (("ape-t", {"search_steps": (1, 1)}), ("cross-modal", {"check": 1})):
        scores = []
        model = method(name, **options, schedule=schedule)
        task = Task.from_arrays((x, labels), text, val=(queries, truth))
        watched = model.callbacks

        def callbacks(watched=watched, scores=scores, model=model, name=name):
            own = list(watched())
            for hook in ("on_train_epoch_end", "on_train_batch_end"):
                old = getattr(own[0], hook)

                def spy(*given, old=old):
                    old(*given)
                    scores.append(own[0].best)

                setattr(own[0], hook, spy)
            return own

        model.callbacks = callbacks
        torch.manual_seed(0)
        adapt(model, task)
        got = accuracy(model, task.val)
        assert name == "ape-t" or got == max(scores), f"{name} must end with its best, {max(scores)}; got {got}"
        assert scores == sorted(scores) and scores[-1] > 0, f"the best of {name} can only rise; got {scores}"
