"""InMaP: class proxies are learned in the space of images, from all queries and their balanced zero-shot labels.

Source: Qian et al., Intra-Modal Proxy Learning for Zero-Shot Visual Categorization with CLIP, arXiv:2310.19752.
Deviations: none known. The temperatures are for a logit scale of 100 and are rescaled to the backbone's. The authors
balance classes fully (``gamma`` 0), which is wrong where the queries are not balanced.
"""

import torch

from adaptkit import ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Share, Steps, Weight

BLOCK = 2**17  # logits worked on together
ROUND = 64  # longest round of iterations that is noticed


class InMaP(ZeroShot):
    """Learns a proxy of each class in image space from all queries, without labels.

    Gradient descent on cross-entropy at a higher temperature, from the text embeddings; no labels.
    """

    scope = "set"

    tau_t: Positive = 0.01  # temperature of zero-shot labels, of cosines, for a logit scale of 100
    tau_i: Positive = 0.04  # temperature of the proxies
    alpha: Share = 0.6  # a label surer than this becomes certain
    gamma: Share = 0.0  # class shares are zero-shot's to this power: 0 balances, 1 leaves them
    balance: Steps = 20  # rounds of Sinkhorn; 0 leaves the labels as they are
    iterations: Steps = 2000
    lr: Weight = 10.0  # halved whenever the gradient has grown

    def forward(self, batch):
        x = batch.x
        return self.backbone.logits(x, self.proxies(x, self.labels(x)))

    def labels(self, x):
        """Soft labels, ``(N, C)``, with the wanted share of each class."""
        scale = self.backbone.logit_scale / 100
        p = (scale * (x @ self.text.T) / self.tau_t).softmax(-1)
        shares = p.sum(0) ** self.gamma
        for _ in range(self.balance):
            p = p / p.sum(0).clamp_min(torch.finfo(p.dtype).tiny) * shares
            p = p / p.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        return torch.where(p.amax(1, keepdim=True) > self.alpha, torch.eye(p.shape[1]).to(p)[p.argmax(1)], p)

    def proxies(self, x, labels):
        """Unit-norm class embeddings, ``(C, D)``."""
        tau, lr, last = self.tau_i * 100 / self.backbone.logit_scale, self.lr, torch.inf
        proxies, wanted, seen, left = self.text, labels.T @ x, None, self.iterations
        while left:
            gradient = slope(x, proxies / tau) - wanted  # of the loss, times N tau
            norm = float(gradient.norm())
            lr, last = lr / 2 if norm > last else lr, norm
            proxies = unit(proxies - lr / (len(x) * tau) * gradient)
            left -= 1
            if seen and (lr, last) == seen[1:3] and torch.equal(proxies, seen[0]):
                left %= seen[3] - left  # what was here before comes here again: whole rounds change nothing
            if left % ROUND == 0:
                seen = proxies, lr, last, left
        return proxies


def slope(x, proxies):
    """``softmax(x proxies^T)^T x``, ``(C, D)``, of so few rows at a time on a processor that they stay in its cache."""
    size = max(64, BLOCK // len(proxies)) if x.device.type == "cpu" else max(1, len(x))
    return sum(((rows @ proxies.T).softmax(-1).T @ rows for rows in x.split(size)), torch.zeros_like(proxies))


@hookimpl
def methods():
    return {"in-map": InMaP}
