"""Emoji art in several styles, as pictures with names, and small changes to it."""

import io
import json
import re

import numpy as np
import torch
import torch.nn.functional as F
from adaptkit_plugins.datasets import openmoji
from PIL import Image

STYLES = (
    "noto",
    "noto-v1",
    "twemoji",
    "fluent-emoji-flat",
    "fluent-emoji-high-contrast",
    "emojione",
    "emojione-monotone",
)
SIDE = 48  # of a picture that the tower sees
DRAWN = 64  # side that art is rendered at, before it is moved and cut


def concepts(folder):
    """Name, subgroup and tags of each emoji by its code, without skin tones and without what is held out."""
    english = next(folder.glob("emojibase-data-*/en"))
    groups = {g["order"]: g["message"] for g in json.loads((english / "messages.json").read_text())["subgroups"]}
    held = {code for split in ("val", "test") for code, _ in openmoji.codes()[split]}
    found = {}
    for emoji in json.loads((english / "data.json").read_text()):
        code = emoji["hexcode"].replace("-FE0F", "")
        if code.split("-")[0] not in held and "subgroup" in emoji:
            found[code] = (emoji["label"], groups[emoji["subgroup"]], emoji.get("tags", []))
    return found


def drawings(folder, known):
    """Pictures as ``(N, 3, DRAWN, DRAWN)`` bytes and the code of each: of every style whose icon has a known code."""
    import resvg_py

    packs = {style: next(p for p in folder.glob(f"iconify-json-{style}-[0-9]*") if p.is_dir()) for style in STYLES}
    chars = {style: json.loads((pack / "chars.json").read_text()) for style, pack in packs.items()}
    code_of = {name: code for own in chars.values() for code, name in own.items()}
    pictures, codes = [], []
    for pack in packs.values():
        icons = json.loads((pack / "icons.json").read_text())
        for name, icon in icons["icons"].items():
            code = code_of.get(name, "").upper().replace("-FE0F", "")
            if code not in known:
                continue
            box = [icon.get(key, icons.get(key, 16)) for key in ("width", "height")]
            body = re.sub("currentColor", "black", icon["body"])
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box[0]} {box[1]}">{body}</svg>'
            png = resvg_py.svg_to_bytes(svg_string=svg, background="white", width=DRAWN, height=DRAWN)
            picture = Image.open(io.BytesIO(png)).convert("RGB").resize((DRAWN, DRAWN))
            pictures.append(np.asarray(picture).transpose(2, 0, 1))
            codes.append(code)
    return torch.from_numpy(np.stack(pictures)), codes


def moved(pictures, generator, share=0.6):
    """B pictures cut to ``(B, 3, SIDE, SIDE)``; a share of them turned, scaled, shifted and coloured a little."""
    count = len(pictures)

    def draw(low, high):
        return low + (high - low) * torch.rand(count, generator=generator)

    mild = torch.rand(count, generator=generator) < share
    angle, scale = draw(-0.2, 0.2) * mild, torch.where(mild, draw(0.85, 1.3), 1.0)
    cos, sin, dx, dy = angle.cos() * scale, angle.sin() * scale, draw(-0.12, 0.12) * mild, draw(-0.12, 0.12) * mild
    theta = torch.stack([torch.stack([cos, -sin, dx], 1), torch.stack([sin, cos, dy], 1)], 1)
    grid = F.affine_grid(theta, (count, 3, SIDE, SIDE), align_corners=False)
    ink = 1 - pictures.float() / 255  # white is nothing, also beyond the edge
    ink = F.grid_sample(
        F.avg_pool2d(F.interpolate(ink, scale_factor=1.5, mode="bilinear"), 2), grid, align_corners=False
    )
    grey = (torch.rand(count, generator=generator) < 0.2) & mild
    ink = torch.where(grey[:, None, None, None], ink.mean(1, keepdim=True), ink)
    light = torch.where(mild, draw(0.7, 1.2), 1.0)[:, None, None, None]
    return ((1 - ink * light).clamp(0, 1) - 0.5) / 0.5
