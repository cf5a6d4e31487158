"""Texts and sequences of frames: CLIP4Clip, X-Pool, DiCoSA."""

import math

import torch

from adaptkit import Task, adapt, method, predict
from adaptkit.features.items import Images
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.retriever import finding
from tests.parity.adaptors.retrieval_composed import close, close_gradients, put, trained
from tests.parity.golden import adaptor


def sequences(golden, text, name, more=None, **options):
    """A method made and fitted to a golden's frames, and its pairs: the first texts, each with a sequence.

    `more` is what else is read: as much as there are frames.
    """
    frames, scale = golden["in_frames"], math.exp(golden.hyper["log_logit_scale"])
    labels, more = torch.arange(len(frames)), more or {}
    pairs = {"text": text[: len(frames)], "frames": frames, **more}
    model = method(name, frames_read=frames.shape[1], **options)
    gallery = {part: pairs[part] for part in model.gallery_needs()}
    task = Task.from_pairs((pairs, labels), gallery, logit_scale=scale)
    model.train()
    model.fit(task.bind(model))
    return model, Images.from_arrays(pairs, labels).bind(model.support_needs())


def ranked(scores, targets, cut=(1, 5, 10)):
    """Recalls in percent, the median rank and the mean rank."""
    ranks = evaluation("ranking").ranks(scores, targets).double()
    return [*(100 * (ranks <= k).double().mean() for k in cut), ranks.quantile(0.5), ranks.mean()]


@adaptor("clip4clip", method="clip4clip")
def clip4clip(golden):
    hyper, text, present = golden.hyper, golden["in_text"], golden["in_frame_mask"].bool()
    own = torch.eye(len(text)).bool()
    for theirs, head in (("meanP", "mean"), ("seqTransf", "transformer"), ("seqLSTM", "lstm")):
        options = {"layers": hyper["layers"], "heads": hyper["heads"], "positions": hyper["max_pos"]}
        model, batch = sequences(golden, text, "clip4clip", head=head, **options)
        held = {}
        if head == "transformer":
            model.places.weight.data.copy_(golden["in_w.frame_position_embeddings.weight"])
            held["frame_position_embeddings.weight"] = model.places.weight
            for i, block in enumerate(model.blocks):
                parts = {"attn.out_proj": "attention.out_proj", "ln_1": "norm1", "ln_2": "norm2"}
                parts |= {"mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
                at = f"transformerClip.resblocks.{i}"
                held |= put(golden, model, {f"{at}.{k}": f"blocks.{i}.{v}" for k, v in parts.items()})
                for kind in ("in_proj_weight", "in_proj_bias"):
                    getattr(block.attention, kind).data.copy_(golden[f"in_w.{at}.attn.{kind}"])
                held[f"{at}.attn.in_proj_weight"] = block.attention.in_proj_weight
        if head == "lstm":
            for ours, short in ((model.reads, "ih"), (model.recalls, "hh")):
                ours.weight.data.copy_(golden[f"in_w.lstm_visual.weight_{short}_l0"])
                ours.bias.data.copy_(golden[f"in_w.lstm_visual.bias_{short}_l0"])
        logits = model.backbone.logit_scale * model.matched(text, batch.frames, present)
        loss = (finding(logits, own) + finding(logits.T, own)) / 2
        close(golden, f"out_logits_{theirs}", logits)
        close(golden, f"out_loss_{theirs}", loss)
        if head == "transformer":
            loss.backward()
            close_gradients(golden, held)
        if f"out_metrics_{theirs}" in golden:
            close(golden, f"out_metrics_{theirs}", ranked(logits.detach(), torch.arange(len(text))))


X_POOL = {f"cross_attn.{k}": v for k, v in {"q_proj": "q", "k_proj": "k_in", "v_proj": "v", "out_proj": "out"}.items()}
X_POOL |= {"linear_proj": "linear", "layer_norm1": "norm1", "layer_norm2": "norm2", "layer_norm3": "norm3"}


@adaptor("xpool", method="x-pool")
def x_pool(golden):
    hyper, text, frames, of = golden.hyper, golden["in_text"], golden["in_frames"], golden["in_text_video"]
    present = torch.ones(frames.shape[:2]).bool()
    model, batch = sequences(golden, text, "x-pool", heads=hyper["heads"], dropout=0.0)
    close(golden, "out_pooled_default_init", model.pooled(text, frames, present).transpose(0, 1))
    held = put(golden, model, X_POOL)
    close(golden, "out_pooled", model.pooled(text, frames, present).transpose(0, 1))
    sims = predict(model, {"text": text}) / model.backbone.logit_scale
    close(golden, "out_sims", sims)
    optimizer = torch.optim.SGD(held.values(), lr=hyper["lr"])
    list(trained(golden, model, batch, held, optimizer))
    close(golden, "out_sims2", predict(model, {"text": text}) / model.backbone.logit_scale)
    for theirs, pooling in (("avg", "average"), ("topk", "top"), ("attention", "attention")):
        options = {"k": hyper["k"], "temperature": hyper["attention_temperature"]}
        plain = method("x-pool", frames_read=frames.shape[1], pooling=pooling, **options)
        plain = adapt(plain, Task.from_pairs(None, {"frames": frames}, logit_scale=1))
        pooled = plain.pooled(text, frames, present)
        close(golden, f"out_pooled_{theirs}", pooled if pooled.dim() == 2 else pooled.transpose(0, 1))
        close(golden, f"out_sims_{theirs}", predict(plain, {"text": text}))
    both_directions(golden, sims, of)


def both_directions(golden, sims, of):
    """Text to video by ranks of our own; video to text by the best of a video's texts."""
    wide, videos = torch.full_like(golden["out_sims_inference"], -9.0), sims.shape[1]
    seen = [0] * videos
    for t, v in enumerate(of.tolist()):
        wide[v, seen[v]] = sims[t]
        seen[v] += 1
    close(golden, "out_sims_inference", wide)
    close(golden, "out_t2v_metrics", ranked(sims, of, (1, 5, 10, 50, 100)))
    best = torch.stack([sims[of == v].amax(0) for v in range(videos)])  # (video of the texts, video)
    close(golden, "out_v2t_metrics", ranked(best.T, torch.arange(videos), (1, 5, 10, 50, 100)))


@adaptor("dicosa", method="di-co-sa")
def di_co_sa(golden):
    hyper, text, frames = golden.hyper, golden["in_sentence"], golden["in_frames"]
    options = {
        "concepts": hyper["center"],
        "temperature": hyper["temp"],
        "hidden": len(golden["in_w.weight_fc.0.bias"]),
    }
    options |= {"alpha": hyper["alpha"], "beta": hyper["beta"], "words": golden["in_words"].shape[1]}
    model, _ = sequences(golden, text, "di-co-sa", as_released=True, **options)
    held = put(golden, model, {"weight_fc.0": "weigh.0", "weight_fc.2": "weigh.2"})
    video = model.pooled(text, frames, golden["in_frame_mask"].bool())
    sims, own = model.compared(text, video), torch.eye(len(text)).bool()
    logits, apart = model.backbone.logit_scale * sims, model.apart(text, video)
    match = (finding(logits, own) + finding(logits.T, own)) / 2
    close(golden, "out_sims", sims)
    close(golden, "out_decouple_loss", apart)
    close(golden, "out_match_loss", match)
    (match + apart).backward()
    close_gradients(golden, held)
