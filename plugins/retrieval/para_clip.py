"""The text tower is tuned so that texts of one meaning embed alike and still find their image, which stays as it is.

Source: Kim et al., Fine-tuning CLIP Text Encoders with Two-step Paraphrasing, arXiv:2402.15120, from its abstract.
Deviations: a language model writes the paper's paraphrases, two to a caption; here the captions that a dataset has of
one item are each other's, those that meet in a batch. The three terms of the paper are two then: a caption and its
image, two captions of one image. Their weight, the rate and the length are settings of this kit. Pairs of one label in
a batch match each other.
"""

import torch

from adaptkit import Retriever, Schedule, SentenceIds, hookimpl
from adaptkit.io.ranges import Size, Weight
from adaptkit.methods.retriever import cosines, finding, finding_both_ways, matching
from adaptkit.methods.tuned_weights import TunedWeights


class ParaClip(Retriever):
    """Cosine of a text, by the text tower as it was tuned, and an image."""

    words_read: Size = 77  # tokens of a text, at most
    alike: Weight = 1.0  # of texts of one item in the loss
    schedule: Schedule = Schedule(epochs=5, lr=1e-5, batch_size=128, optimizer="adamw", weight_decay=0.01)

    def needs(self):
        return {"ids": SentenceIds(count=self.words_read, of="text")}

    def build(self, task):
        names = [name for name in task.backbone.weight_names() if name.startswith("text.")]
        if not names:
            raise ValueError(f"the backbone must have a text tower with weights; got {type(task.backbone).__name__}")
        self.tuned = TunedWeights(task.backbone, names)

    def texts(self, ids):
        """Raw embeddings, ``(N, D)``, of numbers of tokens, ``(N, L)``, -1 where a tokenizer gave none."""
        there = ids >= 0
        ids = ids[:, : int(there.sum(1).max())] if len(ids) else ids[:, :1]
        last = ids.gather(1, there.sum(1, keepdim=True) - 1)  # behind the end, the end again
        return self.tuned.encode_text({"input_ids": torch.where(ids < 0, last, ids)})

    def scores(self, asked, items):
        return cosines(self.texts(asked.ids), items.item)

    def loss(self, batch):
        text, own, scale = self.texts(batch.ids), matching(batch), self.backbone.logit_scale
        found = scale * cosines(text, batch.item)
        loss = finding_both_ways(found, own)
        same = batch.ids[:, None].eq(batch.ids).all(-1)
        other = own & ~same
        if not (twin := other.any(-1)).any():
            return loss
        among = (scale * cosines(text, text)).masked_fill(same, float("-inf"))
        return loss + self.alike * finding(among[twin], other[twin])


@hookimpl
def methods():
    return {"para-clip": ParaClip}
