"""Items of any kind: captions, images and sequences of frames go one way through one store."""

import hashlib

import pytest
import torch

import adaptkit.features.extraction as extraction
from adaptkit import Captions, Frames, Patches, Pooled, Sentence, hookimpl, unit
from adaptkit.features.cache import CachedRows, FeatureCache
from adaptkit.features.items import Images
from adaptkit.features.store import Store
from adaptkit.runs import plugins
from adaptkit.runs.loading import pick_backbone
from adaptkit.runs.plan import table_cost
from adaptkit.testing import ToyImages, toy_backbone

IMAGES = ToyImages("train", 12)
WORDS = ("cat", "dog", "owl", "fox", "hen")
CAPTIONS = Captions([f"a photo of a {WORDS[i % 5]}, number {i}." for i in range(40)], [i % 12 for i in range(40)])


def open_cache(folder, backbone=None, **options):
    """A cache over a folder, as another process would open it."""
    backbone = backbone or toy_backbone("0")
    return FeatureCache(backbone, Store(folder), hook=plugins.manager().hook, load=pick_backbone, **options)


def bind(cache, source, **needs):
    """All items of a source, read as a method would."""
    labels = torch.as_tensor(source.labels)
    return Images(CachedRows(cache, source), torch.arange(len(source)), labels, needs)


def test_captions_and_images_go_through_one_store(tmp_path):
    cache = open_cache(tmp_path)
    captions = bind(cache, CAPTIONS, x=Sentence(), raw=Sentence(unit=False))
    images = bind(cache, IMAGES, x=Pooled())
    want = toy_backbone("0").encode_text(CAPTIONS.sentences)
    assert torch.equal(captions.raw, want), "raw rows must be the text tower's own, to the last bit"
    assert torch.equal(captions.x, unit(want)), "and be read at unit norm where that is asked for"
    assert captions.x.shape == (40, 16) and images.x.shape == (12, 16), "each item must have a row in the joint space"
    assert cache.computed == {"Sentence": 40, "Pooled": 12}, "each must be computed once"
    known = bind(open_cache(tmp_path / "known"), Captions([f"a photo of a {word}." for word in WORDS]), x=Sentence())
    found = (images.x @ known.x.T).argmax(1)
    right = (found == images.labels).float().mean()
    assert right > 0.5, f"most images must find the caption that names what they show; {right:.2f} did, chance is 0.2"
    assert torch.equal(captions[3:5].x, captions.x[3:5]), "parts must have their rows"
    assert captions[[7]].labels.tolist() == [7], "and labels"
    again = open_cache(tmp_path)
    assert torch.equal(bind(again, CAPTIONS, x=Sentence()).x, captions.x), "another process must read the same rows"
    assert torch.equal(again.sentences(CAPTIONS.sentences[::-1]), want.flip(0)), "a task's sentences are those rows"
    assert again.computed == {}, "and compute nothing"
    assert sorted(t.spec["dtype"] for t in Store(tmp_path).tables()) == ["float16", "float32"], "text is kept in full"


def test_a_changed_caption_is_a_new_row_and_an_equal_one_is_not(tmp_path):
    cache = open_cache(tmp_path)
    before = bind(cache, CAPTIONS, x=Sentence()).x
    changed = Captions([*CAPTIONS.sentences[:-1], "a photo of nothing."])
    after = bind(cache, changed, x=Sentence()).x
    assert cache.computed == {"Sentence": 41}, "only the caption that changed may be encoded"
    assert torch.equal(after[:-1], before[:-1]) and not torch.equal(after[-1], before[-1]), (
        "and only its row be another"
    )
    twice = bind(cache, Captions(["an owl.", "an owl."]), x=Sentence()).x
    assert torch.equal(twice[0], twice[1]) and cache.computed == {"Sentence": 42}, "equal captions must be one row"
    assert changed.labels == list(range(40)), "captions without labels must be numbered"


def test_a_run_that_is_killed_encodes_no_sentence_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "COMMIT", 0.0)
    monkeypatch.setattr(Sentence, "batch", 10)
    batches, encode = [], Sentence.compute

    def dying(need, backbone, tokens):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(tokens["input_ids"]))
        return encode(need, backbone, tokens)

    monkeypatch.setattr(Sentence, "compute", dying)
    with pytest.raises(KeyboardInterrupt):
        bind(open_cache(tmp_path), CAPTIONS, x=Sentence()).x  # noqa: B018 (read when asked for)
    assert batches == [10, 10], "it must have been killed in the middle"
    monkeypatch.setattr(Sentence, "compute", encode)
    cache = open_cache(tmp_path)
    rows = bind(cache, CAPTIONS, x=Sentence(unit=False)).x
    assert cache.computed == {"Sentence": 20}, "only what is missing may be encoded"
    torch.testing.assert_close(
        rows, toy_backbone("0").encode_text(CAPTIONS.sentences), msg="rows must be as if at once"
    )


