"""Numbers of a checkpoint's config that no tower can have are refused by their key, before a tower is built."""

import shutil

import pytest
import torch
from adaptkit_plugins.backbones import hf

from tests.checkpoints import IMAGE, SIDE, edit, edit_tower, make_clip, make_metaclip2, make_siglip, refused, save

impossible = pytest.mark.fault("a number in config.json that no tower has", "one line that names the key and the file")

HUGE, NAN, INF = 10**9, float("nan"), float("inf")
WRONG = ("12", [], [12], {}, None, True, 1.5, NAN, INF, 0, -2, HUGE, 10**25)
TOWER_WHOLE = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "projection_dim")
VISION = (*TOWER_WHOLE, "image_size", "patch_size", "num_channels")
TEXT = (*TOWER_WHOLE, "vocab_size", "max_position_embeddings")
ODD = ("0.1", [0.1], {}, None, True, NAN, INF, -INF, -1e-5, 1e300, 10**25)
EYES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")


def make_eye(kind, folder):
    """A second eye of a model_type."""
    import transformers as t

    sizes = {**IMAGE, "hidden_size": 24}
    make = {
        "vit": lambda: t.ViTModel(t.ViTConfig(**sizes), add_pooling_layer=False),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**sizes)),
        "dinov2_with_registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**sizes)),
        "dinov3_vit": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**sizes)),
    }
    torch.manual_seed(0)
    return save(folder, make[kind](), t.ViTImageProcessorPil(size=SIDE, do_convert_rgb=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints by model_type, each made when it is first asked for."""
    folders, makers = {}, {"clip": make_clip, "metaclip_2": make_metaclip2, "siglip": make_siglip}

    def get(kind):
        if kind not in folders:
            folder = tmp_path_factory.mktemp(kind)
            folders[kind] = makers[kind](folder) if kind in makers else make_eye(kind, folder)
        return folders[kind]

    return get


@pytest.fixture
def spoil(made, tmp_path):
    """A copy whose config says something else, in one tower or, for "", at its top."""

    def change(kind, tower, **changes):
        folder = shutil.copytree(made(kind), tmp_path / "model")
        if tower:
            edit_tower(folder, tower, **changes)
        else:
            edit(folder / "config.json", **changes)
        return folder

    return change


@impossible
@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(("tower", "key"), [*(("vision", key) for key in VISION), *(("text", key) for key in TEXT)])
def test_a_whole_number_that_no_tower_has_is_refused_by_its_key(spoil, tower, key, value):
    refused(spoil("clip", tower, **{key: value}), f"'{tower}_config.{key}'", "config.json", "must be", "got ")


@impossible
@pytest.mark.parametrize("key", ["image_size", "patch_size"])
@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_a_height_and_a_width_are_refused_where_the_towers_read_one_number(spoil, kind, key):
    refused(spoil(kind, "vision", **{key: [10, 10]}), f"'vision_config.{key}'", "a whole number", "got [10, 10]")


@impossible
@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("key", ["layer_norm_eps", "attention_dropout"])
@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_a_number_out_of_its_range_is_refused_by_its_key(spoil, kind, key, value):
    refused(spoil(kind, "text", **{key: value}), f"'text_config.{key}'", "config.json", "a number from 0 to 1", "got ")


@impossible
@pytest.mark.parametrize("value", ["2.6", [], True, NAN, INF, 1e300], ids=repr)
@pytest.mark.parametrize("key", ["logit_scale_init_value", "projection_dim", "initializer_factor"])
@pytest.mark.parametrize("kind", ["clip", "metaclip_2"])
def test_a_number_of_both_towers_is_refused_by_its_key(spoil, kind, key, value):
    refused(spoil(kind, "", **{key: value}), f"'{key}'", "config.json", "must be", "got ")


@impossible
@pytest.mark.parametrize("kind", EYES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_attention_heads", value) for value in (-2, 0, 7, HUGE, "2", NAN)),
        *(("num_hidden_layers", value) for value in (-1, 0, HUGE, "2", True)),
        *(("hidden_size", value) for value in (-24, 0, HUGE, [24])),
        *(("image_size", value) for value in (0, HUGE, [30], [30, -30], [30, 30, 30], "30")),
        *(("patch_size", value) for value in (0, -10, 31, [10, 40], HUGE)),
        *(("layer_norm_eps", value) for value in (NAN, INF, -1e-6, 1e300, "x")),
    ],
)
def test_a_number_that_no_second_eye_has_is_refused_by_its_key(spoil, kind, key, value):
    refused(spoil(kind, "", **{key: value}), f"'{key}'", "config.json", "must be", "got ")


@impossible
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        *(("dinov3_vit", "rope_theta", value) for value in (NAN, INF, 0, -100.0, "100", 1e300)),
        *(("dinov3_vit", "num_attention_heads", value) for value in (4, 8, 12, 24)),
        *(("dinov3_vit", "num_register_tokens", value) for value in (-1, HUGE, 1.5, "4")),
        *(("dinov2", "mlp_ratio", value) for value in (0, -4, NAN, 1e9, "4")),
        *(("dinov2", "layerscale_value", value) for value in (NAN, INF, "1")),
        *(("vit", "hidden_dropout_prob", value) for value in (NAN, -0.1, 1.1, "0")),
    ],
)
def test_a_number_of_one_kind_of_eye_is_refused_by_its_key(spoil, kind, key, value):
    refused(spoil(kind, "", **{key: value}), f"'{key}'", "config.json", "must be", "got ")


@impossible
@pytest.mark.parametrize("heads", [3, 7, 40])
@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_heads_that_do_not_divide_the_width_are_refused(spoil, kind, heads):
    folder = spoil(kind, "vision", num_attention_heads=heads)
    refused(folder, "'vision_config.num_attention_heads'", "a divisor of hidden_size, 20", f"got {heads}")


@impossible
@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        ("vision", {"hidden_size": 2**14}),
        ("vision", {"hidden_size": 2**12, "num_hidden_layers": 200}),
        ("vision", {"intermediate_size": 2**18, "num_hidden_layers": 4}),
        ("vision", {"image_size": 10**4, "patch_size": 1}),
        ("text", {"hidden_size": 2**16}),
        ("text", {"vocab_size": 2**24}),
        ("text", {"max_position_embeddings": 2**20}),
    ],
)
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_towers_far_larger_than_the_weights_are_refused_before_they_are_built(spoil, kind, tower, changes):
    key, value = next(iter(changes.items()))
    refused(spoil(kind, tower, **changes), f"'{tower}_config'", "config.json", "bytes", f"{key} {value}", "one model")


@impossible
@pytest.mark.parametrize("value", ["x", [], 3, True], ids=repr)
@pytest.mark.parametrize("part", ["vision_config", "text_config", "vision_config_dict"])
def test_a_towers_config_that_is_no_mapping_is_refused(spoil, part, value):
    refused(spoil("clip", "", **{part: value}), repr(part), "config.json", "a mapping", "got ")


@impossible
@pytest.mark.parametrize("part", ["vision_config_dict", "text_config_dict"])
def test_a_towers_config_of_old_files_is_held_too(spoil, part):
    refused(spoil("clip", "", **{part: {"num_hidden_layers": HUGE}}), f"'{part}.num_hidden_layers'")


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip", *EYES])
def test_what_was_saved_is_welcome(made, kind):
    assert hf.load(str(made(kind))).fingerprint, f"{kind} must load"


@pytest.mark.parametrize("changes", [{"layer_norm_eps": 0.0}, {"layer_norm_eps": 1.0}, {"num_attention_heads": 20}])
def test_unusual_numbers_that_a_tower_can_have_are_welcome(spoil, changes):
    assert hf.load(str(spoil("clip", "vision", **changes))).dim == 16, f"{changes} must load"


@pytest.mark.parametrize("kind", ["vit", "dinov3_vit"])
def test_a_height_and_a_width_are_welcome_in_one_tower_alone(spoil, kind):
    assert hf.load(str(spoil(kind, "", image_size=[SIDE, SIDE]))).dim == 24, "transformers reads both spellings"
