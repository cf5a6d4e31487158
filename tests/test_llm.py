"""Files of generated text: what the papers publish, our own schema, and every mistake named."""

import json

import pytest
from adaptkit_plugins.datasets.openmoji import CLASSES

from adaptkit.runs.plugins import pick

DESCRIBED = {"Red_fox": ["a bushy tail", "antlers", "has ears", "candles", "used for fun"], "hen": []}


@pytest.fixture
def write(tmp_path):
    def write(texts, classnames, **options):
        file = tmp_path / "texts.json"
        file.write_text(texts if isinstance(texts, str) else json.dumps(texts))
        return pick("prompts", "llm")(classnames, None, file=str(file), **options)

    return write


def test_published_lists_are_found_by_name_whatever_its_case(write):
    assert write({"Red_Fox": ["\nA fox is red. "], "hen": ["Hens lay."]}, ["hen", "red fox"]) == [
        ["Hens lay."],
        ["A fox is red."],
    ], "sentences must come in the order of the classes, without white space"


def test_descriptors_become_sentences(write):
    got = write(DESCRIBED, ["red fox", "hen"], form="descriptors")
    ends = ["is a bushy tail", "has antlers", "has ears", "has candles", "is used for fun"]
    want = [f"red fox, which {end}" for end in ends]
    assert got == [want, ["hen"]], f"words must be joined as they are; got {got}"


def test_the_released_rule_goes_by_first_letters(write):
    got = write(DESCRIBED, ["red fox", "hen"], form="descriptors", template="A {name}, {}.", as_released=True)
    assert got[0][1] == "A red fox, which is antlers.", f"the slip must be there; got {got[0][1]!r}"
    assert got[0][3] == "A red fox, which candles.", f"the slip must be there; got {got[0][3]!r}"
    assert got[1] == ["A hen, which has ."], f"the slip must be there; got {got[1]!r}"


def test_our_own_schema_has_a_section_for_each_form(write):
    texts = {"subclasses": {"model": "m", "prompt": "p", "classes": {"hen": ["chick"]}}}
    assert write(texts, ["hen"], form="subclasses") == [["a photo of a chick."]], "the section must be read"
    with pytest.raises(ValueError, match="must be one of subclasses; got 'sentences'"):
        write(texts, ["hen"])


def test_numbers_tell_classes_of_one_name_apart(write):
    assert write({"0": ["a bird"], "1": ["a machine"]}, ["crane", "crane"]) == [["a bird"], ["a machine"]]
    assert write({"1": ["one"], "0": ["nought"]}, ["1", "0"]) == [["one"], ["nought"]], "names come before numbers"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("{", "must be JSON"),
        ([1], "must map each class to a list of texts"),
        ({"hen": "a hen"}, "must map each class to a list of texts"),
        ({"fox": ["a fox"]}, "must have every class; got none of 'hen'"),
    ],
)
def test_a_wrong_file_is_named(write, texts, message):
    with pytest.raises(ValueError, match=message):
        write(texts, ["hen"])


def test_a_missing_file_and_a_wrong_form_are_named():
    with pytest.raises(ValueError, match="file must be a JSON file of texts by class, or 'openmoji'; got 'nope'"):
        pick("prompts", "llm")(["hen"], None, file="nope")
    with pytest.raises(ValueError, match="form must be one of sentences, descriptors, subclasses; got 'words'"):
        pick("prompts", "llm")(["hen"], None, file="openmoji", form="words")


@pytest.mark.parametrize("form", ["sentences", "descriptors", "subclasses"])
def test_the_set_that_comes_along_has_every_class(form):
    got = pick("prompts", "llm")(list(CLASSES.values()), None, file="openmoji", form=form)
    assert min(map(len, got)) >= 4, "each class must have at least four texts"
