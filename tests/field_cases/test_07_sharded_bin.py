"""A checkpoint in several .bin files with its index, as `transformers` writes large ones.

BoyuanJiang/FitDiT-ComfyUI#3 (CLIP bigG in pytorch_model-0000x-of-0000y.bin); openai/CLIP#497.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.small import photos

FAULT = pytest.mark.fault("a case from a public bug report", "answered rightly, or refused in one line")


@FAULT
def test_a_checkpoint_in_several_bin_files_is_read_like_any_other(small_clip, command, tmp_path):
    root, answers = photos(tmp_path / "photos", ("cat", "dog")), {}
    for kind in ("whole", "one", "several"):
        folder = shutil.copytree(small_clip, tmp_path / "models" / kind)
        weights = load_file(folder / "model.safetensors")
        parts = {"one": 1, "several": 2}.get(kind, 0)
        where = {}
        for i in range(parts):
            name = "pytorch_model.bin" if parts == 1 else f"pytorch_model-0000{i + 1}-of-0000{parts}.bin"
            held = {key: weights[key] for key in sorted(weights)[i::parts]}
            torch.save(held, folder / name)
            where |= dict.fromkeys(held, name)
        if parts:
            (folder / "model.safetensors").unlink()
        if parts > 1:
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
        asked = ("dataset=folder:" + str(root), f"backbone=hf:{folder}", "methods=[zero-shot]", "seeds=[1]")
        settings = [word for setting in asked for word in ("--set", setting)]
        code, _, error = command(
            "run", "few_shot", *settings, "--shots", 1, "--quiet", "--out", tmp_path / "res" / kind
        )
        assert code == 0, f"{kind}: it must run; got {error}"
        (record,) = (tmp_path / "res" / kind).rglob("*seed*1*.json")
        answers[kind] = json.loads(record.read_text())["metrics"]
    assert answers["one"] == answers["several"] == answers["whole"], "the same weights give the same numbers"
