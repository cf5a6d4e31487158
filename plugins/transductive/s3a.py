"""Names for clusters of images out of a vocabulary much larger than their number, by votes.

Source: Zhang et al., Towards Realistic Zero-Shot Classification via Self Structural Semantic Alignment,
arXiv:2308.12960; its cluster, vote and realign steps. The prompts that a language model writes in between, and the
training of the image tower that follows, are not here.
Deviations: none known from the released code in the steps it has: each image votes for one word, where the paper also
has three. The classes of the task are the vocabulary. As all clusters get different words, a cluster for which no image
votes gets one that depends on the solver, SciPy's.
"""

import warnings

import torch
from torch import nn

from adaptkit import ZeroShot, hookimpl
from adaptkit.io.ranges import Count, Steps
from adaptkit.methods.ops import class_sums, one_hot

BARRED = -1e4  # logit of a word that no cluster got


class S3A(ZeroShot):
    """Zero-shot among names from a large vocabulary that clusters of queries vote for."""

    scope = "set"

    clusters: Count = 0  # how many classes the images are known or thought to have; 0: as many as the vocabulary
    rounds: Steps = 3  # of voting and realignment

    def fit(self, task):
        super().fit(task)
        self.seed = nn.Buffer(torch.randint(2**31, ()))  # of the clustering

    def forward(self, batch):
        logits = self.zero_shot(batch.x)
        words = self.align(logits, self.cluster(batch.x))[1]
        return logits.masked_fill(~torch.isin(torch.arange(logits.shape[1]).to(words), words), BARRED)

    def cluster(self, x):
        """Cluster of each image, ``(N,)``, by k-means; the order of the images does not matter."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        order = x[:, 0].argsort(stable=True).cpu()
        count = min(len(x), self.clusters or len(self.text))
        means = KMeans(count, n_init=4, random_state=int(self.seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of equal images, there are fewer clusters
            found = means.fit_predict(x.cpu()[order].double().numpy())
        return torch.empty_like(order).scatter_(0, order, torch.from_numpy(found).long()).to(x.device)

    def align(self, logits, clusters):
        """Clusters, and the word of each image, ``(N,)`` both, after the rounds."""
        for _ in range(self.rounds):
            words = self.assign(self.vote(logits, clusters))
            kept = words.unique()  # sorted
            clusters = logits[:, kept].argmax(1)
            kept, clusters = self.compact(kept, clusters)
        return clusters, kept[clusters]

    def vote(self, logits, clusters):
        """Share of each cluster's images whose best word is each, ``(K, C)``."""
        ballots = one_hot(logits.argmax(1), logits.shape[1])
        counts = clusters.bincount().clamp_min(1)
        return class_sums(ballots, clusters, len(counts)) / counts[:, None]

    def assign(self, votes):
        """A word for each cluster, ``(K,)``, all different, with as many votes behind them as can be."""
        from scipy.optimize import linear_sum_assignment

        _, words = linear_sum_assignment((votes.max() - votes).cpu().numpy())
        return torch.from_numpy(words).to(votes.device)

    def compact(self, words, clusters):
        """Words that still have images, and clusters numbered by them."""
        left, clusters = clusters.unique(return_inverse=True)
        return words[left], clusters


@hookimpl
def methods():
    return {"s3a": S3A}
