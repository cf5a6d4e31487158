"""Tiny random checkpoints in the files of `transformers`, for tests of what reads them."""

import json
import string
import time

import pytest
import torch
from adaptkit_plugins.backbones import hf

SIDE, LENGTH = 30, 24
SENTENCES = ["a photo of a cat.", "owl", "a photo of the small brown dog", "the fox " * 40]
TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
IMAGE = {**TOWER, "hidden_size": 20, "image_size": SIDE, "patch_size": 10}
TEXT = {**TOWER, "hidden_size": 24, "max_position_embeddings": LENGTH}


def save(folder, *parts):
    """Parts of `transformers` in one folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    for part in parts:
        part.save_pretrained(folder)
    logging.enable_progress_bar()
    return folder


def edit(file, **changes):
    """Change keys of a JSON file; ``None`` removes one."""
    spec = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in spec.items() if value is not None}))


def edit_tower(folder, tower, **changes):
    """Change the config of one tower."""
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **{f"{tower}_config": config[f"{tower}_config"] | changes})


def make_clip(folder):
    """CLIP, whose tokenizer knows letters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = [*string.ascii_lowercase, *string.punctuation]
    words = [*letters, *(f"{c}</w>" for c in letters), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[("t", "h"), ("th", "e</w>")])
    end = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(text_config={**TEXT, **end, "vocab_size": len(words)}, vision_config=IMAGE, projection_dim=16)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return save(folder, CLIPModel(config), CLIPImageProcessorPil(**size), tokenizer)


def make_metaclip2(folder):
    """MetaCLIP 2, whose end-of-text has number 2 and is not the largest."""
    from transformers import CLIPImageProcessorPil, MetaClip2Config, MetaClip2Model, XLMRobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [*special, "\u2581", *string.ascii_letters, *string.punctuation, "\u2581th", "the"]
    tokenizer = XLMRobertaTokenizer(vocab=[(word, -float(len(word) == 1)) for word in words])
    text = {**TEXT, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "vocab_size": len(words)}
    torch.manual_seed(0)
    model = MetaClip2Model(MetaClip2Config(text_config=text, vision_config=IMAGE, projection_dim=16))
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return save(folder, model, CLIPImageProcessorPil(**size), tokenizer)


def siglip_towers(words=40, **text):
    """The towers and the image processor of SigLIP."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    torch.manual_seed(0)
    text = {**TEXT, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1, "hidden_size": 20, **text}
    model = SiglipModel(SiglipConfig(text_config={**text, "vocab_size": words}, vision_config=IMAGE))
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-7.5)
    return model, SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2)


def make_siglip(folder):
    """SigLIP with a fast tokenizer that knows whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *sorted({w for s in SENTENCES for w in s.strip(".").split()})]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    return save(folder, *siglip_towers(), PreTrainedTokenizerFast(tokenizer_object=backend, **tokens))


def refused(name, *said):
    """The message of the error, which must be short, quick and ours."""
    began = time.perf_counter()
    with pytest.raises(ValueError) as caught:
        hf.load(str(name))
    message = str(caught.value)
    assert time.perf_counter() - began < 5, "an error must come within five seconds"
    assert message.count("\n") <= 1, f"an error must be one line or two; got {message!r}"
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    for words in said:
        assert words in message, f"{words!r} must be said; got {message!r}"
    return message
