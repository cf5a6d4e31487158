"""GDA, ProKeR and TIMO on goldens whose arrays are rows."""

import re

import torch
from adaptkit_plugins.training_free.gda import mean_covariance, shrunk_precision

from adaptkit import adapt, method, predict, tune
from tests.parity.adaptors.given import given_task, moved, row_centred, rows_of_views
from tests.parity.golden import adaptor


def searched(golden, model, task):
    """Accuracies of a search over alpha, and the chosen one, exactly."""
    search = tune(model, task.val)
    golden.close("out_val_accs", 100 * search.correct.double() / search.total, atol=1e-9)
    golden.equal("out_best_alpha", model.alpha)


@adaptor("gda-fewshot", method="gda", having="in_support")
def gda_few_shot(golden):
    task = given_task(golden)
    gda, (x, labels) = adapt(method("gda"), task), rows_of_views(golden)
    searched(golden, gda, task)
    golden.close("out_precision", shrunk_precision(x - gda.means[labels]), of_max=5e-5)
    golden.close("out_test_logits", predict(gda, golden["in_test"]), of_max=5e-5)


@adaptor("gda-base2new", method="gda-base-to-new", having="in_support")
def gda_base_to_new(golden):
    task = given_task(golden)
    base, (x, labels) = adapt(method("gda-base-to-new"), task), rows_of_views(golden)
    searched(golden, base, task)
    precision = torch.linalg.pinv(mean_covariance(x - base.means[labels], labels, labels.bincount()))
    golden.close("out_precision", precision, atol=5 * moved(golden, "precision"))
    golden.close("out_test_logits", predict(base, golden["in_test"]), atol=5 * moved(golden, "test_logits"))
    every = given_task(golden, torch.cat([golden["in_text"], golden["in_text_new"]]), with_val=False)
    new = adapt(method("gda-base-to-new", alpha=base.alpha), every)
    logits = predict(new, golden["in_test_new"])[:, len(golden["in_text"]) :]
    golden.close("out_test_logits_new", logits, atol=5 * moved(golden, "test_logits_new"))


@adaptor("proker", method="proker", having="in_support")
def proker(golden):
    def ends(name):
        first, last, count = re.fullmatch(r"linspace\((.+),(.+),(.+)\)", golden.hyper[name]).groups()
        return float(first), float(last), int(count)

    task = given_task(golden)
    model = adapt(method("proker", betas=ends("beta"), lams=ends("lmbda")), task)
    search, key = tune(model, task.val), "out_val_correct_grid"
    differing = int((golden[key].double() != search.correct).sum())
    allowed = golden.meta["fp32_vs_fp64_of_the_reference"]["val_correct_grid"]["n_differing"]
    assert differing <= allowed, f"{golden.name}: {key} differs in {differing} cells, of which {allowed} may"
    golden.seen[key] = float(differing)
    golden.close("out_best_beta", model.beta, rtol=1e-6)  # their grid is in single precision
    golden.close("out_best_lambda", model.lam, rtol=1e-6)
    golden.close("out_alpha", model.coefficients, of_max=1e-4)
    logits = predict(model, golden["in_test"]) / task.backbone.logit_scale  # theirs stay on the cosines' scale
    golden.close("out_test_logits", logits, atol=1e-5)


@adaptor("timo", "timo-s", method="timo")
def timo(golden):
    task = given_task(golden)
    searches = "out_best_gamma" in golden
    options = {} if searches else {"gamma": golden.hyper["gamma"]}
    model = adapt(method("timo-s" if searches else "timo", **options), task)
    search = tune(model, task.val)
    sentences = golden["in_text"].shape[1]
    tried = [int(1 + beta * (2 * sentences - 1) + 1e-6) for beta in model.grid().get("beta", [model.beta])]
    golden.equal("out_betas", tried)
    golden.equal("out_best_beta", int(1 + model.beta * (2 * sentences - 1) + 1e-6))
    golden.equal("out_best_alpha", model.alpha)
    if searches:
        golden.equal("out_best_gamma", model.gamma)
    best = search.correct.reshape(len(tried), -1).max(1).values
    golden.close("out_val_accs", 100 * best.double() / search.total, atol=1e-9)
    golden.close("out_guided_text", model.guided, atol=1e-5)
    golden.arrays["out_match"] = golden["out_match"].sort(descending=True).values.numpy()  # ours are kept best first
    golden.close("out_match", model.match, atol=1e-5)
    golden.close("out_W", model.weight.T, of_max=5e-4)
    golden.close("out_b", model.bias - torch.tensor(len(model.text)).log(), of_max=5e-4)  # theirs has the equal prior
    row_centred(golden, "out_test_logits", predict(model, golden["in_test"]), of_max=1e-4)
