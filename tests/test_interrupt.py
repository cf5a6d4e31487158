"""Who ends the process while Lightning trains ends it: no cell fails in its place, and no later signal is lost."""

import logging
import os
import signal

import pytest
import torch

from adaptkit import ZeroShot, adapt
from adaptkit.methods.method import Schedule
from adaptkit.methods.train import check_trainer
from adaptkit.testing import toy_task


class Signalled(ZeroShot):
    """Sends its own process a signal in the first step of training."""

    number: int = int(signal.SIGTERM)
    schedule: Schedule = Schedule(epochs=1)

    def fit(self, task):
        super().fit(task)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def support_needs(self):
        return self.needs()

    def loss(self, batch):
        os.kill(os.getpid(), self.number)
        return self.weight * 0


def test_a_process_that_is_asked_to_end_in_training_ends(monkeypatch):
    before, raised = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(signal, "raise_signal", lambda number: raised.append((number, signal.getsignal(number))))
    with pytest.raises(SystemExit):
        adapt(Signalled(), toy_task()[0])
    assert raised == [(signal.SIGTERM, before)], f"SIGTERM must reach who was to get it before; got {raised}"


def test_ctrl_c_in_training_is_a_keyboard_interrupt_and_the_next_one_is_heard():
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            adapt(Signalled(number=int(signal.SIGINT)), toy_task()[0])
        assert signal.getsignal(signal.SIGINT) is before, "a second Ctrl+C must be heard"
    finally:
        signal.signal(signal.SIGINT, before)


def test_options_of_the_trainer_are_checked_without_a_word_of_lightnings(capfd):
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.INFO)
    check_trainer({"max_steps": 5})
    said = capfd.readouterr()
    assert not said.out + said.err, f"what machine there is must not be told before every run; got {said.err!r}"
