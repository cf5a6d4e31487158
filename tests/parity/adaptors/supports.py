"""Ways to choose the support: UPL's pseudo-labels."""

import torch
from adaptkit_plugins.supports.pseudo_label import leaderboards, surest, zero_shot

from adaptkit import Task
from adaptkit.features.items import Images
from adaptkit.runs import plugins
from tests.parity.golden import adaptor


@adaptor("upl-select", method="the support pseudo-label")
def pseudo_label(golden):
    text, x, hyper = golden["in_text"], golden["in_features"], golden.hyper
    nothing = (torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long))
    task, train = (
        Task.from_arrays(nothing, text, logit_scale=hyper["logit_scale"]),
        Images.from_arrays(x, golden["in_labels"]),
    )
    everything = len(train)

    def compare(key, rows, labels, confidence):
        golden.equal(f"out_{key}_ids", rows)
        golden.equal(f"out_{key}_labels", labels)
        golden.close(f"out_{key}_conf", confidence, atol=1e-5)

    logits = task.backbone.logits(x, text)
    p = logits.softmax(-1)
    for key, shots, threshold in (("perclass", hyper["K"], 0.0), ("conf", everything, hyper["conf_threshold"])):
        chosen, _ = plugins.pick("supports", "pseudo-label")(
            task, train, None, shots=shots, seed=1, threshold=threshold
        )
        compare(key, chosen.index, chosen.labels, p.max(1).values[chosen.index])
    ensemble = 0.5 * logits + 0.5 * (0.02 * logits.roll(1, 0) + logits)
    compare("perclass_logits", *surest(ensemble, hyper["K"]))
    for key, threshold in (("value", hyper["value_threshold"]), ("global", 0.0)):  # UPL's rules without classes
        found = surest(p, everything, threshold)
        order = found[2].argsort(descending=True)[: len(golden[f"out_{key}_ids"])]
        compare(key, *(part[order] for part in found))


@adaptor("fpl", method="the support fpl")
def fpl(golden):
    logits, scale = golden["in_logits"], 2 * float(golden["in_logits"].norm(dim=-1).max())
    inside = logits / scale  # embeddings of unit norm whose products with the classes' are the logits
    x = torch.cat([inside, (1 - inside.square().sum(-1, keepdim=True)).sqrt()], 1)
    nothing = (x[:0], torch.zeros(0, dtype=torch.long))
    task = Task.from_arrays(nothing, torch.eye(x.shape[1])[: logits.shape[1]], logit_scale=scale)
    golden.close("in_probabilities", task.backbone.logits(x, task.text).softmax(-1), atol=1e-5)
    chosen = leaderboards(Images.from_arrays(x), zero_shot(task, Images.from_arrays(x)), int(golden["in_k"]))
    golden.equal("out_rows", chosen.index)
    golden.equal("out_labels", chosen.labels)
