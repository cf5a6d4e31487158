"""Learned tokens in the first blocks of both towers; those of the image tower are projections of the text tower's.

Source: Khattak et al., MaPLe: Multi-modal Prompt Learning, arXiv:2210.03117.
Deviations: float32 instead of float16. Towers with fewer than ``depth`` blocks get tokens in all of them. As in the
authors' code, two tokens replace the first two of the words "a photo of a" and the other two stay as they are, and the
image tower's tokens have no position and follow the patches. Nothing can be cached: every step runs the image tower on
views drawn anew. In the paper's cross-dataset setting ``depth`` is 3.
"""

from adaptkit import hookimpl
from adaptkit.methods.tower_prompts import CoupledPrompts


class MaPLe(CoupledPrompts):
    """Trained tokens in the first blocks of both towers, the image's made of the text's."""


@hookimpl
def methods():
    return {"maple": MaPLe}
