"""SigLIP 2 was trained on lower-case text; class names with capitals must give the same embedding.

huggingface/transformers#38175; NVlabs/RADIO#142; LibreYOLO/libreyolo#546 (the fast tokenizer does not lower-case
although its config says so).
"""

import pytest
import torch
from adaptkit_plugins.backbones import hf

from tests.test_tokens import gemma

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")


@FAULT
@pytest.mark.parametrize("kind", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"])
def test_a_class_name_with_capitals_gives_the_same_embedding(tmp_path, kind):
    backbone = hf.load(str(gemma(tmp_path / "siglip2", kind, do_lower_case=True)[0]))
    kept, lower = backbone.encode_text(["Afghan Hound", "afghan hound"])
    assert torch.equal(kept, lower), f"{kind} says that it lower-cases"
    assert not torch.allclose(lower, backbone.encode_text(["beagle"])[0]), "and other names give others"
