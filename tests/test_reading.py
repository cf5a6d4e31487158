"""What a text tower reads of a sentence, for every kind of tokenizer."""

import pytest
import torch

from adaptkit.io.notices import Notice
from adaptkit.towers.reading import cut, read_whole, tokens_read, words_left
from tests.small import checkpoint
from tests.test_hf import siglip  # noqa: F401 (a fixture)

FAULT = pytest.mark.fault("sentences longer than the text tower reads", "named; refused where classes become equal")


class Words:
    """A tokenizer of one token a word, between two special ones or with padding that is read, as a tower's."""

    def __init__(self, length, before=1, padded=False):
        self.length, self.before, self.padded = length, before, padded

    def tokenize(self, sentences):
        kept = self.length - self.before - 1
        rows = [[1] * self.before + [3 + sum(map(ord, w)) for w in s.split()][:kept] + [2] for s in sentences]
        width = self.length if self.padded else max(map(len, rows))
        return {"input_ids": torch.tensor([row + [2] * (width - len(row)) for row in rows])}


TOWERS = {"CLIP's": Words(77), "SigLIP's": Words(64, 0, True), "a short one": Words(9), "a long one": Words(256)}


@FAULT
@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
def test_a_sentence_that_just_fits_is_not_cut_and_one_word_more_is(tower):
    fits = words_left(tower, "")
    sentences = [" ".join(["w"] * n) for n in (1, fits - 1, fits, fits + 1, fits + 7)]
    assert tokens_read(tower) == tower.length, "the length of the tower is not found"
    assert cut(tower, sentences) == sentences[3:], "sentences are cut that were said to fit, or the reverse"


@FAULT
@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
def test_classes_that_differ_beyond_the_cut_only_are_refused_and_others_named(tower):
    long = "word " * tower.length
    with pytest.raises(ValueError, match=f"within the {tower.length} tokens .* equal once they are cut"):
        read_whole(tower, [["cat"], [f"{long} one"], [f"{long} two"]])
    with pytest.warns(Notice, match="2 of 4, the first 'word"):  # of one class: nothing is lost between classes
        read_whole(tower, [["cat", f"{long} one", f"{long} two"], ["dog"]])
    with pytest.warns(Notice, match="1 of 2"):
        read_whole(tower, [["cat"], [long]])


@FAULT
def test_a_letter_by_letter_tokenizer_cuts_where_it_says(tmp_path):
    from adaptkit_plugins.backbones import hf

    tower = hf.load(str(checkpoint(tmp_path / "clip")))
    fits, more, one_word = f"{'a' * 11} {'b' * 11}", f"{'a' * 11} {'b' * 12}", "a" * 23
    assert cut(tower, [fits, more, one_word]) == [more, one_word], "a letter more or less is not noticed"


@FAULT
def test_siglip_reads_its_own_length(siglip):  # noqa: F811
    from adaptkit_plugins.backbones import hf

    tower = hf.load(str(siglip))
    assert cut(tower, ["owl " * 23, "owl " * 24]) == ["owl " * 24], "SigLIP's end of text is not counted"


def test_nothing_is_said_where_nothing_is_cut(toy):
    read_whole(toy[0].backbone, [["cat " * 40], ["dog"]])
