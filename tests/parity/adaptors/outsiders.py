"""Detection of outsiders: negative labels, patches beside the whole image, prompts that learn from patches."""

import torch

from adaptkit import Images, Task, adapt, method, predict, unit
from adaptkit.methods.evaluation.detection import detection
from tests.parity.adaptors.prompt_learning import fitted
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip


def near(golden, key, value):
    """Output `key` equals `value` within the tolerance that the sidecar states for it."""
    golden.close(key, value, atol=golden.meta["outputs"][key]["tolerance_abs"])


def towers(golden):
    """The backbone of a golden whose sidecar names weights and words among the hyperparameters."""
    golden.meta |= {key: golden.hyper[key] for key in ("weights", "toy_words", "classnames") if key in golden.hyper}
    return tiny_clip(golden)


def without_images(text, **more):
    """A task of class embeddings alone."""
    return Task.from_arrays((text[:0], torch.zeros(0, dtype=torch.long)), text, **more)


@adaptor("neglabel", method="neg-label")
def neg_label(golden):
    hyper, text = golden.hyper, golden["in_positive_text"]
    task, rows = without_images(text), [unit(golden[f"in_{kind}_text"]) for kind in ("noun", "adj")]
    images, order = golden["in_image_features"], golden["out_permutation"]

    def made(groups, **more):
        options = {"top": hyper["neg_topk"], "percentile": hyper["percentile"], "temperature": float(hyper["t"])}
        own = method("neg-label", groups=groups, **options, **more)
        own.backbone, own.text = task.backbone, task.text
        return own

    whole = made(hyper["ngroup"], as_released=True)
    chosen = [whole.farthest(own) for own in rows]
    golden.equal("out_n_selected_nouns", len(chosen[0]))
    golden.equal("out_selected", torch.cat([chosen[0], chosen[1] + len(rows[0])]))
    negatives = torch.cat([own[picked] for own, picked in zip(rows, chosen, strict=True)])
    near(golden, "out_pos_logits", task.backbone.logits(unit(images), task.text))
    near(golden, "out_neg_logits", task.backbone.logits(unit(images), negatives))
    whole.keep(rows)
    assert len(whole.negatives) == len(order), "the last words that fill no group must be dropped before they are drawn"
    golden.skip("an order is drawn, and this one is taken as given below", "out_permutation")
    cases = {
        "grouped": (hyper["ngroup"], order, False),
        "grouped_in_order": (hyper["ngroup"], slice(len(order)), False),
        "one_group": (1, slice(None), False),
        "ngroup1_release": (1, slice(None), True),
    }
    for name, (groups, picked, released) in cases.items():
        own = made(groups, as_released=released)
        own.negatives = negatives[picked]
        near(golden, f"out_score_{name}", predict(own, images))


@adaptor("gl-mcm", method="gl-mcm")
def gl_mcm(golden):
    hyper, inside = golden.hyper, golden["in_is_id"].bool()
    images = {"x": golden["in_global_features"], "patches": golden["in_local_features"].flatten(1, 2)}
    task, t = without_images(golden["in_text"]), float(hyper["T"])
    mcm = predict(adapt(method("mcm", temperature=t), task), images["x"])
    one, half = (
        predict(adapt(method("gl-mcm", temperature=t, weight=weight), task), images)
        for weight in (1.0, float(hyper["lambda_local"]))
    )
    scores = {"mcm": mcm, "l_mcm": one - mcm, "gl_mcm": half}
    for name, score in scores.items():
        near(golden, f"out_{name}_score", -score)
    metrics = [detection(score[inside], score[~inside]) for score in scores.values()]
    near(golden, "out_metrics", [[m["auroc"], m["aupr"], m["fpr95"]] for m in metrics])


@adaptor("locoop", method="lo-co-op")
def lo_co_op(golden):
    hyper, backbone = golden.hyper, towers(golden)
    pixels, labels, names = golden["in_pixel_values"], golden["in_labels"], golden.meta["classnames"]
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    task = Task.from_arrays((pixels, labels), text, classnames=names, backbone=backbone)
    context = golden["in_ctx"]
    made = fitted(
        "lo-co-op",
        task,
        n=len(context),
        top=hyper["top_k"] / len(names),
        push=hyper["lambda"],
        temperature=float(hyper["T"]),
        as_released=True,
    )
    made.context.data.copy_(context)
    batch, total = task.bind(made).support, sum(f"out_loss{s}" in golden for s in range(99))
    optimizer = torch.optim.SGD([made.context], lr=hyper["lr"])
    for s in range(total + 1):
        if f"out_logits{s}" in golden:
            seen = Images(batch.rows, batch.index, needs=made.needs())
            with torch.no_grad():
                for key, rows in (("logits", seen.x), ("local_logits", seen.patches)):
                    near(golden, f"out_{key}{s}", backbone.logits(rows, made.text()))
                near(golden, f"out_gl_mcm{s}", -made(seen))
                made.local = 0.0
                near(golden, f"out_mcm{s}", -made(seen))
                made.local = 1.0
        if s < total:
            parts = dict(zip(("id", "en"), made.parts(batch), strict=True))
            for part, value in parts.items():
                near(golden, f"out_loss_{part}{s}", value)
            loss = made.loss(batch)
            near(golden, f"out_loss{s}", loss)
            optimizer.zero_grad()
            loss.backward()
            if f"out_grad{s}" in golden:
                near(golden, f"out_grad{s}", made.context.grad)
            optimizer.step()
    near(golden, f"out_ctx{total}", made.context)
