"""Scaled cosine similarity to each class's prompts. The head itself is `adaptkit.ZeroShot`, as most methods add to it.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
Deviations: none known.
"""

from adaptkit import ZeroShot, hookimpl


@hookimpl
def methods():
    return {"zero-shot": ZeroShot}
