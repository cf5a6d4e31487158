"""Pictures of the images of a test set, and their nearest neighbours among what a method learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adaptkit.report.errors.mistakes import Mistake
from adaptkit.report.thumbnails import small_picture
from adaptkit.towers.preprocess import rgb

if TYPE_CHECKING:
    from PIL.Image import Image

    from adaptkit.features.items import Images

OpenSets = Callable[[], tuple["Images", "Images"]]  # the images of the test set, in order, and the support


@dataclass(eq=False)
class Gallery:
    """Where pictures come from, opened when they are first asked for.

    Attributes:
        opening: gives the test images and the support, or an error that says why there are none.
        digests: of the test images, as they were answered; none where nobody knows.
    """

    opening: OpenSets
    digests: Sequence[str] = ()

    @cached_property
    def sets(self) -> tuple[Images | None, Images | None, str]:
        """The test images, the support, and why there are none."""
        try:
            test, support = self.opening()
        except (ValueError, OSError, ImportError) as error:  # images may have gone since
            return None, None, " ".join(str(error).split())
        if self.digests and len(test) != len(self.digests):
            return None, None, f"the dataset has {len(test):,} test images now, and had {len(self.digests):,}"
        return test, support, ""

    def note(self) -> str:
        """Why there are no pictures, if there are none."""
        return f"no pictures: {why}" if (why := self.sets[2]) else ""

    def beside(
        self, found: Sequence[Mistake], places: Sequence[int], labels: Sequence[int], predicted: Sequence[int]
    ) -> list[Mistake]:
        """Errors with their pictures and those of their neighbours.

        Args:
            found: the errors.
            places: of the images in their set.
            labels: their true class ids.
            predicted: the class ids that were answered.
        """
        test, support, _ = self.sets
        if test is None or support is None or not places:
            return list(found)
        near = self.nearest(places, [labels, predicted])
        return [
            replace(
                each,
                picture=thumbnail(test, place, self.digests[place] if self.digests else ""),
                near_label=thumbnail(support, near[0][i]),
                near_predicted=thumbnail(support, near[1][i]),
            )
            for i, (each, place) in enumerate(zip(found, places, strict=True))
        ]

    def picture(self, place: int) -> Image | None:
        """One of the test images; ``None`` where it is not there, or another by now."""
        test = self.sets[0]
        return None if test is None else opened_picture(test, place, self.digests[place] if self.digests else "")

    def nearest(self, places: Sequence[int], wanted: Sequence[Sequence[int]]) -> list[list[int]]:
        """For each list of classes, by image, the nearest support image of that class, -1 where there is none."""
        import torch

        from adaptkit.features.needs import Pooled

        test, support, _ = self.sets
        labels = None if support is None else support.labels
        if test is None or support is None or labels is None or labels.dim() != 1 or not len(support):
            return [[-1] * len(each) for each in wanted]
        need = {"x": Pooled()}
        near = test[list(places)].bind(need).x @ support.bind(need).x.T  # (N, S)
        out = []
        for classes in wanted:
            own = torch.as_tensor(classes, device=labels.device)[:, None] == labels
            best = near.masked_fill(~own, float("-inf")).argmax(1)
            out.append(torch.where(own.any(1), best, -1).tolist())
        return out


def thumbnail(images: Images, place: int, digest: str = "") -> str:
    """One of some images as a small WebP, as an address of data; "" where it is not there, or another by now."""
    found = opened_picture(images, place, digest)
    return "" if found is None else small_picture(found)


def opened_picture(images: Images, place: int, digest: str = "") -> Image | None:
    """One of some images; ``None`` where it is not there, is no picture, or is another by now.

    Args:
        images: whose.
        place: among them; -1 is none.
        digest: that it must have, if anybody knows.
    """
    source: Any = getattr(images.rows, "source", None)
    if place < 0 or source is None:
        return None
    try:
        key, picture = source.open(int(images.index[place]))
        return None if (digest and key != digest) or not hasattr(picture, "convert") else rgb(picture)
    except (ValueError, OSError):  # moved, or no picture any more
        return None
