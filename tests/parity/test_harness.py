"""What the harness takes for a golden, and which goldens it does not hold anything against yet."""

import json

import numpy as np
import pytest

from tests.parity.adaptors.lora import added
from tests.parity.finding import goldens, has_method
from tests.parity.golden import Golden, adaptor, adaptors, hold
from tests.parity.names import FOLDERS
from tests.parity.tiny_clip import tiny_clip


def write(folder, name, arrays=None, **sidecar):
    np.savez(folder / f"{name}.npz", **(arrays or {"out_x": np.zeros(1)}))
    (folder / f"{name}.json").write_text(json.dumps(sidecar))


def test_weights_and_arrays_without_a_sidecar_are_no_goldens(tmp_path):
    write(tmp_path, "coop-b", weights="tiny_clip_b.npz (24 px)")
    write(tmp_path, "tiny_clip_b")
    write(tmp_path, "lone")
    (tmp_path / "lone.json").unlink()
    found = [path.stem for path in goldens(tmp_path)]
    assert found == ["coop-b"], f"only the golden itself must be found; got {found}"


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("coop-odd", True),
        ("fpl", True),
        ("fpl-train", False),
        ("dota", True),
        ("nobody-heard-of-it", False),
        ("cooperative", False),
    ],
)
def test_a_golden_is_not_yet_one_of_ours_until_its_method_is_registered(stem, expected):
    assert has_method(stem, {"coop", "dota"}) == expected, f"{stem} must be {'ours' if expected else 'not yet'}"


def test_a_golden_of_another_form_has_an_adaptor_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(adaptors, "two-forms", ("coop", {}))
    taken = []

    def takes(form):
        def function(golden):
            golden.skip("nothing to compare", *golden.outputs[1:])
            golden.equal("out_x", np.zeros(1))
            taken.append(form)

        return function

    adaptor("two-forms", method="coop")(takes("plain"))
    adaptor("two-forms", method="coop", having="in_rows")(takes("rows"))
    write(tmp_path, "two-forms")
    write(tmp_path, "two-forms-odd", {"in_rows": np.zeros(1), "out_x": np.zeros(1)})
    for name in ("two-forms", "two-forms-odd"):
        hold(Golden(tmp_path / f"{name}.npz"))
    assert taken == ["plain", "rows"], f"each form must be taken by its own function; got {taken}"


def test_the_weights_beside_a_golden_come_before_ours_and_may_have_any_size(tmp_path):
    given = FOLDERS[0] / "tiny_clip"
    with np.load(given.with_suffix(".npz")) as arrays:
        weights = {key: arrays[key] for key in arrays.files if ".layers.2." not in key}  # one block less in each tower
    cut = {"patch_embedding": np.s_[..., :6, :6], "vision_model.embeddings.position": np.s_[:17]}
    for key in weights:
        weights[key] = next((weights[key][part] for name, part in cut.items() if name in key), weights[key])
    write(tmp_path, "tiny_clip", weights, **json.loads(given.with_suffix(".json").read_text()))
    write(tmp_path, "coop-b", weights="tiny_clip.npz")
    backbone = tiny_clip(Golden(tmp_path / "coop-b.npz"))
    assert backbone.preprocess.size == 24, f"4 x 4 patches of 6 pixels must make 24; got {backbone.preprocess.size}"
    assert backbone.depth["image"] == 2, f"the blocks must be those of the weights, 2; got {backbone.depth}"


def test_a_variant_adds_to_a_hyperparameter_what_its_words_say(tmp_path):
    write(tmp_path, "clip_lora-b", variants={"more": "vision tower, r+2, alpha+0.5", "nodrop": "both, q k v"})
    golden = Golden(tmp_path / "clip_lora-b.npz")
    got = [added(golden, f"{prefix}.", name) for prefix in ("more", "nodrop", "text") for name in ("r", "alpha")]
    assert got == [2, 0.5, 0, 0, 0, 0], f"words must be read, and their absence taken for nothing; got {got}"
