"""One golden: inputs, outputs, and the tally of which outputs were compared."""

import json
from pathlib import Path

import numpy as np
import torch

INPUTS = ("in", "init")  # first part of a key, or the part after a variant's name, that marks an input

adaptors = {}
"""By the golden's name: the method's name in `adaptkit list`, and functions by the key that tells their form."""


def adaptor(*names, method, having=""):
    """Register a function for goldens of these names, and of names that begin with them.

    Args:
        names: of goldens.
        method: as `adaptkit list methods` shows it.
        having: a key of the goldens that the function takes, where others of the name have another form.
    """

    def register(function):
        for name in names:
            adaptors.setdefault(name, (method, {}))[1][having] = function
        return function

    return register


def hold(golden):
    """Hold the golden's method against it."""
    name = best_match(golden.name, adaptors)
    assert name, f"{golden.name} must have an adaptor in tests/parity/adaptors; none takes its name"
    forms = adaptors[name][1]
    takes = [key for key in forms if key and key in golden] + [key for key in forms if not key]
    assert takes, f"{golden.name} must be of a form that an adaptor takes; got none of the keys {sorted(forms)}"
    forms[takes[0]](golden)
    golden.done()


def best_match(name, known):
    """The known name that this one is, or begins with: ``gda-fewshot-held`` is a ``gda-fewshot``."""
    fitting = [k for k in known if name == k or (name.startswith(k) and not name[len(k)].isalnum())]
    return max(fitting, key=len, default=None)


class Golden:
    """Arrays by name as attributes of `inputs` and through `close` and `equal` for outputs."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.stem
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {k: arrays[k] for k in arrays.files}
        self.meta = json.loads(path.with_suffix(".json").read_text())
        self.seen, self.skipped = {}, {}

    @property
    def hyper(self):
        """Hyperparameters the official code ran with."""
        return self.meta.get("hyperparameters", {})

    @property
    def outputs(self):
        """Keys of what the official code answered."""
        return [k for k in self.arrays if not is_input(k)]

    def __contains__(self, key):
        return key in self.arrays

    def __getitem__(self, key):
        """An array as a tensor: ``golden["in_train_features"]``."""
        return torch.from_numpy(np.array(self.arrays[key]))

    def close(self, key, value, *, atol=0.0, rtol=0.0, of_max=0.0):
        """Output `key` equals `value` within ``atol + rtol * |want| + of_max * max|want|``."""
        want, got = self._pair(key, value)
        room = atol + rtol * np.abs(want) + of_max * np.abs(want).max(initial=0.0)
        off = np.abs(got - want) - room
        worst = np.abs(got - want).max(initial=0.0)
        assert (off <= 0).all(), f"{self.name}: {key} is off by {worst:.3g} of at most {np.abs(want).max():.3g}"
        self.seen[key] = float(worst)

    def equal(self, key, value):
        """Output `key` equals `value` exactly."""
        want, got = self._pair(key, value)
        assert (got == want).all(), f"{self.name}: {key} differs in {int((got != want).sum())} of {want.size} entries"
        self.seen[key] = 0.0

    def agree(self, key, value, scores, margin):
        """Integer output `key` equals `value` wherever the two best `scores` are further apart than `margin`."""
        want, got = self._pair(key, value)
        best = torch.as_tensor(np.asarray(scores)).double().topk(2, -1).values
        sure = (best[..., 0] - best[..., 1]).numpy() > margin
        assert sure.mean() > 0.5, f"{self.name}: {key} is a near-tie in most entries, so nothing is compared"
        assert (got == want)[sure].all(), f"{self.name}: {key} differs in {int((got != want)[sure].sum())} sure entries"
        self.seen[key] = 0.0

    def skip(self, why, *keys):
        """Outputs that the method cannot give, with the reason."""
        for key in keys:
            assert key in self.arrays, f"{self.name} has no {key}"
            self.skipped[key] = why

    def done(self):
        """Every output was compared, or skipped for a reason."""
        left = [k for k in self.outputs if k not in self.seen and k not in self.skipped]
        assert not left, f"{self.name}: nothing compared these outputs: {left}"
        assert self.seen, f"{self.name}: no output was compared"

    def _pair(self, key, value):
        want = np.asarray(self.arrays[key])
        got = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        assert got.shape == want.shape, f"{self.name}: {key} must have shape {want.shape}; got {got.shape}"
        return want.astype(np.float64), got.astype(np.float64)


def is_input(key):
    """Whether a key names an input: ``in_text``, ``in.labels``, ``end.in.input_ids``, ``init.ctx``."""
    return key.startswith("in_") or any(part in INPUTS for part in key.split(".")[:2])
