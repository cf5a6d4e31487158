"""Small things of people's own: a checkpoint with a letter-by-letter tokenizer, photos, and the command in-process."""

import string

import numpy as np
from PIL import Image

SIDE, LENGTH = 30, 24  # of the checkpoint's images and sentences
TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}


def checkpoint(folder, seed=0):
    """A random CLIP whose text tower reads `LENGTH` tokens, one a letter."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    end = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**TOWER, "hidden_size": 24, "max_position_embeddings": LENGTH, "vocab_size": len(words), **end}
    image = {**TOWER, "hidden_size": 20, "image_size": SIDE, "patch_size": 10}
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=16)).save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


def photos(root, classes, n=12):
    """``root/class/0.png`` and on, each of its class's colour."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng([c, i]).integers(0, 90, (36, 40, 3))
            pixels[..., c % 3] += 100 + 10 * (c // 3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def table(file, rows):
    """A csv file of paths and labels."""
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    return file


class Command:
    """The command line, in this process: what a call printed, and its exit code."""

    def __init__(self, home, capsys):
        self.home, self.capsys = home, capsys

    def __call__(self, *words):
        from adaptkit.cli import main

        self.capsys.readouterr()
        code = main([*map(str, words), "--home", str(self.home)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def run(self, dataset, backbone, out, *more, methods="[zero-shot]", shots=1):
        """A few-shot run on one's own images."""
        named = {"dataset": dataset, "backbone": backbone, "methods": methods, "seeds": "[1]"}
        changed = [word for key, value in named.items() for word in ("--set", f"{key}={value}")]
        return self("run", "few_shot", *changed, "--shots", shots, "--out", out, "--quiet", *more)
