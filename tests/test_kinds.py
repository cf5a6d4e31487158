"""One small thing of every kind, end to end: several labels an image, captions, maps, grades, tasks in sequence."""

import dataclasses
import json

import pytest
import torch
from jsonschema import validate
from PIL import Image
from torch import nn

from adaptkit import (
    Method,
    Patches,
    Schedule,
    Splits,
    Task,
    ZeroShot,
    accuracy,
    adapt,
    cli,
    compare,
    predict,
    read_results,
    save_classifier,
    tune,
    unit,
)
from adaptkit.features.items import Images
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.report import sequence
from adaptkit.report.comparison import Comparison
from adaptkit.report.runs import read_run
from adaptkit.report.table import Table
from adaptkit.runs import plugins
from adaptkit.runs.evaluate import evaluate
from adaptkit.runs.results import Result
from adaptkit.runs.setting import Setting
from adaptkit.runs.workspace import Workspace
from adaptkit.testing.toy import CLASSES, ToyImages, toy_splits


class Pairs:
    """Toy images laid over each other: each shows two classes, or one."""

    def __init__(self, name, n):
        self.name, self.below, self.above = name, ToyImages(name, n), ToyImages(f"{name} above", n)
        self.shown = [(i % 5, (i % 5 + i // 5) % 5) for i in range(n)]
        self.targets = [[int(c in shown) for c in range(5)] for shown in self.shown]

    def __len__(self):
        return len(self.shown)

    def key(self, i):
        return self.below.key(i) + self.above.key(self.other(i))

    def image(self, i):
        return Image.blend(self.below.image(i), self.above.image(self.other(i)), 0.5)

    def open(self, i):
        return self.key(i), self.image(i)

    def other(self, i):
        return (i + i // 5) % 5 + 5 * (i // 5)


def tagged():
    return Splits("tagged", CLASSES, Pairs("train", 100), Pairs("test", 50), Pairs("val", 50), kind="multi-label")


def graded():
    splits = toy_splits()
    return dataclasses.replace(splits, name="graded", kind="ordinal", domains={})


class Tags(Method):
    """A linear head, trained by the loss of its kind."""

    answers = ("multi-label",)
    sign: float = 1.0
    schedule: Schedule = Schedule(steps=60, lr=0.3, batch_size=32)

    def fit(self, task):
        self.head = nn.Linear(task.backbone.dim, len(task.classnames))

    def forward(self, batch):
        return self.sign * self.head(batch.x)

    def grid(self):
        return {"sign": [-1.0, 0.0, 1.0]}


class Means(Method):
    """The nearest class mean; it learns more classes by their means."""

    answers = ("classification", "ordinal")

    def fit(self, task):
        self.means = nn.Buffer(self.of(task, range(len(task.classnames))))

    def extend(self, task):
        self.means = nn.Buffer(torch.cat([self.means, self.of(task, range(len(self.means), len(task.classnames)))]))

    def of(self, task, classes):
        return unit(torch.stack([task.support.x[task.support.labels == c].mean(0) for c in classes]))

    def forward(self, batch):
        return 30 * batch.x @ self.means.T


class Captions(ZeroShot):
    answers = ("ranking",)


class Nearest(Method):
    """How far each patch of an image is from the nearest one of the normal images."""

    answers = ("maps",)

    def needs(self):
        return {"patches": Patches()}

    def fit(self, task):
        self.bank = nn.Buffer(task.support.patches.flatten(0, 1))

    def forward(self, batch):
        return torch.cdist(batch.patches, self.bank).amin(-1).unflatten(-1, (4, 4))


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """The toys of this file stand beside what plugins bring."""
    ours = {"methods": {"tags": Tags, "means": Means}, "datasets": {}}
    ours["datasets"] = {"tagged": lambda place="": tagged(), "graded": lambda place="": graded()}
    real = plugins.table
    monkeypatch.setattr(plugins, "table", lambda role: {**real(role), **ours.get(role, {})})


@pytest.fixture
def run(tmp_path, capsys):
    """``adaptkit run`` on a recipe: the records, the exit code and what was printed."""

    def go(folder="out", **keys):
        path = tmp_path / "asked.yaml"
        path.write_text(json.dumps({"backbone": "toy:0", "shots": [8], "seeds": [1, 2], **keys}))
        code = cli.main(["run", str(path), "--out", str(tmp_path / folder), "--quiet"])
        shown = capsys.readouterr()
        records = list(read_results(tmp_path / folder)) if code == 0 else []
        return records, shown.out + shown.err, code

    return go


def test_a_head_of_several_labels_is_trained_tuned_and_shown_by_its_own_evaluation(run, tmp_path):
    records, shown, code = run(dataset="tagged", methods=["tags"], select="full-val")
    assert code == 0 and len(records) == 2, f"a recipe must run; got {shown}"
    for record in records:
        assert set(record.metrics) == {"mAP", "lrap", "micro_f1", "macro_f1"}, "the kind's metrics"
        assert record.metrics["mAP"] > 0.6, f"of chance it would be 0.36; got {record.metrics}"
        assert record.options.startswith("Tags(sign=1.0"), f"a search must maximise mAP; it chose {record.options}"
        assert record.protocol["kind"] == "multi-label", "the protocol says what was asked"
        right = record.right[""]
        assert sum(right) / len(right) == pytest.approx(record.metrics["lrap"]), "each image has its own precision"
        assert [name for name, _ in record.classes[""]] == list(CLASSES), "and each class"
    assert "mAP" in shown and "accuracy" not in shown.split("results:")[0], f"the table is of mAP; got {shown}"
    best = 100 * sum(r.metrics["mAP"] for r in records) / 2
    assert f"{best:.1f} ±" in shown, f"the table must show {best:.1f}; got {shown}"
    table = read_results(tmp_path / "out")
    assert table.metric == "mAP" and table.shots() == [8], "as tables in notebooks do"
    assert (tmp_path / "out" / "mAP.svg").exists(), "and the picture is called what it shows"


def test_records_of_other_kinds_are_as_the_schema_says(run, tmp_path):
    from importlib import resources

    schema = json.loads(resources.files("adaptkit.runs").joinpath("result.schema.json").read_text())
    run(dataset="tagged", methods=["tags"])
    for path in (p for p in (tmp_path / "out").glob("tags*.json")):
        validate(json.loads(path.read_text()), schema)
        again = Result.read(path)
        assert all(isinstance(v, float) for v in again.right[""]), "numbers must come back as numbers"


def test_a_support_is_drawn_by_labels_that_images_have_and_keeps_all_of_them(tmp_path):
    workspace = Workspace(Setting(dataset="tagged", backbone="toy:0"), home=tmp_path)
    task = workspace.task(4, 1)
    assert task.kind == "multi-label" and task.support.targets.shape == (20, 5), "four of each class that comes first"
    source = workspace.splits.train
    want = [source.targets[i] for i in task.support.index.tolist()]
    assert task.support.targets.tolist() == want, "images must keep the labels that they have"
    kept = [workspace.splits.val.targets[i] for i in task.val.index.tolist()]
    assert task.val.targets.tolist() == kept and task.pool.targets is None, "validation images, too; a pool has none"


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        (
            {"dataset": "tagged", "methods": ["tags", "gda"]},
            "must answer multi-label, .*; got 'gda', which",
        ),
        (
            {"dataset": "toy", "methods": ["tags"]},
            "must answer classification, .*; got 'tags'",
        ),
        (
            {"dataset": "tagged", "methods": ["tags"], "bins": [1, 2]},
            "bins must be left out where images have no",
        ),
        (
            {"dataset": "tagged", "methods": ["tags"], "stream": "class-correlated"},
            "stream must be 'shuffled' where im",
        ),
        ({"dataset": "tagged", "methods": ["tags"], "domains": ["toy"]}, "domains must ask for multi-label; got 'toy'"),
        ({"dataset": "toy", "methods": ["gda"], "sequence": 2}, r"methods must define extend\(task\) .*; got 'gda'"),
        (
            {"dataset": "toy", "methods": ["mcm"], "sequence": 2},
            "must answer with logits in a seq.*; got 'mcm'",
        ),
        (
            {"dataset": "toy", "methods": ["zero-shot"], "sequence": 3},
            "sequence must be from 1 to half the number",
        ),
        ({"dataset": "toy", "methods": ["zero-shot"], "sequence": 0}, "sequence must be a whole .*; got 0"),
        (
            {"dataset": "toy", "methods": ["means"], "sequence": 2, "classes": "base"},
            "classes must be left out in",
        ),
    ],
    ids=str,
)
def test_a_recipe_that_mixes_kinds_is_refused_in_one_line_before_anything_runs(keys, error, run, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTKIT_HOME", str(tmp_path / "home"))
    _, shown, code = run(**keys)
    assert code != 0, "it must be refused"
    line = next(line for line in shown.splitlines() if " must " in line)
    import re

    assert re.search(error, line), f"{error} must be said; got {shown}"
    assert not [*(tmp_path / "home").rglob("*.safetensors")], "nothing must be computed before"


def test_a_method_is_refused_by_a_task_that_it_does_not_answer():
    task = dataclasses.replace(Task.from_arrays((torch.eye(3), range(3)), torch.eye(3)), kind="maps")
    with pytest.raises(ValueError, match="methods must answer maps here; got ZeroShot, which answers classification"):
        adapt(ZeroShot(), task)
    with pytest.raises(TypeError, match=r"Odd.answers must be a tuple of classification, .*; got 'maps'"):
        type("Odd", (Method,), {"answers": "maps"})


def test_what_is_no_classification_has_no_accuracy_and_is_no_classifier(tmp_path):
    task = Workspace(Setting(dataset="tagged", backbone="toy:0"), home=tmp_path).task(4, 1)
    method = adapt(Tags(schedule=Schedule(steps=2)), task)
    with pytest.raises(ValueError, match=r"answer classification to measure accuracy; got Tags\(.*, of multi-label"):
        accuracy(method, task.val)
    with pytest.raises(ValueError, match="to a task of classification, maps or of a gallery; got one of multi-label"):
        save_classifier(tmp_path / "saved", method, task, backbone="toy:0")


def captions():
    """Twelve captions, and images near to each."""
    text = unit(torch.randn(12, 8))
    places = torch.arange(36) % 12
    x = unit(text[places] + 0.3 * torch.randn(36, 8))
    task = Task.from_arrays((x[:12], places[:12]), text, classnames=[f"caption {i}" for i in range(12)])
    return dataclasses.replace(task, kind="ranking"), Images.from_arrays(x[12:], places[12:])


def test_captions_are_found_by_images_and_ranks_are_shown():
    task, test = captions()
    table = compare(task, test, [Captions()])
    want = evaluation("ranking").metrics(predict(adapt(Captions(), task), test), test.targets)
    assert table[0].metrics == want and want["recall@1"] > 0.5, "ranks must be those of the answers"
    assert table.metric == "recall@1" and "median_rank" in want, "the table is of recall"
    assert len(table[0].right[""]) == 24 and max(table[0].right[""]) == 1.0, "each query has its reciprocal rank"


def test_maps_are_answered_pixel_by_pixel():
    normal = torch.randn(6, 16, 8) * 0.1
    patches, masks = torch.randn(10, 16, 8) * 0.1, torch.zeros(10, 4, 4, dtype=torch.long)
    masks[5:, 1:3, 1:3] = 1
    patches[masks.flatten(1).bool()] += 1
    task = Task.from_arrays(({"patches": normal}, torch.zeros(6, 4, 4)), torch.eye(2, 8))
    task = dataclasses.replace(task, kind="maps")
    record = compare(task, Images.from_arrays({"patches": patches}, masks), [Nearest()])[0]
    assert record.metrics["pixel_auroc"] > 0.99 and record.metrics["aupro"] > 0.95, f"a hole must be seen; {record}"
    assert len(record.right[""]) == 10 and not record.classes, "images have parts in it; there are no classes"


def test_grades_are_judged_by_how_far_they_are_off(run, tmp_path):
    records, shown, code = run(dataset="graded", methods=["means"])
    assert code == 0 and "mae" in shown and "spearman" in shown, f"the table is of errors; got {shown}"
    assert set(records[0].metrics) == {"mae", "spearman", "kendall", "within_one", "accuracy"}, "the kind's metrics"
    assert records[0].metrics["mae"] == pytest.approx(-sum(records[0].right[""]) / 60), "each image has its error"


def test_methods_of_real_numbers_are_told_apart_by_images(run, tmp_path):
    run(dataset="tagged", methods=["tags", {"tags": {"sign": -1.0}}], select="none", seeds=[1])
    one = Comparison([read_run(tmp_path / "out")], "lrap")
    (cells,) = one.columns.values()
    verdict = cells["tags(sign=-1.0)"].verdict or cells["tags"].verdict
    assert verdict is not None and verdict.test == "z test over images", "numbers are no counts of right and wrong"
    assert Comparison([read_run(tmp_path / "out")]).metric == "mAP", "what is compared first is what tables show"


def test_a_search_maximises_the_objective_of_the_kind():
    x, targets = torch.randn(40, 4), (torch.rand(40, 3) < 0.5).long()
    x[:, :3] += 2 * targets
    task = Task.from_arrays((x, targets), torch.eye(3, 4), val=(x, targets))
    method = adapt(Tags(schedule=Schedule(steps=30, lr=0.3)), dataclasses.replace(task, kind="multi-label", val=None))
    found = tune(method, task.val)
    assert found.values == {"sign": 1.0} and method.sign == 1.0, f"the right sign must win; got {found}"
    want = evaluation("multi-label").objective(predict(method, task.val), targets)
    assert float(found.correct[2]) == want, "each cell has its mean average precision"


SEQUENCE = {"dataset": "toy", "methods": ["zero-shot", "means"], "sequence": 2, "select": "none"}


def test_tasks_in_sequence_are_learned_one_after_another_and_leave_a_record_each(run, tmp_path):
    records, shown, code = run(**SEQUENCE)
    assert code == 0, f"a sequence must run; got {shown}"
    assert [(r.method, r.seed, r.step) for r in records[:4]] == [
        *[("zero-shot", 1, 1), ("zero-shot", 1, 2)],
        *[("zero-shot", 2, 1), ("zero-shot", 2, 2)],
    ], "a record after each step"
    first, second = (r for r in records if r.method == "means" and r.seed == 1)
    assert "task-1/accuracy" in first.metrics and "task-2/accuracy" not in first.metrics, "means know no class by name"
    assert {"task-1/accuracy", "task-2/accuracy"} <= {*second.metrics}, "later every earlier task is asked again"
    pooled = (36 * second.metrics["task-1/accuracy"] + 24 * second.metrics["task-2/accuracy"]) / 60
    assert second.metrics["accuracy"] == pytest.approx(pooled), "all images are answered among all classes"
    assert len(first.right[""]) == 36 and len(second.right[""]) == 60, "of the classes seen by then"
    by_name = next(r for r in records if r.method == "zero-shot" and r.step == 1)
    assert "task-2/accuracy" in by_name.metrics, "who answers by name is asked the next task before it comes"
    again, _, _ = run(**SEQUENCE)
    assert [r.metrics for r in again] == [r.metrics for r in records], "and records are found again"
    plain, _, _ = run(folder="plain", **{**SEQUENCE, "sequence": 1, "methods": ["zero-shot"]})
    whole = next(r for r in records if r.method == "zero-shot" and r.step == 2)
    assert plain[0].step == 0 and plain[0].metrics["accuracy"] == whole.metrics["accuracy"], "all at once is the same"
    assert plain[0].protocol_hash != whole.protocol_hash, "but another protocol"


def test_the_report_of_a_sequence_has_the_matrix_forgetting_and_transfer(run, tmp_path):
    records, shown, _ = run(**SEQUENCE)
    for line in (
        "after",
        "task 1",
        "task 2",
        "forgetting",
        "backward transfer",
        "forward transfer",
        "average accuracy",
    ):
        assert line in shown, f"{line!r} must be printed; got {shown}"
    of = [r for r in records if r.method == "means"]
    matrix = sequence.accuracies(of)
    assert matrix[0][1] is None and sequence.forward_transfer(matrix, {}) is None, "means answer for no later task"
    lost = matrix[0][0] - matrix[1][0]
    assert sequence.forgetting(matrix) == pytest.approx(lost), "what was known of task 1 less what is"
    assert f"forgetting {100 * lost:.1f}" in shown, "and it is printed"
    table = read_results(tmp_path / "out")
    assert {r.step for g in table.groups().values() for k in g.values() for r in k} == {2}, "rows are after the last"
    assert "forward transfer" in table.text() and "<pre>" in table._repr_html_(), "tables have it, too"
    assert set(table.frame()["step"]) == {1, 2}, "frames have every step"
    assert "step" not in Table([Result(method="a", metrics={"accuracy": 1.0})]).frame(), "where there are any"


def test_a_page_of_a_sequence_has_the_matrix_of_every_method(run, tmp_path):
    from adaptkit.report.comparison import Comparison
    from adaptkit.report.page import page
    from adaptkit.report.runs import read_runs

    records, *_ = run(**SEQUENCE)
    text = page(Comparison(read_runs([tmp_path / "out"])))
    parts = text.split('<template data-part="sequence" ')[1:]
    assert len(parts) == len({r.method for r in records}), "one for each method"
    rows = [part.partition("</template>")[0].count('<th scope="row">after task') for part in parts]
    assert rows == [2] * len(parts), "a row after each of two tasks"
    of = sequence.accuracies([r for r in records if r.method == "means"])
    own = next(part for part in parts if 'data-method="means"' in part).partition("</template>")[0]
    assert f">{100 * of[0][0]:.1f}</td><td></td>" in own, "and nothing of a task that lies ahead"
    for path in (tmp_path / "out").glob("means*.json"):
        if "step" not in path.name:
            path.unlink()
    with pytest.warns(UserWarning, match="the page says nothing of its sequence"):
        assert "Task after task" in page(Comparison(read_runs([tmp_path / "out"]))), "half a sequence breaks no page"


def test_forgetting_and_transfer_are_as_defined():
    matrix = [[0.9, 0.5, None], [0.7, 0.8, 0.3], [0.8, 0.6, 0.7]]
    assert sequence.forgetting(matrix) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.6)) / 2), "best before less last"
    assert sequence.backward_transfer(matrix) == pytest.approx(((0.8 - 0.9) + (0.6 - 0.8)) / 2), "last less first"
    ahead = sequence.forward_transfer(matrix, {2: 0.25, 3: 0.1})
    assert ahead == pytest.approx(((0.5 - 0.25) + (0.3 - 0.1)) / 2), "before learning, over chance"
    assert sequence.forgetting([[0.5]]) is None, "one task is not forgotten"
    with pytest.raises(ValueError, match="must be those of all its steps"):
        sequence.forgetting([[None, None], [0.1, 0.2]])


