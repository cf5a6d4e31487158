"""Sentences to tokens by any tokenizer of `transformers`: fast, slow, or over a SentencePiece model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptkit.io.files import canonical, digest
from adaptkit.towers.clip import CLIPBackbone

LOWERS = ("Siglip", "Gemma")  # tokenizers of SigLIP and SigLIP 2, both trained on lower-case text
OWN_PLACE = ("name_or_path", "tokenizer_file", "backend", "is_local", "local_files_only", "_commit_hash")


class Words:
    """A tokenizer as a tower was trained with it: its case, its padding, and the length it is cut at.

    Attributes:
        vocabulary: digest of all that determines the tokens.
    """

    def __init__(self, words: Any, config: Any, settings: Mapping[str, Any]) -> None:  # noqa: ANN401 (transformers' own)
        """Take a loaded tokenizer.

        Args:
            words: of `transformers`.
            config: of the whole model.
            settings: what ``tokenizer_config.json`` says.

        Raises:
            ValueError: when it cannot give the tokens that the tower reads.
        """
        self.words, self.full = words, config.model_type == "siglip"
        text = config.text_config
        self.length, self.rows, self.pad = text.max_position_embeddings, text.vocab_size, text.pad_token_id
        lower = settings.get("do_lower_case", self.full and type(words).__name__.startswith(LOWERS))
        if not isinstance(lower, bool):
            raise ValueError(f"'do_lower_case' in tokenizer_config.json must be true or false; got {lower!r}")
        self.lower = lower and self._tokens("Aa Bb ZZ") != self._tokens("aa bb zz")  # it does not do so itself
        words.truncation_side = "right"
        if not (self.full and "padding_side" in settings):  # a causal tower's end would move with the batch's longest
            words.padding_side = "right"
        if words.pad_token_id is None:
            if self.full or words.eos_token_id is None:
                raise ValueError("a tokenizer must have a pad_token; got none; name it in tokenizer_config.json")
            words.pad_token = words.eos_token  # what follows the end reaches nothing
        self.vocabulary = self._digest()

    def __call__(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """P sentences to ``input_ids``, ``(P, L)``: padded to the longest, or where padding is read, to full length.

        Raises:
            ValueError: for a token that the tower has no embedding for.
        """
        texts = ["".join(map(str.lower, text)) if self.lower else text for text in sentences]  # as fast ones: by letter
        padding = "max_length" if self.full else "longest"
        ids = self.words(texts, padding=padding, truncation=True, max_length=self.length)["input_ids"]
        ids = torch.tensor(ids, dtype=torch.long)
        if ids.numel() and int(ids.max()) >= self.rows:
            token = self.words.convert_ids_to_tokens(int(ids.max()))
            raise ValueError(
                f"a token must be one of the {self.rows} that the text tower knows; got {token!r}, number "
                f"{int(ids.max())}; take the tokenizer that the weights were trained with"
            )
        return {"input_ids": ids}

    def ensure_end(self, backbone: CLIPBackbone) -> None:
        """Refuse a tokenizer after whose sentences a causal tower would be read elsewhere than at end-of-text.

        Raises:
            ValueError: naming the token that would stand in its place.
        """
        if self.full:
            return
        end, last = backbone.end, self.words.eos_token_id
        if end is None:  # the old rule: the largest number of a sentence is its end
            token, largest = max(self.words.get_vocab().items(), key=lambda item: item[1])
            if last is None or largest > last:
                raise ValueError(
                    f"end-of-text must be the tokenizer's last token while eos_token_id in config.json is 2, as the "
                    f"tower is read at the largest; got {token!r} after it; set eos_token_id to the tokenizer's, {last}"
                )
        ids = self(["a photo of a cat."])["input_ids"]  # alone, and so without padding
        want = last if end is None else end
        if int(backbone.ends(ids)) != ids.shape[1] - 1 or int(ids[0, -1]) != want:
            raise ValueError(
                f"a sentence must close with end-of-text, number {want}, as eos_token_id in config.json says; got "
                f"{self.words.convert_ids_to_tokens(int(ids[0, -1]))!r}; bring tokenizer and config of one model"
            )

    def _tokens(self, text: str) -> list[int]:
        return self.words(text)["input_ids"]

    def _digest(self) -> str:
        """Of the rules of a fast tokenizer; of files and settings of any other. And of what else differs from the rule.

        What pads is in the towers' own digest, as their config says it, unless the tokenizer says otherwise.
        """
        own: dict[str, object] = {"lower": True} if self.lower else {}
        if self.full and self.words.pad_token_id != self.pad:
            own["pad"] = self.words.pad_token_id
        if self.full and self.words.padding_side != "right":
            own["side"] = self.words.padding_side
        if hasattr(self.words, "backend_tokenizer"):
            rules = self.words.backend_tokenizer.to_str().encode()
        else:
            rules = canonical({"class": type(self.words).__name__, "said": self._settings(), "files": self._files()})
        return digest(rules + (canonical(own) if own else b""))

    def _settings(self) -> dict[str, Any]:
        """What a slow tokenizer was made with, but for where it lies; and every word with its number."""
        files = (*self.words.vocab_files_names, *OWN_PLACE)
        said = {key: value for key, value in self.words.init_kwargs.items() if key not in files and value}
        return json.loads(json.dumps({"made": said, "words": self.words.get_vocab()}, sort_keys=True, default=str))

    def _files(self) -> list[str]:
        """Digests of its vocabulary files: a SentencePiece model's scores decide, too."""
        places = (self.words.init_kwargs.get(name) for name in sorted(self.words.vocab_files_names))
        return [
            digest(Path(place).read_bytes()) for place in places if isinstance(place, str) and Path(place).is_file()
        ]
