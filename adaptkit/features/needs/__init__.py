"""What a method may ask of the cache: one tensor per item, named by a value."""

from adaptkit.features.needs.images import Patches, Pixels, Pooled
from adaptkit.features.needs.need import PIXELS, Need
from adaptkit.features.needs.regions import Regions, ValuePath
from adaptkit.features.needs.several import FramePatches, Frames, PaddedFrames, Windows
from adaptkit.features.needs.text import Sentence, SentenceIds, SentenceTokens
from adaptkit.features.needs.tokens import Dense, Layers, Masked, Masks

__all__ = [
    "PIXELS",
    "Dense",
    "FramePatches",
    "Frames",
    "Layers",
    "Masked",
    "Masks",
    "Need",
    "PaddedFrames",
    "Patches",
    "Pixels",
    "Pooled",
    "Regions",
    "Sentence",
    "SentenceIds",
    "SentenceTokens",
    "ValuePath",
    "Windows",
]
