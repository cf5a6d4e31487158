"""Sentences reach a tower as it was trained: by any tokenizer, in its case, padded and ended as it reads them."""

import json
import shutil
import string
from types import SimpleNamespace

import pytest
import torch
from adaptkit_plugins.backbones import hf

from adaptkit.towers.tokens import Words
from tests.checkpoints import LENGTH, edit, edit_tower, make_clip, make_metaclip2, refused, save, siglip_towers

tokens = pytest.mark.fault(
    "a tokenizer unlike its tower", "the tokens it was trained with, or one line that names the key"
)
CAPITALS = ["a photo of a Afghan Hound.", "A PHOTO OF A AFGHAN HOUND."]


def gemma(folder, kind="GemmaTokenizer", **settings):
    """SigLIP 2 as the hub holds it: the vocabulary of Gemma, whose tokenizer keeps capitals."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocab = {word: i for i, word in enumerate([*special, *string.ascii_letters, *string.punctuation, "\u2581"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    save(folder, *siglip_towers(len(vocab), pad_token_id=0))
    backend.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": kind, "add_bos_token": False, "add_eos_token": True, "model_max_length": 64}
    said |= {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder, backend


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip")


def ids(folder, sentences):
    return hf.load(str(folder)).tokenize(sentences)["input_ids"]


@tokens
@pytest.mark.parametrize("said", [{"do_lower_case": True}, {}], ids=["said", "left out"])
@pytest.mark.parametrize("kind", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"])
def test_siglip_2_reads_lower_case(tmp_path, kind, said):
    folder, backend = gemma(tmp_path / "siglip2", kind, **said, padding_side="right")
    rows = ids(folder, CAPITALS)
    want = backend.encode(CAPITALS[0].lower()).ids
    assert rows.tolist() == [want[: LENGTH - 1] + [1] * (len(want) >= LENGTH)] * 2, f"{kind} must lower-case"


def test_case_that_a_config_keeps_is_kept(tmp_path):
    folder, backend = gemma(tmp_path / "siglip2", do_lower_case=False)
    rows = ids(folder, ["Owl", "owl"])
    assert rows[0].tolist() != rows[1].tolist(), "the config says that capitals count"
    assert rows[0].tolist() == backend.encode("Owl").ids + [0] * (LENGTH - 4), "and padding follows the words"


def test_lower_case_is_another_vocabulary(tmp_path):
    lower, _ = gemma(tmp_path / "lower")
    kept, _ = gemma(tmp_path / "kept", do_lower_case=False)
    found = {hf.load(str(folder)).vocabulary for folder in (lower, kept)}
    assert len(found) == 2, "sentences that were stored in another case must not be read"


def test_what_pads_is_part_of_the_vocabulary(tmp_path):
    """SigLIP reads its padding; the tokenizer's rules are the same file."""
    first, _ = gemma(tmp_path / "first")
    second, _ = gemma(tmp_path / "second", pad_token="<mask>")
    left, _ = gemma(tmp_path / "left", padding_side="left")
    found = [hf.load(str(folder)) for folder in (first, second, left)]
    assert len({b.vocabulary for b in found}) == 3, "what is padded otherwise must not be read"
    assert found[2].tokenize(["owl"])["input_ids"][0, 0] == 0, "a side that the config names is the checkpoint's own"


@tokens
@pytest.mark.parametrize("side", ["left", "right", None])
def test_clip_is_padded_at_the_end_whatever_its_tokenizer_says(clip, side):
    want = ids(clip, ["owl", "a photo of an owl"])
    edit(clip / "tokenizer_config.json", padding_side=side, truncation_side=side)
    assert torch.equal(ids(clip, ["owl", "a photo of an owl"]), want), "a causal tower reads from the front"
    assert torch.equal(ids(clip, ["owl " * 40])[0, 1:4], want[0, 1:4]), "and is cut at the end"


@tokens
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_tokenizer_without_padding_is_given_it_or_refused(tmp_path, clip, kind):
    folder = clip if kind == "clip" else gemma(tmp_path / "siglip2", "PreTrainedTokenizerFast", pad_token=None)[0]
    edit(folder / "tokenizer_config.json", pad_token=None, tokenizer_class="PreTrainedTokenizerFast")
    if kind == "siglip":
        refused(folder, "must have a pad_token", "tokenizer_config.json", str(folder))
    else:
        assert ids(folder, ["a", "a photo"]).shape == (2, 8), "what follows the end reaches nothing"


@tokens
@pytest.mark.parametrize("value", ["yes", 1, [True]])
def test_a_case_that_is_no_truth_value_is_refused(tmp_path, value):
    refused(gemma(tmp_path / "siglip2", do_lower_case=value)[0], "'do_lower_case'", repr(value), "true or false")


