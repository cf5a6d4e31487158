"""WCA: random crops against generated sentences, each crop and each sentence weighted by how typical it is.

Source: Li et al., Visual-Text Cross Alignment: Refining the Similarity Score in Vision-Language Models,
arXiv:2406.02915.
Deviations: crops are the kit's random views, which also flip and change the aspect ratio; the paper's are squares with
0.5 to 0.9 of the shorter side. A sentence is typical if it is like the class's embedding in the task, which is that of
"a photo of a NAME." by default. The release scales both weighted means to unit norm, which the paper's sum does not;
``as_released=True`` does so. It averages the accuracy over 20 draws of crops; stored views are one draw.
"""

import torch
from torch import nn

from adaptkit import Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Views, Weight
from adaptkit.runs.plugins import pick


class WCA(ZeroShot):
    """Random crops against generated sentences, each weighted by how typical it is.

    Sum over crops i and sentences j of ``w_i v_j cos(crop i, sentence j)``, as logits.
    """

    file: str = ""  # sentences by class, as the prompts `llm` read them; without, the task's are used
    views: Views = 60  # crops
    augment: str = "wide-crop-flip"
    image_sharpness: Weight = 54.6  # of w, a softmax over crops of their cosine to the whole image: exp(4)
    text_sharpness: Weight = 7.39  # of v, a softmax over sentences of their cosine to the class: exp(2)
    as_released: bool = False

    def needs(self):
        return {"x": Pooled(), "views": Pooled(views=self.views, augment=self.augment)}

    def fit(self, task):
        super().fit(task)
        rows = task.text_per_prompt
        if self.file:
            sentences = pick("prompts", "llm")(task.classnames, None, file=self.file)
            written = unit(task.encode([s for own in sentences for s in own])).to(self.text)
            rows = written.split([len(own) for own in sentences])
        weights = [(self.text_sharpness * own @ t).softmax(0) for own, t in zip(rows, self.text, strict=True)]
        mean = torch.stack([v @ own for v, own in zip(weights, rows, strict=True)])  # (C, D)
        self.text = nn.Buffer(unit(mean) if self.as_released else mean)

    def forward(self, batch):
        views = batch.views  # (B, V, D)
        w = (self.image_sharpness * (views @ batch.x[:, :, None])).softmax(1)  # (B, V, 1)
        mean = (w * views).sum(1)
        return self.zero_shot(unit(mean) if self.as_released else mean)


@hookimpl
def methods():
    return {"wca": WCA}
