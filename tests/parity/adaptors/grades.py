"""Grades by a sentence and by pairs of images: ranking-aware."""

from adaptkit import method
from adaptkit.features.items import Images
from tests.parity.adaptors.retrieval_composed import close, put
from tests.parity.golden import adaptor

OWN = {"attn.out_proj": "attention.out_proj", "ln_1": "norm1", "ln_2": "norm2", "mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
AFTER = {"self_attn.out_proj": "attention.out_proj", "linear1": "fc1", "linear2": "fc2"}
AFTER |= {"norm1": "norm1", "norm2": "norm2"}
HEADS = {"crossmodal_block.ln_final": "norm", "reg_ln": "norm_sum", "pair_regressor.pre_linear_block.0": "norm_pair"}
HEADS |= {"regressor.output_head": "grade.6", "pair_regressor.output_head": "pair.9"}
HEADS |= {f"regressor.pre_linear_block.{i}": f"grade.{i}" for i in (0, 1, 3, 4)}
HEADS |= {f"pair_regressor.pre_linear_block.{i + 1}": f"pair.{i}" for i in (0, 1, 3, 4, 6, 7)}
POOLER = {"ln_q": "norm_q", "ln_kv": "norm_kv", "q_proj": "q", "kv_proj": "kv", "out_proj": "out"}


def blocks_in(golden, name):
    """How many blocks a list has."""
    return len({key.removeprefix(name).split(".")[0] for key in golden.arrays if key.startswith(name)})


def put_blocks(golden, model, theirs, ours, names, attention):
    """Give the golden's weights to a list of blocks."""
    for i, block in enumerate(model.get_submodule(ours)):
        put(golden, model, {f"{theirs}.{i}.{k}": f"{ours}.{i}.{v}" for k, v in names.items()})
        for kind in ("in_proj_weight", "in_proj_bias"):
            getattr(block.attention, kind).data.copy_(golden[f"in_w.{theirs}.{i}.{attention}.{kind}"])


@adaptor("ranking-aware", method="ranking-aware")
def ranking_aware(golden):
    hyper, patches, grades = golden.hyper, golden["in_image_tokens"], golden["in_targets"]
    cross = "crossmodal_block"
    layers, after = (blocks_in(golden, name) for name in (f"in_w.{cross}.resblocks.", "in_w.post_fuse_block.layers."))
    told = {"heads": hyper["heads"], "regression": hyper["loss_weights"]["regression"], "as_released": True}
    queries, width = golden["in_w.reg_tokens"].shape
    made = method("ranking-aware", layers=layers, layers_after=after, queries=queries, **told)
    made.build(width)
    made.register_buffer("words", golden["in_text_tokens"])
    put_blocks(golden, made, f"{cross}.resblocks", "own", OWN, "attn")
    put_blocks(golden, made, f"{cross}.cross_attn", "over", {**OWN, "ln_1_kv": "norm_words"}, "attn")
    put_blocks(golden, made, "post_fuse_block.layers", "after", AFTER, "self_attn")
    held = put(golden, made, {**HEADS, **{f"reg_token_pooler.{k}": v for k, v in POOLER.items()}})
    made.project.data.copy_(golden[f"in_w.{cross}.projection"])
    made.asked.data.copy_(golden["in_w.reg_tokens"])
    read = made.read(patches)
    close(golden, "out_score", made.scored(read)[:, None])
    close(golden, "out_pair_tokens", made.differences(read).flatten(0, 1))
    close(golden, "out_pair_score", made.compared(read).flatten()[:, None])
    loss = made.loss(Images.from_arrays({"patches": patches}, grades.long()).bind(made.needs()))
    close(golden, "out_loss", loss)
    loss.backward()
    close(golden, "out_grad.reg_tokens", made.asked.grad)
    close(golden, "out_grad.regressor", held["regressor.output_head.weight"].grad)
    close(golden, "out_grad.pair", held["pair_regressor.output_head.weight"].grad)
