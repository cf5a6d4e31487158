"""The small CLIPs that the tower goldens ran with, as backbones, and a golden's images as a task."""

import json
import math
import re
import zlib
from functools import cache

import numpy as np
import torch

from adaptkit import Preprocess, Task, predict
from adaptkit.towers.clip import CLIPBackbone, torch_ids
from tests.parity.finding import weights_of
from tests.parity.names import FOLDERS

GIVEN = FOLDERS[0]


def tiny_clip(golden, logit_scale=None):
    """The backbone of a golden: its weights lie beside it, or in ``tests/goldens``.

    Args:
        golden: whose sidecar names the weights and, where it has them, the tokens of its words.
        logit_scale: instead of the checkpoint's, for code that has a constant, e.g. 100.
    """
    name = weights_of(golden.meta, "tiny_clip.npz")
    folder = golden.path.parent if (golden.path.parent / name).exists() else GIVEN
    words = tuple((word, tuple(ids)) for word, ids in sorted(golden.meta.get("toy_words", {}).items()))
    return load(folder / name, words, logit_scale)


def tiny_task(golden, *, labels=None, text=None, template="", logit_scale=None, **more):
    """A golden's images, labels and class names as a task over its backbone.

    Args:
        golden: with ``in.pixel_values`` and ``in.labels``.
        labels: instead of the golden's.
        text: class embeddings, or C arrays of sentence embeddings; by default the embeddings of `template`.
        template: one sentence per class; by default the golden's, where it names one.
        logit_scale: instead of the checkpoint's.
        more: for `Task.from_arrays`, e.g. ``val=`` or ``pool=``.
    """
    backbone, names = tiny_clip(golden, logit_scale), golden.meta["classnames"]
    template = template or golden.hyper.get("template", "a photo of a {}.")
    if text is None:
        with torch.no_grad():
            text = backbone.encode_text([template.format(name.replace("_", " ")) for name in names])
    support = (golden["in.pixel_values"], golden["in.labels"] if labels is None else labels)
    return Task.from_arrays(support, text, classnames=names, backbone=backbone, **more)


def follow(golden, method, task, names, prefix="", of="loss", seen=None):
    """Hold two steps of training against a golden: logits before, losses, gradients, parameters, logits after.

    A generator of ``(step, loss)``, before each backward pass, so that the caller can compare what else there is.

    Args:
        golden: with ``logits0``, ``lossS``, ``gradS.*``, ``stepK.*`` and ``logits2``.
        method: fitted to `task`.
        task: what the method trains on is the batch.
        names: the method's parameters by the golden's names; they start from ``init.*``.
        prefix: of the variant, with its full stop.
        of: what the golden calls the loss.
        seen: the logits that the loss sees, of the batch; by default the method's answers.
    """
    room, pixels, batch = golden.meta["tolerance"], golden["in.pixel_values"], method.training_images(task.bind(method))
    for name, parameter in names.items():
        assert parameter.shape == golden[f"{prefix}init.{name}"].shape, f"{name} must have the golden's shape"
        parameter.data.copy_(golden[f"{prefix}init.{name}"])
    golden.close(f"{prefix}logits0", predict(method.eval(), pixels), atol=room["logits"])
    steps, unsure = sum(f"{prefix}{of}{s}" in golden for s in range(9)), dict[str, torch.Tensor]()
    optimizer = method.train().schedule.make(method.parameter_groups(list(names.values())))
    paces = [group["lr"] / method.schedule.lr for group in optimizer.param_groups]
    for s in range(steps):
        if f"{prefix}train_logits{s}" in golden:
            golden.close(f"{prefix}train_logits{s}", (seen or method)(batch), atol=room["logits"])
        loss = method.loss(batch)
        golden.close(f"{prefix}{of}{s}", loss, atol=room["loss"])
        yield s, loss
        optimizer.zero_grad()
        loss.backward()
        for group, pace in zip(optimizer.param_groups, paces, strict=True):
            group["lr"] = pace * method.schedule.rate(s, per_epoch=1, total=steps)
        for name, parameter in names.items():
            golden.close(f"{prefix}grad{s}.{name}", parameter.grad, of_max=room["grad_rel"])
            noise = 1e-5 * max(float(p.grad.abs().max()) for p in names.values()) if "adamw" in room else -1
            unsure[name] = unsure.get(name, False) | (parameter.grad.abs() <= noise)  # there AdamW moves by a sign
        optimizer.step()
        for name, parameter in names.items():
            want, reach = golden[f"{prefix}step{s + 1}.{name}"], 2 * method.schedule.lr * (s + 1)
            known = unsure[name] & ((parameter - want).abs() <= reach)
            golden.close(f"{prefix}step{s + 1}.{name}", torch.where(known, want, parameter), atol=room["param"])
    golden.close(f"{prefix}logits{steps}", predict(method.eval(), pixels), atol=room["logits"])


