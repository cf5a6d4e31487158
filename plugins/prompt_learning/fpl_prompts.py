"""What FPL, IFPL and GRIP train on pseudo-labelled images: a prefix of words, of the image tower's tokens, or of both.

The images come from ``support: fpl``, ``ifpl`` or ``grip``; the last two adapt this method in each of their rounds.

Source: Menghini et al., Enhancing CLIP with CLIP: Exploring Pseudolabeling for Limited-Label Prompt Tuning,
arXiv:2306.01669; the prefix of both towers is UPT's, Zang et al., arXiv:2210.07225.
Deviations: the rate waits at 1e-5 for five epochs before the cosine, which falls
at every step; the authors' grows linearly from 0, and changes every epoch. A class's
sentence is the task's, with its full stop; the authors' templates have none: ``template``. For both towers, tokens
start as they do for one, the authors draw them as Xavier did; and in the release a word is mixed with the token of its
own number alone (``as_released``). The release holds a fifth of the pseudo-labelled images out from ten a class on, and
keeps the prefix that was best on it: ``as_released`` of both support and method. Float32 instead of half precision.
"""

from adaptkit import Schedule, hookimpl
from adaptkit.methods.adapt import accuracy
from adaptkit.methods.prefix_learner import PrefixLearner


class FPLPrompts(PrefixLearner):
    """A trained prefix of words, of image tokens or of both, on pseudo-labels."""

    as_released: bool = False  # keep the prefix that is best on validation images; mix words and tokens in pairs
    schedule: Schedule = Schedule(epochs=150, lr=0.1, batch_size=16, optimizer="sgd", weight_decay=0.1, warmup=5)

    def fit(self, task):
        self.start_prefixes(task)
        if self.modality == "both":
            self.mixer.paired = self.as_released
        self.val = task.val

    def retarget(self, task):
        super().retarget(task)
        self.val = None

    def callbacks(self):
        from adaptkit.methods.train import KeepBest

        watched = self.as_released and self.val is not None
        return [KeepBest(self, lambda: accuracy(self, self.val))] if watched else []


@hookimpl
def methods():
    return {"fpl-prompts": FPLPrompts}
