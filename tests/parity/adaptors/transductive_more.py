"""Methods that look at all queries at once, beside ZLaP and TransCLIP."""

import torch

from adaptkit import Task, adapt, method, predict
from adaptkit.features.items import Images
from tests.parity.golden import adaptor


def nothing(like):
    """A support set without images."""
    return torch.zeros(0, like.shape[1]), torch.zeros(0, dtype=torch.long)


def percent(scores, labels):
    return 100 * (scores.argmax(-1) == labels).double().mean()


def of_rows(golden, key, value, rtol):
    """Hold `value` against an output, row by row within `rtol` of the row's largest entry."""
    largest = golden[key].abs().amax(1, keepdim=True)
    golden.arrays[key] = (golden[key] / largest).numpy()
    golden.close(key, value / largest, atol=rtol)


@adaptor("reclip-lp", method="re-clip")
def re_clip(golden):
    names = {"k": "k", "alpha": "alpha", "cut_dim": "dims", "cg_maxiter": "steps", "cg_tol": "tolerance"}
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    text = golden["in_text"]
    fitted = adapt(method("re-clip", **options), Task.from_arrays(nothing(text), text))
    golden.close("out_projection", fitted.projection, atol=1e-5)
    scores = predict(fitted, golden["in_features"])
    golden.agree("out_pseudo_labels", scores.argmax(-1), golden.arrays["out_scores"], 1e-3 * float(scores.max()))
    golden.close("out_accuracy", percent(scores, golden["in_labels"]), atol=1e-4)
    golden.close("out_confidence", fitted.confidence(scores), rtol=1e-3, atol=1e-6)
    x = Images.from_arrays(golden["in_features"]).bind(fitted.needs()).x
    labels = fitted.scores(fitted.text, x, fitted.projection).argmax(-1)
    golden.close("out_centroids", fitted.centroids(x, labels), atol=1e-5)
    of_rows(golden, "out_scores", scores, 1e-3)


@adaptor("s3a", method="s3a")
def s3a(golden):
    text, scale = golden["in_vocabulary"], golden.hyper["logit_scale"]
    start = golden["in_kmeans"]  # of another k-means, so the steps after it are called one by one
    count = int(start.max()) + 1
    options = {"clusters": count, "rounds": golden.hyper["iterations"]}
    fitted = adapt(method("s3a", **options), Task.from_arrays(nothing(text), text, logit_scale=scale))
    logits = predict(adapt(method("zero-shot"), Task.from_arrays(nothing(text), text)), golden["in_features"])
    votes = fitted.vote(logits, start)
    golden.close("out_vote0", votes, atol=1e-6)
    golden.equal("out_assigned0", fitted.assign(votes))
    clusters, words = fitted.align(logits, start)
    golden.equal("out_cluster_final", clusters)
    golden.equal("out_word_final", words)
    golden.close("out_vote_final", fitted.vote(logits, clusters), atol=1e-6)
    answers = predict(fitted, golden["in_features"])
    assert len(answers.argmax(-1).unique()) <= count, "an image must get one of as many words as there are clusters"


@adaptor("gta-clip", method="gta-clip")
def gta_clip(golden):
    names = {"confusion_gap": "gap", "confused_fraction": "fraction", "k": "k"}
    options = {names[key]: value for key, value in golden.hyper.items() if key in names}
    attributes = golden["in_attributes"].split(golden["in_n_attr"].tolist())
    task = Task.from_arrays(nothing(attributes[0]), attributes, logit_scale=golden.hyper["logit_scale"])
    fitted = adapt(method("gta-clip", **options), task)
    images = Images.from_arrays(golden["in_features"])
    z = predict(fitted, images).exp()
    golden.close("out_z", z, atol=1e-4)
    golden.equal("out_pred", z.argmax(-1))
    golden.close("out_accuracy", percent(z, golden["in_labels"]), atol=1e-4)
    solver = fitted.base
    x, y_hat = images.bind(solver.needs()).x, predict(solver.base, images).log_softmax(-1)
    _, mu, var = solver.solve(x, y_hat, solver.start(x, y_hat))
    golden.close("out_mu", mu, atol=1e-5)
    golden.close("out_var", var, rtol=1e-4)
    pairs, counts = fitted.confusions(golden["in_z_soft"])
    threshold = fitted.threshold(counts)
    golden.equal("out_count_threshold", threshold)
    golden.equal("out_confused_pairs", pairs[counts > threshold])
    examples = fitted.examples(z)
    golden.equal("out_pseudo_topk", examples)
    batch, texts = golden["in_batch_images"], golden["in_batch_texts"]
    golden.close("out_loss", fitted.contrast(examples, batch, x[batch], texts), rtol=1e-5)
