"""Any method's logits, corrected by the share of each class in a labelled support that is imbalanced.

Source: Menon et al., Long-Tail Learning via Logit Adjustment, arXiv:2007.07314.
Deviations: the correction is made after adaptation, of any method; classes without images count as with one.
"""

from adaptkit import OverBase, hookimpl
from adaptkit.io.ranges import Weight


class Adjusted(OverBase):
    """A base's logits, less the logarithm of each class's share of the support."""

    tau: Weight = 1.0  # strength of the correction

    def support_needs(self):
        return self.base.support_needs()  # the labels of the same images are read

    def fit(self, task):
        super().fit(task)
        counts = task.support.labels.bincount(minlength=len(task.classnames)).clamp_min(1)  # (C,)
        self.register_buffer("prior", (counts / counts.sum()).log())

    def forward(self, batch):
        return self.base(batch) - self.tau * self.prior  # (B, C)


@hookimpl
def methods():
    return {"example-adjusted": Adjusted}
