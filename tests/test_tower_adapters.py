"""MMA, MMRL, 2SFS and R-Adapter beyond the contract and the goldens: parts, options, other towers, other classes."""

import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from adaptkit import Preprocess, Task, adapt, method, predict, unit
from adaptkit.methods.adapt import retarget
from adaptkit.saving import state
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone, SiglipBackbone
from tests.checkpoints import LENGTH, SIDE, siglip_towers

NAMES = ("mma", "mmrl", "two-sfs", "r-adapter")
SMALL = {"mmrl": {"n": 2, "width": 6}, "mma": {"width": 4}}
NEW = ("the moon over the sea", "ox")


@functools.cache
def uneven():
    """A CLIP whose image tower has three blocks, and its text tower one."""
    tower = {"num_attention_heads": 2, "projection_dim": 12, "intermediate_size": 20}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 96, "max_position_embeddings": 30}
    ends = {"eos_token_id": 95, "bos_token_id": 94, "pad_token_id": 0}
    vision = {"hidden_size": 16, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 10}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config={**tower, **text, **ends}, vision_config={**tower, **vision}, projection_dim=12)
    )
    return CLIPBackbone(model, toy_tokenizer, Preprocess(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3))


@functools.cache
def siglip():
    """A SigLIP that reads words as numbers."""

    def tokens(sentences):
        rows = [[2 + sum(map(ord, w)) % 38 for w in s.split()] for s in sentences]
        return {"input_ids": torch.tensor([(row + [1] * LENGTH)[:LENGTH] for row in rows])}

    model, _ = siglip_towers()
    return SiglipBackbone(model, tokens, Preprocess(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3))


TOWERS = {"toy": toy_backbone, "uneven": uneven, "siglip": siglip}


def made_task(towers="toy", names=CLASSES, shots=2):
    """Images of noise around each class's own, as pixels."""
    backbone, labels = TOWERS[towers](), torch.arange(shots * len(names)) % len(names)
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    side = backbone.preprocess.size
    pixels = torch.randn(len(names), 3, side, side)[labels] + torch.randn(len(labels), 3, side, side)
    return Task.from_arrays((pixels, labels), text, classnames=names, backbone=backbone)


def new_task(towers, names):
    """Classes without images."""
    task = made_task(towers, names)
    return Task.from_arrays(
        (task.support.bind(method("mma").needs()).pixels[:0], torch.zeros(0, dtype=torch.long)),
        task.text,
        classnames=names,
        backbone=task.backbone,
    )


def asked(towers, n=3):
    side = TOWERS[towers]().preprocess.size
    return torch.randn(n, 3, side, side)


def fitted(name, task, **options):
    made = method(name, **{**SMALL.get(name, {}), **options})
    made.fit(task.bind(made))
    return made.eval()


def stirred(made, by=0.3):
    """The method with all that it learns moved from its start."""
    for p in made.parameters():
        p.data += by * torch.randn_like(p)
    return made


@pytest.mark.parametrize("towers", TOWERS)
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_answers_for_new_classes_and_is_saved_on_towers_of_any_kind(name, towers):
    task, pixels = made_task(towers), asked(towers)
    made = method(name, **SMALL.get(name, {}), schedule={"steps": 3, "lr": 0.01, "warmup": 0})
    before = {n: t.clone() for n, t in fitted(name, task).state_dict().items()}
    adapt(made, task)
    assert any(not torch.equal(t, before[n]) for n, t in made.state_dict().items()), "three steps must change something"
    first = predict(made, pixels)
    node, tensors = state.dump(made, task.backbone)
    again = state.rebuild(node, tensors, task.backbone)
    assert torch.equal(predict(again, pixels), first), f"{name} must answer bit for bit as before it was saved"
    new = new_task(towers, NEW)
    there = predict(retarget(made, new), pixels)
    assert there.shape == (3, 2), f"{name} must answer for two new classes; got {tuple(there.shape)}"
    assert torch.equal(predict(retarget(again, new), pixels), there), "and so must what was saved"
    assert torch.equal(predict(made, pixels), first), "the method itself stays as it was"


