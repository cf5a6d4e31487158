"""Methods that learn words for the text tower: each option does what it says, on small towers of several kinds."""

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Pooled, Preprocess, Prompts, Task, adapt, load, method, predict, unit
from adaptkit.methods.adapt import retarget
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.testing.toy import toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
from tests.test_prompting import siglip

KINDS = ["kgcoop", "prograd", "tcp"]
ALL = [*KINDS, "lasp", "upl", "proda"]
BRIEF = {"schedule": {"steps": 2, "warmup": 0, "batch_size": 5}}


def task_on(backbone, classes=CLASSES, side=32, shots=2, template="a photo of a {}, a kind of pet."):
    """A few images a class, as pixels, with one sentence for each class."""
    labels = torch.arange(len(classes)).repeat(shots)
    torch.manual_seed(1)
    pixels = torch.randn(len(classes), 3, side, side)[labels] + torch.randn(len(labels), 3, side, side)
    sentences = [[template.format(name)] for name in classes]
    with torch.no_grad():
        text = backbone.encode_text([s for own in sentences for s in own])
    return Task.from_arrays((pixels, labels), text, classnames=classes, prompts=sentences, backbone=backbone)


@pytest.fixture(scope="module")
def task():
    return task_on(toy_backbone())


def fitted(name, task, **options):
    made = method(name, **options)
    made.fit(task.bind(made))
    return made


def embedded(task):
    """Unit-norm embeddings of the support, and its labels."""
    with torch.no_grad():
        return unit(task.backbone.encode_image(task.support.bind(method("maple").needs()).pixels)), task.support.labels


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_class_name_stands_where_it_is_told_to(name, position, task):
    made = adapt(method(name, position=position, **BRIEF), task)
    assert predict(made, torch.randn(3, 3, 32, 32)).isfinite().all(), f"{name} must answer with the name at {position}"
    first = made.prompts.places[:, 0] - task.backbone.prefix
    assert (first.min() > 0) == (position == "front"), f"the name must stand at the {position}"


@pytest.mark.parametrize("name", ALL)
def test_it_runs_on_siglip_with_two_classes_and_one_shot(name):
    backbone = siglip()
    backbone.preprocess = Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    task = task_on(backbone, ("cat", "sea_owl"), side=16, shots=1, template="a {} pet.")
    made = adapt(method(name, n=2, init="", **BRIEF), task)
    assert predict(made, torch.randn(3, 3, 16, 16)).shape == (3, 2), f"{name} must answer for two classes"


@pytest.mark.parametrize("name", ALL)
def test_new_classes_are_answered_with_what_was_learned(name, task):
    made = adapt(method(name, **BRIEF), task)
    names = ("emu", "grey_seal", "cat")
    turned = retarget(made, task_on(task.backbone, names))
    assert predict(turned, torch.randn(4, 3, 32, 32)).shape == (4, 3), "three other classes"
    for kept, own in zip(turned.parameters(), made.parameters(), strict=True):
        assert torch.equal(kept, own), "what was learned must stay"


@pytest.mark.parametrize("name", KINDS)
def test_words_of_each_class_serve_no_other_classes(name, task):
    own = adapt(method(name, per_class=True, **BRIEF), task)
    assert len(own.context) == len(CLASSES), "a context for each class"
    with pytest.raises(ValueError, match="per_class must be false where a context serves other classes"):
        retarget(own, task_on(task.backbone, ("emu", "grey_seal")))


@pytest.mark.parametrize("name", ["kgcoop", "tcp"])
def test_the_loss_holds_class_embeddings_near_the_sentences(name, task):
    x, labels = embedded(task)
    for weight, released in ((0.0, False), (2.0, False), (2.0, True)):
        torch.manual_seed(0)
        made = fitted(name, task, weight=weight, as_released=released)
        text = made.text()
        cosines = (text * task.text).sum(-1)
        near = (1 - cosines).mean() if released else (2 - 2 * cosines).mean()
        want = F.cross_entropy(task.backbone.logits(x, text), labels) + weight * near
        got = made.loss(task.bind(made).support)
        assert torch.allclose(got, want, atol=1e-5), f"{name} must add {weight} times the distance; got {got}"


