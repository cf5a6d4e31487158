"""The contract, executable: checks that every method passes, whoever wrote it.

Each is a function of a way to make the method, a task and labelled queries, and raises `AssertionError` with a sentence
that says what was broken. Exceptions are declared on the class, ``exempt = {"class_order": "learned from noise"}``,
each with its reason, and must really fail: an exemption that is no longer needed is an error too.
"""

from __future__ import annotations

import sys
from dataclasses import fields, replace

import torch
from safetensors.torch import load as load_state
from safetensors.torch import save as save_state

from adaptkit.features.items import Images
from adaptkit.io.errors import must_be
from adaptkit.methods.adapt import accuracy, adapt, predict
from adaptkit.methods.method import Method, trainable
from adaptkit.methods.task import Task
from adaptkit.testing.grids import grid_reaches_answers
from adaptkit.testing.harness import Check, Make, adapted, ensure, same
from adaptkit.testing.kinds import better_than_chance, one_of_each, otherwise_labelled, reordered, shape_held
from adaptkit.testing.ranges import options_have_ranges
from adaptkit.testing.verbs import (
    next_task,
    other_classes,
    replay_matches_forward,
    sweep_matches_forward,
    verbs_are_spelt,
)


def check(name: str, make: Make, task: Task, queries: Images) -> None:
    """Run one check, honouring the method's exemptions.

    Raises:
        AssertionError: when the check fails, or when it passes although the class is exempt from it.
    """
    exempt = type(make()).exempt
    for unknown in sorted(set(exempt) - set(CHECKS)):
        raise AssertionError(must_be("what a method is exempt from", CHECKS, unknown))
    reason = exempt.get(name)
    torch.manual_seed(0)
    if reason is None:
        return CHECKS[name](make, task, queries)
    try:
        CHECKS[name](make, task, queries)
    except AssertionError:
        return None
    raise AssertionError(f"{type(make()).__name__} passes {name}; remove its exemption ({reason})")


def docstring_names_source(make: Make, task: Task, queries: Images) -> None:
    """The module's docstring is a card: what it does, ``Source:``, ``Deviations:``."""
    cls = type(make())
    doc = sys.modules[cls.__module__].__doc__ or ""
    for heading in ("Source:", "Deviations:"):
        ensure(heading in doc, f"{cls.__module__} must have a {heading!r} line in its docstring")


def output_shape(make: Make, task: Task, queries: Images) -> None:
    """``(N, C)`` or ``(N,)``, finite, with labels withheld."""
    method = adapted(make, task)
    out = predict(method, queries)
    shape_held(method, task, queries, out)
    ensure(
        bool(out.isfinite().all()), f"{type(method).__name__} returned {int((~out.isfinite()).sum())} values not finite"
    )
    ensure(not out.requires_grad, f"{type(method).__name__} must answer without a gradient")


def scope(make: Make, task: Task, queries: Images) -> None:
    """The output depends on what `scope` says, and on nothing else."""
    method = adapted(make, task)
    whole, order = predict(method, queries), torch.randperm(len(queries), generator=torch.Generator().manual_seed(1))
    name = type(method).__name__
    if method.scope == "sample":
        same(predict(method, queries, batch_size=7), whole, f"{name} has scope 'sample', but the batch size matters")
    if method.scope in ("sample", "set"):
        same(predict(method, queries[order]), whole[order], f"{name} has scope {method.scope!r}, but the order matters")
    if method.scope == "stream":
        same(predict(method, queries[:20]), whole[:20], f"{name} has scope 'stream', but later samples matter")


def predict_is_pure(make: Make, task: Task, queries: Images) -> None:
    """Twice the same answer; the method as before."""
    method = adapted(make, task, anew=True)  # a copy may share what is changed with the one that it was copied from
    before = {n: t.clone() for n, t in method.state_dict().items()}
    first = predict(method, queries)
    same(predict(method, queries), first, f"{type(method).__name__} answers differently the second time", 1e-6)
    changed = [n for n, t in method.state_dict().items() if not torch.equal(t, before[n])]
    ensure(not changed, f"{type(method).__name__} changed {changed} while predicting")


def fit_is_repeatable(make: Make, task: Task, queries: Images) -> None:
    """From one seed, bit for bit the same method."""
    one, two = adapted(make, task).state_dict(), adapted(make, task, anew=True).state_dict()
    unequal = [n for n in one if not torch.equal(one[n], two[n])]
    ensure(not unequal, f"{unequal} differ between two adaptations from one seed; draw from torch's generator only")


