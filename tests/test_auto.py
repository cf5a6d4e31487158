"""From images to the best classifier: folds, the choice, how sure it is, and what is written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import adaptkit as ak
from adaptkit.automatic import contest as contests
from adaptkit.automatic.budget import Budget
from adaptkit.automatic.certainty import Choice, wilson
from adaptkit.automatic.folds import ALWAYS, dealt, number_of_folds, validation_rows
from adaptkit.automatic.labelled import joined_groups, labelled_of
from adaptkit.automatic.learning import learn
from adaptkit.automatic.outcome import temperature
from adaptkit.automatic.portfolio import portfolio
from adaptkit.automatic.summary import next_commands, summary_values, table_rows, verdict_lines
from adaptkit.automatic.unlabelled import names_asked
from adaptkit.cli import main
from adaptkit.features.datasets import Relabelled
from adaptkit.io.safe import in_html
from adaptkit.methods.calibration import fitted_heat
from adaptkit.runs.loading import pick_dataset
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from tests.small import Command, photos

MINUTES = 5  # far more than the toy needs


@pytest.fixture(scope="module")
def few():
    """Three methods in place of the whole portfolio, and two repeats."""
    patch = pytest.MonkeyPatch()
    names = ("zero-shot", "gda", "tip-adapter")
    some = lambda images, views: [c for c in portfolio(images, views) if c.spec.name in names]  # noqa: E731
    patch.setattr("adaptkit.automatic.auto.portfolio", some)
    patch.setattr(contests, "REPEATS", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def found(few, tmp_path_factory):
    """A folder of photos, and what came of it."""
    root = photos(tmp_path_factory.mktemp("auto") / "photos", ["red", "green & <b>", "blue"], n=6)
    (root / "red" / "copy.png").write_bytes((root / "red" / "0.png").read_bytes())
    return root, ak.auto(f"folder:{root}", backbone="toy:0", minutes=MINUTES, out=root.parent / "out")


def test_folds_hold_each_class_alike_and_copies_together():
    labels = torch.arange(4).repeat_interleave(10)
    groups = torch.arange(40)
    groups[1] = groups[0]
    folds = dealt(labels, groups, 5, seed=1)
    assert folds[0] == folds[1], "images that show the same must be in one fold"
    counts = torch.stack([labels[folds == k].bincount(minlength=4) for k in range(5)])
    assert counts.min() >= 1 and counts.max() <= 3, f"every fold must have as many of each class; got {counts.tolist()}"
    assert not torch.equal(folds, dealt(labels, groups, 5, seed=2)), "another seed must deal otherwise"


def test_a_class_with_one_image_is_always_learned_from():
    labels, groups = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 3, 4, 4])
    folds = dealt(labels, groups, 2, seed=1)
    assert (folds[3:] == ALWAYS).all(), "one image, or copies of one, must stay in what is learned from"
    assert (folds[:3] != ALWAYS).all(), "others must be tested"
    held = validation_rows(labels, groups, seed=1)
    assert not held[3:].any() and held[:3].sum() == 1, f"validation images must leave each class some; got {held}"


def test_without_two_images_of_a_class_there_are_no_folds():
    assert number_of_folds(torch.arange(5), torch.arange(5)) == 0, "one image a class cannot be tested"
    assert number_of_folds(torch.tensor([0, 0, 1, 1]), torch.arange(4)) == 2, "two images a class make two folds"


def test_groups_are_joined_where_either_side_joins_them():
    assert joined_groups([0, 0, 2, 3], [5, 6, 6, 7]) == [0, 0, 0, 1], "rows must be linked over both partitions"


def test_the_bootstrap_takes_back_what_choosing_the_best_of_many_adds():
    right = (np.random.default_rng(1).random((50, 80)) < 0.5).astype(float)  # fifty methods, all of them guessing
    options = Choice(right, np.zeros_like(right))
    best = right.mean(1).max()
    corrected = options.corrected(np.arange(80), seed=1)
    assert best >= 0.6, f"the best of fifty guesses must look good for this test; got {best}"
    assert abs(corrected - 0.5) < 0.06, f"the estimate must see that all are guesses; got {corrected}"


def test_of_equally_accurate_methods_the_one_that_explains_more_is_chosen():
    right = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]], float)
    loss = np.array([[1.0] * 4, [0.5] * 4, [0.1] * 4])
    assert Choice(right, loss).chosen() == 1, "equal accuracy must be decided by the loss, but not a worse one"


def test_wilson_gives_its_published_interval():
    low, high = wilson(0.5, 10)
    assert (round(low, 3), round(high, 3)) == (0.237, 0.763), f"5 of 10 must give 0.237 to 0.763; got {low, high}"


def test_the_fitted_temperature_is_the_one_that_made_the_answers():
    draw = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4000, 5, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    heat = fitted_heat(7 * logits, labels)
    assert abs(heat - 7) < 0.4, f"logits that were made seven times too large must be cooled by 7; got {heat}"
    sure = fitted_heat(torch.eye(3), torch.arange(3))
    assert 0.01 < sure < 1, f"right answers only must give a finite temperature; got {sure}"


def test_a_temperature_that_does_not_carry_over_to_other_images_is_not_applied():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(50)
    logits = 0.5 * torch.nn.functional.one_hot(labels, 4).double() + torch.randn(200, 4, generator=draw).double()
    folds = torch.arange(200) % 2
    heat, (before, after) = temperature(5 * logits, labels, folds)
    assert heat > 2 and after < before, f"what is five times too sure must be cooled; got {heat}, {before}, {after}"
    uneven = logits * torch.where(folds == 0, 8.0, 0.2)[:, None]
    heat, (before, after) = temperature(uneven, labels, folds)
    assert heat == 1 and before == after, f"each fold asks for what hurts the other; got {heat}, {before}, {after}"


def test_each_method_is_tried_on_plain_images_and_on_views():
    plain, both = ([one.label for one in portfolio(100, views)] for views in (0, 4))
    assert "gda (plain)" in plain and not any("view" in label for label in plain), f"got {plain}"
    assert "gda (4 views)" in both and {*plain} < {*both}, f"views must only add to it; got {both}"
    assert len({*both}) == len(both), "each must have a label of its own"


def ends(known, count):
    """The interval for so many images: the lower end of what is corrected, the upper end of what was seen."""
    return wilson(known.accuracy, count)[0], wilson(max(known.accuracy, known.seen), count)[1]


def test_folds_overlap_and_count_as_fewer_images(found):
    known = found[1].chosen.expected
    assert (known.low, known.high) == ends(known, known.apart / (1 + known.folds / (known.folds - 1))), f"got {known}"
    assert known.low <= known.accuracy <= known.high, f"it must be inside; got {known}"


def test_what_learns_from_no_image_is_counted_once_and_whole(few):
    splits = pick_dataset("toy")
    names = {"zero-shot"}
    patch = pytest.MonkeyPatch()
    only = lambda images, views: [c for c in portfolio(images, views) if c.spec.name in names]  # noqa: E731
    patch.setattr("adaptkit.automatic.auto.portfolio", only)
    found = ak.auto(splits, backbone="toy:0", minutes=MINUTES)
    patch.undo()
    known = found.chosen.expected
    assert known.repeats == 1 and "from which it learns nothing" in verdict_lines(found)[1], f"got {known}"
    assert (known.low, known.high) == ends(known, known.apart), "no fold overlaps another"


def test_nothing_is_started_that_does_not_fit():
    now = [0.0]
    budget = Budget(60, clock=lambda: now[0])
    assert budget.fits(50) and not budget.fits(59), "some seconds must be kept for the end"
    now[0] = 58.0
    assert not budget.fits(1) and budget.used == 58, "time that is over must be told"


def test_hyperparameters_are_chosen_on_held_images_and_then_all_are_learned_from(toy):
    task, images = toy[0], toy[0].support
    groups = torch.arange(len(images))
    gda = next(c for c in portfolio(100, 1) if c.spec.name == "gda")
    one, two = (learn(gda, task, images, groups, seed=1) for _ in range(2))
    assert one.alpha == two.alpha, "the same seed must choose the same"
    means = ak.adapt(ak.method(gda.spec, alpha=one.alpha), ak_without_val(task)).means
    assert torch.allclose(one.means, means), "means must be those of all images"


def ak_without_val(task):
    """The task with nothing to choose by."""
    return replace(task, val=None)


def test_a_folder_gives_a_method_an_estimate_and_files(found):
    _, result = found
    low, high = result.interval
    assert result.name in ("gda", "tip-adapter"), f"three colours are seen by who learns; got {result.name}"
    assert low < result.accuracy <= high, f"the estimate must lie in its interval; got {result.accuracy, low, high}"
    assert sum(result.counts) == 19, f"all images must be learned from, none parted off; got {result.counts}"
    assert result.found.groups.unique().numel() <= 18, "the copy must be with its original"
    written = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    names = {"page.html", "classifier/config.json", "classifier/model.safetensors", "classifier/README.md"}
    assert names <= written, f"these files must be written; got {sorted(written)}"


def test_the_saved_classifier_answers_at_the_temperature(found):
    _, result = found
    classifier = ak.load_classifier(result.folder / "classifier")
    heat = result.chosen.temperature
    assert classifier.temperature == pytest.approx(heat), "the temperature must be saved"
    x = result.found.images(result.workspace)
    told, raw = classifier(x), ak.predict(result.method, x)
    assert torch.allclose(told, raw / heat, atol=1e-4), "logits must be divided by it"
    blocks = torch.cat([answers for _, answers in classifier.batches([x])])
    assert torch.allclose(told, blocks), "batch by batch, too"
    said = json.loads((result.folder / "classifier/config.json").read_text())["expected"]
    assert said["accuracy"] == result.accuracy, "the config must say what is expected"
    card = (result.folder / "classifier/README.md").read_text()
    assert "no test image was looked at" in card, "the card must say how it was estimated"


def test_the_page_needs_nothing_and_shows_names_as_text(found):
    _, result = found
    page = (result.folder / "page.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page, "no script, and no network"
    assert "green &amp; &lt;b&gt;" in page and "<b>green" not in page, "names must not be markup"
    for words in ("Confusion", "Reliability", "What was tried", "What this cannot know", result.name):
        assert words in page, f"the page must have {words!r}"
    for one in result.chosen.tried:
        row = [one.label, one.percent, one.said]
        assert in_html(one.said) in page, f"the page must say of {one.label} what the terminal does"
        assert row in [line[:3] for line in table_rows(result.chosen, most=100)], f"got {row}"


def test_test_images_are_left_alone(few):
    splits = pick_dataset("toy")
    before = ak.auto(splits, backbone="toy:0", minutes=MINUTES)
    count = len(splits.test)
    spoilt = Relabelled(splits.test, range(count), [0] * count, None, "spoilt")
    after = ak.auto(replace(splits, test=spoilt), backbone="toy:0", minutes=MINUTES)
    assert before.chosen.expected == after.chosen.expected, "labels of test images must change nothing"
    assert f"the labels of {len(splits.test)} test images were left alone" in before.notes, "and the notes say so"


def test_one_image_a_class_gives_a_method_and_no_estimate(few, tmp_path):
    root = photos(tmp_path / "photos", ["red", "green"], n=1)
    result = ak.auto(f"folder:{root}", backbone="toy:0", minutes=MINUTES, out=tmp_path / "out")
    assert result.accuracy is None and result.name == "tip-adapter", f"got {result.accuracy}, {result.name}"
    assert any("nothing can be estimated" in note for note in result.notes), f"it must say so; got {result.notes}"
    assert "unknown" in (tmp_path / "out" / "page.html").read_text(), "so must the page"
    whys = {one["why"] for one in summary_values(result)["tried"]}
    assert whys == {"not tried: nothing can be estimated from these images"}, f"and each method says why; got {whys}"


def test_one_class_that_can_be_tested_gives_no_estimate(few, tmp_path):
    root = photos(tmp_path / "photos", ["red"], n=6)
    (root / "green").mkdir()
    Image.new("RGB", (8, 8), (0, 200, 0)).save(root / "green" / "0.png")
    found = ak.auto(f"folder:{root}", backbone="toy:0", minutes=MINUTES)
    assert found.accuracy is None, f"always to answer that class would do as well; got {found.chosen.expected}"


def test_a_picture_with_two_labels_is_not_learned_from(tmp_path):
    root = photos(tmp_path / "photos", ["red", "green"], n=3)
    (root / "green" / "odd.png").write_bytes((root / "red" / "0.png").read_bytes())
    found = labelled_of(pick_dataset(f"folder:{root}", whole=True))
    assert len(found.labels) == 5, f"both must be left out; got {found.names}"
    assert "two labels" in found.left_out[0], f"and named; got {found.left_out}"


def test_a_method_that_fails_is_named_and_left_out(few, tmp_path, monkeypatch):
    from adaptkit.runs import plugins

    def fail(self, task):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(plugins.pick("methods", "tip-adapter"), "fit", fail)
    result = ak.auto("toy", backbone="toy:0", minutes=MINUTES)
    row = next(one for one in result.chosen.tried if one.label.startswith("tip-adapter"))
    assert row.accuracy is None and "no such luck" in row.why, f"the failure must be told; got {row}"


def test_an_interruption_gives_the_best_so_far(few, monkeypatch):
    done = []

    def interrupted(candidate, *rest):
        done.append(candidate.spec.name)
        if done.count("tip-adapter") == 1:
            raise KeyboardInterrupt
        return learn(candidate, *rest)

    monkeypatch.setattr(contests, "learn", interrupted)
    result = ak.auto("toy", backbone="toy:0", minutes=MINUTES)
    assert result.name == "gda" and result.chosen.expected.folds == 1, f"gda had answered a fold; got {result.name}"
    assert "it was stopped: this is the best so far" in result.notes, f"it must say so; got {result.notes}"


def test_whoever_leads_after_one_fold_can_be_finished():
    splits, now = pick_dataset("toy"), [0.0]

    def slowly(*given):
        now[0] += 10
        return learn(*given)

    workspace = Workspace(Setting(dataset="toy", backbone="toy:0", select="none"), splits=splits)
    found = labelled_of(splits)
    images = found.images(workspace)
    task = workspace.about(range(len(splits.classnames)), images[:0])
    budget = Budget(130, clock=lambda: now[0])
    contest = contests.Contest(task, images, found.groups, portfolio(len(images), 0)[1:], budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contests, "learn", slowly)
        contest.run()
    begun, done = ([e for e in contest.entries if getattr(e, what) != empty] for what, empty in BEGUN_AND_DONE)
    assert 1 < len(begun) < len(contest.entries), f"some must be tried; got {[e.label for e in begun]}"
    assert len(done) == 1 and contest.compared == contest.count, f"one must be finished; got {[e.label for e in done]}"
    assert now[0] <= 130, f"all must be in time; took {now[0]}"


BEGUN_AND_DONE = (("seconds", []), ("right", []))


def test_where_nothing_can_be_finished_one_part_of_the_images_decides(few, monkeypatch):
    monkeypatch.setattr(contests.Contest, "may", lambda self, entry, cost: entry.logits is None)
    found = ak.auto("toy", backbone="toy:0", minutes=MINUTES)
    known = found.chosen.expected
    assert found.name != "zero-shot" and known.folds == 1, f"who learns does better; got {found.name}, {known}"
    assert (known.low, known.high) == ends(known, known.apart), "no other fold overlaps that part"
    assert "were held back once: there was no time for more" in verdict_lines(found)[1], "it must be told"
    assert found.chosen.answers.shape[0] == known.images == 28, f"a fifth of 140 images; got {known.images}"


def test_no_time_at_all_still_gives_an_answer(few):
    result = ak.auto("toy", backbone="toy:0", minutes=0.01)
    assert result.name == "zero-shot" or result.accuracy is not None, f"something must be chosen; got {result}"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"minutes": 0}, "minutes must be a number from 0.01 to 10,000; got 0"),
        ({"seed": -1}, "seed must be"),
        ({"backbone": "toy2:0"}, "backbone must be one of"),
        ({"shots": 4}, "an option of auto must be one of device, batch_size, workers, precision; got 'shots'"),
        ({"device": "tpu"}, "device must be"),
    ],
)
def test_wrong_requests_are_one_line(how, words):
    with pytest.raises(ValueError, match=words) as caught:
        ak.auto("toy", **{"backbone": "toy:0", **how})
    assert "\n" not in str(caught.value), "an error must be one line"


def test_images_of_one_class_are_refused(tmp_path):
    root = photos(tmp_path / "photos", ["red"], n=3)
    with pytest.raises(ValueError, match="must have at least 2 classes to tell apart; got 1"):
        ak.auto(f"folder:{root}", backbone="toy:0")


def test_images_of_several_classes_each_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    (tmp_path / "mine.csv").write_text("path,labels\na.png,x|y\nb.png,x\n")
    with pytest.raises(ValueError, match="auto must be given images of one class each"):
        ak.auto(f"csv:{tmp_path / 'mine.csv'}", backbone="toy:0")


def test_the_command_says_what_is_chosen_and_what_is_next(few, tmp_path, capsys):
    root = photos(tmp_path / "photos", ["red", "green"], n=4)
    run = Command(tmp_path / "home", capsys)
    code, out, err = run("auto", f"folder:{root}", "--backbone", "toy:0", "--minutes", MINUTES, "--quiet")
    assert code == 0, f"it must succeed; got {err}"
    assert "chosen: " in out and "adaptkit predict " in out, f"the summary must say what is next; got {out}"
    folder = next((tmp_path / "home" / "auto").iterdir())
    code, out, err = run("predict", folder / "classifier", root)
    assert code == 0 and out.count("\n") == 9, f"the command that it names must work; got {out} {err}"


def test_the_same_can_be_had_as_json(few, tmp_path, capsys):
    root = photos(tmp_path / "photos", ["red", "green"], n=4)
    run = Command(tmp_path / "home", capsys)
    asked = ("auto", f"folder:{root}", "--backbone", "toy:0", "--minutes", MINUTES, "--json", "--device", "cpu")
    code, out, err = run(*asked, "--batch-size", 4, "--workers", 1, "--precision", "fp32")
    told = json.loads(out)
    assert code == 0 and told["classes"] == ["green", "red"], f"it must succeed; got {told} {err}"
    low, high = told["expected"]["interval"]
    assert low <= told["expected"]["accuracy"] <= high and len(told["tried"]) > 2, f"got {told}"
    protocol = json.loads((Path(told["folder"]) / "classifier" / "config.json").read_text())["protocol"]
    kept = [protocol[key] for key in ("batch_size", "precision")]
    assert kept == [4, "32-true"], f"the towers must work as they were asked to; got {kept}"
    code, out, _ = run("auto", root, "--classes", "red,green", "--backbone", "toy:0", "--json", "--quiet")
    assert code == 0 and json.loads(out)["methods"][0] == "zero-shot", f"so without labels; got {out}"


def test_images_without_labels_are_answered_and_nothing_is_claimed(tmp_path, capsys):
    root = photos(tmp_path / "photos", ["one"], n=6)
    (root / "bad.png").write_bytes(b"no picture")
    run, out = Command(tmp_path / "home", capsys), tmp_path / "out"
    asked = ("auto", f"folder:{root}", "--classes", "red,green", "--backbone", "toy:0", "--out", out, "--quiet")
    code, said, err = run(*asked)
    assert code == 0, f"it must succeed; got {err}"
    assert "cannot be known without labels" in said and "left out: " in said, f"it must say so; got {said}"
    rows = (out / "labels.csv").read_text().splitlines()
    assert rows[0] == "path,zero-shot,zlap,trans-clip,gda-em" and len(rows) == 7, f"a row an image; got {rows}"
    assert run("predict", out / "classifier", root / "one")[0] == 0, "the zero-shot classifier must answer"


def test_images_without_labels_need_names_of_classes(tmp_path, capsys):
    run = Command(tmp_path / "home", capsys)
    code, _, err = run("auto", f"folder:{tmp_path}", "--classes", "red", "--backbone", "toy:0", "--quiet")
    assert code == 2 and "classes must be two different names or more" in err, f"one line must say so; got {err}"


def test_the_command_for_the_test_images_runs_and_asks_for_the_same_method(tmp_path, capsys):
    from shlex import split

    found = ak.auto("toy", backbone="toy:0", minutes=MINUTES, out=tmp_path / "out", home=tmp_path / "home")
    line = next(line for line in next_commands(found) if line.startswith("adaptkit run"))
    words = split(line, comments=True)[1:]
    assert main(["--home", str(tmp_path / "home"), *words, "--quiet"]) == 0, capsys.readouterr().err
    spec = found.chosen.entry.candidate.spec
    ran = [result.method for result in ak.read_results(tmp_path / "home" / "results" / "few_shot")]
    assert ran == [spec.label], f"the method must be asked for with its options; got {ran}"


def test_a_file_of_names_may_begin_with_a_mark_and_must_be_text(tmp_path):
    (tmp_path / "marked.txt").write_bytes("\ufeffcircle\nsquare\n".encode())
    assert names_asked(str(tmp_path / "marked.txt")) == ["circle", "square"], "the mark is no part of a name"
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"odd\.txt"):
        names_asked(str(tmp_path / "odd.txt"))


def test_a_folder_whose_pictures_cannot_be_read_is_one_line(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("not a picture")
    words = [
        "auto",
        f"folder:{tmp_path / 'bad'}",
        "--classes",
        "a,b",
        "--backbone",
        "toy:0",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 2, "nothing can be answered"
    assert "a.png" in capsys.readouterr().err, "and the picture must be named"


@pytest.mark.parametrize("odd", [None, 3, Path("photos")])
def test_a_dataset_that_is_no_name_says_how_to_write_one(odd):
    for verb in (ak.auto, ak.look, ak.load):
        with pytest.raises(ValueError, match="folder:photos"):
            verb(odd, backbone="toy:0")
