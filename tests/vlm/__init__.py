"""Backbones of other libraries, which an environment of their own has."""