def test_kgcoop_starts_where_hand_written_words_are(task):
    made = fitted("kgcoop", task)
    plain = task.backbone.encode_text([f"a photo of a {name}." for name in CLASSES])
    assert torch.allclose(made.text(), unit(plain), atol=1e-5), "before training the words are those of the sentence"
    assert (made.n, made.weight, made.schedule.batch_size, made.schedule.epochs) == (4, 8.0, 128, 100), "as the paper"


def gradients(made, task):
    """Those of the cross-entropy and of the distillation, and the one that a step takes."""
    x, labels = embedded(task)
    logits, zero_shot = task.backbone.logits(x, made.text()), task.backbone.logits(x, task.text)
    kl = F.kl_div(logits.log_softmax(-1), zero_shot.softmax(-1), reduction="batchmean")
    plain, general = F.cross_entropy(logits, labels), kl
    grads = [torch.autograd.grad(part, made.context, retain_graph=True)[0] for part in (plain, general)]
    loss = made.loss(task.bind(made).support)
    assert torch.allclose(loss, plain, atol=1e-5), "what is told as the loss must be the cross-entropy"
    return (*grads, torch.autograd.grad(loss, made.context)[0])


@pytest.mark.parametrize("weight", [1.0, 0.8, 0.0])
def test_prograd_takes_off_what_conflicts_with_zero_shot(weight, task):
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        labels = torch.randint(5, (10,))
        other = Task.from_arrays(
            (task.support.bind(method("maple").needs()).pixels, labels),
            task.text,
            classnames=CLASSES,
            prompts=task.prompts,
            backbone=task.backbone,
        )
        made = fitted("prograd", other, weight=weight, n=3)
        made.context.data += torch.randn_like(made.context)
        plain, general, step = gradients(made, other)
        along = (plain * general).sum() / general.norm() ** 2
        want = plain - weight * along * general if along < 0 else plain
        assert torch.allclose(step, want, rtol=1e-3, atol=1e-4 * float(want.abs().max())), "the projected gradient"
        if along < 0 and weight == 1.0:
            left = float((step * general).sum() / (step.norm() * general.norm()))
            assert abs(left) < 1e-3, f"no conflict may be left; got {left}"
        seen.add(bool(along < 0))
    assert seen == {True, False}, "both cases must have been met, or the test shows nothing"


def test_prograd_starts_from_the_words_of_the_sentences_in_the_last_places(task):
    words = fitted("coop", task, init="a photo of a").context.detach()
    made = fitted("prograd", task, n=6)
    assert torch.equal(made.context[2:].detach(), words) and not made.context[:2].any(), "zeros, then the words"
    short = fitted("prograd", task, n=2)
    assert torch.equal(short.context.detach(), words[-2:]), "of more words than places the last"
    given = fitted("prograd", task, n=2, init="photo of")
    assert torch.equal(given.context.detach(), words[1:3]), "words that are given come first"
    bare = task_on(task.backbone, template="{} is what it shows.")
    assert 0 < fitted("prograd", bare, n=2).context.std() < 0.1, "without words in front the start is random"


def test_tcp_puts_tokens_of_the_class_in_the_contexts_place(task):
    torch.manual_seed(0)
    made, entering = fitted("tcp", task), []
    assert made.enters == 1, "of two blocks the last"
    written = task.backbone.tokenize([sentence for (sentence,) in task.prompts])["input_ids"]
    assert torch.equal(made.prompts.tokens["input_ids"], written), "a learned sentence must close as the written one"
    with task.backbone.taps({"text.block.1": lambda x, out: entering.append(x) or out}):
        made.text()
    hidden = task.text @ made.down.weight.T + made.down.bias
    tokens = (hidden * (1.702 * hidden).sigmoid()) @ made.up.weight.T + made.up.bias
    assert torch.allclose(entering[0][:, 1:5], tokens.view(5, 4, -1), atol=1e-5), "the network's tokens must enter"


def test_tcp_of_one_block_or_in_the_first_adds_its_tokens_to_the_context(task):
    made = fitted("tcp", task, block=0)
    want = unit(made.prompts.encode(made.context + made.tokens()))
    assert made.enters == 0 and torch.equal(made.text(), want), "block 0 has them in the context itself"
    made.loss(task.bind(made).support).backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters()), "all that is learned must matter"