@pytest.mark.parametrize("name", NAMES)
def test_class_embeddings_follow_what_is_learned(name):
    made, pixels = fitted(name, made_task()), asked("toy")
    first, kept = predict(made, pixels), copy.deepcopy(made.state_dict())
    assert not torch.allclose(predict(stirred(made), pixels), first), "changed parameters must change the answer"
    made.load_state_dict(kept)
    assert torch.equal(predict(made, pixels), first), "loaded parameters must bring the answer back"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mma", {"start": 1}),
        ("mmrl", {"start": 1}),
        ("two-sfs", {}),
        ("two-sfs", {"tunes": "lora", "dropout": 0.0}),
        ("r-adapter", {"drop": 0.0}),
    ],
)
def test_few_sentences_at_a_time_have_the_same_gradients(name, options):
    task, grads = made_task(), []
    made = stirred(fitted(name, task, **options), 0.1).train()
    for made.chunk in (256, 2):
        made.zero_grad()
        torch.manual_seed(0)
        made.loss(task.bind(made).support).backward()
        grads.append({n: p.grad.clone() for n, p in made.named_parameters() if p.requires_grad})
    for n, grad in grads[0].items():
        worst = (grads[1][n] - grad).abs().max()
        assert worst <= 1e-4 * max(1.0, grad.abs().max()), f"{n} of {name} must not see the chunks; off by {worst}"


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_and_one_image_each_are_enough(name):
    task = made_task("uneven", ("a cat", "a dog"), shots=1)
    made = method(name, **SMALL.get(name, {}), schedule={"steps": 2, "warmup": 0})
    assert predict(adapt(made, task), asked("uneven")).isfinite().all(), f"{name} must answer in numbers"


@pytest.mark.parametrize(("name", "options"), [("r-adapter", {}), ("two-sfs", {}), ("two-sfs", {"tunes": "lora"})])
def test_what_changes_nothing_at_the_start_is_zero_shot_then(name, options):
    task, pixels = made_task(), asked("toy")
    want = predict(adapt(method("zero-shot"), task), pixels)
    got = predict(fitted(name, task, **options), pixels)
    assert torch.allclose(got, want, atol=1e-4), f"{name} must start as zero-shot; off by {(got - want).abs().max()}"


@pytest.mark.parametrize("name", ["mma", "mmrl"])
def test_a_first_block_behind_the_last_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.start must be at most {name}.end, 2; got 3"):
        fitted(name, made_task(), start=3, end=2)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_tower_that_is_no_transformer_is_refused_in_one_line(name):
    task = made_task()
    blind = copy.copy(task.backbone)
    blind.points = {point: module for point, module in blind.points.items() if point.startswith("text")}
    support = (torch.randn(5, 16), torch.arange(5))
    task = Task.from_arrays(support, task.text, classnames=CLASSES, backbone=blind)
    with pytest.raises(ValueError, match=r"must have tap point 'image\.") as caught:
        fitted(name, task)
    assert "\n" not in str(caught.value), "an error must be one line"


def test_text_alone_is_tuned_where_the_image_tower_is_no_transformer():
    task = made_task()
    blind = copy.copy(task.backbone)
    blind.points = {point: module for point, module in blind.points.items() if point.startswith("text")}
    task = Task.from_arrays((torch.randn(5, 16), torch.arange(5)), task.text, classnames=CLASSES, backbone=blind)
    made = adapt(method("two-sfs", encoder="text", schedule={"steps": 4}), task)
    assert {name.split(".")[0] for name in made.names} == {"text"} and made.second, "text norms, then the classifier"
    assert predict(made, torch.randn(3, 16)).shape == (3, 5), "cached embeddings must be enough"


@pytest.mark.parametrize(
    ("towers", "start", "end", "image", "text"),
    [("toy", 2, 2, [1], [1]), ("toy", 5, 12, [1], [1]), ("toy", 1, 9, [0, 1], [0, 1]), ("uneven", 2, 3, [1, 2], [0])],
)
def test_mma_adapts_the_blocks_from_start_to_end_that_a_tower_has(towers, start, end, image, text):
    blocks = fitted("mma", made_task(towers), start=start, end=end).blocks
    assert blocks == {"image": image, "text": text}, f"{start} to {end}, from 0: {image} and {text}; got {blocks}"


