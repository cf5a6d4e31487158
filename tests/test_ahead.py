"""Pictures are decoded while a step computes: the same numbers and draws, whether or not what was expected is read."""

import threading

import pytest
import torch

import adaptkit as ak
from adaptkit.features.decoding import decoders
from adaptkit.methods.train import Batches, LitMethod
from adaptkit.testing import toy_task

FRESH = ak.Pixels(views=1, augment="wide-crop-flip", fresh=True)


@pytest.fixture
def support():
    return toy_task(4)[0].support.bind({"views": FRESH})


def test_what_was_expected_is_read_bit_for_bit_with_the_same_draws(support):
    torch.manual_seed(0)
    want, after = support[:3].views, torch.rand(2)
    torch.manual_seed(0)
    (ahead,) = support[:3].expect()
    got = support[:3].views
    assert ahead.used, "what was expected must be what is read"
    assert torch.equal(got, want) and torch.equal(torch.rand(2), after), "the views and the draws must be the same"


@pytest.mark.parametrize("other", ["rows", "draws", "need"])
def test_what_was_not_expected_is_read_as_if_nothing_had_been(support, other):
    rows = support[2:5] if other == "rows" else support[:3]
    if other == "need":
        rows = rows.bind({"views": ak.Pixels(views=2, augment="crop-flip", fresh=True)})

    def read():
        _ = torch.rand(1) if other == "draws" else None
        return rows.views, torch.rand(2)

    torch.manual_seed(0)
    want, after = read()
    torch.manual_seed(0)
    (ahead,) = support[:3].expect()
    got, later = read()
    assert not ahead.used, "other pictures were read"
    assert torch.equal(got, want) and torch.equal(later, after), "a wrong guess must change nothing"


def test_stored_rows_and_arrays_are_not_expected(support):
    assert support.bind({"x": ak.Pooled()}).expect() == [], "what is stored is there"
    assert ak.Images.from_arrays(torch.randn(4, 8)).bind({"x": ak.Pooled()}).expect() == [], "and so are arrays"
    held = support.bind({"views": FRESH, "x": ak.Pooled()}).load()
    assert len(held[1:3].expect()) == 1, "of images in memory, what may not be held"


class Looking(ak.Method):
    """Learns a number from pixels, with or without draws of its own, and notes which threads decoded for it."""

    noisy: bool = False  # draws before it reads; a step that draws afterwards is no other than one that does not
    schedule: ak.Schedule = ak.Schedule(epochs=2, lr=0.1, batch_size=5)

    def support_needs(self):
        return {"views": FRESH}

    def fit(self, task):
        self.classes, self.scale = len(task.classnames), torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return self.scale * batch.x[:, : self.classes]

    def loss(self, batch):
        early = torch.rand(()) if self.noisy else 0.0
        pixels = batch.views.mean((1, 3, 4)) * self.scale  # (B, 3)
        return (pixels - early - torch.rand(())).square().mean()


def trained(task, noisy, monkeypatch, expecting):
    found = []
    if not expecting:
        monkeypatch.setattr(Batches, "expect_next", lambda self: None)
    init = LitMethod.__init__
    monkeypatch.setattr(LitMethod, "__init__", lambda self, m, s, b, t: found.append(b) or init(self, m, s, b, t))
    torch.manual_seed(5)
    scale = ak.adapt(Looking(noisy=noisy), task).scale.detach()
    monkeypatch.undo()
    return scale, found[0]


@pytest.mark.parametrize("noisy", [False, True])
def test_training_learns_the_same_bits_with_pictures_decoded_ahead(noisy, monkeypatch):
    task = toy_task(8)[0]
    want, _ = trained(task, noisy, monkeypatch, expecting=False)
    got, batches = trained(task, noisy, monkeypatch, expecting=True)
    assert torch.equal(got, want), f"decoding ahead must not change what is learned; got {got}, not {want}"
    used = [one.used for step in batches.ahead for one in step]
    assert used and all(used) != noisy, f"a step that reads first must find what was decoded; got {used}"
    assert not noisy or len(used) == 2, f"after two times in vain it must be left; got {used}"


def test_pictures_are_decoded_in_other_threads(support):
    names = []
    source = support.rows.source
    opened = source.open
    source.open = lambda i: names.append(threading.current_thread().name) or opened(i)
    try:
        (ahead,) = support[:2].expect()
        [future.result() for future in ahead.prepared]
    finally:
        del source.open
    assert len(names) == 2 and all("decoder" in name for name in names), names
    assert decoders(0) is decoders(0), "one pool for a process"
