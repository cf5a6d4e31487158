"""Fuzzing by hand: ``python -m tests.fuzz.arrays 10000``; a quick part of it runs in the suite."""
