"""Learn from photos, answer for the same classes in sketches, both folders of one's own.

rshaojimmy/MADDoG#13; KaiyangZhou/Dassl.pytorch#57.
"""

import json

import pytest

from adaptkit.cli import main
from tests.test_own_pictures import photos

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
METHODS = ("zero-shot", "gda", "tip-adapter", "linear-probe")


@FAULT
@pytest.mark.parametrize("domains", ["['folder:{}']", "{{sketch: 'folder:{}'}}", None])
def test_every_method_is_measured_on_sketches_of_the_same_classes(tmp_path, monkeypatch, capsys, domains):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    photos(tmp_path / "photos"), photos(tmp_path / "sketches", n=4, start=77)
    asked = ["--set", "backbone=toy:0", "--set", f"methods=[{', '.join(METHODS)}]", "--shots", "2", "--seeds", "1"]
    if domains:
        asked += ["--set", f"domains={domains.format(tmp_path / 'sketches')}"]
    dataset = f"dataset=folder:{tmp_path / 'photos'}"
    out = ["--quiet", "--out", str(tmp_path / "out")]
    assert main(["run", "domain_generalisation", "--set", dataset, *asked, *out]) == 0, "all of them answer"
    paths = [path for path in (tmp_path / "out").glob("*.json") if path.name != "recipe.json"]
    records = [json.loads(path.read_text()) for path in paths]
    assert sorted(record["method"] for record in records) == sorted(METHODS), "a record for each"
    for record in records:
        sketches = [right for name, right in record["right"].items() if name]
        assert [len(right) for right in sketches] == [12] * bool(domains), "every sketch is answered, none for learning"
    said = "left out: 'line', of another dataset than folder:" in capsys.readouterr().out
    assert said == (domains is None), "the recipe's own domain is not one's own"
