"""WiSE-FT: a method half-way between how it was before training and how it is after, by mixing its weights.

Source: Wortsman et al., Robust fine-tuning of zero-shot models, arXiv:2109.01903; ``fisher`` is the merge of Matena and
Raffel, Merging Models with Fisher-Weighted Averaging, arXiv:2111.09832, which the release offers.
Deviations: any method may be the `base`: what training changed in it is mixed, parameters and buffers, but for whole
numbers, and what it solved for or searched stays; theirs is end-to-end fine-tuning. The Fisher information is that of
the cross-entropy of the support's own labels; the release draws labels from the model. As there, a weight without
gradient counts 1, and none less than ``floor``.
Interactions: at ``alpha: 0`` a base that starts as zero-shot is zero-shot; one that starts from noise is that noise. So
``other`` may be the same method, otherwise trained, in the place of the start; and ``mix: answers`` adds up the logits
of any two methods, by default zero-shot's and the base's, which is the paper's output-space ensemble. With ``alphas``
the share is chosen on validation images, which look like the support: where others are to come the paper takes 0.5.
"""

import copy
from dataclasses import field
from typing import Literal

import torch
from torch import nn

from adaptkit import Method, OverBase, ZeroShot, hookimpl, method
from adaptkit.io.files import digest
from adaptkit.io.ranges import Epsilon, Share


class WiSEFT(OverBase):
    """A mixture of a method before it was trained, or trained otherwise, and after."""

    base: Method = field(default_factory=lambda: method("fine-tuning"))  # at alpha 1
    other: Method = field(default_factory=ZeroShot)  # at alpha 0; zero-shot stands for the base before training
    alpha: Share = 0.5  # share of the trained weights
    alphas: tuple[Share, ...] = ()  # tried on validation images, e.g. [0, 0.25, 0.5, 0.75, 1]; none keeps alpha
    mix: Literal["weights", "answers"] = "weights"
    fisher: bool = False  # weigh each number by its Fisher information at both ends
    floor: Epsilon = 1e-8  # of the Fisher information

    def __post_init__(self):
        self.scope = max(self.base.scope, self.other.scope, key=("sample", "stream", "set").index)
        for part in parts(self.base).values() if self.mix == "weights" else ():
            part.keeps_start = True

    def support_needs(self):
        return self.base.support_needs() if self.fisher else {}

    def grid(self):
        return {"alpha": self.alphas} if self.alphas else {}

    def fit(self, task):
        super().fit(task)
        end, start = self.base.state_dict(), self.start() if self.mix == "weights" else {}
        if odd := [name for name in start if name not in end or start[name].shape != end[name].shape]:
            raise ValueError(f"other must have weights of base's shapes; got another {odd[0]!r}; give both one size")
        self.names = [n for n, t in start.items() if t.is_floating_point() and not torch.equal(t, end[n])]
        self.marks = [mark(end[name]) for name in self.names]
        self.before = fixed(start[name] for name in self.names)
        states = [{**end, **start}, end] if self.fisher else []
        trust = [information(self.base, state, self.names, task.support) for state in states]
        plain = [torch.ones(()) for _ in self.names]
        self.trust = nn.ModuleList(fixed(f) for f in trust or (plain, plain))  # F before and after

    def retarget(self, task):
        end = self.base.state_dict()  # for other classes already: what it made anew for them is not mixed
        self.marks = [m * (n in end and mark(end[n]) == m) for n, m in zip(self.names, self.marks, strict=True)]

    def start(self):
        """Tensors at alpha 0, by their names in the base."""
        begun = {}
        for prefix, part in parts(self.base).items():  # those inside come later, and were trained earlier
            begun |= {f"{prefix}.{name}".lstrip("."): t for name, t in vars(part).pop("started", {}).items()}
        if type(self.other) is ZeroShot:
            return begun
        if (kind := type(self.other)) is not type(self.base):
            raise ValueError(f"other must be the same method as base where mix is 'weights'; got {kind.__name__}")
        return self.other.state_dict()

    def mixed(self):
        """The mixture's tensors, by their names in the base."""
        end, a = self.base.state_dict(), self.alpha
        rows = (row for row in zip(self.names, self.marks, self.before, *self.trust, strict=True) if row[1])
        weighed = ((n, (1 - a) * f.clamp_min(self.floor), low, a * g.clamp_min(self.floor)) for n, _, low, f, g in rows)
        return {n: ((f * low + g * end[n]) / (f + g)).to(low) for n, f, low, g in weighed}

    def forward(self, batch):
        if self.mix == "answers":
            return torch.lerp(self.other(batch), self.base(batch), self.alpha)
        return torch.func.functional_call(self.base, self.mixed(), (batch,))


def parts(base):  # with the methods inside of it, by the names of their modules
    return {name: part for name, part in base.named_modules() if isinstance(part, Method)}


def mark(tensor):  # equal for equal tensors only
    return digest(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def fixed(tensors):
    """Tensors that are kept and not trained."""
    return nn.ParameterList(nn.Parameter(t.clone(), requires_grad=False) for t in tensors)


@torch.enable_grad()
def information(base, state, names, support):
    """Mean square of the gradient of each support image's loss, a tensor for each of some weights; 1 without any."""
    probe, found = copy.deepcopy(base), {}
    probe.load_state_dict(state)
    weights = {name: p.requires_grad_() for name, p in probe.named_parameters() if name in names}
    for i in range(len(support)):
        loss = Method.loss(probe, support[i : i + 1])
        for name, g in zip(weights, torch.autograd.grad(loss, [*weights.values()], allow_unused=True), strict=True):
            if g is not None:
                found[name] = found.get(name, 0) + g.square() / len(support)
    return [found.get(name, torch.ones_like(state[name])) for name in names]


@hookimpl
def methods():
    return {"wise-ft": WiSEFT}