def test_the_tasks_of_a_sequence_have_the_classes_seen_so_far_and_images_of_their_own(tmp_path):
    workspace = Workspace(Setting(dataset="toy", backbone="toy:0", sequence=2), home=tmp_path)
    one, two = workspace.tasks(4, 1)
    assert (one.classnames, two.classnames) == (CLASSES[:3], CLASSES), "classes add up"
    assert {*one.support.labels.tolist()} == {0, 1, 2} and {*two.support.labels.tolist()} == {3, 4}, "images do not"
    assert {*two.val.labels.tolist()} == {3, 4} and two.pool.labels is None, "nor do validation images"
    (lone,) = Workspace(Setting(dataset="toy", backbone="toy:0"), home=tmp_path).tasks(4, 1)
    assert lone.classnames == CLASSES and len(lone.support) == 20, "other settings have one task"


def test_several_tasks_must_have_as_many_tests(toy):
    task, test = toy
    with pytest.raises(ValueError, match="tests must be as many as the tasks, at least one; got 1 and 2"):
        evaluate(ZeroShot(), [task, task], [test])
    with pytest.raises(TypeError, match=r"an argument of evaluate must be one of seed, .*; got 'sed'; did you mean"):
        evaluate(ZeroShot(), task, test, sed=1)
    found = evaluate(ZeroShot(), [task], [test])
    want = evaluate(ZeroShot(), task, test)
    assert [r.step for r in found] == [0] and found[0].metrics == want.metrics, "one is one"


def test_a_method_that_learned_from_images_says_that_it_cannot_learn_another_task(toy):
    from adaptkit import method
    from adaptkit.methods.adapt import extend

    task, test = toy
    with pytest.raises(ValueError, match=r"methods must define extend\(task\) to learn another task; got GDA"):
        extend(adapt(method("gda"), task), task)
    same = extend(adapt(ZeroShot(), task), task)
    assert torch.equal(predict(same, test), predict(adapt(ZeroShot(), task), test)), "zero-shot answers for all"