@pytest.mark.parametrize("n", [2, 6])
def test_tcp_as_released_has_four_tokens_whatever_the_words(task, n):
    made, entering = fitted("tcp", task, n=n, init="", as_released=True), []
    plain = fitted("tcp", task, n=n, init="")
    plain.context.data.copy_(made.context)
    assert made.tokens().shape[1] == 4 and plain.tokens().shape[1] == n, "four of the release, else one for each word"
    with task.backbone.taps({"text.block.1": lambda x, out: entering.append(x) or out}):
        made.text(), plain.text()
    assert torch.equal(entering[0][:, 1:5], made.tokens()), "the tokens must enter after the start"
    assert torch.equal(entering[0][:, max(5, n + 1) :], entering[1][:, max(5, n + 1) :]), "what follows must stay"
    made.loss(task.bind(made).support).backward()
    assert made.context.grad.any() and made.up.weight.grad.any(), "all that is learned must matter"
    assert fitted("tcp", task, n=n, init="", block=0, as_released=True).text().isfinite().all(), "in the first block"


LASP = {"templates": ["a photo of a {}.", "a bad photo of the {}.", "art of the {}.", "{} texture."], "norms": False}


def apart(learned, written, scale, released=False):
    """The text-to-text loss, sentence by sentence: learned ``(C, D)`` among written ``(L, C, D)``."""
    losses = []
    for template in written:
        for c in range(len(learned)):
            scores = learned @ template[c] if released else template @ learned[c]
            losses.append(-(scale * scores).log_softmax(0)[c])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("virtual", [(), ("emu", "grey_seal")])
def test_lasp_tells_learned_sentences_apart_by_written_ones(groups, virtual, task):
    torch.manual_seed(0)
    made = fitted("lasp", task, groups=groups, virtual=virtual, init="", n=3, std=0.5, weight=7.0, **LASP)
    made.added.data.normal_(std=0.1)
    names = [name.replace("_", " ") for name in (*CLASSES, *virtual)]
    written = [unit(task.backbone.encode_text([t.format(name) for name in names])) for t in LASP["templates"]]
    learned = [unit(made.prompts.encode(context) + made.added) for context in made.contexts]
    scale, (x, labels) = task.backbone.logit_scale, embedded(task)
    between = torch.stack([apart(own, written[g::groups], scale) for g, own in enumerate(learned)]).mean()
    text = unit(torch.stack(learned).mean(0))[:5]
    want = F.cross_entropy(task.backbone.logits(x, text), labels) + 7.0 * between
    got = made.loss(task.bind(made).support)
    assert torch.allclose(got, want, rtol=1e-5), f"each group must be held to its own templates; got {got} for {want}"
    assert predict(made.eval(), torch.randn(3, 3, 32, 32)).shape == (3, 5), "virtual classes are not asked for"


def test_lasp_as_released_chooses_among_learned_sentences_and_adds_noise(task):
    made = fitted("lasp", task, groups=1, as_released=True, **LASP)
    learned, values = made.learned(), []
    for seed in range(8):
        torch.manual_seed(seed)
        values.append(made.text_to_text(learned))
    plain = apart(learned[0], made.written.answer, task.backbone.logit_scale, released=True)
    same = [bool(torch.isclose(value, plain, rtol=1e-5)) for value in values]
    assert any(same) and not all(same), f"noise must come at some steps only; got {same}"


