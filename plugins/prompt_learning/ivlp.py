"""Learned tokens in the first blocks of both towers, independent of each other: what PromptSRC and MaPLe are held to.

Source: Khattak et al., Self-regulating Prompts: Foundational Model Adaptation without Forgetting, arXiv:2307.06948
(its baseline, IVLP), after Rasheed et al., Fine-tuned CLIP Models are Efficient Video Learners, arXiv:2212.03640.
Deviations: float32 instead of float16. Towers with fewer blocks than asked for get tokens in all of them. With n below
the number of words in ``init`` the further words stay as they are, and the image tower's tokens have no position and
follow the patches, as in the authors' code. Their earlier code, of MaPLe (arXiv:2210.03117), has two tokens in all
twelve blocks of each tower, 5 epochs and a rate of 3.5e-3; and "deep language prompting", four words, twelve blocks of
text, ``depth_image: 0`` and a rate of 2.5e-3. Without tokens in the image tower its embeddings are cached, and ten
views stand for fresh ones.
"""

from adaptkit import Pooled, hookimpl, unit
from adaptkit.methods.tower_prompts import IndependentPrompts


class IVLP(IndependentPrompts):
    """Trained tokens in the first blocks of both towers, each tower its own."""

    def needs(self):
        return super().needs() if self.depth_image else {"x": Pooled()}

    def support_needs(self):
        return super().support_needs() if self.depth_image else {"views": Pooled(views=10, augment="wide-crop-flip")}

    def forward(self, batch):
        if self.depth_image:
            return super().forward(batch)
        return self.backbone.logits(batch.x, unit(self.class_embeddings()))


@hookimpl
def methods():
    return {"ivlp": IVLP}
