"""CoOp on images of the classes that have some, and for the others on embeddings that a small generator makes up.

A generator learns, as a variational autoencoder, what to add to context words so that a class's sentence becomes an
image's embedding. Classes that it makes up are those of the task without images, and ``others``; without any, this is
CoOp alone.

Source: Wang et al., Improving Zero-Shot Generalization for CLIP with Synthesized Prompts, arXiv:2307.07397.
Deviations: the encoder reads the embedding alone and widths, optimisers and lengths are the release's. That starts CoOp
anew after every ten epochs of the generator and reports the best of them on test images; here it is trained once, after
the last. The factor from cosine to logit is the checkpoint's, there it is 100. Over CoOp only; the release also trains
Tip-Adapter and CLIP-Adapter. Ten cached views stand for fresh ones. Float32 instead of half precision.
"""

from itertools import chain, islice, repeat

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pooled, Prompts, Schedule, hookimpl, unit
from adaptkit.io.ranges import Size, Views, Weight
from adaptkit.methods.ops import as_queries


class SHIP(Method):
    """Trained context words that also see made-up embeddings of classes without images."""

    n: Size = 4  # context words, at most those of `init`; as many are the generator's
    init: str = "a photo of a"  # words to start from; "" for a random start
    std: Weight = 0.02  # of random starts: of words, and of the weights of encoder and generator
    others: tuple[str, ...] = ()  # further names of classes without images
    hidden_encoder: Size = 2048
    hidden_generator: Size = 4096
    views: Views = 10  # cached random views of each support image; one is drawn at every step
    generator: Schedule = Schedule(epochs=50, batch_size=256, weight_decay=0.01, decay="constant")
    schedule: Schedule = Schedule(epochs=200, lr=2e-3, batch_size=256, optimizer="sgd")

    tunable = ("context",)

    def support_needs(self):
        return {"views": Pooled(views=self.views, augment="crop-flip")}

    def fit(self, task):
        self.backbone, self.own = task.backbone, len(task.classnames)
        names = [*task.classnames, *(name for name in self.others if name not in task.classnames)]
        seen = {*task.support.labels.tolist()}
        self.new = torch.tensor([c for c in range(len(names)) if c not in seen], dtype=torch.long)
        self.prompts = Prompts(task.backbone, names, n=self.n, init=self.init)
        self.context = nn.Parameter(self.prompts.start(self.std))  # (n, W)
        self.maker = None
        if len(self.new) and len(task.support):
            self.made_of = Prompts(task.backbone, names, n=self.n)
            self.maker = self.start().to(task.support.device)
            self.learn_to_make(task.support.load())

    def start(self):
        """Encoder, generator and its words, all drawn."""
        dim, width, wide = self.backbone.dim, self.backbone.width["text"], self.hidden_generator
        maker = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(dim, self.hidden_encoder), nn.ReLU())})
        maker.update({name: nn.Linear(self.hidden_encoder, dim) for name in ("mean", "log_var")})
        maker["generator"] = nn.Sequential(nn.Linear(dim, wide), nn.ReLU(), nn.Linear(wide, width))
        for name, p in maker.named_parameters():
            nn.init.normal_(p, std=0.0 if name.endswith("bias") else self.std)
        maker["words"] = nn.ParameterList([self.made_of.start(self.std)])
        return maker

    def learn_to_make(self, images):
        from adaptkit.methods.train import Batches

        batches, schedule = Batches(images, self.generator), self.generator
        total = schedule.length(len(batches), shots=round(len(images) / self.own))
        optimizer = schedule.make(self.maker.parameters())
        for step, batch in enumerate(islice(chain.from_iterable(repeat(batches)), total)):
            optimizer.param_groups[0]["lr"] = schedule.rate(step, len(batches), total)
            optimizer.zero_grad()
            self.maker_loss(as_queries(batch, self.needs()).x, batch.labels).backward()
            optimizer.step()
        self.maker.requires_grad_(False).zero_grad()

    def maker_loss(self, x, labels):
        """Squared distance of embeddings made up again, and what their latent distribution costs, nats."""
        inner = self.maker["encoder"](x)
        mean, log_var = self.maker["mean"](inner), self.maker["log_var"](inner)  # (B, D)
        again = self.made_up(mean + (log_var / 2).exp() * torch.randn_like(mean), labels)
        return (again - x).square().sum(1).mean() + (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean() / 2

    def made_up(self, latent, labels):
        """Unit-norm embeddings of classes from latent ones, ``(B, D)`` each."""
        words = self.maker["words"][0] + self.maker["generator"](latent)[:, None]  # (B, n, W)
        rows, prompts = labels.cpu(), self.made_of
        with self.backbone.taps({"text.tokens": lambda _, tokens: prompts.splice(tokens, words, rows)}):
            return unit(self.backbone.encode_text({name: value[rows] for name, value in prompts.tokens.items()}))

    def loss(self, batch):
        x, labels, text = as_queries(batch, self.needs()).x, batch.labels, unit(self.prompts.encode(self.context))
        if self.maker is not None:
            drawn = self.new[torch.randint(len(self.new), (len(x),))].to(labels)
            with torch.no_grad():
                x = torch.cat([x, self.made_up(torch.randn_like(x), drawn)])
            labels = torch.cat([labels, drawn])
        return F.cross_entropy(self.backbone.logits(x, text), labels)

    def forward(self, batch):
        return self.backbone.logits(batch.x, unit(self.prompts.encode(self.context))[: self.own])

    def parameter_groups(self, parameters):
        return [{"params": parameters, "momentum": 0.0}]

    def retarget(self, task):
        self.own, self.maker, self.prompts = len(task.classnames), None, self.prompts.of(task.classnames)

    def callbacks(self):
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_train_end=lambda *_: setattr(self, "maker", None))]  # only training makes up images


@hookimpl
def methods():
    return {"ship": SHIP}