def test_mma_is_its_equation():
    task = made_task()
    made, x = stirred(fitted("mma", task, start=2, scale=0.7)), torch.randn(2, 6, task.backbone.width["text"])
    block, norm = (task.backbone.points[f"text.block.1{part}"].module for part in ("", ".norm1"))
    down, shared, up = made.down["text"][0], made.shared[0], made.up["text"][0]
    with torch.no_grad():
        z = F.relu(norm(x) @ down.weight.T + down.bias)
        z = F.relu(z @ shared.weight.T + shared.bias)
        want = block(x, None) + 0.7 * (z @ up.weight.T + up.bias)
        with made.changed("text"):
            got = block(x, None)
    assert torch.allclose(got, want, atol=1e-5), f"block plus adapter; off by {(got - want).abs().max()}"


def test_mma_shares_its_middle_map_between_the_towers():
    task = made_task()
    made = stirred(fitted("mma", task, width=16))
    for tower, run in (("text", made.text), ("image", lambda: made.images(asked("toy")))):
        made.zero_grad()
        run().sum().backward()
        reached = {t: made.down[t][0].weight.grad is not None for t in ("image", "text")}
        assert made.shared[0].weight.grad.abs().sum() > 0, f"the {tower} tower must reach the shared map"
        assert reached == {t: t == tower for t in reached}, f"and its own adapters only; got {reached}"


def test_mma_as_released_divides_the_adapters_gradients_by_the_scale_and_nothing_else():
    task = made_task()
    made = stirred(fitted("mma", task, start=1, scale=0.25))
    grads = []
    for released in (False, True):
        made.as_released = released
        made.zero_grad()
        loss = made.loss(task.bind(made).support)
        loss.backward()
        grads.append((loss.item(), {name: p.grad.clone() for name, p in made.named_parameters()}))
    (plain_loss, plain), (released_loss, released) = grads
    assert plain_loss == released_loss, "the loss must stay"
    for name, grad in plain.items():
        assert torch.allclose(released[name], grad / 0.25, rtol=1e-3, atol=1e-5), f"{name} must have four times as much"


def test_mmrl_mixes_both_answers_for_trained_classes_only():
    task, pixels = made_task(), asked("toy")
    made = stirred(fitted("mmrl", task, alpha=0.6))
    with torch.no_grad():
        by_class, by_tokens = (task.backbone.logits(x, made.text()) for x in made.both(pixels))
    assert torch.allclose(predict(made, pixels), 0.6 * by_class + 0.4 * by_tokens, atol=1e-4), "of trained classes"
    made.set({"mixed": False})
    assert torch.allclose(predict(made, pixels), by_class, atol=1e-4), "by the class token alone, where that is asked"
    made.set({"mixed": True})
    some = predict(retarget(made, new_task("toy", CLASSES[3:1:-1])), pixels)
    mixed = (0.6 * by_class + 0.4 * by_tokens)[:, [3, 2]]
    assert torch.allclose(some, mixed, atol=1e-4), (
        "some of the trained classes, in another order, are still trained ones"
    )
    new = predict(retarget(made, new_task("toy", (CLASSES[0], "ox"))), pixels)
    assert torch.allclose(new[:, 0], by_class[:, 0], atol=1e-4), "beside a new class all are by the class token"


def test_mmrl_loss_is_both_answers_and_the_way_from_the_frozen_towers():
    task = made_task()
    made, batch = stirred(fitted("mmrl", task, alpha=0.6, penalty=3.0)), task.bind(fitted("mmrl", task)).support
    pixels, labels = batch.views[:, 0], batch.targets
    with torch.no_grad():
        text, (x, own) = made.text(), made.both(pixels)
        loss = 0.6 * F.cross_entropy(task.backbone.logits(x, text), labels)
        loss += 0.4 * F.cross_entropy(task.backbone.logits(own, text), labels)
        loss += 3.0 * (1 - F.cosine_similarity(x, task.backbone.encode_image(pixels)).mean())
        loss += 3.0 * (1 - F.cosine_similarity(text, task.text).mean())
        got = made.loss(batch)
    assert torch.allclose(got, loss, atol=1e-4), f"{got} must be {loss}"