def test_sentences_are_encoded_in_batches_that_end_with_their_longest(tmp_path):
    sentences = [f"{'very ' * (i % 17)}{WORDS[i % 5]} {i}" for i in range(600)]
    got = open_cache(tmp_path, batch_size=3).sentences([*sentences, sentences[0]])
    want = torch.cat([toy_backbone("0").encode_text(sentences[i : i + 256]) for i in range(0, 600, 256)])
    assert torch.equal(got[:-1], want), "whatever the batch of images, text must be encoded 256 sentences at a time"
    assert torch.equal(got[-1], got[0]), "an equal sentence must have an equal row"


def test_plugins_are_asked_of_pixels_alone(tmp_path):
    class Meddler:
        @hookimpl
        def extract(self, need, pixels):
            return torch.zeros(len(pixels), 16) if isinstance(pixels, torch.Tensor) else 1 / 0

    plugins.manager().register(Meddler(), "meddler")
    try:
        cache = open_cache(tmp_path, precision="bf16-mixed")
        assert bind(cache, IMAGES, x=Pooled()).x.abs().max() == 0, "the plugin must answer for images"
        want = toy_backbone("0").encode_text(CAPTIONS.sentences)
        assert torch.equal(bind(cache, CAPTIONS, x=Sentence(unit=False)).x, want), "and text be encoded as ever"
    finally:
        plugins.manager().unregister(name="meddler")


class Films:
    """Three sequences of toy images; counts the frames that are opened."""

    name, labels, opened = "films", (0, 1, 2), 0

    def __len__(self):
        return 3

    def key(self, i):
        return hashlib.sha256(f"film {i}".encode()).hexdigest()

    def open(self, i):
        return self.key(i), Film(self, i)


class Film:
    """A sequence that opens a frame when it is asked for."""

    def __init__(self, films, i):
        self.films, self.i = films, i

    def __len__(self):
        return 10

    def __getitem__(self, k):
        self.films.opened += 1
        return IMAGES.open((self.i + k) % 12)[1]


def test_frames_of_sequences_are_stored_as_images_are(tmp_path):
    films, need = Films(), Frames(count=2)
    cache = open_cache(tmp_path, dtype="float32")
    (part,) = cache.parts(films, need, range(3))
    assert table_cost(cache, films, part).bytes == 3 * 2 * 16 * 4, "a plan must tell the bytes of two frames each"
    films.opened = 0
    rows = bind(cache, films, x=need).x
    images = bind(cache, IMAGES, x=Pooled()).x
    want = torch.stack([images[[(i + 2) % 12, (i + 7) % 12]] for i in range(3)])  # frames 2 and 7 of 10
    torch.testing.assert_close(rows, want, msg="they must be the pooled frames")
    assert films.opened == 6, "frames that are not chosen must not be opened"
    views = bind(cache, films, x=Frames(count=2, views=3, plain_first=True)).x
    assert views.shape == (3, 3, 2, 16) and torch.equal(views[:, 0], rows), "views must have an axis of their own"


def test_a_need_of_another_kind_of_item_is_refused(tmp_path):
    cache = open_cache(tmp_path)
    for source, need, said in (
        (CAPTIONS, Pooled(), "an item must be an image for Pooled; got str"),
        (IMAGES, Sentence(), "an item must be a caption for Sentence; got Image"),
        (CAPTIONS, Frames(), "an item must be a sequence of images for Frames; got str"),
        (Films(), Patches(), "an item must be an image for Patches; got Film"),
    ):
        with pytest.raises(ValueError, match=said):
            bind(cache, source, x=need).x  # noqa: B018 (read when asked for)
    with pytest.raises(ValueError, match="views must be 0 for Sentence; got 2"):
        Sentence(views=2)
    with pytest.raises(ValueError, match="labels must be as many as the sentences, 2; got 1"):
        Captions(["a", "b"], [0])
    with pytest.raises(ValueError, match="sentences must be a sequence of strings; got 'a cat'"):
        Captions("a cat")
