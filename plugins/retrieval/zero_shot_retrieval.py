"""Retrieval by the cosine of embeddings, nothing learned: of a text, of an image, or of both added.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
Deviations: ``composed-sum`` is the usual baseline of composed retrieval, of no paper of its own.
"""

from adaptkit import ComposedRetriever, Pooled, Retriever, hookimpl, unit
from adaptkit.io.ranges import Share
from adaptkit.methods.retriever import cosines


class ZeroShotRetrieval(Retriever):
    """The cosine of a query's text and an image."""


class ImageRetrieval(Retriever):
    """The cosine of a query's image and an image."""

    def needs(self):
        return {"image": Pooled(unit=False, of="image")}

    def scores(self, asked, items):
        return cosines(asked.image, items.item)


class ComposedSum(ComposedRetriever):
    """The query's text and image, each of unit norm, added."""

    share: Share = 0.5  # of the text; 1 leaves out the image, 0 the text

    def query(self, asked):
        return unit(self.share * unit(asked.text) + (1 - self.share) * unit(asked.reference))


@hookimpl
def methods():
    return {
        "zero-shot-retrieval": ZeroShotRetrieval,
        "image-retrieval": ImageRetrieval,
        "composed-sum": ComposedSum,
    }
