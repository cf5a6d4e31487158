"""Write the picture and the embeddings that ``adaptkit doctor`` holds a machine to: ``python -m tools.self_test``.

The picture is a red circle and a blue triangle on a shaded ground, drawn here.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from adaptkit.report import self_test

BACKBONES = ("toy:0", "packaged:emoji-clip", "packaged:lite0-minilm")
SIDE = 96


def draw() -> Image.Image:
    """The picture."""
    y, x = np.mgrid[:SIDE, :SIDE]
    ground = np.stack([180 + x // 2, 200 - y // 2, 120 + (x + y) // 3], -1).astype(np.uint8)
    picture = Image.fromarray(ground)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((14, 12, 62, 60), fill=(220, 40, 30))
    pen.polygon([(50, 86), (90, 86), (70, 46)], fill=(30, 60, 200))
    return picture


def main() -> None:
    """Write both files."""
    folder = Path(self_test.__file__).parent
    draw().save(folder / "self_test.png", optimize=True)
    rounded = {
        name: {what: [round(v, 6) for v in vector] for what, vector in self_test.beginnings(name).items()}
        for name in BACKBONES
    }
    made = {"pixels": self_test.pixels(), "backbones": rounded}
    (folder / "self_test.json").write_text(json.dumps(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
