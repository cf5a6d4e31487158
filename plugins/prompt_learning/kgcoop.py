"""CoOp's context, held near what a hand-written sentence says of each class, so that it serves other classes, too.

The hand-written sentences are the task's own, one for each dataset in the paper: ``prompts: templates``.

Source: Yao et al., Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, arXiv:2303.13283.
Deviations: the paper adds the mean squared distance of class embeddings, here of unit norm, as the release has them;
the release adds one minus their mean cosine, which is half of it: ``as_released``. Random views come from a cache of
ten unless ``fresh``; the authors draw a new one at every step. Float32 instead of float16.
"""

from dataclasses import replace

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.prompt_learner import AnchoredLearner, distance
from adaptkit.methods.schedule import DASSL


class KgCoOp(AnchoredLearner):
    """Trained context words, held near hand-written sentences in class embeddings."""

    n: Size = 4  # context words; ignored with `init`
    init: str = "a photo of a"  # words to start from; "" for a random start
    weight: Weight = 8.0  # lambda, of the distance to the hand-written sentences
    as_released: bool = False  # half of the distance
    schedule: Schedule = replace(DASSL, epochs=100, batch_size=128)

    def penalty(self, text):
        return self.weight * distance(text, self.frozen) / (2 if self.as_released else 1)  # eq. 4 and 5


@hookimpl
def methods():
    return {"kgcoop": KgCoOp}
