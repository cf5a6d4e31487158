"""Every benchmark runs, at a size that takes no time, and finds both ways equal."""

from types import SimpleNamespace

import pytest

from benchmarks.__main__ import main
from benchmarks.frame import SIZES, cases


@pytest.mark.parametrize("name", cases())
def test_both_ways_of_a_benchmark_agree_and_are_timed(name):
    case = cases()[name]
    row = case.run(SIZES["small"])
    assert row.plain > 0 and row.ours > 0 and row.flops > 0, f"{name} must time both ways; got {row}"
    assert set(case.targets) <= set(SIZES), f"{name}'s targets must be for sizes; got {case.targets}"


def test_the_table_has_a_line_for_each_case_that_was_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "gda", "ape c", "--size", "small"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["ape criterion", "gda fit and search"], lines
    monkeypatch.setattr("sys.argv", ["benchmarks", "gdaa"])
    with pytest.raises(SystemExit):
        main()
    assert "names must begin like one of" in capsys.readouterr().err


def test_a_benchmark_whose_ways_differ_is_an_error(monkeypatch):
    import adaptkit_plugins.training_free.gda as gda

    monkeypatch.setattr(gda, "shrunk_precision", lambda deviations: 1.02 * deviations.T @ deviations)
    with pytest.raises(ValueError, match="test logits must be the same both ways"):
        cases()["gda fit and search"].run(SIZES["small"])


def test_the_script_for_a_gpu_checks_and_prints_its_table(monkeypatch, capsys):
    from benchmarks import towers_gpu

    monkeypatch.setattr("sys.argv", ["benchmarks.towers_gpu", "--cpu"])
    monkeypatch.setattr(towers_gpu, "WARM", 1)
    towers_gpu.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 * 3, f"a row for each step and arithmetic; got {rows}"


def test_the_script_for_a_gpu_says_that_there_is_none(monkeypatch, capsys):
    from benchmarks import towers_gpu

    monkeypatch.setattr("sys.argv", ["benchmarks.towers_gpu"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        towers_gpu.main()
    assert "there must be a GPU; got none; try --cpu" in capsys.readouterr().err, "it must say what to do"


def test_the_one_script_for_a_gpu_goes_on_where_a_part_fails(monkeypatch, capsys):
    from benchmarks import gpu

    def broken(*_):
        raise RuntimeError("no\nsuch tower")

    monkeypatch.setattr(gpu, "GOALS", {"in-map": "2 s", "tda": "-"})
    monkeypatch.setattr(gpu, "STREAM", 16)
    monkeypatch.setattr(gpu.extraction, "compared", broken)
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu", "--cpu", "--small", "--only", "extraction,methods"])
    gpu.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("extraction failed: RuntimeError: no such tower") == 2, f"each failure is a line; got {lines}"
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ") and "| C |" not in line]
    assert rows[-2:] == ["| in-map", "| tda"], f"and the rest is measured; got {rows}"


def test_a_million_queries_are_answered_in_processes_of_their_own(monkeypatch, capsys, tmp_path):
    from benchmarks import streaming

    def here(words, **_):
        monkeypatch.setattr("sys.argv", words[2:])
        streaming.main()
        return SimpleNamespace(stdout=capsys.readouterr().out)

    monkeypatch.setattr(streaming, "subprocess", SimpleNamespace(run=here))
    monkeypatch.setattr(streaming, "gemm_rate", lambda: 1e9)
    asked = ["--rows", "70", "--size", "small", "--file", str(tmp_path / "q.npy"), "--ways", "plain", "metrics"]
    monkeypatch.setattr("sys.argv", ["benchmarks.streaming", *asked])
    streaming.main()
    out = capsys.readouterr().out
    assert out.count("| gda |") == 1, f"the last row is printed here, the others were read as they came; got {out}"
