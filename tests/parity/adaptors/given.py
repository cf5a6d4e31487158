"""What goldens with ``in_support``, ``in_labels``, ``in_text``, ``in_val`` and ``in_test`` share."""

import torch

from adaptkit import Task


def given_task(golden, text=None, *, support=None, with_val=True, **more):
    """A golden's arrays as a task; one without a support has an empty one.

    Args:
        golden: with features as rows, ``(S, D)`` or, with views, ``(S, V, D)``.
        text: instead of the golden's class or sentence embeddings.
        support: features and labels instead of the golden's.
        with_val: whether its validation images, if it has any, are the task's.
        more: for `Task.from_arrays`.
    """
    text = golden["in_text"] if text is None else text
    if support is None:
        nothing = torch.zeros(0, text[0].shape[-1]), torch.zeros(0, dtype=torch.long)
        support = (golden["in_support"], golden["in_labels"]) if "in_support" in golden else nothing
    val = (golden["in_val"], golden["in_val_labels"]) if with_val and "in_val" in golden else None
    scale = golden.hyper.get("logit_scale", 100)
    return Task.from_arrays(support, text, **{"val": val, "logit_scale": scale, **more})


def rows_of_views(golden):
    """Each view of each support image as an image of its own: ``(S * V, D)`` and ``(S * V,)``."""
    views = golden["in_support"]
    return views.flatten(0, -2), golden["in_labels"].repeat_interleave(views.shape[1] if views.dim() == 3 else 1)


def moved(golden, name):
    """How far an output of the official code moves between single and double precision."""
    return golden.meta["fp32_vs_fp64_of_the_reference"][name]["max_abs_diff"]


def row_centred(golden, key, value, *, atol=0.0, of_max=0.0):
    """Hold logits against an output once each row's mean is taken from both."""
    want = golden[key]
    golden.arrays[key] = (want - want.mean(-1, keepdim=True)).numpy()
    golden.close(key, value - value.mean(-1, keepdim=True), atol=atol + of_max * float(want.abs().max()))
