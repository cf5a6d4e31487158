"""CALIP: image patches and class embeddings attend to each other, without a parameter.

Source: Guo et al., CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention, arXiv:2209.14169.
Deviations: the two weights are chosen on labelled validation images; the release searches 200 values of each on the
test set. The softmax has the release's factor 2 whatever the backbone's scale, and both answers are scaled by that. The
paper's network is a ResNet whose attention pool gives every position, as it does here; each patch that leaves the last
block of a transformer is pooled and projected as if it were the class token.
Interactions: neither guided embedding is scaled to unit norm, and the guided image's is a mean plus a maximum.
"""

from adaptkit import Need, Pooled, ZeroShot, hookimpl, unit
from adaptkit.io.ranges import Positive, Tries, Weight


class Local(Need):
    """Patch tokens in the joint space: ``(T, D)`` per image, unit-norm, without the class token."""

    def compute(self, backbone, pixels):
        """The last block's tokens go through the tower's head one by one, or all ask at once: ``(B, T, D)``."""
        backbone.require("image.block.-1")
        every = getattr(getattr(backbone.points.get("image.head"), "module", None), "every", None)
        if every is not None:
            with backbone.taps({"image.head": lambda x, _: every(x)}):
                return backbone.encode_image(pixels)[:, 1:]
        with backbone.taps({"image.block.-1": lambda _, out: out.flatten(0, 1)[:, None]}):
            return backbone.encode_image(pixels).unflatten(0, (len(pixels), -1))[:, 1:]

    def read(self, rows):
        return unit(rows)


class CALIP(ZeroShot):
    """Zero-shot plus attention, without parameters, between image patches and classes."""

    beta2: Weight = 1.0  # weight of the visually guided text
    beta3: Weight = 0.05  # weight of the textually guided image
    sharpness: Weight = 2.0  # of both softmaxes over cosines
    search_scale: tuple[Positive, Positive] = (2.0, 0.1)  # upper ends of beta2 and beta3
    search_steps: tuple[Tries, Tries] = (20, 20)  # values of each; the release has 200

    def needs(self):
        return {"x": Pooled(), "patches": Local()}

    def grid(self):
        ends = zip(("beta2", "beta3"), self.search_scale, self.search_steps, strict=True)
        return {name: tuple(i * (end - 0.001) / steps + 0.001 for i in range(steps)) for name, end, steps in ends}

    def forward(self, batch):
        guided_text, guided_image = self.guided(batch)
        return self.zero_shot(batch.x) + self.beta2 * guided_text + self.beta3 * guided_image

    def guided(self, batch):
        """Logits of visually guided text and of textually guided images, ``(B, C)`` each."""
        x, patches, scale = batch.x, batch.patches, self.backbone.logit_scale
        attention = self.sharpness * (patches @ self.text.T)  # (B, T, C)
        seen = patches @ x[:, :, None]  # (B, T, 1): of guided text, (B, C, D), only its products with x are asked
        text = attention.softmax(1).transpose(1, 2) @ seen  # (B, C, 1)
        image = attention.softmax(2) @ self.text  # (B, T, D)
        pooled = image.mean(1) + image.amax(1)
        return scale * text[..., 0], scale * pooled @ self.text.T

    def sweep(self, val):
        zero_shot, (guided_text, guided_image) = self.zero_shot(val.x), self.guided(val)
        betas2, betas3 = self.grid().values()
        for beta2 in betas2:
            for beta3 in betas3:
                yield zero_shot + beta2 * guided_text + beta3 * guided_image


@hookimpl
def methods():
    return {"calip": CALIP}
