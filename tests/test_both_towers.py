"""Tokens in both towers, or in the image tower: what each option does, towers of other depths, new classes, saving."""

import json

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Task, adapt, load_classifier, method, predict, save_classifier, unit
from adaptkit.methods.adapt import retarget
from adaptkit.methods.ops import as_queries
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.testing.toy import SIDE, toy_tokenizer
from adaptkit.towers.clip import CLIPBackbone
from adaptkit.towers.prompting import image_prompts
from tests.test_prompting import siglip

NAMES = {
    "vpt": {},
    "ivlp": {},
    "prompt-src": {"templates": ("a photo of a {}.", "a small {}.")},
    "maple": {},
    "co-prompt": {},
}
COUPLED = ("maple", "co-prompt")
OTHERS = ("sea owl", "a_very_long_name of an animal", "hen")


def uneven(text_blocks, image_blocks):
    """A random CLIP whose towers differ in depth, width and heads."""
    from transformers import CLIPConfig, CLIPModel

    ends = {"eos_token_id": 95, "bos_token_id": 94, "pad_token_id": 0, "vocab_size": 96, "max_position_embeddings": 40}
    text = {"num_hidden_layers": text_blocks, "hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
    image = {"num_hidden_layers": image_blocks, "hidden_size": 20, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**image, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config={**text, **ends}, vision_config=vision, projection_dim=10)
    torch.manual_seed(0)
    return CLIPBackbone(CLIPModel(config), toy_tokenizer, toy_backbone().preprocess)


TOWERS = {
    "toy": toy_backbone,
    "short text": lambda: uneven(1, 3),
    "short image": lambda: uneven(3, 1),
    "siglip": siglip,
}


def task_over(backbone, classnames=CLASSES, shots=2):
    """Some images of each class, as pixels of the size that the towers take."""
    side, count = (SIDE if backbone is toy_backbone() else 16), len(classnames)
    labels = torch.arange(count * shots) % count
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in classnames])
    torch.manual_seed(1)
    pixels = torch.randn(count, 3, side, side)[labels] + torch.randn(len(labels), 3, side, side)
    return Task.from_arrays((pixels, labels), text, classnames=classnames, backbone=backbone)


@pytest.fixture
def task():
    return task_over(toy_backbone())


def queries(task, n=5):
    torch.manual_seed(2)
    return torch.randn(n, *task.support.bind(method("vpt").needs()).pixels.shape[1:])


def fitted(name, task, **options):
    made = method(name, **{**NAMES.get(name, {}), **options})
    made.fit(task.bind(made))
    return made


def trained(name, task, steps=3, **options):
    torch.manual_seed(0)
    schedule = {"steps": steps, "warmup": 0, "lr": 0.02, "batch_size": 4}
    return adapt(method(name, **{**NAMES.get(name, {}), **options}, schedule=schedule), task)


@pytest.mark.parametrize(
    ("name", "towers"),
    [(name, towers) for name in (*NAMES, "map") for towers in TOWERS if (name, towers) != ("map", "siglip")],
)
def test_towers_of_any_depth_answer_for_their_classes_and_for_new_ones_and_after_saving(name, towers, tmp_path):
    task = task_over(TOWERS[towers](), CLASSES[:2], shots=1)
    made, x = trained(name, task), queries(task)
    answers = predict(made, x)
    assert answers.shape == (5, 2), f"two classes have two logits; got {tuple(answers.shape)}"
    assert torch.allclose(predict(made, x, batch_size=2), answers, atol=1e-4), "whatever the batches"
    others = task_over(task.backbone, OTHERS)
    moved = predict(retarget(made, others), x)
    assert moved.shape == (5, 3), "and three new ones have three"
    if towers != "toy":
        return
    save_classifier(tmp_path / "saved", made, task, backbone="toy:0")
    again = load_classifier(tmp_path / "saved").method
    assert torch.equal(predict(again, x), answers), "a saved one answers bit for bit"
    assert torch.equal(predict(retarget(again, others), x), moved), "for new classes too"


