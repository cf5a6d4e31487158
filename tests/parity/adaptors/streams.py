"""Streams and test-time steps on goldens whose arrays are rows: OGA, OnZeta, BoostAdapter and TPS."""

import torch
from torch.optim import optimizer

from adaptkit import adapt, method, predict
from adaptkit.features.items import Images
from tests.parity.adaptors.given import given_task
from tests.parity.golden import adaptor


@adaptor("oga", method="oga")
def oga(golden):
    hyper, task, x, full = golden.hyper, given_task(golden), golden["in_test"], golden["out_all_full"]
    options = {"capacity": hyper["shot_capacity"], "tau": hyper["tau"], "as_released": True}
    runs = {"": {}, "_normalize_mu": {"unit_means": True}, "_batch32": {"batch": 32}}
    for name, more in runs.items():
        model = adapt(method("oga", **options, **{"unit_means": hyper["normalize_mu"]} | more), task)
        golden.close(f"out_probs{name}", predict(model, x).softmax(-1), atol=2e-5)
    model = adapt(method("oga", **options), task)
    stream = Images.from_arrays(x).bind(model.needs())
    likelihoods = []
    with torch.no_grad():
        for i in range(len(stream)):  # predict answers with a copy; here the memory stays as the stream leaves it
            both = model(stream[i : i + 1])
            likelihoods.append((both - model.zero_shot(x[i : i + 1]))[0] / model.tau)
    golden.equal("out_memory_count", model.cache.held.sum(1))
    golden.close("out_log_likelihood", torch.stack(likelihoods), of_max=1e-4)
    golden.close("out_mus", model.gaussian.means, atol=1e-5)
    golden.close("out_precision", model.gaussian.precision, of_max=1e-4)
    ours = predict(adapt(method("oga", **options | {"as_released": False}), task), x)
    where_full(golden, "out_probs", ours.softmax(-1), full, atol=2e-5)
    golden.skip("an input: it says where the release's means are means", "out_all_full")


def where_full(golden, key, value, full, **room):
    """Hold an output where every class had all its slots taken: the release's means are wrong elsewhere."""
    golden.arrays[key] = golden[key][full].numpy()
    golden.close(key, value[full], **room)


@adaptor("onzeta", method="onzeta")
def on_zeta(golden):
    hyper, task, x = golden.hyper, given_task(golden), golden["in_test"]
    options = {"n": hyper["stream_length"], "c_rho": hyper["cr"], "c_w": hyper["cw"], "tau": hyper["tau_i"]}
    options |= {"alpha": hyper["alpha"]}
    zero_shot = predict(adapt(method("zero-shot"), task), x) / task.backbone.logit_scale
    golden.close("out_zero_shot_cosines", zero_shot, atol=1e-5)
    for key, beta in (("out_onlab_probs", 0.0), ("out_onzeta_probs", hyper["beta"])):
        p = predict(adapt(method("onzeta", **options, beta=beta), task), x).exp()
        golden.close(key, p, atol=2e-4)
        best, want = p.argmax(-1), golden[key]
        sure = want.topk(2).values.diff().abs()[:, 0] > 1e-3
        assert (best == want.argmax(-1))[sure].all(), f"{golden.name}: {key} must have the same best class where sure"


@adaptor("boostadapter", method="boost-adapter", having="in_test_labels")
def boost_adapter(golden):
    hyper, views = golden.hyper, golden["in_views"]
    pos, neg = hyper["pos"], hyper["neg"]
    options = dict(zip(("capacity", "alpha", "beta"), pos, strict=True))
    options |= dict(zip(("negative_capacity", "negative_alpha", "negative_beta"), neg[:3], strict=True))
    options |= {"window": neg[3:5], "mask": neg[5:7], "delta": hyper["delta"], "average": hyper["ood"]}
    model = adapt(method("boost-adapter", views=views.shape[1], **options, as_released=True), given_task(golden))
    golden.close("out_logits", predict(model, views), atol=1e-3)


@adaptor("tps", method="tps")
def tps(golden):
    hyper, views = golden.hyper, golden["in_views"]
    options = {"keep": hyper["selection_p"], "steps": hyper["tta_steps"]}
    options |= {"lr": hyper["lr"], "weight_decay": hyper["weight_decay"], "per_label": hyper.get("per_label", True)}
    task = given_task(golden, list(golden["in_text_rows"]))
    model = adapt(method("tps", views=views.shape[1], **options), task)
    golden.close("out_logits_before", task.backbone.logits(views[:, 0], golden["in_text"]), atol=2e-4)
    grads, shifts = [], []
    hooks = [
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: grads.append(moved(o).grad.clone())),
        optimizer.register_optimizer_step_post_hook(lambda o, *_: shifts.append(moved(o).detach().clone())),
    ]
    try:
        logits = predict(model, views)
    finally:
        for hook in hooks:
            hook.remove()
    each = len(views), hyper["tta_steps"]
    grad, shift = (torch.stack(rows).unflatten(0, each) for rows in (grads, shifts))
    golden.close("out_shift_grad", grad, of_max=1e-3)
    want, got = golden["out_shift_after"], shift[:, -1]
    every = tuple(range(2, grad.dim()))  # classes, where each has a shift, and dimensions
    sure = (grad.abs() > 1e-5 * grad.abs().amax(every, keepdim=True)).all(1)
    near = (got - want).abs() <= 2 * hyper["lr"] * hyper["tta_steps"]
    golden.close("out_shift_after", torch.where(~sure & near, want, got), atol=2e-5)
    golden.close("out_logits", logits, atol=2e-2)
    golden.agree("out_pred", logits.argmax(-1), logits, 2e-2)
    golden.skip("chosen on the way to the gradient, which is compared and would be another", "out_selected")


def moved(of):
    """The one parameter of an optimiser."""
    return of.param_groups[0]["params"][0]