def test_lasp_trains_the_norms_of_the_image_tower_at_their_own_pace(task):
    made = adapt(method("lasp", groups=2, templates=LASP["templates"], **BRIEF), task)
    assert len(made.tuned) == 2 * 2 * 2, "weight and bias of two norms in each of two blocks"
    moved = [not torch.equal(p, task.backbone.weight(name)) for name, p in zip(made.names, made.tuned, strict=True)]
    assert all(moved), "every norm must have learned"
    fresh = fitted("lasp", task)
    groups = fresh.schedule.make(fresh.parameter_groups([*fresh.parameters()])).param_groups
    rates = [group["lr"] for group in groups]
    assert rates == pytest.approx([2e-3, 2e-4]), "the norms learn at a tenth of the rate"
    assert sum(len(group["params"]) for group in groups) == 3 + 1 + 8, "every parameter must be in one group"
    plain = adapt(method("lasp", correction=False, **LASP, **BRIEF), task)
    assert not plain.added.any() and not len(plain.tuned), "what is switched off must not learn"
    with pytest.raises(ValueError, match="groups must be at most the templates, 4; got 5"):
        fitted("lasp", task, groups=5, **LASP)
    with pytest.raises(ValueError, match=r"templates must have \{\} once"):
        fitted("lasp", task, templates=["a photo"] * 3)


def test_upl_trains_each_context_as_if_it_were_alone(task):
    torch.manual_seed(0)
    made = fitted("upl", task, members=3, n=2)
    starts = [context.detach().clone() for context in made.contexts]
    assert not torch.equal(starts[0], starts[1]), "each member must start from noise of its own"
    made.loss(task.bind(made).support).backward()
    x, _ = embedded(task)
    logits = torch.randn(0)
    for start, context in zip(starts, made.contexts, strict=True):
        alone = fitted("coop", task, n=2)
        alone.context.data.copy_(start)
        alone.loss(task.bind(alone).support).backward()
        assert torch.allclose(context.grad, alone.context.grad, rtol=1e-3, atol=1e-5), "CoOp's own gradient"
        logits = torch.cat([logits, task.backbone.logits(x, alone.text())[None]])
    assert torch.allclose(predict(made.eval(), x), logits.mean(0), atol=1e-4), "the mean of their logits"


def test_upl_takes_contexts_of_each_class(task):
    made = adapt(method("upl", members=2, n=2, per_class=True, **BRIEF), task)
    assert [tuple(c.shape) for c in made.contexts] == [(5, 2, 24)] * 2, "a context of each member for each class"
    assert predict(made, torch.randn(3, 3, 32, 32)).shape == (3, 5), "five classes"


def test_pseudo_labels_may_be_those_of_several_backbones():
    def loaded(**options):
        return load("toy", backbone="toy:0", shots=3, seed=1, select="none", support={"pseudo-label": options})[0]

    task, needs = loaded(others=["toy:1"]), {"x": Pooled(), "y": Pooled(backbone="toy:1")}
    images = task.pool.bind(needs)
    own, other = task.backbone.logits(images.x, task.text), task.backbone.logits(images.y, task.text_by("toy:1"))
    mean = (own + other) / 2
    for options, ranked in (({}, mean.softmax(-1)), ({"as_released": True}, mean)):
        support = loaded(others=["toy:1"], **options).support
        best = [set((ranked.max(1).values * (mean.argmax(1) == c)).topk(3).indices.tolist()) for c in range(5)]
        for c in set(support.labels.tolist()):
            rows = set(support.index[support.labels == c].tolist())
            assert rows <= {int(images.index[i]) for i in best[c]}, f"the surest of class {c} by {options}"
    assert sorted(loaded().support.index.tolist()) != sorted(task.support.index.tolist()), (
        "the other backbone must count"
    )


@pytest.mark.parametrize(("contexts", "released"), [(5, False), (8, True), (1, False)])
def test_proda_bounds_the_expected_loss_under_the_gaussian_of_its_contexts(contexts, released, task):
    torch.manual_seed(0)
    options = {"contexts": contexts, "at_once": contexts, "std": 0.7, "weight": 0.3, "as_released": released}
    made = fitted("proda", task, n=4, **options)
    quarter, x_and_labels = contexts // 4, embedded(task)
    places = ["front"] * quarter + ["middle"] * quarter + ["end"] * (contexts - 2 * quarter)
    alone = [Prompts(task.backbone, CLASSES, n=4, position=place) for place in places]
    text = torch.stack([unit(p.encode(c)) for p, c in zip(alone, made.context, strict=True)])  # (K, C, D)
    mean, scale, losses = text.mean(0), task.backbone.logit_scale, []
    for x, y in zip(*x_and_labels, strict=True):
        logits = scale * mean @ x
        for c in range(5):
            apart = (text[:, c] - mean[c]) - (text[:, y] - mean[y])  # (K, D)
            spread = (apart.square().sum(0) / (contexts + released) * x.square()).sum()
            logits[c] = logits[c] + 0.5 * scale**2 * spread
        losses.append(F.cross_entropy(logits, y))
    bare = unit(Prompts(task.backbone, [""], n=4).encode_each(made.context)[:, 0])
    pairs = [abs(bare[i] @ bare[j]) for i in range(contexts) for j in range(contexts) if i != j]
    want = torch.stack(losses).mean() + 0.3 * (torch.stack(pairs).mean() if pairs else 0)
    got = made.loss(task.bind(made).support)
    assert torch.allclose(got, want, rtol=1e-4), f"the bound and how alike contexts are; got {got} for {want}"
    x, _ = x_and_labels
    assert torch.allclose(predict(made.eval(), x), scale * x @ mean.T, atol=1e-4), "the mean must answer"


