"""Test-time tuning by reward: a second CLIP says how well each of an image's likeliest classes fits its views.

Source: Zhao et al., Test-Time Adaptation with CLIP Reward for Zero-Shot Generalization in Vision-Language Models,
arXiv:2305.18010.
Deviations: float32 instead of mixed precision; views are drawn once and cached. Each class stands in the judge's eyes,
and with ``tunes: image-tower`` in the student's, for the mean over its sentences in the recipe, not for one sentence.
The judge sees the views as its own preprocessing cuts them, not those of the student enlarged. Without `judge` the
backbone judges itself. As in the release, candidates are the k likeliest classes, not a draw, and one candidate alone
keeps its reward as it is. The release moves the average for the image tower only; here it also does for a prompt. Its
scripts start prompts from CoOp's, trained on ImageNet: ``base: coop``.
"""

from typing import Literal

from adaptkit import Pixels, Pooled, hookimpl, unit
from adaptkit.io.ranges import Many, Share, Size, Steps, Weight
from adaptkit.methods.episodes import Answer, Episodes


class RLCF(Episodes):
    """Tunes words, or the image tower, for each image anew, to what another CLIP rewards.

    Steps along the reward of each likely class, above the mean of all of them, times the class's log-probability.
    """

    tunes: Literal["prompt", "image-tower"] = "prompt"
    judge: str = ""  # a second backbone, e.g. "hf:openai/clip-vit-large-patch14"; the authors' tables are with that one
    k: Size = 3  # classes that are rewarded, the likeliest of each view
    sharpness: Weight = 2.5  # from cosine to reward
    steps: Steps = 3  # the release takes 5 on fine-grained datasets
    lr: Weight = 7e-3  # of a prompt
    tower_lr: Weight = 1e-5  # of the image tower
    weight_decay: Weight = 5e-4  # of AdamW
    momentum: bool = False  # images start from a running average of what earlier ones have tuned
    decay: Share = 0.9998  # of that average, at every image
    every: Many = 64  # images after which the start is moved
    share: Share = 1.0  # of the average in the moved start; the rest is the first one

    def __post_init__(self):
        super().__post_init__()
        if self.base is not None and self.tunes != "prompt":
            raise ValueError(f"rlcf.tunes must be 'prompt' with a base; got {self.tunes!r}; leave out base")
        self.scope = "stream" if self.momentum else "sample"
        self.count, self.average, self.moved = 0, {}, {}

    def needs(self):
        own = super().needs() if self.tunes == "prompt" else {"pixels": self.in_views(Pixels())}
        return {**own, "judged": self.in_views(Pooled(backbone=self.judge))}

    def fit(self, task):
        self.register_buffer("judged_text", (task.text_by(self.judge) if self.judge else task.text).clone())  # (C, D')
        if self.tunes == "prompt":
            super().fit(task)
        else:
            self.backbone = task.backbone
            self.names = [name for name in task.backbone.weight_names() if not name.startswith("text.")]
            self.register_buffer("text", task.text.clone())  # (C, D)

    def together(self):
        return 1 if self.momentum or self.tunes == "image-tower" else super().together()

    def first_start(self):
        if self.tunes == "prompt":
            return super().first_start()
        return {name: self.backbone.weight(name) for name in self.names}

    def start(self, count):
        start = self.moved or self.first_start()
        return {name: value[None].expand(count, *value.shape) for name, value in start.items()}

    def choose(self, seen):
        if self.tunes == "prompt" and not self.moved:
            return super().choose(seen)
        return self.confident(self.see(self.start(1), seen).logits)

    def see(self, state, seen):
        if self.tunes == "prompt":
            return super().see(state, seen)
        with self.backbone.weights({name: value[0] for name, value in state.items()}):
            x = unit(self.backbone.encode_image(seen["pixels"][0]))  # (V, D)
        return Answer(self.backbone.logits(x, self.text)[None])

    def objective(self, answer, seen):
        likeliest = answer.logits.topk(min(self.k, answer.logits.shape[-1])).indices  # (B, K, k)
        fit = (seen["judged"] @ self.judged_text.T).gather(-1, likeliest)
        reward = self.sharpness * fit.clamp_min(0)
        if reward.shape[-1] > 1:
            reward = reward - reward.mean(-1, keepdim=True)
        return -(reward * answer.logits.log_softmax(-1).gather(-1, likeliest)).mean((-2, -1))

    def rate(self):
        return self.lr if self.tunes == "prompt" else self.tower_lr

    def begun(self):
        return None if self.momentum or self.tunes == "image-tower" else super().begun()

    def tuned(self, start, seen, begun=None):
        state = super().tuned(start, seen, begun)
        if self.momentum:
            self.remember({name: value[0] for name, value in state.items()})
        return state

    def remember(self, state):
        """Move the average and, at times, where images start."""
        first, self.count = self.first_start(), self.count + 1
        old = self.average or first
        self.average = {n: self.decay * old[n] + (1 - self.decay) * value for n, value in state.items()}
        if self.count % self.every == 0:
            self.moved = {n: (1 - self.share) * first[n] + self.share * value for n, value in self.average.items()}


@hookimpl
def methods():
    return {"rlcf": RLCF}
