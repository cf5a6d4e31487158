"""Scores for out-of-distribution detection, and the metrics that judge them."""

import re

from adaptkit import Task, adapt, method, predict
from adaptkit.methods.evaluation.detection import detection
from tests.parity.golden import adaptor

NAMES = {"MCM": "mcm", "maxlogit": "max-logit", "energy": "energy", "entropy": "entropy", "var": "variance"}


@adaptor("mcm-ood", method="mcm")
def ood(golden):
    task = Task.from_arrays((golden["in_maha_train"], golden["in_maha_labels"]), golden["in_text"])
    keys = [re.fullmatch(r"out_(.+)_T([\d.]+)_id", key) for key in golden.outputs]
    for name, t in (key.groups() for key in keys if key):
        options = {} if name == "maxlogit" else {"temperature": float(t)}
        fitted = adapt(method(NAMES[name], **options), task)
        scores = [predict(fitted, golden[f"in_{which}_features"]) for which in ("id", "ood")]
        for which, score in zip(("id", "ood"), scores, strict=True):
            key = f"out_{name}_T{t}_{which}"
            largest = float(abs(golden.arrays[key]).max())
            golden.close(key, -score, atol=min(1e-5 if float(t) == 1 else 1e-4, 1e-3 * largest))
        metrics = detection(*scores)
        ties = name == "entropy" and float(t) == 1  # nearly constant: rounding makes and breaks ties
        got = [metrics[metric] for metric in ("auroc", "aupr", "fpr95")]
        golden.close(f"out_{name}_T{t}_metrics", got, atol=2e-3 if ties else 1e-6)
    fitted = adapt(method("mahalanobis", as_released=True), task)
    golden.close("out_maha_mean", fitted.means, rtol=1e-3, atol=1e-6)
    golden.close("out_maha_precision_diag", fitted.whiten.square().sum(1), rtol=1e-3)
    for which in ("id", "ood"):
        golden.close(f"out_maha_{which}", -predict(fitted, golden[f"in_{which}_features"]), rtol=1e-3)