def text_tower(golden):
    """The backbone of a golden that brings its own text tower, ``in_w:*``, and token ids; its image tower is noise.

    Returns:
        The backbone, the context and C class names, as text in which a token is its id in brackets; and a full stop is
        the last token of every sentence, so that ``f"{context} {name}."`` gives the golden's ids.
    """
    shape, rows = golden.hyper["text_tower"], golden["in_class_token_ids"].tolist()
    context, start, end = golden["in_ctx_token_ids"].tolist(), rows[0][0], max(map(max, rows))
    names = [row[1 + len(context) : row.index(end) - 1] for row in rows]
    stop = rows[0][rows[0].index(end) - 1]

    def tokenizer(sentences):
        words = {".": stop, "X": 1}
        ids = [[start, *(words.get(w) or int(w) for w in re.findall(r"\d+|\.|X", s)), end] for s in sentences]
        return padded(ids, len(rows[0]), 0)

    weights = {k.removeprefix("in_w:"): golden[k] for k in golden.arrays if k.startswith("in_w:")}
    text = {
        "vocab_size": shape["vocab"],
        "hidden_size": shape["hidden"],
        "intermediate_size": len(weights["text_model.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "max_position_embeddings": shape["ctx"],
        "hidden_act": golden.hyper["activation"],
        "layer_norm_eps": golden.hyper["layer_norm_eps"],
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": 0,
    }
    noise = {
        "hidden_size": 4,
        "intermediate_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 8,
    }
    config = {"projection_dim": shape["proj"], "text_config": text, "vision_config": {**noise, "patch_size": 8}}
    backbone = build(config, weights, tokenizer)
    written = [" ".join(f"[{i}]" for i in ids) for ids in (context, *names)]
    assert torch.equal(backbone.tokenize([f"{written[0]} {n}." for n in written[1:]])["input_ids"], torch.tensor(rows))
    return backbone, written[0], written[1:]


@cache
def load(path, words, logit_scale):
    """Weights and toy tokenizer of one file."""
    meta = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as arrays:
        weights = {k.removeprefix("hf."): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("hf.")}
    config = sized(meta["hf_config"], weights)
    tokenizer = toy_tokenizer(meta["toy_tokenizer"], dict(words), config["text_config"]["vocab_size"])
    backbone = build(config, weights, tokenizer)
    backbone.logit_scale = logit_scale or backbone.logit_scale
    return backbone


def sized(config, weights):
    """A config with the sizes that the weights have; of it are heads, activation and what else arrays do not show."""

    def tower(name):
        layers = {int(key.split(".")[3]) for key in weights if key.startswith(f"{name}.encoder.layers.")}
        hidden, width = weights[f"{name}.encoder.layers.0.mlp.fc1.weight"].shape
        return {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": len(layers)}

    joint = len(weights["visual_projection.weight"])
    patch = weights["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    side = math.isqrt(len(weights["vision_model.embeddings.position_embedding.weight"]) - 1)
    vocab = len(weights["text_model.embeddings.token_embedding.weight"])
    positions = len(weights["text_model.embeddings.position_embedding.weight"])
    text = {"vocab_size": vocab, "max_position_embeddings": positions, "projection_dim": joint, **tower("text_model")}
    vision = {"image_size": side * patch, "patch_size": patch, "projection_dim": joint, **tower("vision_model")}
    parts = {"text_config": config["text_config"] | text, "vision_config": config["vision_config"] | vision}
    return {**config, "projection_dim": joint, **parts}


def toy_tokenizer(spec, words, vocab):
    """The tokenizer that a sidecar describes: a word of seven letters or more is its first four, and the rest.

    Ids come from the tables of the sidecars and, for words in none of them, from the rule that made most of the tables.
    """

    def ids(word):
        if word in words:
            return list(words[word])
        pieces = [word[:4], word[4:]] if len(word) >= 7 else [word]
        return [spec["pieces"].get(p, zlib.crc32(p.encode()) % (vocab - 10) + 3) for p in pieces]

    def tokenize(sentences):
        split = [re.findall(r"[a-z0-9]+|[^a-z0-9\s]", sentence.lower()) for sentence in sentences]
        rows = [[spec["sot"], *(i for word in row for i in ids(word)), spec["eot"]] for row in split]
        return padded(rows, spec["context_length"], spec["pad"])

    return tokenize


def padded(rows, length, pad):
    """Rows of token ids, padded to a length, or to the longest where that is more than the tower can take."""
    length = max(length, *map(len, rows))
    return torch_ids([row + [pad] * (length - len(row)) for row in rows])


def build(config, weights, tokenizer):
    """A `CLIPBackbone` of these weights; an image tower that is not among them stays as it was drawn."""
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig(**config)).requires_grad_(False)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = (
        [k for k in missing if not k.startswith("vis")] if not any(k.startswith("vis") for k in weights) else missing
    )
    assert not missing and not unexpected, f"weights must fit the model; got {missing} missing, {unexpected} unexpected"
    preprocess = Preprocess(size=config["vision_config"]["image_size"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return CLIPBackbone(model, tokenizer, preprocess)
