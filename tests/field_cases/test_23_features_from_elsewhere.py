"""Features and labels that another code base kept: labels one-hot, a NaN in one row, a file mapped for reading.

Source: https://github.com/gaopengcuhk/Tip-Adapter/issues/12 (cached keys and one-hot values);
https://github.com/openai/CLIP/issues/144 (NaN features).
"""

import warnings

import numpy as np
import pytest

from adaptkit import Task, adapt, method, predict


@pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
def test_features_that_another_code_base_kept_are_read_or_refused_by_row(tmp_path):
    x, text, y = np.random.default_rng(0).normal(size=(30, 16)), np.eye(3, 16), np.arange(30) % 3
    bad = x.copy()
    bad[0, 0] = np.nan

    def asked(name, support, queries=x[:2], text=text):
        return predict(adapt(method(name), Task.from_arrays(support=support, text=text)), queries)

    for name in ("tip-adapter", "gda", "linear-probe", "clip-adapter"):
        with pytest.raises(ValueError, match=r"labels must be \(30,\), one class each; got shape \(30, 3\)"):
            asked(name, (x, np.eye(3)[y]))
    for name in ("gda", "tip-adapter", "lp-plus-plus", "clap", "zlap"):
        with pytest.raises(ValueError, match="support features must be finite; got nan in row 0"):
            asked(name, (bad, y))
    for name in ("zero-shot", "gda", "trans-clip", "zlap"):
        with pytest.raises(ValueError, match="query features must be finite; got nan in row 0"):
            asked(name, (x, y), bad[:2])
    with pytest.raises(ValueError, match="text must be finite; got nan in row 0"):
        asked("gda", (x, y), text=np.where(np.arange(16) == 0, np.nan, text))
    np.save(tmp_path / "x.npy", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = asked("gda", (np.load(tmp_path / "x.npy", mmap_mode="r"), y))
    assert (mapped == asked("gda", (x, y))).all(), "a file mapped for reading must be read as from memory"
