"""Which files of a folder are goldens, and which of those have a method that can be asked for."""

import json

from tests.parity.golden import adaptors, best_match
from tests.parity.names import CORE, METHODS


def goldens(root):
    """Arrays with a sidecar, in the order of their names; the weights that a sidecar names are no golden."""
    paths = [path for path in sorted(root.glob("*.npz")) if path.with_suffix(".json").exists()]
    told = {path: json.loads(path.with_suffix(".json").read_text()) for path in paths}
    weights = {weights_of(sidecar) for sidecar in told.values()}
    return [path for path in paths if path.name not in weights and "hf_config" not in told[path]]


def weights_of(sidecar, default=""):
    """The file that a sidecar names as its weights; it may have words behind it."""
    return str(sidecar.get("weights") or default).partition(" ")[0]


def has_method(stem, registered):
    """Whether a golden's method can be asked for; of all names that the golden's begins with, the longest counts."""
    belongs = {name: name for name in registered} | {name: found[0] for name, found in adaptors.items()} | METHODS
    name = best_match(stem, {*belongs, *CORE})
    return name in CORE or belongs.get(name) in registered
