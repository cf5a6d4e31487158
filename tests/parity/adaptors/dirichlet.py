"""EM-Dirichlet: goldens of several sets of queries, given as probabilities, which end their inner steps together."""

import torch

from adaptkit import Task, adapt, method
from adaptkit.methods.ops import one_hot
from tests.parity.golden import adaptor


def room(golden, *keys):
    """Outputs and their tolerances, as the sidecar has them."""
    return {key: golden.meta["outputs"][key]["tolerance_abs"] for key in keys}


@adaptor("em-dirichlet-zs", method="em-dirichlet")
@adaptor("hard-em-dirichlet-zs", method="hard-em-dirichlet")
@adaptor("em-dirichlet-fs", method="em-dirichlet-fs")
@adaptor("hard-em-dirichlet-fs", method="hard-em-dirichlet-fs")
def em_dirichlet(golden):
    hyper, z, labels = golden.hyper, golden["in_query"], golden["in_query_labels"]
    name, few, classes = golden.meta["method"].lower().replace(" ", "-"), "in_support" in golden, z.shape[-1]
    options = {"temperature": hyper["T"], "iterations": hyper["iter"], "steps": hyper["iter_mm"]}
    options |= {"effective": hyper.get("k_eff", 5), "as_released": True}
    model = method(name + "-fs" * few, **options)
    support = (torch.eye(classes), torch.arange(classes)) if few else (torch.zeros(0, classes), torch.zeros(0).long())
    adapt(model, Task.from_arrays(support, torch.eye(classes)))
    if few:
        shots = zip(golden["in_support"], golden["in_support_labels"], strict=True)
        model.shots = torch.stack([model.known(*own) for own in shots])
    log_u, alpha, v, moved = model.solve(z)
    u = one_hot(log_u.argmax(-1), classes) if model.hard else log_u.exp()
    for key, value in {"out_assignment": u, "out_alpha": alpha, "out_dual": v, "out_criterions": moved}.items():
        if key == "out_criterions" and few and model.hard:
            golden.skip("it compares alpha with itself", key)
        else:
            golden.close(key, value, atol=room(golden, key)[key])
    golden.equal("out_pred_clusters", log_u.argmax(-1))
    answers = torch.stack([model.matched(own, log_u[i]) for i, own in enumerate(z.double())]).argmax(-1)
    if not few:
        golden.equal("out_pred_matched", answers)
    golden.close("out_accuracy", (answers == labels).double().mean(-1), atol=1e-6)
