"""Text to video at three levels: sentence and sequence, sentence and frames, words and the patches that tell most.

What frames, words and patches are worth is weighed by themselves, nearly a maximum; each level is then balanced over
all sequences by Sinkhorn's algorithm, so that none that is like every text comes first for all of them.

Source: Wang et al., Unified Coarse-to-Fine Alignment for Video-Text Retrieval, arXiv:2309.10091.
Deviations: the towers stay frozen, and the schedule is that of CLIP4Clip's heads. Frames and words that are not there
are left out of the weighing, and all levels have the backbone's scale; the release weighs padding as well and leaves
the level of patches at cosines: ``as_released=True``. Which patches are kept is learned through the share that each has
among its frame's, in place of perturbed maxima, and the network that finds them is as wide as the embeddings. The
balance comes from at most `bank` texts to learn from, evenly spaced; in training from the batch, without a gradient.
Pairs of one label in a batch match each other.
"""

import torch
from torch import nn

from adaptkit import FramePatches, Images, Schedule, SentenceTokens, SequenceRetriever, hookimpl, unit
from adaptkit.io.ranges import Positive, Size, Steps
from adaptkit.methods.blocks import TellingTokens
from adaptkit.methods.retriever import finding_both_ways, matching
from adaptkit.methods.sinkhorn import balancing


class UCoFiA(SequenceRetriever):
    """Three levels of likeness, each weighed by itself and balanced."""

    kept: Size = 4  # patches of a frame
    words_read: Size = 32  # tokens of a text, at most
    temperature: Positive = 0.01  # of both softmaxes of a weighing
    sweeps: Steps = 4  # of Sinkhorn's algorithm; 0 for no balance
    bank: Size = 1024
    as_released: bool = False
    schedule: Schedule = Schedule(epochs=5, lr=1e-4, batch_size=128, optimizer="adamw")

    def needs(self):
        return {**super().needs(), "words": SentenceTokens(count=self.words_read, of="text")}

    def gallery_needs(self):
        return {**super().gallery_needs(), "patches": FramePatches(count=self.frames_read, unit=False)}

    def build(self, task):
        width, count = task.backbone.dim, self.frames_read * min(self.kept, task.gallery.patches.shape[2])
        self.of_text, self.of_video, self.of_words = (nn.Parameter(torch.eye(width)) for _ in range(3))
        self.by_frame = nn.Parameter(torch.eye(self.frames_read))
        self.words_first, self.words_last = (nn.Parameter(torch.eye(self.words_read)) for _ in range(2))
        self.patches_first, self.patches_last = (nn.Parameter(torch.eye(count)) for _ in range(2))
        self.telling = TellingTokens(width, self.kept)
        some = torch.linspace(0, len(task.support) - 1, min(self.bank, len(task.support))).long()
        for name in self.needs():
            self.register_buffer(f"known_{name}", getattr(task.support, name)[some].float())

    def retarget(self, task):
        super().retarget(task)
        self.bias = nn.Buffer(self.frames.new_zeros(len(self.frames)))
        if not self.training:
            self.finish()

    def levels(self, text, words, frames, patches, present):
        """Likeness of texts and sequences at each level, ``(3, N, G)``.

        Of ``(N, D)``, ``(N, L, D)``, ``(G, F, D)``, ``(G, F, P, D)``, and which frames are there, ``(G, F)``.
        """
        text, frames, patches = unit(text), unit(frames), self.telling(frames, patches)  # (G, F, K, D)
        video = unit((frames * present[..., None]).sum(1))
        shown = torch.ones_like(present) if self.as_released else present
        seen = shown.repeat_interleave(patches.shape[2], 1)  # (G, F * K)
        said = (words.any(-1) | self.as_released)[:, None]  # (N, 1, L)
        coarse = text @ self.of_text @ (video @ self.of_video).T
        framed = self.weighed(torch.einsum("nd,gfd->ngf", text, frames), shown, self.by_frame)
        like = torch.einsum("nld,gpd->nglp", unit(words) @ self.of_words, patches.flatten(1, 2))
        by_patch = self.weighed(like.transpose(2, 3), said[:, None], self.words_first)  # (N, G, F * K)
        by_word = self.weighed(like, seen[:, None], self.patches_first)  # (N, G, L)
        fine = self.weighed(by_patch, seen, self.patches_last) + self.weighed(by_word, said, self.words_last)
        return torch.stack([coarse, framed, fine / 2 / (self.backbone.logit_scale if self.as_released else 1)])

    def weighed(self, like, there, mix):
        """Means of similarities ``(..., K)`` by weights that they make themselves, of those that are there."""

        def shares(logits):
            return (logits / self.temperature).masked_fill(~there, -torch.inf).softmax(-1)

        return (shares(shares(like) @ mix) * like).sum(-1)

    def leveled(self, asked, items):
        """Logits of N queries and G items at each level, ``(3, N, G)``."""
        found = self.levels(asked.text, asked.words, items.frames, items.patches, items.frames.any(-1))
        return self.backbone.logit_scale * found

    def logits(self, asked, items):
        return self.leveled(asked, items).mean(0)

    def forward(self, batch):
        return super().forward(batch) + self.bias

    def loss(self, batch):
        levels, own = self.leveled(batch, batch), matching(batch)
        with torch.no_grad():
            of_texts, of_videos = balancing(levels, self.sweeps)
        found = (levels + of_texts[..., None] + of_videos[:, None]).mean(0)
        return finding_both_ways(found, own)

    @torch.no_grad()
    def finish(self):
        """Keep of the gallery the patches that tell most, and what the balance adds to its items."""
        self.patches = self.telling(self.frames, self.patches)
        known = Images.from_arrays({name: getattr(self, f"known_{name}") for name in self.needs()})
        parts = torch.arange(len(known)).split(16)
        levels = torch.cat([self.leveled(known[some].bind(self.needs()), self) for some in parts], 1)
        self.bias.copy_(balancing(levels, self.sweeps)[1].mean(0))

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_end=lambda *_: self.finish())]


@hookimpl
def methods():
    return {"uco-fia": UCoFiA}
