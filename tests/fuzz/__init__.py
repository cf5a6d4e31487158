"""Fuzz by hand: ``python -m tests.fuzz.records 20000``, ``python -m tests.fuzz.recipes 100000``; a little in the suite.

Whatever is damaged, a reader must answer, or raise a `ValueError` or an `OSError`: one line for the command line.
"""
