"""Frozen backbones: how they encode, where they can be entered, how they want their pictures."""
