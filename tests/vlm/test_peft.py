"""Adapters that PEFT itself made and saved, merged as PEFT merges them."""

import warnings

import pytest
import torch
from adaptkit_plugins.backbones import hf

from tests.checkpoints import SIDE, make_clip

peft = pytest.importorskip("peft")
MAPS = ["q_proj", "v_proj", "fc1", "patch_embedding"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"fc1": 3}},
        {"modules_to_save": ["visual_projection"], "bias": "all"},
    ],
)
def test_merged_weights_are_those_of_peft(tmp_path, options):
    from transformers import CLIPModel

    base = make_clip(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own
        config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=MAPS, **options)
        model = peft.get_peft_model(CLIPModel.from_pretrained(base), config)
        torch.manual_seed(5)
        for p in model.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p, std=0.1) if p.dim() > 1 else p.data.add_(0.1)
        model.save_pretrained(tmp_path / "lora")
        want = model.merge_and_unload().eval()
    ours = hf.load(f"{base}#{tmp_path / 'lora'}")
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        images = want.get_image_features(pixel_values=pixels).pooler_output
        text = want.get_text_features(**ours.tokenize(["owl", "the fox"])).pooler_output
        torch.testing.assert_close(ours.encode_image(pixels), images, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.encode_text(["owl", "the fox"]), text, rtol=0, atol=1e-5)
