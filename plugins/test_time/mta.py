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


class MTA(ZeroShot):
    """Zero-shot logits of the mode; nothing is learned."""

    lambda_y: float = 0.2  # entropy of the inlierness scores
    lambda_q: float = 4.0  # pull between views that are answered alike
    nearest: float = 0.3  # share of the other views, the nearest, that make a view's bandwidth
    rounds: int = 5  # of inlierness, then mode
    steps: int = 5  # of each, at most
    threshold: float = 1e-6  # change below which an image takes no further step
    views: int = 64  # the plain image among them
    augment: str = "wide-crop-flip"

    def needs(self):
        return {"views": Pooled(views=self.views, plain_first=True, augment=self.augment)}

    def forward(self, batch):
        return torch.cat([self.zero_shot(self.solve(views)[0]) for views in batch.views.split(64)])

    def solve(self, views):
        """Modes, unit-norm, ``(B, D)``, and inlierness, ``(B, V)`` adding up to 1, of views ``(B, V, D)``."""
        p, x = self.probabilities(views), views.double()  # (B, V, C)
        gram, pull = x @ x.mT, p @ p.mT * (self.lambda_q / self.lambda_y)  # both (B, V, V)
        h2 = self.bandwidth(gram)  # (B, V)
        a = torch.zeros_like(h2)
        a[:, 0] = 1  # the mode is a @ views; the plain image to start with
        a = normalised(a, gram)
        y = torch.full_like(h2, 1 / h2.shape[1])
        for _ in range(self.rounds):
            density = kernel(a, gram, h2) / self.lambda_y
            y = self.repeat(y, lambda y, density=density: (density + times(pull, y)).softmax(-1))
            a = self.repeat(a, lambda a, y=y: normalised(kernel(a, gram, h2) * y, gram), gram)
        return torch.einsum("bv,bvd->bd", a, x).to(views), y.to(views)

    def probabilities(self, views):
        """Of the classes, ``(B, V, C)``, in double precision: the rounds magnify what rounding leaves.

        The large product runs in single precision on what tells the views of an image apart, the small one is exact.
        """
        mean = views.mean(1, keepdim=True)
        common = self.backbone.logits(mean.double(), self.text.double())  # (B, 1, C)
        return (self.zero_shot(views - mean) + common).softmax(-1)

    def repeat(self, state, step, gram=None):
        """Apply a step to ``(B, V)``, each row until it moves less than the threshold."""
        moving = torch.ones_like(state[:, :1], dtype=torch.bool)
        for _ in range(self.steps):
            new = torch.where(moving, step(state), state)
            change = new - state
            state = new
            moving = moving & (length(change, gram) >= self.threshold)
            if not moving.any():
                break
        return state

    def bandwidth(self, gram):
        """Half the mean squared distance of each view to its nearest, h^2, ``(B, V)``."""
        norm2 = gram.diagonal(dim1=1, dim2=2)
        distance2 = (norm2[:, :, None] + norm2[:, None] - 2 * gram).clamp_min(0)
        others = gram.shape[1] - 1
        k = min(others, max(1, int(self.nearest * others)))
        near = distance2.topk(k + 1, largest=False).values[..., 1:]  # without the view itself
        return (0.5 * near.sum(-1) / max(1, k)).clamp_min(1e-12)


def times(matrix, vector):
    """``(B, V, V)`` times ``(B, V)``."""
    return (matrix @ vector[..., None])[..., 0]


def length(a, gram=None):
    """Length of ``a`` itself, or of ``a @ views``, ``(B, 1)``."""
    return (a * (a if gram is None else times(gram, a))).sum(-1, keepdim=True).clamp_min(0).sqrt()


def normalised(a, gram):
    """Coefficients ``(B, V)`` of the unit vector along ``a @ views``."""
    return a / length(a, gram)


def kernel(a, gram, h2):
    """Gaussian kernel between the unit vector ``a @ views`` and each view, with that view's bandwidth, ``(B, V)``."""
    distance2 = gram.diagonal(dim1=1, dim2=2) + 1 - 2 * times(gram, a)
    return (-distance2.clamp_min(0) / (2 * h2)).exp()


@hookimpl
def methods():
    return {"mta": MTA}
