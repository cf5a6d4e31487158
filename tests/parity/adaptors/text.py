"""Methods that use more of the text: generated sentences, descriptors, sub-classes, weighted prompts, patches."""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from adaptkit import Task, adapt, method, predict, tune
from adaptkit.features.items import Images
from tests.parity.golden import adaptor


def zero_shot_task(rows, classes, task_rows, more=(), **options):
    """A task without images: sentence embeddings `rows` by class are a file's, `task_rows` the task's own.

    Args:
        rows: ``(S, D)`` raw embeddings of what the file says.
        classes: ``(S,)`` their classes.
        task_rows: C arrays ``(T_c, D)``, the prompts' embeddings.
        more: options of `method` that the file's form needs.
        options: for `Task.from_arrays`.

    Returns:
        The task, and the texts by class that the file must hold.
    """
    count = len(task_rows)
    own = [rows[classes == c] for c in range(count)]
    names = [f"class {c}" for c in range(count)]
    texts = [[f"text {t} of {name}" for t in range(len(r))] for name, r in zip(names, own, strict=True)]
    prompts = [[f"prompt {t} of {name}" for t in range(len(r))] for name, r in zip(names, task_rows, strict=True)]
    both = [torch.cat([a, b]) for a, b in zip(task_rows, own, strict=True)]
    every = Task.from_arrays(
        (torch.zeros(0, rows.shape[1]), torch.zeros(0, dtype=torch.long)),
        both,
        classnames=names,
        prompts=[p + t for p, t in zip(prompts, texts, strict=True)],
        **options,
    )
    return dataclasses.replace(every, prompts=tuple(map(tuple, prompts))), dict(zip(names, texts, strict=True))


