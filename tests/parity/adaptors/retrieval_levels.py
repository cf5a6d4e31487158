"""Texts and sequences of frames, token by token: UCoFiA, HBI."""

from adaptkit.methods.coalitions import InteractionPredictor, sampled_interactions
from adaptkit.methods.sinkhorn import balancing
from tests.parity.adaptors.retrieval_composed import close, put
from tests.parity.adaptors.retrieval_sequences import sequences
from tests.parity.golden import adaptor

UCOFIA = {
    "global_mat_weight": "of_text",
    "global_mat_weight_1": "of_video",
    "frame_logit_weight": "by_frame",
    "local_mat_weight": "of_words",
    "word_mat_weight": "words_first",
    "word_mat_weight2": "words_last",
    "pixel_mat_weight": "patches_first",
    "pixel_mat_weight2": "patches_last",
}


@adaptor("ucofia", method="uco-fia")
def uco_fia(golden):
    hyper, words = golden.hyper, golden["in_words"]
    frames = golden["in_frames"]
    patches = golden["in_patches"].unflatten(1, (frames.shape[1], -1))
    options = {"kept": patches.shape[2], "words_read": words.shape[1], "temperature": hyper["temperature"]}
    more = {"words": words, "patches": patches}
    options |= {"sweeps": hyper["sinkhorn_iterations"], "as_released": True}
    model, batch = sequences(golden, golden["in_sentence"], "uco-fia", more, **options)
    for theirs, ours in UCOFIA.items():
        getattr(model, ours).data.copy_(golden[f"in_w.{theirs}"])
    present = golden["in_frame_mask"].bool()
    levels = model.backbone.logit_scale * model.levels(batch.text, words, frames, patches, present)
    for name, level in zip(("video_sentence", "sentence_frame", "patch_word"), levels, strict=True):
        close(golden, f"out_{name}", level)
        of_texts, of_videos = balancing(3 * level / level.max(), model.sweeps)
        close(golden, f"out_text_bias_{name}", of_texts)
        close(golden, f"out_video_bias_{name}", of_videos)


@adaptor("hbi-banzhaf", method="hbi")
def hbi(golden):
    hyper, like = golden.hyper, golden["in_pair_logits"]
    predictor = InteractionPredictor(hyper["planes"])
    for theirs, ours in {"Q": "query", "K": "key", "V": "value"}.items():
        getattr(predictor, ours).data.copy_(golden[f"in_w.{theirs}"])
    put(golden, predictor, {"cnn1": "first", "cnn2": "last"})
    close(golden, "out_module", predictor(golden["in_logits"]))
    there, weights = ([golden[f"in_{side}_{what}"] for side in ("text", "video")] for what in ("mask", "weight"))
    shape = (*like.shape[1:], hyper["num"])
    draws = [golden[f"in_coalitions_{side}"].unflatten(0, shape) for side in ("text", "video")]
    found = sampled_interactions(1000 * like, [mask.bool() for mask in there], weights, draws, released=True)
    close(golden, "out_interaction", found)
