"""Goldens of the core: the learning-rate schedule that the prompt-learning code base uses."""

import re

from adaptkit import Schedule
from tests.parity.golden import adaptor


@adaptor("dassl_schedule", method="the core's Schedule")
def dassl_schedule(golden):
    for key in golden.outputs:
        epochs, lr, warmup = re.fullmatch(r"lr_f64\.ep(\d+)_base([\d.]+)_warm(-?\d+)", key).groups()
        schedule = Schedule(epochs=int(epochs), lr=float(lr), warmup=max(int(warmup), 0), decay="cosine-epoch")
        per_epoch = 3  # any number of steps: the rate changes with epochs only
        total = schedule.length(per_epoch, shots=1)
        golden.close(key, [schedule.rate(e * per_epoch, per_epoch, total) for e in range(int(epochs))], atol=1e-9)
