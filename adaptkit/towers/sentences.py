"""Sentences token by token: what leaves a text tower for each token, and which one stands for the sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from adaptkit.towers.backbone import Backbone, Tokens


def by_token(backbone: Backbone, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Raw embeddings of P sentences, ``(P, D)``, of all their tokens, ``(P, L, D)``, and where each is read, ``(P,)``.

    Each token leaves the tower as the one does that stands for its sentence: through the last norm and the projection.

    Raises:
        ValueError: when the text tower has no norm and no projection, or reads a sentence at no token.

    >>> import adaptkit as ak
    >>> from adaptkit.towers.sentences import by_token
    >>> backbone = ak.load("toy", backbone="toy:0", shots=2, seed=1)[0].backbone
    >>> whole, words, ends = by_token(backbone, backbone.tokenize(["a cat.", "a photo of a cat."]))
    >>> words.shape, ends
    (torch.Size([2, 8, 16]), tensor([4, 7]))
    """
    backbone.require("text.block.-1", "text.norm", "text.projection")
    ends = backbone.ends(tokens["input_ids"])
    left: list[Tensor] = []
    with backbone.taps({"text.block.-1": lambda _, out: left.append(out) or out}):  # type: ignore[func-returns-value]
        whole = backbone.encode_text(tokens)
    words = backbone.points["text.projection"].untapped(backbone.points["text.norm"].untapped(left[0]))
    return whole, words, (ends % words.shape[1]).to(words.device)  # some towers count from the last token
