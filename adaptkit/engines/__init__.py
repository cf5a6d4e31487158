"""Processes that do the jobs of a run, on this machine or on many: nothing below knows which."""
