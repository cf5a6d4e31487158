"""What a method keeps lies in memory as after loading, before its first answer, wherever it keeps it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adaptkit import Method, adapt, load_classifier, predict, save_classifier
from adaptkit.methods.adapt import refit, retarget, tune
from adaptkit.methods.graph import Graph
from adaptkit.methods.settle import laid_out, settle
from adaptkit.saving import state


class Crooked(Method):
    """A head whose tensors are transposed, cut out of larger ones, or of strange strides."""

    tilt: float = 1.0

    def grid(self):
        return {"tilt": (1.0, 2.0)}

    def fit(self, task):
        x = task.text  # (C, D)
        self.weight = nn.Buffer(x.T.contiguous().T)
        self.kept = torch.cat([x[:1, :3], x[:1]], 1)[:, 3:]
        self.rows = [nn.Parameter(x.T.contiguous().T, requires_grad=False), (x.T, {"narrow": x[:, :1]})]
        self.graph = Graph(torch.arange(6).view(3, 2).T, x[0, 1:4], 3)
        self.again = self.kept

    def refit(self, values):
        super().refit(values)
        self.weight = self.weight.T.contiguous().T

    def forward(self, batch):
        return self.tilt * batch.x @ self.weight.T


def kept(method):
    """The tensors of a `Crooked`."""
    first, (second, third) = method.rows
    return [method.weight, method.kept, first, second, third["narrow"], *vars(method.graph).values()]


def layouts(method):
    return [(t.stride(), t.data_ptr() % 64) for t in kept(method) if isinstance(t, torch.Tensor)]


def fresh(method):
    return [(torch.empty(t.shape).stride(), 0) for t in kept(method) if isinstance(t, torch.Tensor)]


@pytest.mark.parametrize(
    "last", [lambda m, task: m, lambda m, task: tune(m, task.val), lambda m, task: refit(m, {"tilt": 2.0})]
)
def test_everything_kept_lies_as_a_fresh_tensor_does_whatever_settled_last(last, toy):
    task, _ = toy
    made = adapt(Crooked(), task)
    last(made, task)
    assert layouts(made) == fresh(made), "strides and alignment must be those of fresh tensors"
    assert made.again is made.kept, "what was one tensor must stay one"
    assert torch.equal(made.weight, task.text) and torch.equal(made.kept, task.text[:1]), "values must stay"


def test_other_classes_are_answered_from_fresh_layouts_too(toy):
    task, _ = toy
    turned = type("Turned", (Crooked,), {"retarget": Crooked.fit})
    made = retarget(adapt(turned(), task), task)
    assert layouts(made) == fresh(made), "strides and alignment must be those of fresh tensors"


def test_what_is_laid_out_keeps_its_identity_and_what_belongs_to_others_its_layout():
    x = torch.randn(3, 4)
    assert laid_out(x) is x, "a fresh tensor must stay as it is"
    other = x.T
    task_like, holder = SimpleNamespace(text=other), nn.Module()
    holder.text, holder.functions, holder.library = task_like.text, [math.sqrt, lambda: None], math
    settle(holder)
    assert holder.text.stride() == (3, 1) and other.stride() == (1, 4), "only the method's own may be replaced"
    holder.me = SimpleNamespace(holder=holder)
    settle(holder)


def test_a_crooked_method_is_saved_as_answered(toy, tmp_path, monkeypatch):
    task, queries = toy
    made = adapt(Crooked(), task)
    find, name_of = state._find, state._name
    monkeypatch.setattr(state, "_name", lambda cls: "crooked" if cls is Crooked else name_of(cls))
    monkeypatch.setattr(state, "_find", lambda name: Crooked if name == "crooked" else find(name))
    want = predict(made, queries)
    save_classifier(tmp_path / "x", made, task, backbone="toy:0")
    again = load_classifier(tmp_path / "x")
    assert torch.equal(again(queries), want), "the answers must be the same, bit for bit"
    assert layouts(again.method) == layouts(made), "and so must the layouts be"
