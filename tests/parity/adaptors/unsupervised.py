"""Methods that learn from an unlabelled pool."""

from dataclasses import replace
from unittest import mock

import torch
from adaptkit_plugins.unsupervised import nola as plugin
from torch import nn
from torch.optim import optimizer

from adaptkit import Task, method, unit
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import follow, tiny_clip, tiny_task

TEXT = ("init2.model.transformer", "init2.model.ln_final")
NORMS = {"ln_1": "norm1", "ln_2": "norm2", "ln_pre": "image.prenorm", "ln_post": "image.norm"}


def ours(made, key, head):
    """A parameter by the name that the releases of LaFTer and NoLA give it."""
    if key == "prompt_embeddings":
        return made.prompts
    if key == head:
        return made.head
    *path, norm, part = key.split(".")
    point = f"image.block.{path[-1]}.{NORMS[norm]}" if "resblocks" in path else NORMS[norm]
    return made.tuned.values[made.tuned.names.index(f"{point}.{part}")]


def learned(golden, made, prefix, head):
    """Our parameters by the golden's names, of those that the release gives a gradient."""
    keys = [key.removeprefix("grad0.") for key in golden.arrays if key.startswith("grad0.")]
    golden.arrays |= {f"init.{key}": golden.arrays[f"{prefix}{key}"] for key in keys}
    tokens = "prompt_embeddings"
    for name in [name for name in golden.arrays if name.endswith(tokens) and golden.arrays[name].ndim == 3]:
        golden.arrays[name] = golden.arrays[name][0]
    return {key: ours(made, key, head) for key in keys}


def student(golden, name, task, **options):
    """A prompted student, fitted, with the golden's rate and number of tokens."""
    hyper = golden.hyper
    made = method(
        name,
        n=hyper["num_tokens"],
        smoothing=hyper["label_smoothing"],
        schedule={"lr": hyper["lr"], "weight_decay": hyper["weight_decay"]},
        **options,
    )
    made.fit(task.bind(made))
    return made


def both_views(golden, **more):
    """Pool images by the names that the methods read, the strong view also as what `forward` reads."""
    strong = golden["in.pixel_values2"]
    return {"weak": golden["in.pixel_values"], "strong": strong[:, None], "pixels": strong, **more}


@adaptor("lafter", method="la-fter")
def la_fter(golden):
    rates = [float(golden[f"lr{s}"]) for s in range(9) if f"lr{s}" in golden]
    golden.skip("a rate that the golden chose, which the steps take", *(f"lr{s}" for s in range(len(rates))))
    labels = golden["in.text_labels"]
    text = [golden["in.text_features"][labels == c] for c in range(len(golden.meta["classnames"]))]
    task = tiny_task(golden, text=text, pool=both_views(golden, x=golden["in.pixel_values"]))
    lafter = student(golden, "la-fter", task, as_released=True, text_steps=0, text_lr=golden.hyper["lr"])
    learn_text(golden, lafter, labels)
    head = "adapter.0.weight"
    names = learned(golden, lafter, "init2.", head)
    known = {str(name) for name in golden.arrays["trained"] if not str(name).startswith("model.transformer")}
    known -= {"model.ln_final.weight", "model.ln_final.bias"}  # of the text tower, which nothing asks
    assert known == {*names}, f"what is trained must be {sorted(known)}; got {sorted(names)}"
    golden.skip("names, which were compared", "trained")
    for key, value in names.items():
        if key.startswith("model."):
            golden.close(f"init2.{key}", value, atol=0)
    golden.skip("where learning starts, taken from here", "init2.prompt_embeddings")
    golden.skip("of the text tower, which nothing asks", *(k for k in golden.outputs if k.startswith(TEXT)))
    weak, last = task.pool.bind({**lafter.pool_needs(), **lafter.needs()}), len(rates) - 1
    with mock.patch.object(type(lafter.schedule), "rate", lambda self, step, **_: rates[step]):
        for s, _ in follow(golden, lafter, task, names):
            golden.equal(f"pseudo_labels{s}", lafter.taught(weak))
            if s == last:
                golden.close("pseudo_logits", lafter.teacher_logits(weak), atol=golden.meta["tolerance"]["logits"])


def learn_text(golden, lafter, labels):
    """The first stage: the head alone, on sentences, under the golden's noise."""
    head, room = "adapter.0.weight", golden.meta["tolerance"]
    steps, losses, grads, after = golden.hyper["txt_epochs"], [], [], []
    noises = iter([golden[f"in.noise{s}"] for s in range(steps)])
    lafter.head.data.copy_(golden[f"init.{head}"])
    lafter.text_steps, lafter.noise = steps, golden.hyper["noise_std"]
    entropy = torch.nn.functional.cross_entropy
    hooks = [
        optimizer.register_optimizer_step_pre_hook(lambda o, *_: grads.append(o.param_groups[0]["params"][0].grad)),
        optimizer.register_optimizer_step_post_hook(lambda *_: after.append(lafter.head.detach().clone())),
    ]
    watch = mock.patch(
        "torch.nn.functional.cross_entropy", lambda *a, **k: losses.append(entropy(*a, **k)) or losses[-1]
    )
    try:
        with watch, mock.patch("torch.randn_like", lambda _: next(noises)):
            lafter.learn_text(golden["in.text_features"], labels)
    finally:
        for hook in hooks:
            hook.remove()
    for s in range(steps):
        golden.close(f"text.loss{s}", losses[s], atol=room["loss"])
        golden.close(f"text.lr{s}", lafter.text_lr, atol=1e-9)
        golden.close(f"text.grad{s}.{head}", grads[s], of_max=room["grad_rel"])
        golden.close(f"text.step{s + 1}.{head}", after[s], atol=room["param"])
    golden.skip("the name of the head, whose gradients were compared", "text.trained")
    lafter.teacher.copy_(lafter.head.detach())
    golden.close(f"init2.{head}", lafter.head, atol=room["param"])


