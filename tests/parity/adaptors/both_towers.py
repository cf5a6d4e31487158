"""Methods that learn tokens in both towers, or in the image tower: VPT and IVLP."""

from tests.parity.adaptors.prompt_learning import CONTEXT, constant, fitted
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_task

VISUAL = "image_encoder"
DEEP = "transformer.resblocks.{}.VPT_shallow"


def counted(golden, name):
    """How many keys there are of a name with a gap, from 1 on."""
    return next(i for i in range(1, 999) if name.format(i) not in golden) - 1


def tokens_of(golden, prefix):
    """How many tokens the image tower learns, and in how many blocks; none in none."""
    first = f"{prefix}init.{VISUAL}.VPT"
    if first not in golden:
        return 1, 0
    return len(golden[first]), 1 + counted(golden, f"{prefix}init.{VISUAL}.{DEEP}")


def visual_names(parameters):
    """The image tower's tokens by the golden's names."""
    return {f"{VISUAL}.{DEEP.format(i)}" if i else f"{VISUAL}.VPT": p for i, p in enumerate(parameters)}


def both_names(made):
    """All tokens of both towers by the golden's names."""
    deep = {f"text_encoder.{DEEP.format(i)}": p for i, p in enumerate(made.deep, 1)}
    return {CONTEXT: made.context, **deep, **visual_names(made.visual)}


def followed(golden, made, task, names, prefix):
    """Both steps; the loss is nothing but the cross-entropy."""
    for s, loss in follow(golden, made, task, names, prefix):
        golden.close(f"{prefix}part{s}.cross_entropy.0", loss, atol=golden.meta["tolerance"]["loss"])


@adaptor("vpt", method="vpt")
def vpt(golden):
    task, room = tiny_task(golden), golden.meta["tolerance"]
    for key in [key for key in golden.arrays if key.endswith(f"init.{VISUAL}.VPT")]:
        prefix = key.removesuffix(f"init.{VISUAL}.VPT")
        n, depth = tokens_of(golden, prefix)
        made = fitted("vpt", task, n=n, depth=depth, schedule=constant(golden))
        raw = task.encode([sentence for (sentence,) in task.prompts])
        golden.close(f"{prefix}text_feat_fixed", raw, atol=room["logits"])
        followed(golden, made, task, visual_names(made.visual), prefix)


@adaptor("ivlp", method="ivlp")
def ivlp(golden):
    task = tiny_task(golden)
    for key in [key for key in golden.arrays if key.endswith(f"init.{CONTEXT}")]:
        prefix = key.removesuffix(f"init.{CONTEXT}")
        n_image, depth_image = tokens_of(golden, prefix)
        depth = 1 + counted(golden, f"{prefix}init.text_encoder.{DEEP}")
        shape = {"n": len(golden[key]), "depth": depth, "n_image": n_image, "depth_image": depth_image}
        made = fitted("ivlp", task, **shape, schedule=constant(golden))
        followed(golden, made, task, both_names(made), prefix)
