"""CoOp's context, moved only where zero-shot does not object: what conflicts with its answers leaves the gradient.

Zero-shot is the task's own sentences, one for each dataset in the paper: ``prompts: templates``. Its words before the
class name are what learning starts from, in the last of the ``n`` places.

Source: Zhu et al., Prompt-aligned Gradient for Prompt Tuning, arXiv:2205.14865.
Deviations: the start is the release's, also that the places which the words leave are zeros; the paper could not be
checked for it. Random views come from a cache of ten unless ``fresh``; the authors draw a new one at every step.
Float32 instead of float16. The authors take ``weight: 0.8`` for 8 and 16 shots of Flowers102, DTD and EuroSAT; on
ImageNet they train for 50 epochs whatever the shots.
"""

import torch

from adaptkit import Prompts, Schedule, hookimpl
from adaptkit.io.ranges import Positive, Size, Weight
from adaptkit.methods.ops import as_queries
from adaptkit.methods.prompt_learner import AnchoredLearner, around
from adaptkit.methods.schedule import COOP


class ProGrad(AnchoredLearner):
    """Trained context words, each step freed of what conflicts with zero-shot."""

    n: Size = 16  # context words
    init: str = ""  # words to start from, in the last places; without, those before the name in the task's sentences
    weight: Weight = 1.0  # lambda, of the conflicting part that is taken off
    temperature: Positive = 1.0  # of both answers where they are compared
    schedule: Schedule = COOP

    def fit(self, task):
        super().fit(task)
        self.prompts = Prompts(task.backbone, task.classnames, n=self.n, position=self.position)
        words = self.init or around(task)[0]
        if not words:
            return self.learn_from([self.prompts.start(self.std) for _ in task.classnames])
        first = Prompts(task.backbone, task.classnames, n=10_000, init=words).words()[-self.n :]  # (n, W) or fewer
        context = torch.cat([first.new_zeros(self.n - len(first), first.shape[1]), first])
        return self.learn_from([context] * len(task.classnames))

    def loss(self, batch):
        """The cross-entropy, whose gradient is the projected one (eq. 4)."""
        x = as_queries(batch, self.needs()).x
        logits = self.backbone.logits(x, self.text())  # (B, C)
        loss = self.evaluation.loss(logits, batch.targets)
        if not loss.requires_grad:
            return loss
        general = self.distilled(logits, self.backbone.logits(x, self.frozen))
        (to_general,) = torch.autograd.grad(general, self.context, retain_graph=True)
        (step,) = torch.autograd.grad(loss, self.context)
        overlap = (step * to_general).sum()
        if overlap < 0:
            step = step - self.weight * overlap / to_general.square().sum() * to_general
        return loss.detach() + ((self.context - self.context.detach()) * step).sum()

    def distilled(self, logits, zero_shot):
        """The divergence from zero-shot's answers, but for their own entropy, which has no gradient; nats, a scalar."""
        want, got = (zero_shot / self.temperature).softmax(-1), (logits / self.temperature).log_softmax(-1)
        return -(self.temperature**2) * (want * got).sum(-1).mean()


@hookimpl
def methods():
    return {"prograd": ProGrad}