def backbone_untouched(make: Make, task: Task, queries: Images) -> None:
    """Weights and gradients as before, no tap left, no frozen weight inside the method."""
    model, before = task.backbone.model, task.backbone.digest()
    method = adapted(make, task, anew=True)
    predict(method, queries[:12])
    name = type(method).__name__
    ensure(task.backbone.digest() == before, f"{name} changed the frozen backbone")
    grads = [n for n, p in model.named_parameters() if p.grad is not None or p.requires_grad]
    ensure(not grads, f"{name} left gradients on the frozen backbone: {grads[:3]}")
    tapped = [n for n, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]
    ensure(not tapped, f"{name} left taps on {tapped[:3]}")
    ours = {p.data_ptr() for p in method.parameters()} & {p.data_ptr() for p in model.parameters()}
    ensure(not ours, f"{name} holds weights of the backbone as its own parameters")


def class_order(make: Make, task: Task, queries: Images) -> None:
    """Numbering the classes otherwise only permutes the columns (of methods that are not trained)."""
    method = adapted(make, task)
    if trainable(method) or any(trainable(m) or list(m.parameters()) for m in method.children_methods()):
        return
    perm = torch.randperm(len(task.classnames), generator=torch.Generator().manual_seed(2))

    def renumber(images: Images | None) -> Images | None:
        return images if images is None or images.labels is None else images.label(perm.argsort()[images.labels])

    sets = {"support": renumber(task.support), "val": renumber(task.val)} if task.kind == "classification" else {}
    other = adapted(make, replace(reordered(task, perm), **sets))  # type: ignore[arg-type]
    a, b = predict(method, queries), predict(other, queries)
    same(b, a[:, perm] if a.dim() == 2 else a, f"{type(method).__name__} depends on how classes are numbered")


def state_round_trip(make: Make, task: Task, queries: Images) -> None:
    """Saved with safetensors and loaded into one that was adapted to other labels, the same answers."""
    method = adapted(make, task)
    saved = save_state({n: t.clone().contiguous() for n, t in method.state_dict().items()})
    torch.manual_seed(1)
    again = adapt(make(), otherwise_labelled(task))
    for ours, theirs in zip(again.modules(), method.modules(), strict=True):
        if isinstance(ours, Method) and isinstance(theirs, Method):
            options = {f.name: getattr(theirs, f.name) for f in fields(theirs)}
            ours.set({name: value for name, value in options.items() if not isinstance(value, Method)})
    again.load_state_dict(load_state(saved))
    same(predict(again, queries), predict(method, queries), f"{type(method).__name__} loses something when saved", 1e-6)


def every_parameter_learns(make: Make, task: Task, queries: Images) -> None:
    """A gradient reaches each parameter that requires one."""
    torch.manual_seed(0)
    method = make()
    for child in method.children_methods():
        adapt(child, task).requires_grad_(False)
    method.train()
    bound = task.bind(method)
    method.fit(bound)
    params = {n: p for n, p in method.named_parameters() if p.requires_grad}
    if params:
        method.loss(method.training_images(bound)[:10]).backward()
        idle = [n for n, p in params.items() if p.grad is None]
        ensure(not idle, f"no gradient reaches {idle} of {type(method).__name__}")


def works_with_one_shot(make: Make, task: Task, queries: Images) -> None:
    """One support image per class, no validation images."""
    alone = replace(task, support=task.support[one_of_each(task)], val=None)
    predict(adapted(make, alone), queries[:8])  # which refuses nan


def beats_chance(make: Make, task: Task, queries: Images) -> None:
    """Half as good again as guessing, on easy data."""
    method = adapted(make, task)
    if task.kind != "classification":
        better_than_chance(method, queries)
    elif method.output == "logits":
        got = accuracy(method, queries)
        ensure(got > 1.5 / len(task.classnames), f"{type(method).__name__} is right {got:.0%} of the time: guessing")


CHECKS: dict[str, Check] = {
    f.__name__: f
    for f in (
        docstring_names_source,
        verbs_are_spelt,
        options_have_ranges,
        output_shape,
        scope,
        predict_is_pure,
        fit_is_repeatable,
        backbone_untouched,
        class_order,
        other_classes,
        next_task,
        state_round_trip,
        every_parameter_learns,
        works_with_one_shot,
        sweep_matches_forward,
        grid_reaches_answers,
        replay_matches_forward,
        beats_chance,
    )
}
"""Every check, by name."""
