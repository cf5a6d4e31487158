"""``adaptkit export``: one cell of a recipe, adapted, as a folder to keep or to publish."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from adaptkit import plugins, threads
from adaptkit.commands.asked import home, recipes
from adaptkit.recipe import Recipe
from adaptkit.values import parse


def command(options: Namespace) -> int:
    """Adapt one method of a recipe and save it."""
    import torch

    from adaptkit.bench import Bench
    from adaptkit.options import method
    from adaptkit.run import adapt
    from adaptkit.saving.classifier import save_classifier, vacant

    asked, folder = recipes(options)[0], vacant(options.out)
    label, spec = chosen(asked, options.method)
    shots, seed = max(asked.shots), asked.seeds[0]
    bench = Bench(asked.setting(), home=home(options), progress=not options.quiet)
    task, test = bench.task(shots, seed), bench.test()
    torch.manual_seed(seed)
    with threads.sized(len(test) * task.backbone.dim * len(task.classnames)):  # as in a run: the same numbers
        adapted = adapt(method(spec), task, trainer=asked.trainer)
        if adapted.scope == "stream":
            test = test[torch.from_numpy(bench.order(test)(seed))]
        protocol = {**asdict(asked.setting()), "shots": shots, "seed": seed, "trainer": dict(asked.trainer)}
        save_classifier(
            folder,
            adapted,
            task,
            backbone=asked.backbone,
            test=test,
            protocol=protocol,
            source=bench.splits.source,
        )
    print(f"saved: {label}, {shots}-shot, seed {seed}, to {folder}; see {folder / 'README.md'}")
    return 0


def chosen(asked: Recipe, name: str) -> tuple[str, Any]:
    """The label and spec of one method of a recipe, by its label, or by its name where that is only one's."""
    labels = asked.labels()
    matching = [label for label, spec in labels.items() if name in (label, parse(spec)[0])]
    if len(matching) != 1:
        raise ValueError(plugins.must_be("--method", matching or labels, name))
    return matching[0], labels[matching[0]]
