"""Slow references, written from the papers and not from the plugins."""
