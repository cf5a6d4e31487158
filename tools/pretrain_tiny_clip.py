"""Train the small CLIP behind ``packaged:emoji-clip`` on emoji art, and write it in the format of `transformers`.

Four stages. The names, tags and groups of emoji are embedded by the packaged sentence encoder, and its leading 128
principal components are the joint space, so that what a sentence means is fixed before an image is seen. The image
tower learns to find the name, group and tags of each drawing among all of them. The text tower learns to give each
sentence its embedding in that space. Weights are written in half precision.

What is held out: OpenMoji, the style of the dataset ``openmoji``, whole; and in every style the concepts of that
dataset's validation and test images, with all emoji that begin with one of them.

Art: the packages below, from npm, into one folder; nothing of it is kept but the weights::

    npm pack @iconify-json/noto @iconify-json/noto-v1 @iconify-json/twemoji @iconify-json/fluent-emoji-flat
    npm pack @iconify-json/fluent-emoji-high-contrast @iconify-json/emojione @iconify-json/emojione-monotone
    npm pack emojibase-data
    for file in *.tgz; do mkdir ${file%.tgz}; tar xzf $file -C ${file%.tgz} --strip-components=1; done
    python tools/pretrain_tiny_clip.py FOLDER first --steps 2500
    python tools/pretrain_tiny_clip.py FOLDER second --image-tower first --text-steps 4000 --batch 256

What came of it, by zero-shot on the validation images, unseen concepts in an unseen style, of 23 classes:

- Patches of 8 pixels, 14.4 % after 300 steps of 1.9 s on a busy thread; of 12 pixels, 18.0 % after 500 steps of 1.0 s,
  and 26.1 % after all 2,500, by the sentence encoder's embeddings of the names. Steps in bfloat16 take twice as long.
- The text tower, taught by names, tags, groups, ImageNet's names and pairs of them in 2,500 steps of 128: 18.9 %, and
  15.1 % of the test images. Taught by the encoder's own words and pairs of these, too, in 4,000 steps of 256: 20.7 %,
  and 16.5 %. This one is packaged; its image tower is of the first run, whose text tower had 2,048 words.

Licences: Noto (Apache-2.0), Twemoji and EmojiOne 2 (CC BY 4.0), Fluent Emoji (MIT), emojibase (MIT).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from adaptkit_plugins.datasets import openmoji
from emoji_art import SIDE, concepts, drawings, moved
from emoji_texts import JOINT, LENGTH, common, dictionary, pairs, sentence_space, tokenizer
from torch import nn
from transformers import CLIPConfig, CLIPModel

from adaptkit import Preprocess

PATCH = 12
TEMPLATES = ("{}", "{}.", "a drawing of a {}.", "a photo of a {}.", "an icon of a {}.", "an emoji of a {}.", "a {}.")
VISION = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4}
TEXT = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4}


def small_clip(words):
    """Two untrained towers."""
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**TEXT, **ends, "vocab_size": len(words), "max_position_embeddings": LENGTH, "hidden_act": "gelu"}
    vision = {**VISION, "image_size": SIDE, "patch_size": PATCH, "hidden_act": "gelu"}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=JOINT))


def seen_images(split):
    """Images of the dataset ``openmoji`` as the tower wants them, ``(N, 3, SIDE, SIDE)``, and labels."""
    source = getattr(openmoji.load(), split)
    preprocess = Preprocess(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)
    return torch.stack([preprocess(source.image(i)) for i in range(len(source))]), torch.tensor(source.labels)


@torch.no_grad()
def zero_shot(model, text, images, labels):
    """Accuracy in percent, by the classes' embeddings."""
    x = torch.cat([model.visual_projection(model.vision_model(part).pooler_output) for part in images.split(64)])
    return 100 * float((x @ text.T).argmax(1).eq(labels).double().mean())


@torch.no_grad()
def read(model, words, texts):
    """Unit-norm embeddings of sentences by the text tower."""
    ids = words(texts, padding=True, return_tensors="pt")["input_ids"]
    return F.normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output), dim=-1)


def train(parameters, loss, steps, lr, log, look=str):
    """AdamW with a short warm-up and a cosine; ``loss(step)`` is logged every hundred steps."""
    optimizer = torch.optim.AdamW(parameters, lr, weight_decay=0.05)
    start, seen = time.time(), []
    for step in range(steps):
        rate = lr * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen.append(float(value.detach()))
        if (step + 1) % 100 == 0:
            log(f"step {step + 1} of {steps}: loss {np.mean(seen[-100:]):.3f}, {time.time() - start:.0f} s{look()}")


