"""What a plugin's author tests with: a backbone and images that fit in a test, and the checks every method gets."""

from adaptkit.testing.checks import CHECKS, check
from adaptkit.testing.toy import CLASSES, ToyImages, toy_backbone, toy_task

__all__ = ["CHECKS", "CLASSES", "ToyImages", "check", "toy_backbone", "toy_task"]
