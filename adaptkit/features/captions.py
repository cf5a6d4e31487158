"""Sentences as items of a source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


class Captions:
    """Sentences as a source of items, for the need `Sentence`. Equal sentences are one stored row.

    Attributes:
        sentences: N.
        labels: N class ids, or the numbers of the images that they describe; by default 0 and on.
        name: as progress bars and tables show it.

    >>> import adaptkit as ak
    >>> captions = ak.Captions(["a cat asleep", "a dog"], labels=[0, 1])
    >>> len(captions), captions.open(1)[1]
    (2, 'a dog')
    """

    def __init__(self, sentences: Sequence[str], labels: Sequence[int] = (), name: str = "captions") -> None:
        self.sentences, self.labels, self.name = list(sentences), list(labels) or [*range(len(sentences))], name
        if isinstance(sentences, str) or not all(isinstance(s, str) for s in sentences):
            raise ValueError(f"sentences must be a sequence of strings; got {sentences!r:.60}")
        if len(self.labels) != len(self.sentences):
            raise ValueError(f"labels must be as many as the sentences, {len(self.sentences)}; got {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.sentences)

    def where(self, i: int) -> str:
        """Sentence ``i``: what it says is what people know it by."""
        return self.sentences[i]

    def key(self, i: int) -> str:
        """Digest of sentence ``i``."""
        return hashlib.sha256(self.sentences[i].encode()).hexdigest()

    def open(self, i: int) -> tuple[str, str]:
        """Key and text of sentence ``i``."""
        return self.key(i), self.sentences[i]