@adaptor("nola", method="nola")
def nola(golden):
    hyper, second = golden.hyper, golden["in.second_tower"]

    def seen(pixels):
        """What the golden's second tower makes of images."""
        return (pixels.flatten(1) @ second.T).tanh()

    pool, names = golden["in.pool_pixels"], [name.replace("_", " ") for name in golden.meta["classnames"]]
    text = [[*hyper["descriptions"][name], *(t.format(name) for t in hyper["templates"])] for name in names]
    with torch.no_grad():
        rows = [tiny_clip(golden).encode_text(own) for own in text]
    task = tiny_task(golden, text=rows, pool={"x": pool, "z": seen(pool), "strong": pool[:, None]})
    options = {"k": hyper["k"], "hidden": hyper["taal_hidden"], "align": {"epochs": 0}}
    nola = student(golden, "nola", task, **options)
    room = golden.meta["tolerance"]
    assert torch.allclose(nola.head, golden["init.class_embeddings"], atol=room["param"]), "the head must start so"
    x = unit(task.backbone.encode_image(pool))
    p = task.backbone.logits(x, nola.head.detach()).softmax(1)
    golden.close("pool.probabilities", p, atol=room["logits"])
    chosen, labels = plugin.surest(p, hyper["k"])
    golden.equal("pool.rows", chosen)
    golden.equal("pool.pseudo", labels)
    align(golden, nola, seen(pool)[chosen], labels)
    views = tiny_task(golden, text=rows, pool=both_views(golden, z=seen(golden["in.pixel_values"])))
    names = learned(golden, nola, "init.", "cde_adapter.0.weight")
    batch = nola.training_images(views)
    for _ in follow(golden, nola, views, names):
        golden.equal("pseudo_labels", nola.taught(batch))


def align(golden, nola, z, labels):
    """The network on the second tower, before and after its training on one batch."""
    layers = {key.split(".", 2)[2]: key for key in golden.arrays if key.startswith("init.taal.mlp.")}
    state = dict(nola.aligner.named_parameters())
    for name, key in layers.items():
        state[name.removeprefix("mlp.")].data.copy_(golden[key])
    nola.align = replace(nola.align, epochs=golden.hyper["taal_epochs"])
    with mock.patch("torch.randperm", torch.arange):
        nola.learn_alignment(z, labels)
    for name in layers:
        golden.close(f"after.taal.{name}", state[name.removeprefix("mlp.")], atol=golden.meta["tolerance"]["param"])


class Scaled(nn.Module):
    """The golden's stand-in for a tower: every channel times a number that is trained."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def of(self, tower):
        return {}

    def encode_image(self, pixels):
        return pixels.flatten(1) * self.scale


@adaptor("dpa", method="dpa")
def dpa(golden):
    hyper, weak, text = golden.hyper, golden["in_features"], golden["in_text"]
    views = {"x": weak, "weak": weak[..., None, None], "strong": golden["in_strong"][:, None, :, None, None]}
    nobody = (torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long))
    task = Task.from_arrays(nobody, text, pool=views, logit_scale=100.0)
    names = {"a": "image_share", "reg": "fairness", "align": "align", "w": "align_scale"}
    schedule = {"lr": hyper["lr"], "weight_decay": hyper["weight_decay"], "batch_size": hyper["batch"]}
    made = method("dpa", **{ours: hyper[theirs] for theirs, ours in names.items()}, schedule=schedule)

    def start_norms(self, backbone):
        self.backbone, self.tuned = backbone, Scaled(text.shape[1])

    with mock.patch.object(type(made), "start_norms", start_norms):
        made.fit(task.bind(made))
    golden.close("out_center0", made.centres, atol=1e-4)
    made.prototypes = "similarity"
    golden.close("out_center0_v2", made.means(), atol=1e-4)
    made.prototypes, pool = "mean", made.training_images(task)
    optimizer, losses = made.schedule.make(made.parameter_groups([made.text, made.tuned.scale])), []
    for _ in range(hyper["epochs"]):
        for rows in golden["in_order"].split(hyper["batch"]):
            loss = made.loss(pool[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        made.centres.copy_(made.means())
    golden.close("out_losses", losses, rtol=1e-4)
    golden.equal("out_pseudo_labels", made.labels)
    for key, value in {"classifier": made.text, "ln_scale": made.tuned.scale, "center": made.centres}.items():
        golden.close(f"out_{key}", value, atol=1e-4)
