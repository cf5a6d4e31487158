"""What methods that run the towers promise beyond the contract: memory of class embeddings, limits, messages."""

import copy

import pytest
import torch
from adaptkit_plugins.adapters import clip_lora

from adaptkit import Images, Task, adapt, method, predict
from adaptkit.testing import CLASSES, toy_backbone

TRAINED = {
    "coop": {"n": 4},
    "cocoop": {},
    "maple": {},
    "clip-lora": {},
}


@pytest.fixture
def task():
    """Two images a class, as pixels."""
    backbone, labels = toy_backbone(), torch.arange(10) % 5
    with torch.no_grad():
        text = backbone.encode_text([f"a photo of a {name}." for name in CLASSES])
    pixels = torch.randn(5, 3, 32, 32)[labels] + torch.randn(10, 3, 32, 32)
    return Task.from_arrays((pixels, labels), text, classnames=CLASSES, backbone=backbone)


def fitted(name, task, **options):
    template = {"template": "a photo of a {}."} if name == "clip-lora" else {}
    made = method(name, **{**TRAINED.get(name, {}), **template, **options})
    made.fit(task.bind(made))
    return made.eval()


@pytest.mark.parametrize("name", TRAINED)
def test_class_embeddings_follow_the_parameters(name, task):
    pixels, made = torch.randn(3, 3, 32, 32), fitted(name, task)
    first, state = predict(made, pixels), copy.deepcopy(made.state_dict())
    for p in made.parameters():
        p.data += 0.5 * torch.randn_like(p)
    changed = predict(made, pixels)
    assert not torch.allclose(changed, first), "changed parameters must change the answer"
    made.load_state_dict(state)
    assert torch.equal(predict(made, pixels), first), "loaded parameters must bring the answer back"


@pytest.mark.parametrize("name", TRAINED)
def test_class_embeddings_follow_the_task(name, task):
    pixels, made = torch.randn(3, 3, 32, 32), fitted(name, task)
    first = predict(made, pixels)
    new = Task.from_arrays(
        (torch.randn(4, 3, 32, 32), torch.arange(4)), task.text[1:], classnames=CLASSES[1:], backbone=task.backbone
    )
    torch.manual_seed(0)
    made.fit(new.bind(made))
    assert predict(made, pixels).shape == (3, 4), f"{name} must forget the classes of an earlier task"
    assert first.shape == (3, 5), "five classes before"


@pytest.mark.parametrize("name", ["coop", "clip-lora"])
def test_the_text_tower_runs_once_for_all_batches(name, task, monkeypatch):
    calls, backbone, made = [], task.backbone, fitted(name, task)
    encode = type(backbone).encode_text
    monkeypatch.setattr(type(backbone), "encode_text", lambda self, tokens: calls.append(0) or encode(self, tokens))
    predict(made, torch.randn(6, 3, 32, 32), batch_size=2)
    assert len(calls) == 1, f"three batches must share one pass of the text tower; got {len(calls)}"


def test_lora_starts_as_zero_shot(task):
    pixels = torch.randn(3, 3, 32, 32)
    want = predict(adapt(method("zero-shot"), task), pixels)
    for encoder in ("both", "vision", "text"):
        got = predict(fitted("clip-lora", task, encoder=encoder), pixels)
        assert torch.allclose(got, want, atol=1e-4), f"with B = 0 the {encoder} update must do nothing"


