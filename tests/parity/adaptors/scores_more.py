"""CLIPN's scores, and those it is compared with."""

import numpy as np
import torch
from sklearn.metrics import roc_curve

from adaptkit import Task, adapt, method, predict
from adaptkit.methods.evaluation.detection import detection
from tests.parity.golden import adaptor


@adaptor("clipn-ood", method="clipn")
def clipn(golden):
    text, scale = golden["in_text_yes"], golden.hyper["logit_scale"]
    nothing = (torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long))
    task = Task.from_arrays(nothing, text, text_by={"no": golden["in_text_no"]}, logit_scale=scale)
    scorers = {  # the three others have cosines for a scale
        "msp": (method("mcm", temperature=1 / scale), 1),
        "maxlogit": (method("max-logit"), scale),
        "energy": (method("energy", temperature=1 / scale), scale),
        "ctw": (method("clipn", score="ctw", no="no"), 1),
        "atd": (method("clipn", score="atd", no="no"), 1),
    }
    metrics = []
    for name, (scorer, unit) in scorers.items():
        fitted, scores = adapt(scorer, task), {}
        for which in ("id", "ood"):
            scores[which] = unit * predict(fitted, golden[f"in_{which}_features"])
            golden.close(f"out_{which}_{name}", scores[which], atol=1e-4)
        labels = torch.cat([torch.ones(len(scores["id"])), torch.zeros(len(scores["ood"]))])
        fpr, tpr, _ = roc_curve(labels, torch.cat([scores["id"], scores["ood"]]))
        interpolated = np.interp(0.95, tpr, fpr)  # along the curve: not fpr95 as `detection` has it from MCM's code
        metrics.append([detection(scores["id"], scores["ood"])["auroc"], interpolated])
    golden.close("out_metrics", metrics, atol=1e-6)
    predicted = predict(adapt(method("zero-shot"), task), golden["in_id_features"]).argmax(-1)
    golden.close("out_accuracy", (predicted == golden["in_id_labels"]).double().mean(), atol=1e-6)
