"""Class names that are longer than the text tower reads, and different only at their ends.

openai/CLIP#187 (an error); mlfoundations/open_clip#604 (cut without a word).
"""

import json

import pytest

from tests.small import photos, table

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
LONG = "a chest x ray with an opacity in the left lower lobe"


def rows(folder, names):
    return [(file.relative_to(folder.parent), names[file.parent.name]) for file in sorted(folder.rglob("*.png"))]


@FAULT
def test_classes_that_become_equal_by_the_cut_are_refused(small_clip, tmp_path, command):
    folder = photos(tmp_path / "photos", "abc", n=4)
    names = {"a": f"{LONG} acute", "b": f"{LONG} chronic", "c": "cat"}
    listed = table(tmp_path / "l.csv", rows(folder, names))
    code, _, err = command.run(f"csv:{listed}", f"hf:{small_clip}", tmp_path / "out", methods="[zero-shot,gda]")
    assert code == 2 and err.count("\n") == 1 and "acute" in err and "chronic" in err and "24 tokens" in err, err


@FAULT
def test_a_sentence_that_is_cut_is_named_and_the_run_goes_on(small_clip, tmp_path, command):
    folder = photos(tmp_path / "photos", "ab", n=4)
    listed = table(tmp_path / "l.csv", rows(folder, {"a": LONG, "b": "cat"}))
    code, _, err = command.run(f"csv:{listed}", f"hf:{small_clip}", tmp_path / "out")
    assert code == 0 and err.count("\n") == 1 and "1 of 2" in err and "the first" in err and "lobe." in err, err


@FAULT
@pytest.mark.parametrize("method", ["cupl", "wca"])
def test_sentences_that_a_method_brings_are_held_to_the_same(method, small_clip, tmp_path, command):
    folder, file = photos(tmp_path / "photos", "abc", n=4), tmp_path / "s.json"
    file.write_text(json.dumps({"a": [f"{LONG} one"], "b": [f"{LONG} two"], "c": ["cat"]}))
    methods = f"[{{{method}: {{file: {file}}}}}]"
    code, out, _ = command.run(f"folder:{folder}", f"hf:{small_clip}", tmp_path / "out", methods=methods)
    assert code == 1 and "equal once they are cut" in out, out


@FAULT
def test_sentences_of_a_language_model_are_held_to_the_same(small_clip, tmp_path, command):
    folder, file = photos(tmp_path / "photos", "abc", n=4), tmp_path / "s.json"
    file.write_text(json.dumps({"a": [f"{LONG} one"], "b": [f"{LONG} two"], "c": ["cat"]}))
    prompts = ("--set", f"prompts={{llm: {{file: {file}}}}}")
    code, _, err = command.run(f"folder:{folder}", f"hf:{small_clip}", tmp_path / "out", *prompts)
    assert code == 2 and "equal once they are cut" in err, err
