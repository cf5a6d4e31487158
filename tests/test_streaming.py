"""Queries and answers that are more than memory holds: what is held does not grow, and numbers are the same."""

import numpy as np
import pytest
import torch

import adaptkit as ak
from adaptkit.cli import main
from adaptkit.features.items import Images
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.runs.evaluate import evaluate
from benchmarks.frame import measured
from benchmarks.ladder import counted

D, C = 32, 200


def memmapped(folder, count, dtype=np.float16):
    rows = np.lib.format.open_memmap(folder / f"{count}.npy", "w+", dtype, (count, D))
    rows[:] = np.random.default_rng(0).normal(size=(count, D))
    rows.flush()
    return np.load(folder / f"{count}.npy", mmap_mode="r")


def few_classes(name, **options):
    draw = torch.Generator().manual_seed(0)
    text, y = torch.randn(C, D, generator=draw), torch.arange(2 * C) % C
    x = text[y] + torch.randn(2 * C, D, generator=draw)
    return ak.adapt(ak.method(name, **options), ak.Task.from_arrays(support=(x, y), text=text))


def held_by(work):
    """Bytes that the process held at most beyond what there was."""
    work()  # whatever is made once is there
    return 1e9 * measured(work)[1]


@pytest.mark.parametrize("door", ["memmap", "generator", "Images", "predict"])
@pytest.mark.parametrize("name", ["zero-shot", "gda"])
def test_what_is_held_does_not_grow_with_the_queries(name, door, tmp_path, monkeypatch):
    monkeypatch.setattr("adaptkit.features.given.PART", 2**18)
    asked, rows = few_classes(name), memmapped(tmp_path, 2**17)
    answers = 4 * C * len(rows)  # 105 MB; the file has 8, its rows as float32 17

    def work():
        if door == "predict":  # its answers are to be held, and nothing else
            assert len(ak.predict(asked, rows)) == len(rows), "there must be an answer for each"
            return
        parts = {"memmap": rows, "generator": iter(np.array_split(rows, 64)), "Images": None}[door]
        queries = Images.from_arrays(rows) if parts is None else parts
        done = sum(len(answers) for _, answers in ak.predict_batches(asked, queries))
        assert done == len(rows), "there must be an answer for each"

    most = held_by(work) - answers * (door == "predict")
    assert most < 30e6, f"neither answers, {answers / 1e6:.0f} MB, nor copies may be held; got {most / 1e6:.0f} MB"


@pytest.mark.parametrize("name", ["zero-shot", "gda", "tip-adapter", "tda", "dota", "coop"])
@pytest.mark.parametrize("batch_size", [1, 7, 0])
def test_batches_are_what_predict_returns(name, batch_size, toy):
    task, test = toy
    adapted = ak.adapt(ak.method(name), task, trainer={"max_steps": 1})
    want = ak.predict(adapted, test)
    parts = [*ak.predict_batches(adapted, test, batch_size=batch_size)]
    got = torch.cat([answers for _, answers in parts])
    assert torch.allclose(got, want, atol=1e-4), f"the numbers must be the same; got {(got - want).abs().max()} apart"
    assert [row for rows, _ in parts for row in range(rows.start, rows.stop)] == [*range(len(test))], "in order"
    split = [answers for _, answers in ak.predict_batches(adapted, iter([test[:9], test[9:10], test[10:]]))]
    assert torch.allclose(torch.cat(split), want, atol=1e-4), "however the images come in parts"


def test_a_stream_goes_on_where_the_last_batch_ended_and_leaves_the_method_as_it_was(toy):
    adapted = ak.adapt(ak.method("tda"), toy[0])
    before = {name: t.clone() for name, t in adapted.state_dict().items()}
    both = [torch.cat([a for _, a in ak.predict_batches(adapted, toy[1], batch_size=size)]) for size in (4, 60)]
    assert torch.allclose(*both, atol=1e-5), "what came before counts, whatever batch it was in"
    assert all(torch.equal(t, before[name]) for name, t in adapted.state_dict().items()), "and the method stays"


def test_methods_that_need_all_images_refuse_at_once_in_one_line(toy):
    adapted = ak.adapt(ak.method("trans-clip"), toy[0])
    with pytest.raises(ValueError, match=r"scope must be 'sample' or 'stream' to answer .*; got TransCLIP"):
        ak.predict_batches(adapted, toy[1])


