"""Sentences of one's own for one's own images.

ChenDelong1999/RemoteCLIP#18; LAION-AI/CLIP_benchmark#98 and #109; RyanWangZf/MedCLIP#19.
"""

import json

import pytest

from tests.small import photos

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")
RIGHT = [
    "prompts={templates: 'a satellite photo of {}.'}",
    "prompts={templates: ['a satellite photo of {}.']}",
    "prompts={templates: {templates: ['a satellite photo of {}.']}}",
    "prompts.templates=a satellite photo of {}.",
]
WRONG = {
    "prompts=a satellite photo of {}.": "{templates: 'a photo of a {}.'}",
    "prompts={photo: {template: 'a satellite photo of {}.'}}": "{templates: 'a photo of a {}.'}",
    "prompts={templats: 'a satellite photo of {}.'}": "a key of prompts must be one of",
    "prompts={templates: a satellite photo}": "templates must have {} once",
    "prompts={templates: []}": "got none",
}


@FAULT
@pytest.mark.parametrize("spelling", RIGHT)
def test_own_templates_are_what_classes_are_described_by(spelling, small_clip, tmp_path, command):
    folder = photos(tmp_path / "photos", ["cat", "dog"], n=4)
    code, _, err = command.run(f"folder:{folder}", f"hf:{small_clip}", tmp_path / "out", "--set", spelling)
    assert code == 0, err
    asked = json.loads((tmp_path / "out" / "recipe.json").read_text())["prompts"]["templates"]["templates"]
    assert asked in ("a satellite photo of {}.", ["a satellite photo of {}."]), asked


@FAULT
@pytest.mark.parametrize("spelling", WRONG)
def test_another_spelling_says_how_it_is_written(spelling, small_clip, tmp_path, command):
    folder = photos(tmp_path / "photos", ["cat", "dog"], n=4)
    code, _, err = command.run(f"folder:{folder}", f"hf:{small_clip}", tmp_path / "out", "--set", spelling)
    assert code == 2 and err.count("\n") == 1 and WRONG[spelling] in err, err