@tokens
@pytest.mark.parametrize("special", [True, False])
def test_an_added_token_under_the_old_end_of_text_is_refused(clip, special):
    """With ``eos_token_id: 2`` a sentence is read at its largest token: an added one is larger than the end."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(clip)
    words.add_tokens(["zebra-thing"], special_tokens=special)
    words.save_pretrained(clip)
    hf.load(str(clip))
    edit_tower(clip, "text", eos_token_id=2)
    refused(clip, "'zebra-thing'", "eos_token_id", f"set eos_token_id to the tokenizer's, {words.eos_token_id}")


@tokens
@pytest.mark.parametrize("end", [5, 0, [3, 4]])
def test_an_end_of_text_that_no_sentence_has_is_refused(clip, end):
    edit_tower(clip, "text", eos_token_id=end)
    refused(clip, "eos_token_id", str(clip))


def test_a_tokenizer_that_ends_nothing_is_refused(clip):
    spec = json.loads((clip / "tokenizer.json").read_text())
    (clip / "tokenizer.json").write_text(json.dumps({**spec, "post_processor": None}))
    edit(clip / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    refused(clip, "end-of-text", str(clip))


def test_metaclip_2_ends_at_2_which_is_not_the_largest(tmp_path):
    backbone = hf.load(str(make_metaclip2(tmp_path / "metaclip2")))
    rows = backbone.tokenize(["owl", "the cat"])["input_ids"]
    assert [int(row[i]) for row, i in zip(rows, backbone.ends(rows), strict=True)] == [2, 2], "the end is number 2"


@tokens
def test_a_token_without_an_embedding_is_named(clip):
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(clip)
    words.add_tokens(["zebra"])
    words.save_pretrained(clip)
    backbone = hf.load(str(clip))
    backbone.tokenize(["a dog"])
    with pytest.raises(ValueError, match=r"'zebra'.*the tokenizer that the weights were trained with"):
        backbone.encode_text(["a zebra"])


class Slow:
    """A tokenizer without `tokenizers` behind it, as those over SentencePiece and tiktoken models are."""

    vocab_files_names = {"vocab_file": "words.model"}  # noqa: RUF012 (as transformers has it)
    pad_token_id, eos_token_id, pad_token, eos_token = 1, 1, "</s>", "</s>"
    padding_side = truncation_side = "right"

    def __init__(self, file, **settings):
        self.init_kwargs = {"vocab_file": str(file), "name_or_path": str(file.parent), **settings}

    def get_vocab(self):
        return {"a": 0, "</s>": 1}

    def __call__(self, text, **options):
        return {
            "input_ids": [[ord(c) % 30 for c in t] + [1] for t in text] if isinstance(text, list) else [*map(ord, text)]
        }


def test_any_tokenizer_has_a_vocabulary(tmp_path):
    """By what its files hold, and not by where they lie."""
    text = SimpleNamespace(max_position_embeddings=8, vocab_size=40, pad_token_id=1)
    config = SimpleNamespace(model_type="siglip", text_config=text)

    def vocabulary(folder, content, **settings):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "words.model").write_bytes(content)
        return Words(Slow(tmp_path / folder / "words.model", **settings), config, {}).vocabulary

    first = vocabulary("first", b"one")
    assert first == vocabulary("again", b"one"), "the same words elsewhere are the same"
    assert first != vocabulary("other", b"two"), "other scores are others"
    assert first != vocabulary("settings", b"one", do_lower_case=True), "and so are other settings"


@pytest.fixture
def spiece(tmp_path):
    """SigLIP with a SentencePiece model, as the hub holds it."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra siglip")
    pytest.importorskip("google.protobuf", reason="needs the extra siglip")
    from transformers import SiglipTokenizer

    (tmp_path / "spiece").mkdir()
    with (tmp_path / "spiece" / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a photo of a cat", "the small brown dog", "owl and fox"] * 20),
            model_writer=file,
            **{"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2},
            **{"bos_id": -1, "eos_id": 1, "unk_id": 2, "pad_id": 0},
        )
    words = SiglipTokenizer(str(tmp_path / "spiece" / "spiece.model"))
    return save(tmp_path / "spiece", *siglip_towers(words.vocab_size), words)


@tokens
def test_siglip_with_a_sentencepiece_model_is_read(spiece, tmp_path):
    from transformers import AutoTokenizer

    backbone, words = hf.load(str(spiece)), AutoTokenizer.from_pretrained(spiece)
    rows = backbone.tokenize(["A photo of a Cat.", "owl"])["input_ids"]
    want = words(["a photo of a cat", "owl"], padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
    assert rows.tolist() == want, "tokens must be transformers' own, padded to full length"
    assert torch.isfinite(backbone.encode_text(["A photo of a Cat."])).all(), "and the tower must read them"
    moved = shutil.copytree(spiece, tmp_path / "elsewhere")
    assert hf.load(str(moved)).vocabulary == backbone.vocabulary, "where it lies does not matter"
    edit(moved / "tokenizer_config.json", do_lower_case=False)
    assert hf.load(str(moved)).vocabulary != backbone.vocabulary, "how it reads does"
