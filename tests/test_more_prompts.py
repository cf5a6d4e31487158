"""What learns several prompts, by images' statistics, or without labels: options, losses, small towers, new names."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from adaptkit import (
    Images,
    Layers,
    Method,
    Pooled,
    Task,
    adapt,
    load_classifier,
    method,
    predict,
    save_classifier,
    unit,
)
from adaptkit.methods.adapt import retarget
from adaptkit.methods.candidates import candidate_bounds, candidates
from adaptkit.runs import plugins
from adaptkit.testing import CLASSES, toy_backbone
from adaptkit.towers.prompting import image_prompts
from tests.test_prompting import siglip

OURS = {
    "plot": {"n": 4},
    "plot, pooled": {"n": 4, "pooled": True},
    "plot-plus-plus": {},
    "mocoop": {},
    "gopro": {},
    "eco": {},
    "fpl-prompts": {"n": 4},
    "fpl-prompts, image": {"n": 4, "modality": "image"},
    "fpl-prompts, both": {"n": 4, "modality": "both"},
    "cpl": {"n": 4, "partial": "rc"},
    "cpl, image": {"n": 4, "modality": "image"},
    "ship": {"others": ("elk", "ant"), "hidden_generator": 8, "hidden_encoder": 8, "generator": {"steps": 2}},
}
BRIEF = {"schedule": {"steps": 2, "warmup": 0, "batch_size": 4}}


@pytest.fixture
def task():
    """Two images a class, as pixels."""
    return pictured(toy_backbone(), CLASSES)


def pictured(backbone, names, per_class=2, side=32):
    """Random images of some classes as a task."""
    labels = torch.arange(per_class * len(names)) % len(names)
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in names])
    pixels = torch.randn(len(names), 3, side, side)[labels] + torch.randn(len(labels), 3, side, side)
    return Task.from_arrays((pixels, labels), text, classnames=names, backbone=backbone)


def fitted(name, task, **options):
    made = method(name.partition(",")[0], **{**OURS.get(name, {}), **options})
    for child in made.children_methods():
        adapt(child, task)
    made.fit(task.bind(made))
    return made


def shallow():
    """Towers of one block each."""
    from transformers import CLIPConfig, CLIPModel

    from adaptkit.testing.toy import toy_tokenizer
    from adaptkit.towers.clip import CLIPBackbone

    tower = {"num_hidden_layers": 1, "num_attention_heads": 1, "projection_dim": 12, "intermediate_size": 20}
    text = {**tower, "hidden_size": 10, "vocab_size": 96, "max_position_embeddings": 40, "eos_token_id": 95}
    vision = {**tower, "hidden_size": 14, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    return CLIPBackbone(model, toy_tokenizer, toy_backbone().preprocess)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("towers", ["siglip", "shallow"])
def test_other_towers_are_adapted_and_answer_for_two_classes_of_one_shot(name, towers):
    backbone = siglip() if towers == "siglip" else shallow()
    backbone.preprocess = replace(toy_backbone().preprocess, size=16)
    task = pictured(backbone, ["cat", "dog"], per_class=1, side=16)
    made, pixels = adapt(method(name.partition(",")[0], **OURS[name], **BRIEF), task), torch.randn(3, 3, 16, 16)
    answers = predict(made, pixels)
    assert answers.shape == (3, 2), f"{name} must answer for two classes; got {tuple(answers.shape)}"
    one_by_one = predict(made, pixels, batch_size=1)
    assert torch.allclose(answers, one_by_one, atol=1e-4), f"{name} must answer alike in any batch"


@pytest.mark.parametrize("name", OURS)
def test_a_saved_classifier_answers_other_names_as_before_it_was_saved(name, task, tmp_path):
    made, pixels = adapt(method(name.partition(",")[0], **OURS[name], **BRIEF), task), torch.randn(3, 3, 32, 32)
    save_classifier(tmp_path, made, task, backbone="toy:0")
    again = load_classifier(tmp_path)
    assert torch.equal(predict(again.method, pixels), predict(made, pixels)), f"{name} must answer bit for bit"
    names = ["polar bear", "very long name of one bird", "ox"]
    new = pictured(task.backbone, names)
    got, want = (predict(retarget(m, new), pixels) for m in (again.method, made))
    assert torch.equal(got, want) and got.shape == (3, 3), f"{name} must answer for new names as before it was saved"


def test_plot_is_the_papers_transport(task):
    plot = fitted("plot", task, n=2, iterations=500, threshold=0.0)
    cosines = torch.rand(3, 5, 16, 4).double()
    plan = plot.plan(cosines)
    assert torch.allclose(plan.sum(-1), torch.full((3, 5, 16), 1 / 16).double()), "patches must have equal mass"
    assert torch.allclose(plan.sum(-2), torch.full((3, 5, 4), 1 / 4).double()), "prompts must have equal mass"
    potential = plan.log() - cosines / plot.epsilon  # of an entropic plan, a sum of one term a row and one a column
    cross = potential - potential[..., :1, :] - potential[..., :1] + potential[..., :1, :1]
    assert cross.abs().max() < 1e-8, "the plan must be the kernel, scaled by rows and by columns"


def test_plots_pairs_stop_by_themselves_unless_as_released(task):
    cosines = torch.rand(1, 2, 9, 3)
    cosines[:, 1] = 0.5  # done at once
    ours, theirs = (fitted("plot", task, as_released=flag) for flag in (False, True))
    alone = ours.plan(cosines[:, 1:])
    assert torch.equal(ours.plan(cosines)[:, 1:], alone), "a pair must not wait for others"
    theirs.threshold = 1e-5
    ours.threshold = 1e-5
    assert not torch.equal(ours.plan(cosines)[:, :1], theirs.plan(cosines)[:, :1]), "a batch must stop together"


def test_plot_learns_and_adds_pooled_logits(task):
    pixels = torch.randn(3, 3, 32, 32)
    plain, pooled = (fitted("plot", task, pooled=flag).eval() for flag in (False, True))
    pooled.context.data.copy_(plain.context)
    with torch.no_grad():
        x = unit(task.backbone.encode_image(pixels))
        mean = unit(plain.prompts.encode(plain.context[:, None]).mean(0))
    want = predict(plain, pixels) + task.backbone.logits(x, mean)
    assert torch.allclose(predict(pooled, pixels), want, atol=1e-4), "pooled must add the mean prompt's logits"
    quick = {"schedule": {"steps": 40, "lr": 0.05, "warmup": 0}}
    made = adapt(method("plot", n=4, **quick), task)
    before, after = (m.eval().loss(task.bind(m).support) for m in (fitted("plot", task, n=4), made))
    assert after < before - 0.1, f"the loss must fall; got {before} to {after}"


def test_plots_class_contexts_serve_no_other_names(task):
    made = fitted("plot", task, per_class=True)
    assert made.context.shape[:2] == (4, 5), "four contexts for each of five classes"
    with pytest.raises(ValueError, match="per_class must be false"):
        retarget(made, task)


def test_mocoops_loss_is_the_sum_of_its_parts_written_plainly(task):
    made = fitted("mocoop", task, text_weight=3.0, gate_weight=0.5).eval()
    x, y = task.bind(made).support.views[:, 0], task.support.labels  # (S, D), (S,)
    text, protos = made.texts(made.experts), made.prototypes  # (G, C, D)
    logits, gates = [], []
    for image, label in zip(x, y, strict=True):
        scores = made.gate(image)
        first, second = scores.argsort(descending=True)[:2].tolist()
        share = scores[[first, second]].softmax(-1)
        mixed = share[0] * text[first] + share[1] * text[second]  # (C, D)
        logits.append(task.backbone.logit_scale * mixed @ image)
        suits = protos[:, label] @ image
        suits[suits.argsort(descending=True)[:2]] += 10
        gates.append(-(suits.softmax(-1) * scores.log_softmax(-1)).sum())
    texts = [F.cross_entropy(text[g] @ protos[g].T, torch.arange(5)) for g in range(len(protos))]
    want = F.cross_entropy(torch.stack(logits), y) + 3 * sum(texts) / len(texts) + 0.5 * sum(gates) / len(gates)
    assert torch.allclose(made.loss(task.bind(made).support), want, rtol=1e-5), "the loss must be the paper's three"


def test_mocoops_prompts_start_as_their_templates(task):
    made = fitted("mocoop", task, groups=(("a photo of a {}.",), ("{} in a photo", "a {}")))
    with torch.no_grad():
        want = [
            unit(task.backbone.encode_text([t.format(c) for c in CLASSES]))
            for t in ("a photo of a {}", "{} in a photo")
        ]
        assert torch.allclose(made.texts(made.experts), torch.stack(want), atol=1e-5), "before training, the templates"
    assert [len(words) for words in made.before] == [4, 0], "words before the name"
    assert [len(words) for words in made.after] == [0, 3], "words behind it"
    with pytest.raises(ValueError, match=r"mocoop\.groups must have {} once"):
        fitted("mocoop", task, groups=(("a photo",),))
    for empty in ((), (("a {}",), ())):
        with pytest.raises(ValueError, match=r"mocoop\.groups must each have a template"):
            fitted("mocoop", task, groups=empty)


def test_mocoop_holds_other_names_to_their_templates(task):
    made = fitted("mocoop", task, others=("ox", "cat"))
    assert made.prototypes.shape[1] == 6, "five classes and one more name"
    made.loss(task.bind(made).support).backward()
    assert predict(made.eval(), torch.randn(2, 3, 32, 32)).shape == (2, 5), "only the task's classes are answered"
    kept = copy.deepcopy(made)
    assert kept.held is not kept.experts, "a copy must keep the further names"


def test_gopro_reads_mean_and_deviation_of_every_blocks_tokens(task):
    need, pixels = method("gopro").needs()["statistics"], torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        rows = need.compute(task.backbone, pixels)
        layers = Layers(blocks=(0, 1)).compute(task.backbone, pixels)  # (B, K, T, W)
    want = torch.stack([layers.mean(2), layers.std(2, correction=0)], 2)
    assert torch.allclose(rows, want, atol=1e-5), "the mean over tokens, and the deviation"
    assert rows.shape[1:] == need.shape(task.backbone), "the shape must be as told"


def test_gopros_contrastive_loss_is_simclrs(task):
    gopro, x, other = fitted("gopro", task, tau=0.5).eval(), torch.randn(4, 16), torch.randn(4, 16)
    both = unit(gopro.projector(torch.cat([x, other])))
    terms = []
    for i in range(8):
        cosines = [(both[i] @ both[j] / 0.5).exp() for j in range(8) if j != i]
        terms.append(-((both[i] @ both[(i + 4) % 8] / 0.5).exp() / sum(cosines)).log())
    assert torch.allclose(gopro.contrastive(x, other), sum(terms) / 8, rtol=1e-5), "the loss must be SimCLR's"
    assert gopro.contrastive(x[:1], other[:1]) == 0, "one image has nobody to be told from"


def test_gopros_weights_weigh_its_losses(task):
    made = fitted("gopro", task, contrast=2.0, steadiness=3.0).eval()
    answers, moco, augmix, contrast = made.parts(task.bind(made).support)
    assert moco == 0 and augmix == 0, "with one view of each image nothing moves"
    assert torch.allclose(made.loss(task.bind(made).support), answers + 2 * contrast), "the losses must be weighed"


def test_gopro_as_released_compares_with_the_first_images_augmentations(task):
    made = fitted("gopro", task).eval()
    batch = task.bind(made).support
    _, _, ours, _ = made.parts(batch)
    made.as_released = True
    _, _, theirs, _ = made.parts(batch)
    assert ours == 0 < theirs, "other images' prompts must differ from the first's"


def test_eco_is_the_mean_of_its_members_written_plainly(task):
    made, pixels = fitted("eco", task, lengths=(1, 5)).eval(), torch.randn(3, 3, 32, 32)
    backbone, text = task.backbone, torch.zeros(5, task.backbone.dim)
    for context in made.contexts:
        tokens = backbone.tokenize([" ".join(["X"] * len(context)) + f" {name}." for name in CLASSES])

        def learned(_, words, context=context):
            return torch.cat([words[:, :1], context.expand(5, -1, -1), words[:, 1 + len(context) :]], 1)

        with torch.no_grad(), backbone.taps({"text.tokens": learned}):
            text += F.normalize(backbone.encode_text(tokens), dim=-1) / 2
    with torch.no_grad():
        want = backbone.logit_scale * unit(backbone.encode_image(pixels)) @ F.normalize(text, dim=-1).T
    assert torch.allclose(predict(made, pixels), want, atol=1e-4), "the logits must be those of the mean embedding"
    made.loss(task.bind(made).support).backward()
    assert all(c.grad.abs().sum() > 0 for c in made.contexts), "all contexts must be trained together"


def test_ecos_contexts_have_the_lengths_asked_for(task):
    assert [len(c) for c in fitted("eco", task, lengths=(2, 7)).contexts] == [2, 7], "words of each context"
    with pytest.raises(ValueError, match="lengths must be at least one number"):
        fitted("eco", task, lengths=())


def test_prefixes_are_learned_in_the_towers_asked_for(task):
    names = {"text": {"context"}, "image": {"visual"}, "both": {"context", "visual", "mixer"}}
    for modality, learned in names.items():
        made = fitted("fpl-prompts", task, modality=modality)
        got = {name.partition(".")[0] for name, p in made.named_parameters() if p.requires_grad}
        assert got == learned, f"{modality} must learn {learned}; got {got}"
        made.loss(task.bind(made).support).backward()
        assert all(p.grad is not None for p in made.parameters()), "a gradient must reach every parameter"


def test_image_prefixes_stand_between_class_token_and_patches_without_positions(task):
    made, pixels = (
        fitted("fpl-prompts", task, modality="image", n=3, template="one {}").eval(),
        torch.randn(2, 3, 32, 32),
    )
    model = task.backbone.model
    with torch.no_grad():
        text = unit(task.backbone.encode_text([f"one {name}" for name in CLASSES]))
        tokens = model.vision_model.embeddings(pixels)
        tokens = torch.cat([tokens[:, :1], made.visual.expand(2, -1, -1), tokens[:, 1:]], 1)
        hidden = model.vision_model.encoder(model.vision_model.pre_layrnorm(tokens)).last_hidden_state
        x = unit(model.visual_projection(model.vision_model.post_layernorm(hidden[:, 0])))
    want = task.backbone.logits(x, text)
    assert torch.allclose(predict(made, pixels), want, atol=1e-4), "tokens must enter behind the class token"


def test_as_released_a_word_is_mixed_with_the_token_of_its_number_alone(task):
    for paired in (False, True):
        made = fitted("fpl-prompts", task, modality="both", n=3, as_released=paired)
        words, _ = made.mixer(made.context, made.visual)
        (grad,) = torch.autograd.grad(words[0].sum(), made.visual)
        seen = (grad.abs().sum(1) > 0).tolist()
        assert seen == [True, not paired, not paired], f"paired {paired}: word 0 must see those tokens; got {seen}"


def test_as_released_the_prefix_best_on_validation_images_is_kept(task):
    val = task.support[:4]
    watched = fitted("fpl-prompts", replace(task, val=val), as_released=True)
    assert len(watched.callbacks()) == 1, "validation images must be looked at"
    assert not fitted("fpl-prompts", replace(task, val=val)).callbacks(), "by default the last prefix stays"
    assert not fitted("fpl-prompts", task, as_released=True).callbacks(), "without validation images, too"
    quick = {"schedule": {"epochs": 2, "warmup": 0, "batch_size": 4}}
    adapt(method("fpl-prompts", n=2, as_released=True, **quick), replace(task, val=val))


@pytest.mark.parametrize("rule", ["ifpl", "grip"])
def test_rounds_are_labelled_by_the_method_adapted_to_the_round_before(rule, task):
    seen, p = [], []

    class Spy(Method):
        def fit(self, task):
            seen.append(torch.bincount(task.support.labels, minlength=5).tolist())
            self.register_buffer("text", task.text)

        def forward(self, batch):
            p.append(self.text)
            return batch.x @ self.text.roll(len(seen), 0).T

    plugins.table("methods")["spy"] = Spy
    try:
        train = Images.from_arrays(torch.randn(60, 16))
        support, _ = plugins.pick("supports", rule)(task, train, None, shots=4, seed=1, by="spy", rounds=4)
    finally:
        del plugins.table("methods")["spy"]
    want = {"ifpl": [[4] * 5] * 3, "grip": [[1] * 5, [2] * 5, [3] * 5]}[rule]
    assert seen == want, f"the method must see {want}; got {seen}"
    assert torch.bincount(support.labels).tolist() == [4] * 5, "in the end, as many as asked for"


def test_candidates_are_those_of_image_and_class_written_plainly():
    p = torch.randn(30, 4).mul(2).softmax(-1)
    total, least = candidate_bounds(p, 0.6, 0.5)
    largest = sorted(p.amax(1).tolist())
    assert abs(total - (largest[17] + 0.4 * (largest[18] - largest[17]))) < 1e-6, "60 % of 29 steps are 17.4"
    for row, chosen in zip(p, candidates(p, total, least), strict=True):
        reached, own = 0.0, set()
        for c in row.argsort(descending=True).tolist():
            if reached <= total:
                own.add(c)
            reached += row[c]
        want = [c in own and bool(row[c] >= least[c]) for c in range(4)]
        assert chosen.tolist() == want, f"candidates must be {want}; got {chosen.tolist()}"


def test_cpl_reads_no_label_and_counts_no_image_without_candidate(task):
    made = fitted("cpl", task, top=0.9, partial="cc")
    support = task.bind(made).support
    weights = made.weights(made.base(support).softmax(-1))
    kept = weights.sum(1) > 0
    assert 0 < kept.sum() < len(kept), "some images have candidates, and some have none"
    p = made(support).softmax(-1)
    want = -(p * weights).sum(1)[kept].log().mean()
    for labels in (support.labels, 4 - support.labels):
        assert torch.allclose(made.loss(support.label(labels)), want, rtol=1e-5), "the loss must be of candidates alone"
    nobody = made.total.new_full((5,), 2.0)
    made.least = nobody
    assert made.loss(support) == 0, "without candidates nothing is learned"


@pytest.mark.parametrize("partial", ["cc", "ce", "gce", "rc", "cav", "lw"])
def test_cpls_losses_train_and_may_label_again(partial, task):
    schedule = {"epochs": 3, "warmup": 0, "batch_size": 4, "drop_last": False, "lr": 0.2}
    made = adapt(method("cpl", n=4, partial=partial, schedule=schedule), task)
    assert made.earlier is None, "what the epoch before learned must not stay"
    again = adapt(method("cpl", n=4, base={"cpl": {"n": 2, "schedule": schedule}}, schedule=schedule), task)
    assert predict(again, torch.randn(2, 3, 32, 32)).shape == (2, 5), "a cpl may label for another"


def test_cpls_weights_follow_the_prefix_of_the_epoch_before(task):
    made = fitted("cpl", task, partial="rc", top=0.0)
    support = task.bind(made).support
    first = made.loss(support)
    made.earlier = {"context": torch.randn_like(made.context)}
    assert not torch.allclose(made.loss(support), first), "another prefix must give other weights"


def test_support_cpl_takes_images_with_candidates(task):
    train = Images.from_arrays(torch.randn(60, 16))
    support, val = plugins.pick("supports", "cpl")(task, train, None, shots=3, seed=1, top=0.9)
    p = task.backbone.logits(train.bind({"x": Pooled()}).x, task.text).softmax(-1)
    may = candidates(p, *candidate_bounds(p, 0.6, 0.9))
    assert may[support.index, support.labels].all() and val is None, "every label must be a candidate of its image"
    assert torch.bincount(support.labels).max() <= 3, "and no class has more than its shots"


def test_ship_makes_up_classes_without_images_and_those_named(task):
    seen = replace(task, support=task.support[task.support.labels < 3])
    made = fitted("ship", seen, others=("elk", CLASSES[0]))
    assert made.new.tolist() == [3, 4, 5], f"classes 3 and 4 have no images, and 5 is named; got {made.new}"
    assert fitted("ship", task, others=()).maker is None, "with images of all classes nothing is made up"
    batch = seen.bind(made).support
    made.loss(batch).backward()
    assert made.context.grad.abs().sum() > 0, "the context must be trained"
    assert all(p.grad is None for p in made.maker.parameters()), "and the generator no more"
    assert predict(made.eval(), torch.randn(2, 3, 32, 32)).shape == (2, 5), "the task's classes alone are answered"
    quick = {"generator": {"steps": 1}, "schedule": {"steps": 1}, "hidden_encoder": 4, "hidden_generator": 4}
    assert adapt(method("ship", others=("elk",), **quick), task).maker is None, "what only training needs must not stay"


def test_ships_generator_learns_to_make_images_up_again(task):
    slow, quick = ({"steps": n, "lr": 0.02, "decay": "constant"} for n in (1, 60))
    losses = []
    for generator in (slow, quick):
        torch.manual_seed(0)
        made = fitted("ship", task, others=("elk",), generator=generator, hidden_encoder=16, hidden_generator=16)
        torch.manual_seed(1)
        losses.append(float(made.maker_loss(task.bind(made).support.views[:, 0], task.support.labels)))
    assert losses[1] < losses[0] - 0.05, f"the loss must fall; got {losses}"


def test_ships_latent_cost_is_the_divergence_from_the_normal_distribution(task):
    made = fitted("ship", task, others=("elk",), hidden_encoder=8, hidden_generator=8)
    x, y = task.bind(made).support.views[:, 0], task.support.labels
    inner = made.maker["encoder"](x)
    mean, std = made.maker["mean"](inner), (made.maker["log_var"](inner) / 2).exp()
    normal = torch.distributions.Normal
    cost = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum(1).mean()
    torch.manual_seed(0)
    loss = made.maker_loss(x, y)
    torch.manual_seed(0)
    again = made.made_up(mean + std * torch.randn_like(mean), y)
    assert torch.allclose(loss, (again - x).square().sum(1).mean() + cost, rtol=1e-4), "reconstruction and divergence"


def test_plot_plus_plus_matches_embeddings_under_each_set_of_tokens(task):
    made, pixels = fitted("plot-plus-plus", task, sets=3, pooled=True, threshold=1e-6).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        x = []
        for tokens in made.visual:
            with task.backbone.taps(image_prompts([tokens])):
                x.append(task.backbone.encode_image(pixels))
        text = made.prompts.encode(made.context[:, None])  # (N, C, D)
        cosines = torch.einsum("mbd,ncd->bcmn", unit(torch.stack(x)), unit(text))
        kernel = ((cosines - 1) / made.epsilon).exp().double()
        for _ in range(300):  # Sinkhorn as alternate scalings of the plan itself
            kernel = kernel / kernel.sum(-1, keepdim=True) / 3
            kernel = kernel / kernel.sum(-2, keepdim=True) / 4
        pooled = task.backbone.logits(unit(torch.stack(x).mean(0)), unit(text.mean(0)))
        want = task.backbone.logit_scale * (kernel * cosines).sum((-2, -1)) + pooled
    assert torch.allclose(predict(made, pixels), want.float(), atol=1e-3), "the plan must be between sets and prompts"
    starts = [task.backbone.encode_text([f"{text} {name}." for name in CLASSES]) for text in made.inits[:2]]
    assert torch.allclose(text[:2], torch.stack(starts), atol=1e-5), "prompts must start as their words"
    with pytest.raises(ValueError, match="inits must have n words"):
        fitted("plot-plus-plus", task, inits=("a photo of a", "one"))
