"""How long searches and streams take here, against their papers' own way in plain torch: `python -m benchmarks`.

A file here that holds functions marked with `frame.case` is found by being here. Each case first checks that both ways
agree. A plain way that would take hours is timed on a part, which the table names, and multiplied.
"""