@pytest.mark.parametrize("start", [1, 2])
def test_mmrl_tokens_join_the_image_tower_as_in_a_plain_loop(start):
    task, pixels = made_task(), asked("toy", 2)
    made, vision = stirred(fitted("mmrl", task, start=start)), task.backbone.model.vision_model
    with torch.no_grad():
        h = vision.pre_layrnorm(vision.embeddings(pixels))
        for i, layer in enumerate(vision.encoder.layers):
            if i >= start - 1:
                rest = torch.cat([h[:, :1], h[:, 1 + made.n :]], 1) if i >= start else h
                own = made.projections["image"][i - start + 1](made.space).expand(len(h), -1, -1)
                h = torch.cat([rest[:, :1], own, rest[:, 1:]], 1)
            h = layer(h, None)
        x = task.backbone.model.visual_projection(vision.post_layernorm(h[:, 0]))
        own = vision.post_layernorm(h[:, 1 : 1 + made.n]).mean(1) @ made.head
        got = made.both(pixels)
    for kind, a, b in zip(("class", "learned"), got, (x, own), strict=True):
        assert torch.allclose(a, unit(b), atol=1e-5), (
            f"the embedding by {kind} tokens is off by {(a - unit(b)).abs().max()}"
        )


def test_mmrl_counts_blocks_from_below_in_towers_of_any_depth():
    blocks = fitted("mmrl", made_task("uneven"), start=2, end=9).blocks
    assert blocks == {"image": [1, 2], "text": [0]}, f"from the second, or the last, to the last; got {blocks}"
    made = fitted("mmrl", made_task("uneven"), start=1, end=2)
    assert made.blocks["image"] == [0, 1], f"tokens of their own to the second block; got {made.blocks}"


class Seen(pl.Callback):
    """The rates and the state of a method, step by step."""

    def __init__(self, made):
        self.made, self.rates, self.states = made, [], []

    def on_before_optimizer_step(self, trainer, lit, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, *_):
        self.states.append({name: t.clone() for name, t in self.made.state_dict().items()})


def test_2sfs_changes_stages_by_share_of_the_steps_with_a_rate_that_starts_again():
    task = made_task()
    made = method("two-sfs", share=0.5, schedule={"steps": 5, "lr": 0.01, "final_lr": 0.0})
    seen = Seen(made)
    adapt(made, task, trainer={"callbacks": [seen]})
    rates = [round(rate, 5) for rate in seen.rates]
    assert rates == [0.01, 0.005, 0.01, 0.0075, 0.0025], f"two steps of a cosine, then three of another; got {rates}"
    for s in range(1, 5):
        before, after = seen.states[s - 1], seen.states[s]
        changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
        want = {"tuned"} if s < 2 else {"classifier"} | ({"second"} if s == 2 else set())
        assert changed == want, f"step {s} must change {want}; it changed {changed}"


@pytest.mark.parametrize(("share", "changed"), [(0.0, {"classifier"}), (1.0, {"tuned"})])
def test_2sfs_may_have_one_stage_only(share, changed):
    task, pixels = made_task(), asked("toy")
    made = adapt(method("two-sfs", share=share, schedule={"steps": 3, "lr": 0.01}), task)
    start = fitted("two-sfs", task).state_dict()
    moved = {n.split(".")[0] for n, t in made.state_dict().items() if not torch.equal(t, start[n])} - {"second"}
    assert moved == changed and bool(made.second) == (share == 0), f"share {share} must train {changed}; got {moved}"
    assert predict(made, pixels).isfinite().all(), "and it must answer"


