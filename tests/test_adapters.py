"""`hf:BASE#FOLDER`: an adapter of PEFT is added to its base's weights, and the backbone is the sum."""

import json
import shutil

import pytest
import torch
from adaptkit_plugins.backbones import hf
from safetensors.torch import load_file, save_file

from adaptkit.towers.adapters import split_adapter
from tests.checkpoints import edit, make_clip, refused

QUERY, CONV = "vision_model.encoder.layers.0.self_attn.q_proj", "vision_model.embeddings.patch_embedding"
PREFIX, UNDER = "base_model.model.", QUERY.replace(".", "__")
spoilt = pytest.mark.fault("an adapter that is not its base's", "one line that names the key")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


def adapter(folder, config=(), **tensors):
    """Updates of one map and one convolution, as PEFT writes them."""
    folder.mkdir()
    torch.manual_seed(3)
    held = {
        f"{PREFIX}{QUERY}.lora_A.weight": torch.randn(2, 20),
        f"{PREFIX}{QUERY}.lora_B.weight": torch.randn(20, 2),
        f"{PREFIX}{CONV}.lora_A.weight": torch.randn(3, 3, 10, 10),
        f"{PREFIX}{CONV}.lora_B.weight": torch.randn(20, 3, 1, 1),
        f"{PREFIX}visual_projection.weight": torch.randn(16, 20),
    }
    held |= {PREFIX + name.replace("__", "."): value for name, value in tensors.items()}
    save_file({name: value for name, value in held.items() if value is not None}, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "lora_alpha": 8, "r": 2, "use_dora": False, **dict(config)}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, (4.0, 8 / 3)),
        ({"use_rslora": True}, (8 / 2**0.5, 8 / 3**0.5)),
        ({"alpha_pattern": {"q_proj": 1}}, (0.5, 8 / 3)),
        ({"alpha_pattern": {"layers.*.q_proj": 2, "proj": 5}}, (1.0, 8 / 3)),
    ],
)
def test_an_update_is_added_to_its_weight(base, tmp_path, config, scales):
    folder = adapter(tmp_path / "lora", config.items())
    held, whole = load_file(folder / "adapter_model.safetensors"), hf.load(str(base))
    merged = hf.load(f"{base}#{folder}")
    parts = [held[f"{PREFIX}{path}.lora_{part}.weight"] for path in (QUERY, CONV) for part in "BA"]
    want = whole.weight("image.block.0.q") + scales[0] * parts[0] @ parts[1]
    torch.testing.assert_close(merged.weight("image.block.0.q"), want)
    name = next(name for name in whole.weight_names() if name.endswith("patch_embedding.weight"))
    want = whole.weight(name) + scales[1] * torch.einsum("or,rchw->ochw", parts[2][..., 0, 0], parts[3])
    torch.testing.assert_close(merged.weight(name), want)
    torch.testing.assert_close(merged.weight("image.projection"), held[f"{PREFIX}visual_projection.weight"])
    untouched = "text.block.0.q"
    assert merged.weight(untouched).equal(whole.weight(untouched)), "what has no update must stay"
    assert merged.fingerprint != whole.fingerprint, "a merged backbone is another"
    assert hf.load(f"{base}#{folder}").fingerprint == merged.fingerprint, "and always the same"


def test_what_follows_the_last_mark_is_the_adapter(tmp_path):
    (tmp_path / "c#").mkdir()
    assert split_adapter(str(tmp_path / "c#")) == (str(tmp_path / "c#"), ""), "a folder's own name comes first"
    assert split_adapter("a#b#c") == ("a#b", "c")
    assert split_adapter("openai/clip@main") == ("openai/clip@main", "")


@spoilt
@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, {}, "'peft_type'"),
        ({"use_dora": True}, {}, "'use_dora'"),
        ({"lora_alpha": None}, {}, "'lora_alpha'"),
        ({}, {f"{QUERY.replace('.', '__')}__lora_B__weight": None}, "lora_A.weight"),
        (
            {},
            {f"{QUERY.replace('.', '__')}__lora_B__weight": torch.zeros(24, 2)},
            "(20, 20), as its base; got (24, 20)",
        ),
        ({}, {"other__lora_A__weight": torch.zeros(2, 3), "other__lora_B__weight": torch.zeros(3, 2)}, "without place"),
        ({}, {"visual_projection__weight": torch.zeros(3, 3)}, "(16, 20), as its base; got (3, 3)"),
        ({}, {"visual_projection__magnitude": torch.zeros(3)}, "lora_A and lora_B alone"),
        ({}, {f"{UNDER}__lora_A__weight": torch.full((2, 20), float("nan"))}, "finite"),
    ],
)
def test_an_adapter_of_another_kind_or_base_is_refused(base, tmp_path, config, tensors, said):
    folder = adapter(tmp_path / "lora", config.items(), **tensors)
    refused(f"{base}#{folder}", said)


@spoilt
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_refused(base, tmp_path, file):
    folder = adapter(tmp_path / "lora")
    (folder / file).unlink()
    refused(f"{base}#{folder}", f"without {file}")
    refused(f"{base}#{tmp_path / 'nothing'}", "without adapter_model.safetensors")


def test_no_code_in_an_old_adapter_runs(base, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("code of an adapter ran",)

    folder = adapter(tmp_path / "lora")
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "adapter_model.bin")
    refused(f"{base}#{folder}", "an adapter must hold tensors")
    assert "code of an adapter ran" not in capsys.readouterr().out, "a pickle was executed"


def test_an_adapter_alone_says_how_it_is_read(base, tmp_path):
    folder = adapter(tmp_path / "lora")
    edit(folder / "adapter_config.json", base_model_name_or_path="openai/clip-vit-base-patch16")
    refused(folder, "'openai/clip-vit-base-patch16'", "#")
    both = shutil.copytree(base, tmp_path / "both")
    shutil.copy(folder / "adapter_config.json", both)
    refused(both, "an adapter of PEFT")
