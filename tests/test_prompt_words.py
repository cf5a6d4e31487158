"""Methods that learn words for the text tower: each option does what it says, on small towers of several kinds."""

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Preprocess, Task, adapt, method, predict, unit
from adaptkit.methods.adapt import retarget
from adaptkit.testing import CLASSES, toy_backbone
from tests.test_prompting import siglip

KINDS = ["kgcoop", "prograd", "tcp"]
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


@pytest.mark.parametrize("name", KINDS)
def test_it_runs_on_siglip_with_two_classes_and_one_shot(name):
    backbone = siglip()
    backbone.preprocess = Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    task = task_on(backbone, ("cat", "sea_owl"), side=16, shots=1, template="a {} pet.")
    made = adapt(method(name, n=2, init="", **BRIEF), task)
    assert predict(made, torch.randn(3, 3, 16, 16)).shape == (3, 2), f"{name} must answer for two classes"


@pytest.mark.parametrize("name", KINDS)
def test_new_classes_are_answered_with_what_was_learned(name, task):
    made = adapt(method(name, **BRIEF), task)
    names = ("emu", "grey_seal", "cat")
    turned = retarget(made, task_on(task.backbone, names))
    assert predict(turned, torch.randn(4, 3, 32, 32)).shape == (4, 3), "three other classes"
    assert torch.equal(turned.context, made.context), "what was learned must stay"
    own = method(name, per_class=True, **BRIEF)
    with pytest.raises(ValueError, match="per_class must be false where a context serves other classes"):
        retarget(adapt(own, task), task_on(task.backbone, names))


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