def train_images(model, pictures, codes, known, spaces, options, log, look):
    """The image tower finds the name, subgroup and tags of a drawing among all names, subgroups and tags."""
    groups, tags, (by_names, by_groups, by_tags) = spaces
    rows = sorted(known)
    own = torch.tensor([rows.index(code) for code in codes])
    group = torch.tensor([groups.index(known[code][1]) for code in rows])
    tagged = torch.zeros(len(rows), len(tags))
    for i, code in enumerate(rows):
        tagged[i, [tags.index(tag) for tag in known[code][2]]] = 1
    tagged = tagged / tagged.sum(1, keepdim=True).clamp_min(1)
    scales = nn.Parameter(torch.tensor([20.0, 20.0, 20.0]).log())
    parameters = [*model.vision_model.parameters(), *model.visual_projection.parameters(), scales]
    generator = torch.Generator().manual_seed(options.seed)

    def loss(_):
        i = torch.randint(len(own), (options.batch,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            x = model.visual_projection(model.vision_model(moved(pictures[i], generator)).pooler_output)
        x, factor = F.normalize(x.float(), dim=-1), scales.exp().clamp(5, 50)
        by_name = F.cross_entropy(factor[0] * x @ by_names.T, own[i], label_smoothing=0.1)
        by_group = F.cross_entropy(factor[1] * x @ by_groups.T, group[own[i]])
        by_tag = -(tagged[own[i]] * (factor[2] * x @ by_tags.T).log_softmax(-1)).sum(-1).mean()
        return by_name + by_group + by_tag

    train(parameters, loss, options.steps, options.lr, log, look)


def train_texts(model, words, texts, targets, options, log):
    """The text tower gives every sentence, in any template, the embedding that the space has for it."""
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    generator = torch.Generator().manual_seed(options.seed)

    def loss(_):
        i = torch.randint(len(texts), (options.batch,), generator=generator)
        which = torch.randint(len(TEMPLATES), (options.batch,), generator=generator)
        sentences = [TEMPLATES[t].format(texts[k]) for t, k in zip(which.tolist(), i.tolist(), strict=True)]
        ids = words(sentences, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            x = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        x = F.normalize(x.float(), dim=-1)
        return (1 - (x * targets[i]).sum(-1)).mean() + F.cross_entropy(
            20 * x @ targets[i].T, torch.arange(options.batch)
        )

    train(parameters, loss, options.text_steps, 2e-3, log)


def write(model, words, folder):
    """Weights in half precision, config, tokenizer and preprocessing."""
    with torch.no_grad():
        model.logit_scale.fill_(math.log(20.0))
    model.half().save_pretrained(folder)
    words.save_pretrained(folder)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}, "resample": 3}
    does = {f"do_{what}": True for what in ("resize", "center_crop", "rescale", "normalize", "convert_rgb")}
    processor = {"image_processor_type": "CLIPImageProcessor", "rescale_factor": 1 / 255, **does, **half, **size}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))


def main():
    """Train both towers and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("art", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--text-steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--image-tower", type=Path, help="take it from a folder that was written before")
    parser.add_argument("--pairs", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    def log(line):
        print(line, flush=True)

    known = concepts(options.art)
    pictures, codes = drawings(options.art, known)
    known = {code: known[code] for code in set(codes)}
    log(f"{len(pictures)} drawings of {len(known)} concepts")
    names = [known[code][0] for code in sorted(known)]
    groups = sorted({group for _, group, _ in known.values()})
    tags = sorted({tag for _, _, own in known.values() for tag in own})
    texts = sorted({*names, *groups, *tags, *common(), *pairs([*names, *tags, *common()], options.pairs, options.seed)})
    classes = [f"a drawing of a {name}." for name in openmoji.CLASSES.values()]
    told = [*openmoji.CLASSES.values()]
    more = sorted({*dictionary(), *pairs(dictionary(), options.pairs, options.seed)} - {*texts})
    targets, further = sentence_space(texts, [*told, *more])
    row = {text: i for i, text in enumerate(texts)}
    words = tokenizer([template.format(text) for text in [*texts, *more] for template in TEMPLATES])
    model = small_clip(words)
    log(f"{sum(p.numel() for p in model.parameters())} weights, {len(texts)} texts")
    spaces = [targets[[row[text] for text in own]] for own in (names, groups, tags)]
    val, test = seen_images("val"), seen_images("test")

    def look():
        return f", {zero_shot(model, further[: len(told)], *val):.1f} % of unseen concepts in the unseen style"

    if options.image_tower:
        saved = CLIPModel.from_pretrained(options.image_tower).float()
        model.vision_model.load_state_dict(saved.vision_model.state_dict())
        model.visual_projection.load_state_dict(saved.visual_projection.state_dict())
    else:
        train_images(model, pictures, codes, known, (groups, tags, spaces), options, log, look)
    log(f"by the sentence encoder{look()}")
    train_texts(model, words, [*texts, *more], torch.cat([targets, further[len(told) :]]), options, log)
    text = read(model, words, classes)
    log(f"validation {zero_shot(model, text, *val):.1f} %, test {zero_shot(model, text, *test):.1f} %")
    write(model, words, options.out)


if __name__ == "__main__":
    main()