@pytest.mark.parametrize("towers", TOWERS)
def test_2sfs_tunes_what_its_name_says(towers):
    task = made_task(towers)
    backbone = task.backbone
    every = {name: slot for name, slot in backbone.slots().items() if name.split(".")[0] in ("image", "text")}
    norms = {name for name, slot in every.items() if isinstance(slot.module, torch.nn.LayerNorm)}
    biases = {name for name in every if name.endswith("bias")}
    in_blocks = {name for name in norms if ".block." in name}
    qkv = {f".{name}.bias" for name in "qkv"}
    for options, want in (
        ({}, norms),
        ({"as_released": True}, in_blocks),
        ({"tunes": "bitfit"}, biases),
        ({"tunes": "bitfit", "as_released": True}, {n for n in biases if not n.endswith(tuple(qkv))}),
        ({"tunes": "lora"}, {n for n in every if n.endswith(("q.weight", "k.weight", "v.weight"))}),
        ({"encoder": "vision"}, {n for n in norms if n.startswith("image")}),
        ({"encoder": "text"}, {n for n in norms if n.startswith("text")}),
    ):
        names = {*fitted("two-sfs", task, **options).names}
        assert names == want, f"{options} must tune {sorted(want ^ names)} too, or not"


def test_2sfs_starts_at_a_block():
    task = made_task()
    names = {*fitted("two-sfs", task, image_start=1, text_start=1).names}
    first = {name for name in names if ".block.0." in name or "prenorm" in name}
    assert not first, f"what is in front of the second block must not be tuned; got {first}"
    assert {"image.norm.weight", "text.norm.bias"} <= names, "what is behind the last must"
    with pytest.raises(ValueError, match="two-sfs must tune a weight at least"):
        fitted("two-sfs", task, tunes="lora", image_start=2, text_start=9)


def test_2sfs_answers_known_names_by_the_classifier_and_new_ones_by_the_tuned_text_tower():
    task, pixels = made_task(), asked("toy")
    made = adapt(method("two-sfs", schedule={"steps": 4, "lr": 0.05}), task)
    base = predict(made, pixels)
    mixed = predict(retarget(made, new_task("toy", ("ox", CLASSES[3], CLASSES[0]))), pixels)
    assert torch.allclose(mixed[:, 1:], base[:, [3, 0]], atol=1e-5), "known names must keep their rows"
    with torch.no_grad():
        with made.changed("text"):
            text = unit(task.backbone.encode_text(["a photo of a ox."]))
        want = task.backbone.logits(made.images(pixels), text)
    assert torch.allclose(mixed[:, :1], want, atol=1e-4), "a new name must be read by the tuned tower"


def test_2sfs_drops_from_low_rank_updates_in_the_first_stage_only():
    task = made_task()
    made = stirred(fitted("two-sfs", task, tunes="lora", dropout=0.5)).train()
    pixels = asked("toy")
    with torch.no_grad():
        assert not torch.equal(made.images(pixels), made.images(pixels)), "a new draw at every step of the first stage"
        made.second.fill_(True)
        assert torch.equal(made.images(pixels), made.images(pixels)), "none on frozen towers"


def test_2sfs_low_rank_updates_beside_a_map_are_those_in_it():
    task, pixels = made_task(), asked("toy")
    made = stirred(fitted("two-sfs", task, tunes="lora", dropout=0.0), 0.1)
    with torch.no_grad():
        merged, beside = made.eval().images(pixels), made.train().images(pixels)
    assert torch.allclose(merged, beside, atol=1e-5), f"off by {(merged - beside).abs().max()}"


@pytest.mark.parametrize("ranks", [(0, 0), (3, 2), (40, 30)])
def test_r_adapter_merged_is_r_adapter_beside_at_its_scale(ranks):
    task, pixels = made_task(), asked("toy")
    made = stirred(fitted("r-adapter", task, image_rank=ranks[0], text_rank=ranks[1], drop=0.0, scale=0.5), 0.05)
    for now, mean in zip(made.adapters, made.averages, strict=True):
        for a, b in zip(now, mean, strict=True):
            b.data.copy_(a.data)
        now[0].data *= 0.5
    with torch.no_grad():
        merged = [made.eval().images(pixels), made.encode(made.tokens)]
        beside = [made.train().images(pixels), made.encode(made.tokens)]
    for a, b in zip(merged, beside, strict=True):
        assert torch.allclose(a, b, atol=1e-4), f"rank {ranks}: off by {(a - b).abs().max()}"


