"""Methods that look at all queries at once on goldens whose arrays are rows: StatA, InMaP and Frolic."""

from adaptkit_plugins.transductive.frolic import stationary

from adaptkit import adapt, method, predict
from adaptkit.methods.calibration import confidence, stepped_heat
from adaptkit.methods.ops import class_sums
from tests.parity.adaptors.given import given_task, moved, row_centred
from tests.parity.golden import adaptor


@adaptor("stat-a", method="stat-a")
def stat_a(golden):
    names = {"alpha": "alpha", "soft_beta": "soft", "lambda_y_hat": "lam", "lambda_laplacian": "pull"}
    names |= {"n_neighbors": "neighbours", "max_iter": "iterations", "temperature": "tau"}
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    model, x = adapt(method("stat-a", **options), given_task(golden)), golden["in_test"]
    log_p = model.zero_shot(x).log_softmax(-1)
    golden.close("out_zero_shot_probs", log_p.exp(), atol=2e-4)
    golden.close("out_probs", predict(model, x).exp(), atol=2e-4)
    _, means, variances = model.solve(x, log_p)
    golden.close("out_means", means, atol=1e-5)
    golden.close("out_variances", variances, rtol=1e-4)


@adaptor("in-map", method="in-map")
def in_map(golden):
    names = {"tau_t": "tau_t", "tau_i": "tau_i", "alpha": "alpha", "gamma": "gamma", "lr": "lr"}
    names |= {"iters": "iterations", "rounds": "balance"}
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    task, x = given_task(golden), golden["in_test"]

    def fitted(**more):
        return adapt(method("in-map", **(options | more)), task)

    model, scale = fitted(), task.backbone.logit_scale
    golden.close("out_labels_balanced", fitted(alpha=1.0).labels(x), atol=1e-5)
    labels = model.labels(x)
    golden.close("out_labels_used", labels, atol=1e-5)
    golden.close("out_proxies", model.proxies(x, labels), atol=3 * moved(golden, "proxies"))
    golden.close("out_cosines", predict(model, x) / scale, atol=3 * moved(golden, "cosines"))
    key = "cosines_without_balance"
    cosines = predict(fitted(balance=0), x) / scale
    golden.close(f"out_{key}", cosines, atol=3 * moved(golden, key))


@adaptor("frolic-parts", method="frolic")
def frolic(golden):
    task, x = given_task(golden, list(golden["in_text"])), golden["in_test"]
    model = adapt(method("frolic", shrink=golden.hyper["lamda"], rounds=1, as_released=True), task)
    zero_shot, gaussian = predict(adapt(method("zero-shot"), task), x), model.gaussian(x)
    row_centred(golden, "out_lda_logits", gaussian, atol=1e-5)
    sure = confidence(zero_shot)
    golden.close("out_mean_confidence_zero_shot", sure, atol=1e-5)
    heat = stepped_heat(gaussian, sure)
    golden.close("out_temperature", heat, rtol=1e-6)
    row_centred(golden, "out_fused", zero_shot + gaussian / heat, atol=1e-5 / heat)  # the Gaussians' room
    rows, fused = golden["in_round0_rows"], golden["out_fused"]
    in_total(golden, "out_round0_bias", model.prior(rows, rows), 1e-5)
    p, labels = fused.softmax(-1), fused.argmax(-1)
    counts = labels.bincount(minlength=p.shape[1])[:, None].clamp_min(1)
    means = class_sums(p, labels, p.shape[1]) / counts
    in_total(golden, "out_bias_all_rows_of_fused", stationary(means, last=False), 1e-5)
    model = adapt(method("frolic", shrink=golden.hyper["lamda"], rounds=1), task)
    in_total(golden, "out_round0_bias", model.bias(rows), 1e-3)  # ours takes one step more


def in_total(golden, key, value, room):
    """Hold shares against an output by the sum of the distances."""
    off = (golden[key] - value).abs().sum()
    assert off <= room, f"{golden.name}: {key} is off by {off:.3g} in all"
    golden.close(key, value, atol=room)
