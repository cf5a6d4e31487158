"""Continual-CLIP: zero-shot among the classes seen so far, which is what methods that learn task after task must beat.

Source: Thengane et al., CLIP model is an Efficient Continual Learner, arXiv:2210.03114.
Deviations: none known. A class's embedding is the mean over the task's sentences; the authors have one template.
Interactions: without a sequence of tasks it is zero-shot. Embeddings of earlier classes stay bit for bit as they were.
"""

import torch

from adaptkit import ZeroShot, hookimpl


class ContinualCLIP(ZeroShot):
    """Frozen zero-shot, to which each task adds its classes."""

    def extend(self, task):
        self.text = torch.cat([self.text, task.text[len(self.text) :]])  # (C, D)


@hookimpl
def methods():
    return {"continual-clip": ContinualCLIP}