@pytest.mark.parametrize(
    ("row", "value", "door", "words"),
    [
        (5, np.nan, "array", r"query features must be finite; got nan in row 5"),
        (2000, np.inf, "array", r"query features must be finite; got inf in row 2000"),
        (2000, 1e30, "array", r"query features must be zeros, .* in row 2000; scale them"),
        (2000, np.nan, "generator", r"query features must be finite; got nan in row 2000"),
        (2000, np.nan, "named", r"query features 'x' must be finite; got nan in row 2000"),
    ],
)
def test_a_wrong_row_is_named_by_its_place_among_all_when_it_is_reached(row, value, door, words):
    asked, rows = few_classes("zero-shot"), np.ones((3000, D), np.float64)
    rows[row] = value
    queries = {"array": rows, "generator": iter(np.array_split(rows, 10)), "named": {"x": rows}}[door]
    seen = []
    with pytest.raises(ValueError, match=words):
        seen.extend(rows.stop for rows, _ in ak.predict_batches(asked, queries, batch_size=100))
    assert seen == [*range(100, row // 100 * 100 + 1, 100)], "those before it are answered"


@pytest.mark.parametrize("wrong", [np.ones((3, D + 1)), np.ones(3), {"x": np.ones((3, D)), "y": np.ones((2, D))}, {}])
def test_a_wrong_shape_is_refused_before_anything_is_answered(wrong):
    with pytest.raises(ValueError, match="must"):
        ak.predict_batches(few_classes("zero-shot"), wrong)


def test_no_queries_are_no_batches_of_answers():
    asked = few_classes("zero-shot")
    for queries in (np.zeros((0, D)), iter([np.zeros((0, D)), np.zeros((0, D))])):
        found = [answers for _, answers in ak.predict_batches(asked, queries)]
        assert all(answers.shape == (0, C) for answers in found), f"got {found}"
    assert not [*ak.predict_batches(asked, iter(()))], "and of no parts there is nothing to say"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, ">f4"])
def test_arrays_of_any_numbers_answer_as_their_float32(dtype):
    asked, rows = few_classes("gda"), np.random.default_rng(0).normal(size=(40, D)) * 5
    rows = rows.astype(dtype)
    want = ak.predict(asked, torch.from_numpy(rows.astype(np.float32)))
    assert torch.equal(ak.predict(asked, rows), want), "what is read is what was given, as float32"


def test_a_mapped_file_is_not_copied_by_a_task(tmp_path):
    rows, text = memmapped(tmp_path, 2000), torch.randn(C, D)
    y = np.arange(len(rows)) % C
    task = ak.Task.from_arrays(support=(rows[:400], y[:400]), text=text, val=(rows, y), pool=rows)
    for images in (task.support, task.val, task.pool):
        held = images.rows.arrays[""].numpy()
        assert np.shares_memory(held, rows), "the task must read the file itself"


def test_evaluation_holds_no_answers_and_says_the_same(tmp_path):
    count, kind, text = 2**17, evaluation("classification"), torch.randn(C, D)
    task = ak.Task.from_arrays(support=(text, torch.arange(C)), text=text)
    labels = torch.randint(C, (count,), generator=torch.Generator().manual_seed(0))
    test = Images.from_arrays(memmapped(tmp_path, count), labels)
    counts, found = counted(lambda: evaluate(ak.ZeroShot(), task, test))
    most = counts.peak / 1e9
    assert most < 0.08, f"answers are {4 * C * count / 1e9:.2f} GB, their doubles twice that; got {most:.2f} GB held"
    some = test[: 2**13]
    logits, got = ak.predict(ak.adapt(ak.ZeroShot(), task), some), evaluate(ak.ZeroShot(), task, some)
    assert got.metrics == kind.metrics(logits, labels[: 2**13]), "every metric must be that of all answers"
    right = kind.right(logits, labels[: 2**13])
    assert got.right[""] == "".join("01"[r] for r in right.tolist()), "image by image"
    assert found.right[""].startswith(got.right[""]), "however many there are"


def test_labels_are_written_as_they_come_and_a_file_is_whole_or_not_there(tmp_path, capsys, monkeypatch):
    from PIL import Image

    from adaptkit.commands import predict as command

    monkeypatch.setattr(command, "TOGETHER", 2)
    task, _ = ak.load("toy", backbone="toy:0", shots=1, seed=1)
    ak.save_classifier(tmp_path / "model", ak.adapt(ak.method("tda"), task), task, backbone="toy:0")
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "1.png").write_text("no picture")
    assert main(["predict", str(tmp_path / "model"), str(folder)]) == 1, "one could not be read"
    said = capsys.readouterr()
    assert [line.split(",")[0][-5:] for line in said.out.splitlines()] == ["path", *(f"{i}.png" for i in (0, 2, 3, 4))]
    assert "1.png" in said.err, "the other is named"
    assert main(["predict", str(tmp_path / "model"), str(folder), "--out", str(tmp_path / "a.csv")]) == 1
    assert (tmp_path / "a.csv").read_text() == said.out, "a file says the same"

    def full(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("adaptkit.saving.pictures.existing", full)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "model"), str(folder), "--out", str(tmp_path / "b.csv")]) == 2
    assert "images must be readable to the end" in capsys.readouterr().err, "it is not the table that cannot be written"
    assert not [*tmp_path.glob("b.csv*")], "and nothing of it is left"
