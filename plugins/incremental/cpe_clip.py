"""CPE-CLIP: tokens in both towers that learn session after session, the more slowly the more classes they know.

The tokens stand in front of a class name, and in each block of the image tower one linear map of them does. A later
session trains the same tokens and the same map on its own images; only its own classes compete there, all do in
answers.

Source: D'Alessandro et al., Multimodal Parameter-Efficient Few-Shot Class Incremental Learning, arXiv:2303.04751.
Deviations: the factor from cosine to logit is the checkpoint's; the authors write 100. Tokens replace each other from
block to block; their code can also keep the earlier ones. Length of training and rate are from memory, and could not be
checked. Float32 instead of half precision.
Interactions: without a sequence of tasks it is a coupled prompt like MaPLe's, with one map for all blocks.
"""

from torch import nn

from adaptkit import Schedule, hookimpl
from adaptkit.io.ranges import Size
from adaptkit.methods.ops import as_queries
from adaptkit.methods.sessions import Sessions
from adaptkit.methods.tower_prompts import TowerPrompts


class CPECLIP(Sessions, TowerPrompts):
    """Tokens of the text tower, mapped into the image tower's, trained task after task."""

    n: Size = 2  # learned tokens in each tower
    init: str = ""
    depth: Size = 12  # blocks of each tower that get tokens of their own
    schedule: Schedule = Schedule(epochs=5, lr=3.25e-3, batch_size=32, optimizer="sgd", weight_decay=1e-5)

    tunable = ("context", "deep", "map")

    def fit(self, task):
        task.backbone.require("image.tokens")
        self.start_words(task, min(self.depth, *task.backbone.depth.values()))
        self.map = nn.Linear(task.backbone.width["text"], task.backbone.width["image"])
        self.begin(task)

    def image_tokens(self):
        return [self.map(tokens) for tokens in (self.context, *self.deep)]

    def loss(self, batch):
        """Cross-entropy among the classes of this session, whose gradient is multiplied by their share of all."""
        loss = self.among_new(self.forward(as_queries(batch, self.needs())), batch.labels)
        share = 1 - self.before / self.now
        return share * loss + (1 - share) * loss.detach()


@hookimpl
def methods():
    return {"cpe-clip": CPECLIP}
