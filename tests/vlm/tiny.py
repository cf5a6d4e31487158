"""Tiny models of OpenCLIP with random weights, as folders that OpenCLIP would have saved."""

import json

import torch

SIDE, LENGTH = 32, 24
SENTENCES = ["a photo of a cat.", "owl", "a photo of the small brown dog", "the fox " * 40, ""]
TOWER = {"layers": 2, "width": 32, "heads": 2}
VIT = {"image_size": SIDE, "patch_size": 8, "layers": 3, "width": 32, "head_width": 16}
TEXT = {**TOWER, "width": 24, "context_length": LENGTH, "vocab_size": 49408}
SIGLIP_TEXT = {**TEXT, "vocab_size": 40, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
SIGLIP_TEXT |= {"hf_tokenizer_name": "own", "tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6}}
TIMM = {"timm_model_pretrained": False, "timm_proj": None}
EOS = {**TEXT, "pool_type": "eos", "eos_id": 49407}
KINDS = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "quick vit": {"vision_cfg": {**VIT, "ls_init_value": 0.1}, "text_cfg": TEXT, "quick_gelu": True},
    "mean vit": {
        "vision_cfg": {**VIT, "pool_type": "avg", "no_ln_pre": True},
        "text_cfg": EOS,
    },
    "resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None},
        "text_cfg": TEXT,
        "quick_gelu": True,
    },
    "coca": {
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    "siglip": {"vision_cfg": VIT, "text_cfg": SIGLIP_TEXT, "custom_text": True, "init_logit_bias": -10},
    "normed attention": {"vision_cfg": {**VIT, "qk_norm": True}, "text_cfg": TEXT},
    "eva": {
        "vision_cfg": {**TIMM, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "image_size": 224},
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "mobile": {
        "vision_cfg": {**TIMM, "timm_model_name": "fastvit_t8", "timm_pool": "avg", "image_size": 256},
        "text_cfg": {**TEXT, "no_causal_mask": True},
        "custom_text": True,
    },
    "convnext": {
        "vision_cfg": {
            **TIMM,
            "timm_model_name": "convnext_atto",
            "timm_pool": "",
            "timm_proj": "mlp",
            "image_size": 64,
        },
        "text_cfg": TEXT,
    },
    "map vit": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit2", "timm_pool": "avg", "image_size": 64},
        "text_cfg": TEXT,
        "custom_text": True,
    },
}


def spread(model):
    """Random weights of two towers, and a scale that is not the library's."""
    model.logit_scale.data.fill_(3.0)
    scale = model.logit_scale.data.clone()
    spread_all(model).logit_scale.data.copy_(scale)
    return model


def spread_all(model):
    """Random weights that make every part matter; the library's own start some at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=(p[0].numel() ** -0.5 if "embedding" not in name else 0.5))
            elif p.dim() == 1:
                p.copy_((1.0 if "weight" in name or "gamma" in name else 0.0) + 0.1 * torch.randn(p.shape))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(std=0.1)
            if name.endswith("running_var"):
                b.uniform_(0.5, 1.5)
    return model.eval()


def settings(kind):
    return json.loads(json.dumps({"embed_dim": 16, **KINDS[kind]}))


def made(kind):
    """OpenCLIP's own model."""
    from adaptkit_plugins.backbones import open_clip as plugin

    from adaptkit.towers.openclip_files import FoundModel

    return spread(plugin.made(FoundModel(settings(kind), {}, None)))


def save(folder, kind, **preprocess):
    """Config, weights and, where the config names one, a tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": settings(kind), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: value.contiguous() for name, value in made(kind).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in config["model_cfg"]["text_cfg"]:
        words().save_pretrained(folder)
    return folder


def words():
    """A tokenizer of whole words, as SigLIP's: an end, then padding with the same token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "</s>", *sorted({w for s in SENTENCES for w in s.strip(".").split()})]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def theirs(kind, folder):
    """OpenCLIP's model, transform and tokenizer, and what it says of pixels and sentences, raw."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def raw(model, pixels, ids):
    """Embeddings that are not scaled, of images and sentences."""
    more = {"normalize": False}
    with torch.no_grad():
        return model.encode_image(pixels, **more), model.encode_text(ids, **more)