def with_file(name, task, texts, **options):
    """A method adapted with its file of texts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts))
        return adapt(method(name, file=str(file), **options), task)


def by_class(rows, classes):
    return [rows[classes == c] for c in range(int(classes.max()) + 1)]


@adaptor("cupl", method="cupl")
def cupl(golden):
    templates = by_class(golden["in_template_features"], golden["in_template_class"])
    task, texts = zero_shot_task(golden["in_gpt_features"], golden["in_gpt_class"], templates)
    x, scale = golden["in_test_features"], task.backbone.logit_scale
    golden.close("out_w_template", task.text.T, atol=1e-6)
    for key, pooled in (("cupl", False), ("both", True)):
        fitted = with_file("cupl", task, texts, pooled=pooled)
        golden.close(f"out_w_{key}", fitted.text.T, atol=1e-6)
        golden.close(f"out_logits_{key}", predict(fitted, x) / scale, atol=1e-6)


@adaptor("descriptor-aggregation", method="dclip")
def dclip(golden):
    rows, classes = golden["in_descriptor_features"], golden["in_descriptor_class"]
    nothing = (torch.zeros(0, rows.shape[1]), torch.zeros(0, dtype=torch.long))
    task = Task.from_arrays(nothing, by_class(rows, classes), logit_scale=100)
    x = golden["in_test_features"]
    said = {how: adapt(method("dclip", aggregate=how), task) for how in ("mean", "max", "merged")}
    golden.close("out_vcd_scores", predict(said["mean"], x) / 100, atol=1e-6)
    golden.close("out_waffle_scores_mean", predict(said["mean"], x) / 100, atol=1e-6)
    golden.close("out_waffle_scores_max", predict(said["max"], x) / 100, atol=1e-6)
    golden.close("out_waffle_merged_weights", said["merged"].text, atol=1e-6)
    golden.close("out_waffle_merged_scores", predict(said["merged"], x) / 100, atol=1e-6)


@adaptor("waffle-prompts", method="waffle-clip")
def waffle_prompts(golden):
    from adaptkit.runs.plugins import pick

    hyper, names = golden.hyper, golden.arrays["in_class_names"].tolist()
    pairs = [row.split("|") for row in golden.arrays["in_descriptors"].tolist()]
    texts = {name: [descriptor for owner, descriptor in pairs if owner == name] for name in names}
    words = golden.arrays["in_word_list"].tolist()
    options = {"before": hyper["label_before_text"], "after": hyper["label_after_text"], "count": hyper["waffle_count"]}
    lists, seed = list(texts.values()), int(golden["in_numpy_seed"])

    def written(mode):
        waffle = method("waffle-clip", mode=mode, budget=hyper["randomization_budget"], as_released=True, **options)
        return waffle.write(names, lists, words, np.random.RandomState(seed))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "descriptors.json"
        file.write_text(json.dumps(texts))
        template = f"{hyper['label_before_text']}{{name}}{hyper['descriptor_separator']}{{}}{hyper['label_after_text']}"
        read = {"file": str(file), "form": "descriptors", "template": template, "as_released": True}
        described = pick("prompts", "llm")(names, None, **read)
    said = {
        "out_gpt_descriptions": described,
        "out_waffle": written("waffle"),
        "out_random_descriptions": written("random-descriptors"),
        "out_waffle_and_gpt": written("waffle-and-descriptors"),
    }
    for key, sentences in said.items():
        got = [f"{name}|{s}" for name, own in zip(names, sentences, strict=True) for s in own]
        want = golden.arrays[key].tolist()
        assert got == want, f"{golden.name}: {key} must be {want}; got {got}"
        golden.seen[key] = 0.0


@adaptor("chils", method="chils")
def chils(golden):
    scale, classes = golden.hyper["logit_scale"], golden["in_sub_class"]
    rows, supers = golden["in_sub_weights"].T, golden["in_super_weights"].T
    task, texts = zero_shot_task(rows, classes, list(supers[:, None]), logit_scale=scale)
    x, labels = golden["in_test_features"], golden["in_test_labels"]
    options = {"templates": ["{}"], "add_class": False}
    zero_shot = predict(adapt(method("zero-shot"), task), Images.from_arrays(x))
    golden.close("out_super_logits", zero_shot, atol=1e-4)
    unit = torch.nn.functional.normalize(x, dim=-1)
    plain = with_file("chils", task, texts, reweight="none", **options)
    golden.close("out_sub_logits", task.backbone.logits(unit, plain.rows), atol=1e-4)
    released = {"normal": "class", "hat": "sum", "supagg": "pooled"}
    before = [(answer.argmax(1) == labels).double().mean() for answer in (zero_shot, predict(plain, x))]
    for key, reweight in released.items():
        fitted = with_file("chils", task, texts, reweight=reweight, **options)
        answer = predict(fitted, x)
        with torch.no_grad():
            golden.close(f"out_conf_{key}", fitted.confidence(unit).exp(), atol=1e-5)
        golden.agree(f"out_pred_{key}", answer.argmax(1), answer.exp(), 2e-5)
        correct = (answer.argmax(1) == labels).double().mean()
        golden.close(f"out_acc_{key}", torch.stack([*before, correct]), atol=1e-9)


@adaptor("zpe", method="zpe")
def zpe(golden):
    text, x = golden["in_text_features"], golden["in_image_features"]
    nothing = (x[:0], torch.zeros(0, dtype=torch.long))
    scale = golden.hyper["logit_scale"]
    pool = golden["in_pretrain_features"]
    task = Task.from_arrays(nothing, list(text.transpose(0, 1)), pool=pool, logit_scale=scale)
    released = {"extra": len(text) - int(golden["in_pool_size"]), "as_released": True}

    def fitted(**options):
        return adapt(method("zpe", **released, **options), task)

    modes = {"pretrain": "pool", "pretrain_star": "pool-mean"}
    shares = {str(round(100 * share)): share for share in golden.hyper["frac_test"]}
    with torch.no_grad():
        for key in (k for k in golden.outputs if k.startswith("out_scores_") and k != "out_scores_per_image"):
            mode, _, percent = key.removeprefix("out_scores_").partition("_frac")
            scores = fitted(debias=modes.get(mode, mode), share=shares[percent or "100"]).scores(x)
            golden.close(key, scores.mean(0), atol=2e-4)
        scores = fitted().scores(x)
    golden.close("out_scores_per_image", scores, atol=2e-4)
    golden.close("out_softmax_weights", scores.mean(0).softmax(0), atol=2e-4)
    for weight in ("equal", "scores", "softmax"):
        golden.close(f"out_logits_{weight}_pool", predict(fitted(weight=weight), x), atol=2e-4)
    for threshold in golden.hyper["thresholds"]:
        model = fitted(select="outliers", threshold=threshold)
        if not len(golden[f"out_selected_{threshold}"]):
            why = "none stands out: the release then is right of no image, here the best prompt votes"
            golden.skip(why, f"out_selected_{threshold}", f"out_logits_selected_{threshold}")
            continue
        golden.equal(f"out_selected_{threshold}", model.outliers(scores.mean(0)[: int(golden["in_pool_size"])]))
        golden.close(f"out_logits_selected_{threshold}", predict(model, x), atol=2e-4)


@adaptor("calip", method="calip")
def calip(golden):
    tokens, labels = golden["in_tokens"], golden["in_labels"]
    images = {"x": tokens[:, 0], "patches": tokens[:, 1:]}
    ends = [golden.meta["hyperparameters"][name] for name in ("beta2", "beta3")]
    ends = [float(rule.split("(")[1].split("-")[0]) for rule in ends]  # "0.001 + i*(END-0.001)/STEPS, i<STEPS"
    steps = [int(golden.hyper[name].split("<")[1]) for name in ("beta2", "beta3")]
    nothing = {name: rows[:0] for name, rows in images.items()}, labels[:0]
    task = Task.from_arrays(nothing, list(golden["in_prompt_embeddings"]), val=(images, labels), logit_scale=100)
    model = adapt(method("calip", search_scale=ends, search_steps=steps), task)
    search = tune(model, task.val)
    golden.close("out_text_weights", model.text.T, atol=1e-6)
    with torch.no_grad():
        guided_text, guided_image = model.guided(Images.from_arrays(images).bind(model.needs()))
    golden.close("out_logits1", guided_text, atol=5e-4)
    golden.close("out_logits2", guided_image, atol=5e-4)
    golden.equal("out_best_beta2", model.beta2)
    golden.equal("out_best_beta3", model.beta3)
    golden.close("out_best_logits", predict(model, images), atol=5e-4)
    golden.close("out_best_acc", 100 * search.correct.max().double() / search.total, atol=1e-9)
    rows, columns = golden["out_correct_grid"].shape
    every = search.correct[:: steps[0] // rows, :: steps[1] // columns]
    same_counts(golden, "out_correct_grid", model, images, every)


def same_counts(golden, key, model, images, correct):
    """Right answers in the cells of a thinned grid; a cell may be off by the images that are near-ties in it."""
    want = golden[key].double()
    cells = [values[:: len(values) // n] for values, n in zip(model.grid().values(), want.shape, strict=True)]
    room = 2 * golden.meta["fp32_vs_fp64_of_the_reference"]["best_logits"]["max_abs_diff"]
    chosen = {name: getattr(model, name) for name in model.grid()}
    for i, j in (want != correct).nonzero().tolist():
        model.refit(dict(zip(model.grid(), (cells[0][i], cells[1][j]), strict=True)))
        best = predict(model, images).topk(2).values
        ties, off = int((best[:, 0] - best[:, 1] < room).sum()), abs(want[i, j] - correct[i, j])
        assert off <= ties, (
            f"{golden.name}: {key} is off by {off:.3g} in cell {i, j}, where {ties} images are near-ties"
        )
    model.refit(chosen)
    golden.equal(key, want)