def test_proda_walks_through_all_contexts(task):
    made = fitted("proda", task, contexts=8, at_once=3)
    steps = [made.drawn().tolist() for _ in range(4)]
    assert len({*steps[0], *steps[1]}) == 6 and len({*steps[2], *steps[3]}) == 6, (
        "no context twice before all had a turn"
    )
    assert made.kinds.tolist() == [0, 0, 1, 1, 2, 2, 2, 2], (
        "a quarter in front, a quarter in the middle, half at the end"
    )


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("init", ["", "a photo of a"])
def test_cocoop_shifts_the_words_of_each_image_wherever_the_name_stands(position, per_class, init, task):
    torch.manual_seed(0)
    made = fitted("cocoop", task, n=4, init=init, position=position, per_class=per_class, std=0.5).eval()
    assert made.context.shape == ((5, 4, 24) if per_class else (4, 24)), "a context for each class, or one"
    x, labels = embedded(task)
    first, second, rows = made.meta_net[0], made.meta_net[2], []
    prompts = Prompts(task.backbone, CLASSES, n=4, init=init, position=position)
    for image in x:
        shift = second.weight @ (first.weight @ image + first.bias).clamp_min(0) + second.bias
        contexts = [(made.context[c] if per_class else made.context) + shift for c in range(5)]
        text = torch.stack([prompts.encode(context)[c] for c, context in enumerate(contexts)])
        rows.append(task.backbone.logit_scale * unit(text) @ image)
    want = torch.stack(rows)
    assert torch.allclose(predict(made, x), want, atol=1e-4), "each image must have a prompt of its own"
    got = made.loss(task.bind(made).support)
    assert torch.allclose(got, F.cross_entropy(want, labels), atol=1e-4), "the mean cross-entropy"
    if init:
        written = {"end": "a photo of a {}.", "middle": "a photo {} of a.", "front": "{} a photo of a."}[position]
        tokens = task.backbone.tokenize([written.format(name) for name in CLASSES])["input_ids"]
        assert torch.equal(made.prompts.tokens["input_ids"], tokens), f"the words must read as {written!r}"


def test_cocoop_keeps_the_words_that_it_does_not_learn(task):
    made = fitted("cocoop", task, n=2)
    assert made.context.shape == (2, 24), "the first two words are learned, the others stay"


def one_block():
    """A random CLIP of one block to a tower, one of them wider than the other."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    end = {"eos_token_id": 95, "bos_token_id": 94, "pad_token_id": 0, "vocab_size": 96, "max_position_embeddings": 40}
    image = {**tower, "hidden_size": 20, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config={**tower, **end, "hidden_size": 12}, vision_config=image, projection_dim=10)
    )
    return CLIPBackbone(model, toy_tokenizer, Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize("name", ALL)
def test_towers_of_one_block_do(name):
    task = task_on(one_block(), ("cat", "a_very_long_name_of_a_grey_seal"), side=16, shots=1)
    made = fitted(name, task, n=3, init="")
    made.loss(task.bind(made).support).backward()
    idle = [key for key, p in made.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle or name == "proda", f"all that is learned must matter; {idle} of {name} does not"
    assert predict(made.eval(), torch.randn(3, 3, 16, 16)).isfinite().all(), f"{name} must answer"
