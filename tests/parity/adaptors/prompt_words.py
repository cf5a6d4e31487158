"""Methods that learn words in front of class names by more than cross-entropy."""

from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted, variants
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task


@adaptor("kgcoop", method="kgcoop")
def kgcoop(golden):
    task, room = tiny_task(golden, template=golden.hyper["template"]), golden.meta["tolerance"]
    for prefix in variants(golden):
        n = len(golden[f"{prefix}init.{CONTEXT}"])
        golden.close(f"{prefix}text_feat_fixed", task.text, atol=room["logits"])
        kgcoop = fitted(
            "kgcoop", task, n=n, init="", weight=golden.hyper["W"], as_released=True, schedule=constant(golden)
        )
        for s, loss in follow(golden, kgcoop, task, {CONTEXT: kgcoop.context}, prefix):
            known = kgcoop.penalty(kgcoop.text()) / kgcoop.weight
            golden.close(f"{prefix}part{s}.kg_score", known, atol=room["loss"])
            golden.close(f"{prefix}part{s}.cross_entropy.0", loss - kgcoop.weight * known, atol=room["loss"])