@pytest.mark.parametrize("name", NAMES)
def test_every_block_that_there_is_gets_tokens_and_no_other(name):
    for text_blocks, image_blocks in ((1, 3), (3, 1)):
        made = fitted(name, task_over(uneven(text_blocks, image_blocks)))
        coupled = name in COUPLED
        want = min(text_blocks, image_blocks) if coupled else image_blocks
        assert len(made.image_tokens()) == want, f"{want} blocks of the image tower must have tokens"
        if name != "vpt":
            want = min(text_blocks, image_blocks) if coupled else text_blocks
            assert len(made.deep) == want - 1, f"{want} blocks of the text tower must have tokens"


def test_vpt_puts_tokens_behind_the_patches_and_replaces_them_in_every_block(task):
    made, seen = fitted("vpt", task, n=3), []
    taps = {f"image.block.{i}.norm1": lambda tokens, out: seen.append(tokens) or out for i in range(2)}
    with task.backbone.taps(taps):
        predict(made, queries(task))
    patches = (SIDE // 8) ** 2
    for i, tokens in enumerate(seen):
        assert tokens.shape[1] == 1 + patches + 3, "a class token, patches, and three learned ones"
        if i:
            assert torch.equal(tokens[:, -3:], made.visual[i].expand(5, -1, -1)), "a later block's are new ones"
    shallow = fitted("vpt", task, n=3, depth=1)
    assert len(shallow.visual) == 1, "one block is the shallow variant"
    with torch.no_grad():
        shallow.visual[0].copy_(made.visual[0])
        made.visual[1].add_(1)
    assert not torch.allclose(predict(made, queries(task)), predict(shallow, queries(task))), "deep ones must matter"


def test_vpt_learns_no_text(task):
    made = trained("vpt", task)
    assert torch.equal(made.text, task.text), "class embeddings must stay as they were"


def test_ivlp_without_image_tokens_reads_stored_embeddings(task):
    made = trained("ivlp", task, depth_image=0)
    assert not len(made.visual), "the image tower learns nothing"
    assert not made.needs()["x"].views and made.support_needs()["views"].views == 10, "both can be stored"
    x = queries(task)
    with torch.no_grad():
        logits = task.backbone.logits(unit(task.backbone.encode_image(x)), unit(made.class_embeddings()))
    assert torch.allclose(predict(made, x), logits, atol=1e-4), "images must be as the frozen tower sees them"


@pytest.mark.parametrize("name", ["ivlp", "prompt-src", *COUPLED])
def test_words_are_given_where_there_are_as_many_and_drawn_where_more_are_learned(name, task):
    torch.manual_seed(0)
    few, many = (fitted(name, task, n=n) for n in (2, 6))
    words = task.backbone.words(task.backbone.tokenize(["a photo"]))[0, 1:3]
    assert torch.equal(few.context, words), "two words must be the first two of four"
    assert many.context.shape[0] == 6 and many.context.std() < 0.1, "six must be drawn"


def by_hand(made, task, pixels, labels):
    """PromptSRC's loss, term by term, with loops where the method has none."""
    backbone, rows = made.backbone, []
    for name in task.classnames:
        raw = [backbone.encode_text([t.format(name)])[0] for t in made.templates]
        mean = sum(raw) / len(raw)
        rows.append(mean / mean.norm())
    frozen_text, frozen = torch.stack(rows), F.normalize(backbone.encode_image(pixels), dim=-1)
    with backbone.taps(image_prompts(made.visual)):
        x = F.normalize(backbone.encode_image(pixels), dim=-1)
    text = F.normalize(made.class_embeddings(), dim=-1)
    p, q = ((backbone.logit_scale * a @ b.T).softmax(1) for a, b in ((x, text), (frozen, frozen_text)))
    cross = -p[torch.arange(len(labels)), labels].log().mean()
    divergence = sum((q[i] * (q[i] / p[i]).log()).sum() for i in range(len(labels)))
    return cross, (text - frozen_text).abs().mean(), (x - frozen).abs().mean(), divergence / len(labels)


def test_the_loss_of_prompt_src_is_the_papers_term_by_term(task):
    options = {"text_weight": 3.0, "image_weight": 5.0, "logit_weight": 0.5}
    made = fitted("prompt-src", task, **options)
    batch = as_queries(task.bind(made).support, made.needs())
    with torch.no_grad():
        cross, text, image, divergence = by_hand(made, task, batch.pixels, batch.labels)
        got = made.loss(batch)
        made.as_released = True
        released = made.loss(batch)
    want = cross + 3 * text + 5 * image + 0.5 * divergence
    assert torch.allclose(got, want, atol=1e-5), f"got {got}, not {want}"
    want = want - 0.5 * divergence * (1 - 1 / len(CLASSES))
    assert torch.allclose(released, want, atol=1e-5), "the release divides the divergence by the classes, too"


def test_prompt_src_is_held_to_sixty_templates_where_none_are_given(task):
    given = fitted("prompt-src", task).frozen
    sixty = fitted("prompt-src", task, templates=()).frozen
    assert not torch.allclose(given, sixty, atol=1e-3), "other sentences, other embeddings"
    import adaptkit_plugins.prompt_learning.prompt_src as plugin

    assert len(set(plugin.SIXTY)) == 60, f"sixty that differ; got {len(set(plugin.SIXTY))}"
    assert all(t.count("{}") == 1 and t.endswith(".") and "  " not in t for t in plugin.SIXTY), "each one a sentence"
    with pytest.raises(ValueError, match=r"templates must have \{\} once"):
        fitted("prompt-src", task, templates=("a photo",))


def test_prompt_src_answers_with_the_gaussian_mean_of_its_epochs(task):
    schedule = {"steps": 7, "warmup": 0, "lr": 0.05}
    made = method("prompt-src", **NAMES["prompt-src"], mean=2.0, deviation=1.5, schedule=schedule)
    seen, add = [], made.add
    made.add = lambda epoch: seen.append([p.detach().clone() for p in made.parameters()]) or add(epoch)
    adapt(made, task)  # two steps an epoch
    assert len(seen) == 4, f"seven steps of two an epoch are four epochs, the last one cut; got {len(seen)}"
    weights = torch.tensor([made.weight(epoch) for epoch in range(1, 5)], dtype=torch.double)
    for i, p in enumerate(made.parameters()):
        want = sum(w * tokens[i] for w, tokens in zip(weights / weights.sum(), seen, strict=True))
        assert torch.allclose(p, want.float(), atol=1e-6), "the answer must be the weighted mean of the epochs"
    assert made.averaged is None, "and what it is made of need not be kept"


def test_prompt_src_without_the_average_answers_with_the_last_tokens(task):
    one, last = (trained("prompt-src", task, average=average, mean=1.0) for average in (True, False))
    assert not torch.equal(one.context, last.context), "the first epoch's tokens are not the last's"
    far = trained("prompt-src", task, mean=900.0, deviation=0.01)
    assert torch.equal(far.context, last.context), "where no epoch counts for anything, the last one does"


def test_the_adapters_of_co_prompt_are_mixed_into_raw_embeddings(task):
    made, x = fitted("co-prompt", task, image_share=0.3, text_share=0.6), queries(task)
    with torch.no_grad():
        for adapter in (made.adapter_image, made.adapter_text):
            hidden = F.relu(torch.randn(4, 16) @ (down := torch.randn(16, 4)))
            adapter[0].weight.copy_(down.T)
            assert adapter[2].weight.shape == (16, hidden.shape[1]), "a quarter of the width is hidden"
        raw = fitted("maple", task, n=made.n)
        raw.load_state_dict({k: v for k, v in made.state_dict().items() if not k.startswith("adapter")})
        for got, plain, adapter, share in (
            (made.prompted(x), raw.prompted(x), made.adapter_image, 0.3),
            (made.class_embeddings(), raw.class_embeddings(), made.adapter_text, 0.6),
        ):
            mapped = F.relu(F.relu(plain @ adapter[0].weight.T) @ adapter[2].weight.T)
            assert torch.allclose(got, share * mapped + (1 - share) * plain, atol=1e-5), "a ReLU after both maps"


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_co_prompt_is_held_to_another_view_and_to_one_sentence_of_each_class(distance, task):
    several = [["a cat.", "one cat."], ["a dog."], ["an owl.", "the owl.", "my owl."], ["a fox."], ["a hen.", "hens."]]
    rows = [task.backbone.encode_text(own) for own in several]
    pixels = queries(task, 10)
    task = Task.from_arrays(
        (pixels.view(5, 2, *pixels.shape[1:]), torch.arange(5)),
        rows,
        classnames=CLASSES,
        prompts=several,
        backbone=task.backbone,
    )
    made = fitted("co-prompt", task, distance=distance, weight=3.0)
    made.draw = lambda: 0.6
    batch = task.bind(made).support
    first, second = batch.views.unbind(1)
    with torch.no_grad():
        x, text = F.normalize(made.prompted(first), dim=-1), F.normalize(made.class_embeddings(), dim=-1)
        targets = torch.stack([own[i] for own, i in zip(rows, (1, 0, 1, 0, 1), strict=True)])
        pairs = ((text, targets), (x, task.backbone.encode_image(second)))
        if distance == "cosine":
            apart = sum((1 - (a * F.normalize(b, dim=-1)).sum(-1)).mean() for a, b in pairs)
        else:
            apart = sum(((a - F.normalize(b, dim=-1)) ** 2).mean() for a, b in pairs)
        want = F.cross_entropy(task.backbone.logit_scale * x @ text.T, batch.labels) + 3 * apart
        got = made.loss(batch)
    assert torch.allclose(got, want, atol=1e-4), f"got {got}, not {want}"


def test_co_prompt_reads_sentences_of_a_file_and_draws_every_one(task, tmp_path):
    (tmp_path / "told.json").write_text(json.dumps({c: [f"a {c}.", f"one {c}."] for c in CLASSES}))
    made = fitted("co-prompt", task, file=str(tmp_path / "told.json"))
    assert [len(rows) for rows in made.sentences] == [2] * 5, "two sentences of each class"
    seen = {round(float(made.drawn()[0, 0]), 5) for _ in range(30)}
    assert len(seen) == 2, f"either of two must come; got {seen}"
    assert trained("co-prompt", task).sentences is None, "they need not be kept"


ATTRIBUTES = {c: ["whiskers", f"{c} ears", "fur"][: 1 + i % 3] for i, c in enumerate(CLASSES)}


def attributes_file(folder):
    (folder / "attributes.json").write_text(json.dumps({"descriptors": {"classes": ATTRIBUTES}}))
    return str(folder / "attributes.json")


def map_by_hand(made, pixels):
    """MAP's logits, image by image and class by class, with the tower's modules one after the other."""
    backbone, vision = made.backbone, made.backbone.model.vision_model

    def joint(token):
        return F.normalize(backbone.model.visual_projection(vision.post_layernorm(token)), dim=-1)

    written = [[f"{c}, which has {a}" for a in ATTRIBUTES[c]] for c in CLASSES]
    written = [[own[k % len(own)] for k in range(made.attributes)] for own in written]
    names = F.normalize(backbone.encode_text([f"a photo of a {c}." for c in CLASSES]), dim=-1)
    texts = [F.normalize(backbone.encode_text([f"a photo of a {a}." for a in own]), dim=-1) for own in written]
    logits = torch.zeros(len(pixels), len(CLASSES))
    for i, image in enumerate(pixels):
        hidden = torch.cat([vision.embeddings(image[None])[0], made.visual[0]])
        hidden = vision.pre_layrnorm(hidden)
        for number, layer in enumerate(vision.encoder.layers, 1):
            hidden = layer(hidden[None], attention_mask=None)[0]
            if number == min(made.block, len(vision.encoder.layers)):
                nearest = (names @ joint(hidden[0])).argsort(descending=True)[: made.candidates]
                told = torch.cat([texts[c] for c in nearest])
                for m in range(made.tokens):
                    own = hidden[len(hidden) - made.tokens + m]
                    scores = made.key(told) @ made.query(own) / len(own) ** 0.5
                    own = own + (scores.softmax(0)[:, None] * made.value(told)).sum(0)
                    hidden[len(hidden) - made.tokens + m] = own + made.refine(own)
        x, seen = joint(hidden[0]), joint(hidden[-made.tokens :])
        for c in range(len(CLASSES)):
            cosines = (seen @ texts[c].T).double()
            kernel = ((cosines - 1) / made.epsilon).exp()
            u, v = torch.ones(len(kernel)).double(), torch.ones(kernel.shape[1]).double()
            for _ in range(300):
                u = 1 / len(u) / (kernel @ v)
                v = 1 / len(v) / (kernel.T @ u)
            matched = (u[:, None] * kernel * v * cosines).sum()
            logits[i, c] = backbone.logit_scale * (x @ names[c] + made.weight * matched)
    return logits


@pytest.mark.parametrize(("block", "candidates"), [(1, 2), (7, 10)])
def test_map_answers_as_its_account_says_part_by_part(block, candidates, task, tmp_path):
    options = {"tokens": 3, "attributes": 2, "block": block, "candidates": candidates, "weight": 0.7}
    made = fitted("map", task, **options, file=attributes_file(tmp_path))
    for parameter in (made.value.weight, made.refine[-1].weight):
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        want, got = map_by_hand(made, queries(task, 3)), predict(made, queries(task, 3))
    assert torch.allclose(got, want, atol=1e-3), f"off by {(got - want).abs().max()}"


def test_the_plan_of_map_has_equal_masses_however_little_entropy_counts(task):
    made, cosines = fitted("map", task), torch.rand(2, 5, 4, 3) * 2 - 1
    for epsilon, room in ((0.1, 1e-5), (1e-6, 2e-2)):  # a millionth leaves few digits
        made.epsilon, made.iterations = epsilon, 1000
        plan = made.plan(cosines)
        assert plan.isfinite().all() and (plan >= 0).all(), "masses must be numbers"
        assert torch.allclose(plan.sum(-2), torch.full((2, 5, 3), 1 / 3), atol=room), "each attribute gets as much"
    made.epsilon = 0.1
    assert torch.allclose(made.plan(cosines).sum(-1), torch.full((2, 5, 4), 1 / 4), atol=1e-3), "from each token"


def test_map_starts_with_tokens_that_take_nothing_from_attributes(task):
    made, x = fitted("map", task), queries(task)
    other = fitted("map", task, block=1)
    other.load_state_dict(made.state_dict())
    assert torch.equal(predict(made, x), predict(other, x)), "whatever the block, nothing is added at the start"
    made.loss(task.bind(made).support).backward()
    assert made.value.weight.grad.abs().sum() > 0, "and training can begin"


def test_map_reads_the_tasks_own_sentences_without_a_file(task):
    made = fitted("map", task, attributes=2)
    ids = made.prompts.tokens["input_ids"]
    names, attributes = ids[: len(CLASSES)], ids[len(CLASSES) :]
    assert torch.equal(attributes, names.repeat_interleave(2, 0)), "of one sentence, less the learned words, the name"


def test_map_says_that_it_needs_a_class_token():
    with pytest.raises(ValueError, match=r"must have tap point 'image\.projection'"):
        fitted("map", task_over(siglip()))
