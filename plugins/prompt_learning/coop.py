"""Learned context words in front of, around or behind the class name, the same for all images.

Source: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv:2109.01134.
Deviations: random views come from a cache of ten unless ``fresh``; the authors draw a new one at every step. Float32
instead of float16. On ImageNet the authors train for 50 epochs whatever the shots: ``schedule: {epochs: 50}``.
"""

from adaptkit import Schedule, hookimpl
from adaptkit.methods.prompt_learner import ContextLearner
from adaptkit.methods.schedule import COOP


class CoOp(ContextLearner):
    """Trained context words around the class name, the same for all images."""

    schedule: Schedule = COOP


@hookimpl
def methods():
    return {"coop": CoOp}
