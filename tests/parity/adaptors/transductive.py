"""Methods that look at all queries at once, or at an unlabelled pool: ZLaP and TransCLIP."""

import torch

from adaptkit import Method, Pooled, Task, adapt, method, predict
from adaptkit.features.items import Images
from tests.parity.golden import adaptor

OPTIONS = ("k", "gamma", "alpha")


def nothing(golden):
    """A support set without images."""
    return torch.zeros(0, golden["in_text"].shape[1]), torch.zeros(0, dtype=torch.long)


@adaptor("zlap-transductive", method="zlap")
@adaptor("zlap-inductive", "zlap-sparse-inductive", method="zlap-inductive")
def zlap(golden):
    pool = golden["in_unlabeled"] if "in_unlabeled" in golden.arrays else None
    options = {name: golden.hyper[name] for name in OPTIONS} | {
        "scaled": golden.hyper["scale_sim"],
        "as_released": True,
    }
    if "sparse" in golden.name:
        options["sparse"] = True
    zlap = method("zlap" if pool is None else "zlap-inductive", **options)
    scores = predict(
        adapt(zlap, Task.from_arrays(nothing(golden), golden["in_text"], pool=pool)), golden["in_features"]
    )
    golden.close("out_scores", scores, of_max=1e-4)
    golden.agree("out_pred", scores.argmax(-1), golden.arrays["out_scores"], 1e-4 * float(scores.abs().max()))


class Given(Method):
    """Another method's probabilities, as arrays."""

    def needs(self):
        return {"probabilities": Pooled(unit=False)}

    def fit(self, task):
        pass

    def forward(self, batch):
        return batch.probabilities.log()


def compare(golden, mixture, labels):
    log_z, mu, var = mixture
    z = log_z.exp()
    golden.close("out_z", z, atol=1e-4)
    golden.equal("out_pred", z.argmax(-1))
    golden.close("out_mu", mu, atol=1e-5)
    golden.close("out_var", var, rtol=1e-4)
    golden.close("out_accuracy", percent(z, labels), atol=1e-4)


def percent(z, labels):
    return 100 * (z.argmax(-1) == labels).double().mean()


@adaptor("transclip", method="trans-clip")
def trans_clip(golden):
    names = {
        "lambda_": "lam",
        "n_neighbors": "neighbours",
        "max_iter": "iterations",
        "inner_iter": "sweeps",
        "temperature": "tau",
    }
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    few_shot(golden, options) if "in_support" in golden else zero_shot(golden, options)


def zero_shot(golden, options):
    text, arrays = golden["in_text"], {"x": golden["in_features"]}
    if "in_initial_prototypes" in golden:  # they replace the class embeddings in the base's answers, their only use
        text = golden["in_initial_prototypes"]
    if "in_initial_predictions" in golden:
        options |= {"base": Given(), "as_released": True}
        arrays["probabilities"] = golden["in_initial_predictions"]
    fitted = adapt(method("trans-clip", **options), Task.from_arrays(nothing(golden), text))
    images = Images.from_arrays(arrays)
    x, y_hat = images.bind(fitted.needs()).x, predict(fitted.base, images).log_softmax(-1)
    mixture = fitted.solve(x, y_hat, fitted.start(x, y_hat))
    assert torch.equal(mixture[0], predict(fitted, images)), "predict must answer with the mixture's assignments"
    compare(golden, mixture, golden["in_labels"])


def few_shot(golden, options):
    task = Task.from_arrays((golden["in_support"], golden["in_support_labels"]), golden["in_text"])
    fitted = adapt(method("trans-clip-fs", as_released=True, **options), task)
    x, labels = golden["in_features"], golden["in_labels"]
    nearest = (golden["in_val"] @ x.T).argmax(1)
    y_hat = predict(fitted.base, x).log_softmax(-1)
    mixture, right = fitted.start(x, y_hat), []
    for gamma in golden.hyper["gamma_list"]:  # each starts where the last one ended
        fitted.set({"gamma": gamma})
        mixture = fitted.solve(x, y_hat, mixture)
        on_val = percent(mixture[0][nearest], golden["in_val_labels"])
        right.append((-float(on_val), len(right), percent(mixture[0], labels)))
    compare(golden, mixture, labels)
    golden.close("out_accuracy_at_best_val", min(right)[2], atol=1e-4)
