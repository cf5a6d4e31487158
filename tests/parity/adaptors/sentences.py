"""Methods that weigh crops, sentences or circumstances: WCA, ABS and PerceptionCLIP."""

import math

import torch

from adaptkit import adapt, method, predict
from tests.parity.adaptors.given import given_task
from tests.parity.adaptors.text import with_file, zero_shot_task
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip


def written(golden):
    """Sentence embeddings by class."""
    return [golden[f"in_sentences_{c}"] for c in range(len(golden.meta["classnames"]))]


@adaptor("wca", method="wca")
def wca(golden):
    hyper, own, x = golden.hyper, written(golden), golden["in_x"]
    classes = torch.arange(len(own)).repeat_interleave(torch.tensor([len(rows) for rows in own]))
    task, texts = zero_shot_task(torch.cat(own), classes, list(golden["in_text"][:, None]))
    scale, crops = task.backbone.logit_scale, golden["in_crop_indices"]
    options = {"views": crops.shape[1], "as_released": True}
    options |= {f"{what}_sharpness": math.exp(hyper[f"{what}_scale"]) for what in ("image", "text")}
    model = with_file("wca", task, texts, **options)
    golden.close("out_text", model.text, atol=1e-5)
    golden.close("out_baseline_cosines", model.zero_shot(x) / scale, atol=1e-5)
    runs = [predict(model, {"x": x, "views": golden["in_views"][:, drawn]}) for drawn in crops]
    golden.close("out_cosines", torch.stack(runs) / scale, atol=1e-5)
    golden.skip("no more than a product of two inputs", "out_crop_similarity")


@adaptor("abs", method="abs")
def attention_based_selection(golden):
    own = written(golden)
    model = adapt(method("abs", crops=golden["in_crops"].shape[1] // 2), given_task(golden, own))
    golden.close("out_rows", model.rows.view(len(own), -1, model.rows.shape[1]), atol=1e-5)
    golden.close("out_logits", predict(model, {"crops": golden["in_crops"]}), of_max=1e-5)


@adaptor("perceptionclip", method="perception-clip")
def perception_clip(golden):
    hyper, backbone = golden.hyper, tiny_clip(golden, logit_scale=golden.hyper["logit_scale"])
    names = [name.replace("_", " ") for name in golden.meta["classnames"]]
    sentences = [[hyper["main_template"].format(name) + "."] for name in names]
    with torch.no_grad():
        text = backbone.encode_text([s for own in sentences for s in own])
        x = torch.nn.functional.normalize(backbone.encode_image(golden["in_pixel_values"]), dim=-1)
    golden.close("in_x", x, atol=1e-5)
    factors = [["|".join(ways) for ways in values] for values in hyper["factors"].values()]
    options = {"factors": factors, "temperature": hyper["temperature"], "without_class": hyper["without_class"]}
    nothing = golden["in_pixel_values"][:0], golden["in_labels"][:0]
    task = given_task(golden, text, support=nothing, backbone=backbone, prompts=sentences)
    model = adapt(method("perception-clip", **options), task)
    golden.close("out_bank", model.bank, atol=1e-5)
    if hyper["without_class"]:
        golden.close("out_circumstances", model.circumstances, atol=1e-5)
    p = predict(model, golden["in_pixel_values"]).exp()
    golden.close("out_probs", p, atol=1e-5)
    golden.agree("out_pred", p.argmax(-1), p, 2e-5)
    golden.close("out_accuracy", (p.argmax(-1) == golden["in_labels"]).double().mean(), atol=1e-9)
