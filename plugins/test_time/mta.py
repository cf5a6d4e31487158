"""The mode of an image's random views, by mean shift, each view weighted by how much of an inlier it is.

Source: Zanella and Ben Ayed, On the Test-Time Zero-Shot Generalization of Vision-Language Models: Do We Really Need
Prompt Learning?, arXiv:2405.02266. Names as in the paper.
Deviations: none known from the released code, of which we keep what the paper leaves open: a bandwidth per view, from
its nearest tenths, and five rounds whether or not they have converged. The mode is a combination of the views, so all
steps run on their products and on many images at once. Views that coincide have bandwidth 0, which gives the release
not-a-number and here a kernel of one point. The views of an image are drawn once and cached.
"""

import torch

from adaptkit import Pooled, ZeroShot, hookimpl
from adaptkit.io.ranges import Positive, Share, Steps, Views, Weight
from adaptkit.methods.ops import in_parts


class MTA(ZeroShot):
    """Zero-shot on the point where an image's random views are densest, by mean shift.

    Zero-shot logits of the mode; nothing is learned.
    """

    lambda_y: Positive = 0.2  # entropy of the inlierness scores
    lambda_q: Weight = 4.0  # pull between views that are answered alike
    nearest: Share = 0.3  # share of the other views, the nearest, that make a view's bandwidth
    rounds: Steps = 5  # of inlierness, then mode
    steps: Steps = 5  # of each, at most
    threshold: Weight = 1e-6  # change below which an image takes no further step
    views: Views = 64  # the plain image among them
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def forward(self, batch):
        return torch.cat([self.zero_shot(self.solve(views)[0]) for views in batch.views.split(64)])

    def solve(self, views):
        """Modes, unit-norm, ``(B, D)``, and inlierness, ``(B, V)`` adding up to 1, of views ``(B, V, D)``."""
        gram, pull = in_parts(self.products, views)  # both (B, V, V)
        norm2, h2 = gram.diagonal(dim1=1, dim2=2)[:, None], self.bandwidth(gram)  # (B, 1, V)
        plain = torch.zeros_like(h2)
        plain[..., 0] = 1  # the mode to start with
        mode, y = along(plain, gram), torch.full_like(h2, 1 / h2.shape[-1])
        for _ in range(self.rounds):
            density = kernel(mode, norm2, h2) / self.lambda_y
            y = self.repeat(y, lambda y, density=density: (density + y @ pull).softmax(-1))
            mode = self.repeat(mode, lambda mode, y=y: along(kernel(mode, norm2, h2) * y, gram))
        return (mode[:, :1] @ views.double())[:, 0].to(views), y[:, 0].to(views)

    def products(self, views):
        """Of the views with each other; and of their probabilities, weighted as the pull between them."""
        p, x = self.probabilities(views), views.double()
        return x @ x.mT, (p @ p.mT).double() * (self.lambda_q / self.lambda_y)

    def probabilities(self, views):
        """Of the classes, ``(B, V, C)``: what the views of an image share is added in double precision and near zero.

        Rounding must not grow with the logits, as the rounds magnify it.
        """
        mean = views.mean(1, keepdim=True)
        common = self.backbone.logits(mean.double(), self.text.double())  # (B, 1, C)
        return (self.zero_shot(views - mean) + (common - common.amax(-1, keepdim=True)).to(views)).softmax(-1)

    def repeat(self, state, step):
        """Apply a step to ``(B, 1 or 2, V)``, for each image until it moves less than the threshold."""
        moving = torch.ones_like(state[:, :1, :1], dtype=torch.bool)
        for _ in range(self.steps):
            new = torch.where(moving, step(state), state)
            change = new - state
            state = new
            moving = moving & (length(change) >= self.threshold)
            if not moving.any():
                break
        return state

    def bandwidth(self, gram):
        """Half the mean squared distance of each view to its nearest, h^2, ``(B, 1, V)``."""
        norm2 = gram.diagonal(dim1=1, dim2=2)
        distance2 = (norm2[:, :, None] + norm2[:, None] - 2 * gram).clamp_min(0)
        others = gram.shape[1] - 1
        k = min(others, max(1, int(self.nearest * others)))
        near = distance2.topk(k + 1, largest=False).values[..., 1:]  # without the view itself
        return (0.5 * near.sum(-1) / max(1, k)).clamp_min(1e-12)[:, None]


def along(a, gram):
    """The unit vector along ``a @ views``: its coefficients and its products with the views, ``(B, 2, V)``."""
    both = torch.cat([a, a @ gram], 1)
    return both / length(both)


def length(state):
    """Length of numbers ``(B, 1, V)``, or of the vector that `along` describes by two rows, ``(B, 1, 1)``."""
    return (state[:, :1] * state[:, -1:]).sum(-1, keepdim=True).clamp_min(0).sqrt()


def kernel(mode, norm2, h2):
    """Gaussian kernel between the mode and each view, with that view's bandwidth, ``(B, 1, V)``."""
    distance2 = norm2 + 1 - 2 * mode[:, 1:]
    return (-distance2.clamp_min(0) / (2 * h2)).exp()


@hookimpl
def methods():
    return {"mta": MTA}
