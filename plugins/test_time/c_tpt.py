"""Test-time prompt tuning that also spreads the class embeddings, so that confidences stay near accuracies.

Source: Yoon et al., C-TPT: Calibrated Test-Time Prompt Tuning for Vision-Language Models via Text Feature Dispersion,
arXiv:2403.14119.
Deviations: those of ``tpt``. The weight of the spread is 50, as on fine-grained datasets; the authors take 20 on
ImageNet and its variants. ``two_step``, an option of their code, is not in the paper. Over a ``base`` the class
embeddings must depend on words alone, as those of CoOp do.
"""

from typing import ClassVar

from adaptkit import hookimpl
from adaptkit.io.ranges import Weight
from adaptkit.methods.episodes import Episodes


class CTPT(Episodes):
    """Tunes context words, for each image anew, till views agree and classes lie apart.

    Minimises the entropy of the mean prediction minus the weighted distance of class embeddings from their mean.
    """

    weight: Weight = 50.0  # of the spread, lambda
    two_step: bool = False  # a step for the entropy, then one for the spread

    exempt: ClassVar = {"beats_chance": "spreading classes leads random towers off the sentence they were fitted to"}

    def __post_init__(self):
        super().__post_init__()
        if self.words() is None:
            name = type(self.base).__name__
            raise ValueError(f"base must answer by class embeddings of words alone, e.g. coop; got {name}")

    def stages(self):
        if self.two_step:
            return (lambda answer, _: self.disagreement(answer.logits), lambda answer, _: self.closeness(answer.text))
        return (self.objective,)

    def objective(self, answer, seen):
        return self.disagreement(answer.logits) + self.closeness(answer.text)

    def closeness(self, text):
        """Minus the weighted spread of class embeddings, ``(B, C, D)`` to ``(B,)``."""
        return -self.weight * (text - text.mean(-2, keepdim=True)).norm(dim=-1).mean(-1)


@hookimpl
def methods():
    return {"c-tpt": CTPT}
