"""Weights from Hugging Face's hub: the cache first, then the hub, else one line about what to bring."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

import adaptkit.towers.hub
from adaptkit.towers.hub import cached, first_file, from_hub
from adaptkit.towers.openclip_files import CONFIG, WEIGHT_FILES, folder_of_hub, weights_of_tag

TAG = {"hf_hub": "tests/tiny/weights.pt"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts files into Hugging Face's cache, whose host is switched off."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repo, *names):
        root = tmp_path / f"models--{repo.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text("abc")
        for name in names:
            (root / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
            (root / "snapshots" / "abc" / name).write_text("{}")

    return put


@pytest.fixture
def answering(hub, monkeypatch):
    """The hub answers, and sends these files."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(adaptkit.towers.hub, "host_answers", lambda url: True)
    asked = []

    def download(sent):
        def fetch(repo, name, local_files_only):
            if local_files_only:
                raise LocalEntryNotFoundError("not there")
            asked.append(name)
            if name not in sent:
                raise RuntimeError("404:\n nothing of this name")
            return f"/hub/{repo}/{name}"

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
        return asked

    return download


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_a_folder_in_the_cache_is_whole_with_any_of_its_weights(hub, name):
    hub("tests/tiny", CONFIG, name)
    assert (folder_of_hub("tests/tiny") / name).is_file(), f"{name} alone must do"


def test_a_folder_in_the_cache_without_weights_or_config_is_not_there(hub):
    hub("tests/tiny", CONFIG)
    hub("tests/other", WEIGHT_FILES[0])
    for repo in ("tests/tiny", "tests/other", "tests/none"):
        with pytest.raises(ValueError, match=f"(?s)got '{repo}'\nwhere there is network: hf download {repo} --local"):
            folder_of_hub(repo)


def test_a_file_in_the_cache_is_taken_and_the_safer_one_first(hub):
    with pytest.raises(ValueError, match=r"(?s)got none of tests/tiny\n.* weights.pt --local-dir B; .*:B/B/weights.pt"):
        weights_of_tag("B", "tag", TAG)
    for name in ("weights.pt", "weights.safetensors"):
        hub("tests/tiny", name)
        assert weights_of_tag("B", "tag", TAG).name == name, "safetensors must be preferred"


def test_what_the_cache_lacks_is_downloaded_once(answering):
    asked = answering(["weights.pt"])
    assert weights_of_tag("B", "tag", TAG) == Path("/hub/tests/tiny/weights.pt"), "what is there must come"
    assert asked == ["weights.safetensors", "weights.pt"], "one after the other"


def test_what_the_hub_does_not_hold_is_one_line(answering):
    answering([])
    with pytest.raises(ValueError) as caught:
        weights_of_tag("B", "tag", TAG)
    assert str(caught.value) == f"'tests/tiny' must be on {constants.ENDPOINT}; got 404: nothing of this name"
    with pytest.raises(ValueError, match="got 'mine': 404: nothing"):
        from_hub("a/b", lambda **own: first_file("a/b", ["c"], **own), "it must be", "c", asked="'mine'")


def test_repositories_of_the_cache_are_listed_by_their_files(hub):
    assert [*cached("*")] == [], "a cache that is not there"
    hub("a/b", "model.safetensors")
    hub("c", "config.json", "model.bin")
    hub("d/e")
    assert [repo for repo, _ in cached("*")] == ["a/b", "c"]
    assert [(repo, folder.name) for repo, folder in cached("*.bin", "config.json")] == [("c", "abc")]
