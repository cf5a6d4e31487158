"""Weights are those of the config, all of them and finite; what is no checkpoint of ours is named as what it is."""

import json
import shutil

import pytest
import torch
from adaptkit_plugins.backbones import hf
from safetensors.torch import load_file, save_file

from adaptkit.io.notices import on_a_line
from adaptkit.towers.activation import ActivationWarning
from adaptkit.towers.backbone import Backbone
from tests.checkpoints import SIDE, edit, edit_tower, make_clip, make_siglip, refused

spoilt = pytest.mark.fault("weights that are not the config's", "one line that names weight, file and shapes")
foreign = pytest.mark.fault("a checkpoint in another format", "named as what it is, with what to do")
unlike = pytest.mark.fault("preprocessing that cannot be followed", "one line that names the key")
doubted = pytest.mark.fault("an activation that is not the trained one", "refused where a file says so, else a warning")

WEIGHT = "visual_projection.weight"
BLOCK = "vision_model.encoder.layers.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def clip(made, tmp_path):
    """A CLIP checkpoint that a test may spoil."""
    return shutil.copytree(made, tmp_path / "tiny")


def bins(folder):
    """The same weights in two old files and their index."""
    weights, names = load_file(folder / "model.safetensors"), [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    for i in (0, 1):
        torch.save({key: weights[key] for key in keys[i::2]}, folder / names[i])
    index = {"metadata": {}, "weight_map": {key: names[i % 2] for i, key in enumerate(keys)}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder, index


def shards(folder):
    """The same weights in two files of safetensors and their index."""
    weights, names = load_file(folder / "model.safetensors"), [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    for i in (0, 1):
        save_file({key: weights[key] for key in keys[i::2]}, folder / names[i], {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: names[i % 2] for i, key in enumerate(keys)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, index


KINDS = {"pytorch_model.bin.index.json": bins, "model.safetensors.index.json": shards}
sharded = pytest.mark.parametrize("kind", KINDS)


@sharded
def test_shards_are_read_as_one_file(clip, kind):
    want = hf.load(str(clip)).fingerprint
    assert hf.load(str(KINDS[kind](clip)[0])).fingerprint == want, "the same weights must be the same backbone"


def test_no_code_in_a_shard_runs(clip, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("code of a checkpoint ran",)

    folder, index = bins(clip)
    name = index["weight_map"][WEIGHT]
    torch.save({**torch.load(folder / name, weights_only=True), WEIGHT: Evil()}, folder / name)
    refused(folder, "a checkpoint must load")
    assert "code of a checkpoint ran" not in capsys.readouterr().out, "a pickle was executed"


@spoilt
@sharded
@pytest.mark.parametrize("file", ["../other.bin", "/etc/passwd", "deep/x.bin", "..", "", 3, None, "a\\b.bin"])
def test_an_index_that_leads_elsewhere_is_refused(clip, kind, file):
    folder, index = KINDS[kind](clip)
    index["weight_map"][WEIGHT] = file
    (folder / kind).write_text(json.dumps(index))
    refused(folder, WEIGHT, kind, "its folder", repr(file))


@spoilt
@sharded
@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, [], "{", "[" * 5000])
def test_an_index_that_is_none_is_refused(clip, kind, index):
    folder, _ = KINDS[kind](clip)
    (folder / kind).write_text(index if isinstance(index, str) else json.dumps(index))
    refused(folder, kind)


@spoilt
@sharded
def test_a_missing_shard_is_named(clip, kind):
    folder, index = KINDS[kind](clip)
    (folder / index["weight_map"][WEIGHT]).unlink()
    refused(folder, f"without {index['weight_map'][WEIGHT]}", str(folder))


@spoilt
@sharded
def test_a_weight_that_its_shard_lacks_is_named(clip, kind):
    folder, index = KINDS[kind](clip)
    name = index["weight_map"].pop(WEIGHT)
    (folder / kind).write_text(json.dumps(index))
    held = (torch.load if kind.startswith("pytorch") else load_file)(folder / name)
    held.pop(WEIGHT)
    (torch.save if kind.startswith("pytorch") else save_file)(held, folder / name)
    refused(folder, f"without {WEIGHT}")


def changed(folder, **weights):
    """A checkpoint with some weights changed; ``None`` removes one."""
    held = load_file(folder / "model.safetensors") | {key.replace("__", "."): value for key, value in weights.items()}
    save_file({k: v for k, v in held.items() if v is not None}, folder / "model.safetensors", {"format": "pt"})
    return folder


@spoilt
@pytest.mark.parametrize("shape", [(16, 24), (20, 20), (20,), (16, 20, 1), ()])
def test_a_shape_that_does_not_fit_is_named_with_its_file(clip, shape):
    changed(clip, **{WEIGHT: torch.zeros(shape)})
    refused(clip, WEIGHT, "model.safetensors", "(16, 20)", f"got {shape}")


@spoilt
@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        ("vision", {"hidden_size": 24}),
        ("text", {"max_position_embeddings": 30}),
        ("text", {"vocab_size": 200}),
        ("vision", {"num_hidden_layers": 3}),
        ("vision", {"num_hidden_layers": 1}),
        ("text", {"num_hidden_layers": 1}),
        ("text", {"intermediate_size": 60}),
        ("vision", {"patch_size": 15}),
    ],
)
def test_a_config_of_another_model_is_refused(clip, tower, changes):
    edit_tower(clip, tower, **changes)
    message = refused(clip)
    assert f"{tower}_model." in message or "projection" in message, f"a weight must be named; got {message!r}"
    assert f"'{clip}" in message, "and where it lies"


@spoilt
def test_a_shape_in_a_shard_is_named_with_the_shard(clip):
    folder, index = shards(clip)
    name = index["weight_map"][WEIGHT]
    save_file({**load_file(folder / name), WEIGHT: torch.zeros(3)}, folder / name, {"format": "pt"})
    refused(folder, WEIGHT, name, "got (3,)")


@spoilt
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("weight", [WEIGHT, BLOCK, "text_model.embeddings.token_embedding.weight", "logit_scale"])
def test_a_weight_that_is_not_finite_is_named(clip, weight, value):
    held = load_file(clip / "model.safetensors")[weight].clone()
    held.view(-1)[0] = value
    changed(clip, **{weight: held})
    message = refused(clip, repr(weight), f"1 of {held.numel()} numbers", str(clip))
    assert "float32" not in message, "another precision does not help"


@spoilt
def test_weights_too_large_for_single_precision_are_named(clip):
    changed(clip, **{WEIGHT: torch.full((16, 20), 1e300, dtype=torch.float64)})
    refused(clip, repr(WEIGHT), "must be finite")


def test_the_weights_of_any_towers_must_be_finite():
    class Mine(Backbone):
        def __init__(self, value):
            self.model = torch.nn.Linear(2, 2)
            self.model.weight.data.fill_(value)
            self.freeze()

    assert Mine(1.0).fingerprint, "finite weights are welcome"
    with pytest.raises(ValueError, match="'weight' must be finite; got NaN or inf in 4 of 4 numbers"):
        Mine(float("nan"))


@spoilt
@pytest.mark.parametrize("key", ["vision_model.encoder.layers.2.mlp.fc1.weight", "text_model.extra", BLOCK + ".lora_A"])
def test_a_weight_without_a_place_is_refused(clip, key):
    refused(changed(clip, **{key: torch.zeros(2)}), repr(key), "model.safetensors", "of one model")


@pytest.mark.parametrize("key", ["vision_model.embeddings.position_ids", "classifier.weight", "loss.scale"])
def test_a_weight_that_no_feature_reads_may_be_there(clip, key):
    want = hf.load(str(clip)).fingerprint
    assert hf.load(str(changed(clip, **{key: torch.zeros(1, 2)}))).fingerprint == want, f"{key} must change nothing"


@spoilt
@pytest.mark.parametrize("prefix", ["module.", "base_model.model."])
def test_weights_under_another_prefix_are_told_from_missing_ones(clip, prefix):
    held = load_file(clip / "model.safetensors")
    save_file({prefix + key: value for key, value in held.items()}, clip / "model.safetensors", {"format": "pt"})
    refused(clip, "without logit_scale", f"it holds '{prefix}logit_scale'")


def test_quantised_weights_are_refused(clip):
    edit(clip / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(clip, "quantised", str(clip))


@spoilt
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_in_whole_numbers_or_few_bits_are_refused(clip, dtype):
    changed(clip, **{WEIGHT: torch.ones(16, 20).to(dtype)})
    refused(clip, repr(WEIGHT), "model.safetensors", "F64, F32, F16, BF16", "not quantised")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_floats_become_single(clip, dtype):
    held = load_file(clip / "model.safetensors")
    changed(clip, **{key: value.to(dtype) for key, value in held.items()})
    assert {p.dtype for p in hf.load(str(clip)).model.parameters()} == {torch.float32}, "towers compute in float32"


OF_OPENCLIP = {"visual.conv1.weight": torch.zeros(2, 3, 2, 2)}
FORMATS = {
    "OpenCLIP": {"open_clip_config.json": "{}", "open_clip_model.safetensors": ""},
    "OpenCLIP, old": {"open_clip_pytorch_model.bin": ""},
    "OpenCLIP in training": {
        "epoch_400.pt": {"epoch": 1, "state_dict": {"module.visual.conv1.weight": torch.zeros(2)}}
    },
    "PEFT": {"adapter_config.json": '{"base_model_name_or_path": "openai/clip-vit-base-patch16"}'},
    "PEFT, broken": {"adapter_config.json": "[" * 5000},
    "LoRA": {"pytorch_lora_weights.safetensors": ""},
    "LoRA state": {"x.pt": {"a.lora_A.weight": torch.zeros(2)}},
    "diffusers": {"model_index.json": "{}"},
    "sentence-transformers": {"modules.json": "[]", "0_CLIPModel/config.json": "{}"},
    "cache of the hub": {"snapshots/abc/config.json": "{}"},
    "GGUF": {"clip.gguf": "GGUF"},
    "ONNX": {"onnx/model.onnx": "", "config.json": "{}"},
    "TensorFlow": {"tf_model.h5": ""},
    "Flax": {"flax_model.msgpack": ""},
    "JAX": {"siglip.npz": ""},
    "Lightning": {"last.ckpt": ""},
    "variant": {"model.fp16.safetensors": "", "config.json": "{}", "preprocessor_config.json": "{}"},
    "state": {"weights.pt": {"vision_model.x": torch.zeros(2)}},
}
SAID = {
    **dict.fromkeys(("OpenCLIP", "OpenCLIP, old", "OpenCLIP in training"), ("OpenCLIP", "convert it")),
    "PEFT": ("PEFT", "'openai/clip-vit-base-patch16'", "it is merged"),
    "PEFT, broken": ("PEFT", "it is merged"),
    **dict.fromkeys(("LoRA", "LoRA state"), ("LoRA", "merge it")),
    "cache of the hub": ("hub's cache", "snapshots/"),
    "sentence-transformers": ("sentence-transformers", "0_CLIPModel"),
    "JAX": ("big_vision", "model.safetensors"),
    "variant": ("variant", "rename it to model.safetensors"),
    "state": ("weights of transformers", "config.json"),
}


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            torch.save(content, folder / name)
        else:
            (folder / name).write_text(content)
    return folder


@foreign
@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_in_another_format_is_named(tmp_path, name):
    folder = written(tmp_path / "model", FORMATS[name])
    refused(folder, repr(str(folder)), "this is", *SAID.get(name, (name,)))


@foreign
def test_openclips_weights_beside_a_config_of_transformers_are_named(clip):
    (clip / "model.safetensors").unlink()
    save_file(OF_OPENCLIP, clip / "open_clip_model.safetensors")
    refused(clip, "without model.safetensors", "OpenCLIP", "convert it")


def test_both_formats_in_one_folder_are_read(clip):
    save_file(OF_OPENCLIP, clip / "open_clip_model.safetensors")
    (clip / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    assert hf.load(str(clip)).dim == 16, "laion's repositories hold both"


@foreign
def test_an_adapter_beside_whole_weights_is_refused(clip):
    """It would count or not, as peft is installed or not."""
    (clip / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    refused(clip, "an adapter of PEFT", "its base 'x/y'")


class Tiny(torch.nn.Module):
    def forward(self, x):
        return x


def torchscript(file):
    torch.jit.save(torch.jit.trace(Tiny(), torch.zeros(1)), str(file))


LIGHTNING = {"state_dict": {}, "pytorch-lightning_version": "2.5"}
SINGLE = {
    "epoch_400.pt": (lambda f: torch.save({"epoch": 1, "state_dict": OF_OPENCLIP}, f), "OpenCLIP"),
    "old.pt": (lambda f: torch.save(OF_OPENCLIP, f, _use_new_zipfile_serialization=False), "OpenCLIP"),
    "open_clip_pytorch_model.bin": (lambda f: torch.save(OF_OPENCLIP, f), "OpenCLIP"),
    "clip.safetensors": (lambda f: save_file(OF_OPENCLIP, f), "OpenCLIP"),
    "model.safetensors": (lambda f: save_file({"vision_model.x": torch.zeros(1)}, f), "weights of transformers"),
    "lora.safetensors": (lambda f: save_file({"x.lora_B.weight": torch.zeros(1)}, f), "LoRA"),
    "any.bin": (lambda f: f.write_bytes(b"GGUF....."), "GGUF"),
    "weights": (lambda f: f.write_bytes(b"\x89HDF\r\n"), "TensorFlow"),
    "ViT-B-32.pt": (torchscript, "TorchScript"),
    "last.pt": (lambda f: torch.save(LIGHTNING, f), "Lightning"),
    "net.pth": (lambda f: torch.save({"w": torch.zeros(1)}, f), "without a config"),
}


@foreign
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_file_in_a_folders_place_is_named(tmp_path, name):
    make, said = SINGLE[name]
    make(tmp_path / name)
    refused(tmp_path / name, "must be a folder", "this is", said)


@foreign
@pytest.mark.parametrize("content", [b"", b"\x00" * 9, b"PK\x03\x04", b"\x80\x02cos\nsystem\n."])
def test_a_file_that_says_nothing_is_still_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    refused(tmp_path / "x.pt", "must be a folder", "x.pt")


@unlike
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("size", value) for value in (0, -3, 30.5, "30", [30, 30], {"shortest_edge": "30"}, {"shortest_edge": 0})),
        *(("crop_size", value) for value in (0, -1, 29.5, 10**9, "30", [30], True, {"height": 30}, {"width": 30})),
        *(("image_mean", value) for value in (0.5, [0.5] * 4, "abc", [0.5, 0.5, "x"], [0.5, 0.5, float("nan")])),
        *(("image_std", value) for value in (0, [0, 0.5, 0.5], [-1, 1, 1], [True, 1, 1], {"r": 1}, [float("inf")] * 3)),
        *(("resample", value) for value in ("bicubic", 0, 4, True, [3], 2.5)),
        *((key, value) for key in ("do_resize", "do_rescale", "do_normalize") for value in (False, "yes", 0)),
        *(("rescale_factor", value) for value in ("x", 1, [1 / 255], float("nan"))),
        *(("do_center_crop", value) for value in ("yes", [1])),
        *((key, True) for key in ("do_pad", "do_flip_channel_order")),
        ("image_processor", 3),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_named(clip, key, value):
    edit(clip / "preprocessor_config.json", **{key: value})
    message = refused(clip, "preprocessor_config.json", "must be")
    assert repr(key) in message or (key == "do_center_crop" and "'size'" in message), (
        f"{key} must be named; {message!r}"
    )


@unlike
@pytest.mark.parametrize("text", ["", "[]", "3", "null", "[" * 5000, "\ufffe"])
def test_preprocessing_that_is_no_mapping_is_named(clip, text):
    (clip / "preprocessor_config.json").write_text(text)
    refused(clip, "preprocessor_config.json")


@unlike
@pytest.mark.parametrize("make", [make_clip, make_siglip])
def test_a_square_of_another_size_than_the_towers_is_refused_before_an_image_meets_it(tmp_path, make):
    folder = make(tmp_path / "model")
    size = {"height": SIDE + 10, "width": SIDE + 10}
    edit(folder / "preprocessor_config.json", **{"crop_size" if make is make_clip else "size": size})
    refused(folder, f"side {SIDE}, the image_size", f"got {SIDE + 10}")


@doubted
@pytest.mark.parametrize(("said", "act"), [(True, "gelu"), (False, "quick_gelu"), (None, "quick_gelu")])
def test_an_activation_that_openclips_config_denies_is_refused(clip, said, act):
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": {} if said is None else {"quick_gelu": said}}))
    for tower in ("vision", "text"):
        edit_tower(clip, tower, hidden_act=act)
    refused(clip, "hidden_act", "open_clip_config.json", f"got '{act}'")
    for tower in ("vision", "text"):
        edit_tower(clip, tower, hidden_act="quick_gelu" if said else "gelu")
    assert hf.load(str(clip)).dim == 16, "where both say the same it loads"


@doubted
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("clip-vit-base-patch32", "gelu"),
        ("clip-vit-large-patch14-336", "gelu"),
        ("ViT-H-14-quickgelu", "gelu"),
        ("metaclip-b32-400m", "gelu"),
        ("CLIP-ViT-B-32-laion2B-s34B-b79K", "quick_gelu"),
        ("CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "quick_gelu"),
    ],
)
@pytest.mark.parametrize("where", ["folder", "config"])
def test_an_activation_that_a_name_speaks_against_is_doubted(clip, name, act, where):
    for tower in ("vision", "text"):
        edit_tower(clip, tower, hidden_act=act)
    if where == "folder":
        clip = clip.rename(clip.with_name(name))
    else:
        edit(clip / "config.json", _name_or_path=f"somebody/{name}")
    with pytest.warns(ActivationWarning, match=f"got '{act}'"):
        hf.load(str(clip))
    for tower in ("vision", "text"):
        edit_tower(clip, tower, hidden_act="quick_gelu" if act == "gelu" else "gelu")
    assert hf.load(str(clip)).dim == 16, "the other one is not doubted"


@doubted
def test_on_the_command_line_a_doubt_is_one_line(clip, capsys):
    edit_tower(clip, "vision", hidden_act="gelu")
    with on_a_line():
        hf.load(str(clip))
        hf.load(str(clip))
    said = capsys.readouterr().err
    assert said.startswith("adaptkit: warning: hidden_act") and said.count("\n") == 1, f"a line, once; got {said!r}"


@doubted
def test_towers_of_two_activations_are_doubted(clip):
    edit_tower(clip, "vision", hidden_act="gelu")
    with pytest.warns(ActivationWarning, match="the same in both towers"):
        hf.load(str(clip))