def test_r_adapter_answers_by_the_running_average_of_its_steps():
    task = made_task()
    made = method("r-adapter", momentum=0.75, drop=0.0, schedule={"steps": 4, "lr": 0.01})
    seen, mean = Seen(made), torch.full((1,), 0.1)  # the start
    adapt(made, task, trainer={"callbacks": [seen]})
    for now in seen.states:
        mean = 0.75 * mean + 0.25 * now["adapters.0.0"]
    got = made.state_dict()["averages.0.0"]
    assert torch.allclose(got, mean, atol=1e-6), f"a quarter of each step's must be {mean}; got {got}"
    assert not torch.allclose(got, made.state_dict()["adapters.0.0"], atol=1e-6), "which is not the last step's"


def test_r_adapter_loss_is_its_sum_over_pairs():
    made = method("r-adapter", smoothing=0.1, margin=0.2)
    x, text, labels, scale = unit(torch.randn(6, 4)), unit(torch.randn(6, 4)), torch.tensor([0, 1, 0, 2, 2, 2]), 7.0
    total = 0.0
    for own, other in ((x, text), (text, x)):
        for i in range(6):
            logits = [scale * (float(own[i] @ other[j]) + 0.2 * float(labels[i] != labels[j])) for j in range(6)]
            whole = torch.tensor(logits).logsumexp(0)
            same = int((labels == labels[i]).sum())
            for j in range(6):
                weight = 0.9 / same if labels[i] == labels[j] else 0.1 / (6 - same)
                total += weight * float(whole - logits[j]) / 12
    got = float(made.mpm_nce(x, text, labels, scale))
    assert got == pytest.approx(total, abs=1e-4), f"{got} must be {total}"


@pytest.mark.parametrize("labels", [[1], [2, 2, 2]])
def test_r_adapter_loss_of_one_class_is_a_number(labels):
    x = unit(torch.randn(len(labels), 4))
    loss = method("r-adapter").mpm_nce(x, x, torch.tensor(labels), 5.0)
    assert loss.isfinite(), f"a batch without negatives must have a loss; got {loss}"


@pytest.mark.parametrize(("released", "shape"), [(False, (50, 1, 1)), (True, (1, 40, 1))])
def test_r_adapter_drops_for_a_row_or_as_released_for_a_position(released, shape):
    made = method("r-adapter", drop=0.25, as_released=released)
    kept = made.kept(torch.ones(50, 40, 3))
    assert torch.allclose(kept.unique(), torch.tensor([0, 1 / 0.75])), f"all or nothing; got {kept.unique()}"
    one = kept[tuple(slice(None) if n > 1 else slice(1) for n in shape)]
    assert torch.equal(kept, one.expand_as(kept)), "one draw each"


def test_r_adapter_draws_sentences_about_the_classes_and_answers_by_all():
    prompts = [[f"a photo of a {name}.", f"art of the {name}."] for name in CLASSES]
    backbone = toy_backbone()
    with torch.no_grad():
        text = [unit(backbone.encode_text(own)) for own in prompts]
    support = (asked("toy", 5), torch.arange(5))
    task = Task.from_arrays(support, text, classnames=CLASSES, prompts=prompts, backbone=backbone)
    made = fitted("r-adapter", task)
    labels = torch.tensor([3, 0, 3, 3, 3, 3, 3, 3])
    drawn = {tuple(row) for row in made.drawn(labels)["input_ids"].tolist()}
    both = {tuple(row) for c in (0, 3) for row in made.tokens["input_ids"][2 * c : 2 * c + 2].tolist()}
    assert drawn <= both and len(drawn) >= 3, "one of a class's two sentences each"
    assert torch.allclose(made.text().detach(), task.text, atol=1e-4), "a class is the mean of its sentences"