@pytest.mark.parametrize("encoder", ["both", "vision", "text"])
def test_lora_trains_the_towers_it_is_told_to(encoder, task):
    lora = fitted("clip-lora", task, encoder=encoder)
    towers = {name.split(".")[0] for name in lora.names}
    assert towers == {"both": {"image", "text"}, "vision": {"image"}, "text": {"text"}}[encoder], f"got {towers}"
    assert len(lora.a) == len(towers) * 2 * 3, "q, k and v of two blocks in each tower"
    lora.loss(task.bind(lora).support).backward()
    assert all(p.grad is not None for p in lora.parameters()), "a gradient must reach every update"


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize(
    ("position", "of_12", "of_24", "of_2"),
    [
        ("all", range(12), range(24), [0, 1]),
        ("bottom", range(4), range(8), [0]),
        ("mid", range(4, 8), range(8, 16), [1]),
        ("up", range(8, 12), range(16, 24), [1]),
        ("half-bottom", range(6), range(12), [0]),
        ("half-up", range(6, 12), range(12, 24), [1]),
        ("top3", range(9, 12), range(21, 24), [0, 1]),
    ],
)
def test_lora_adapts_the_blocks_of_the_releases_positions(position, of_12, of_24, of_2, task):
    for depth, want in ((12, of_12), (24, of_24), (2, of_2), (1, [0])):
        got = list(clip_lora.chosen(position, depth))
        assert got == list(want), f"{position} of {depth} blocks must be {list(want)}; got {got}"
    lora = fitted("clip-lora", task, position=position)
    blocks = sorted({int(name.split(".")[2]) for name in lora.names})
    assert blocks == list(of_2), f"{position} of two blocks must be {of_2}, and no other adapted; got {blocks}"


def test_lora_says_what_to_set_where_the_image_tower_is_no_transformer(task):
    blind = copy.copy(task.backbone)
    blind.points = {name: point for name, point in blind.points.items() if name.startswith("text")}
    blind.depth = {"text": blind.depth["text"]}
    support = (task.support.bind(method("zero-shot").needs()).x, task.support.labels)
    task = Task.from_arrays(support, task.text, classnames=CLASSES, backbone=blind)
    for encoder in ("both", "vision"):
        with pytest.raises(ValueError, match=f"encoder must be 'text' .*; got '{encoder}'"):
            fitted("clip-lora", task, encoder=encoder)
    assert predict(fitted("clip-lora", task, encoder="text"), support[0]).shape == (10, 5), "text alone must do"
    with pytest.raises(ValueError, match=r"must have tap point 'image\.tokens'"):
        fitted("maple", task)


def test_dropout_acts_in_training_only(task):
    lora = fitted("clip-lora", task, dropout=0.5)
    for b in lora.b:
        torch.nn.init.normal_(b)
    batch = task.bind(lora).support
    assert torch.equal(lora(batch), lora(batch)), "no dropout in evaluation"
    with torch.no_grad():
        lora.train()
        assert not torch.equal(lora(batch), lora(batch)), "a new draw at every training step, remembered by nobody"


def test_maple_asks_no_more_blocks_than_there_are(task):
    assert len(fitted("maple", task).deep) == 1, "two blocks have one deep prompt"
    assert len(fitted("maple", task, depth=1).deep) == 0, "depth 1 is the first block only"


def test_tpt_needs_no_views_to_answer(task):
    tpt, x = fitted("tpt", task), torch.randn(3, 16)
    assert predict(tpt, x).shape == (3, 5), "one view is the most confident one"


def test_tpt_lets_views_agree(task):
    tpt = fitted("tpt", task, keep=0.5)
    views = torch.nn.functional.normalize(torch.randn(3, 1, 16) + torch.randn(3, 20, 16), dim=-1)
    chosen, start = tpt.choose({"views": views}), tpt.start(3)
    kept = {"views": views[torch.arange(3)[:, None], chosen]}
    with torch.no_grad():
        before, after = (tpt.objective(tpt.see(state, kept), kept) for state in (start, tpt.tuned(start, kept)))
    assert chosen.shape == (3, 10), "half of twenty views of each image"
    assert (after < before).all(), f"the entropy of each mean prediction must fall; got {before} to {after}"
    images = Images.from_arrays(views)
    assert torch.equal(predict(tpt, images), predict(tpt, images)), "each image starts from the same words"


@pytest.mark.parametrize("name", ["coop", "cocoop"])
def test_fresh_views_are_drawn_one_at_a_time(name):
    need = method(name, fresh=True).support_needs()["views"]
    assert need.fresh and need.views == 1, f"fresh must draw one new view a step; got {need}"
    need = method(name).support_needs()["views"]
    assert not need.fresh and need.views == 10, f"by default ten cached views; got {need}"
