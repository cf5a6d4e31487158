"""``adaptkit export``: one cell of a recipe, adapted, as a folder to keep or to publish."""

from __future__ import annotations

from argparse import Namespace

from adaptkit.commands.requested import home_folder, recipes
from adaptkit.io.errors import must_be
from adaptkit.io.files import ensure_writable
from adaptkit.io.shots import plain_shots
from adaptkit.io.values import Spec
from adaptkit.runs.recipe import Recipe
from adaptkit.towers import threads


def command(options: Namespace) -> int:
    """Adapt one method of a recipe and save it."""
    import torch

    from adaptkit.methods.adapt import adapt_quietly
    from adaptkit.runs.build import method
    from adaptkit.runs.workspace import Workspace
    from adaptkit.saving.classifier import save_classifier, vacant
    from adaptkit.saving.kinds import ensure_kind

    requested, folder = recipes(options)[0], vacant(options.out)
    ensure_writable(folder)
    label, spec = chosen(requested, options.method)
    shots, seed = max(requested.shots), requested.seeds[0]
    workspace = Workspace(requested.setting(), home=home_folder(options), progress=not options.quiet)
    task, test = workspace.task(shots, seed), workspace.test()
    ensure_kind(task)
    for note in workspace.others.lines():
        print(note)
    torch.manual_seed(seed)
    with threads.sized(len(test) * task.backbone.dim * len(task.classnames)):  # as in a run: the same numbers
        adapted = adapt_quietly(method(spec), task, trainer=requested.trainer, search=requested.searching)
        if adapted.scope == "stream":
            test = test[torch.from_numpy(workspace.order(test)(seed))]
        protocol = {
            **workspace.setting.plain(),
            "shots": plain_shots(shots),
            "seed": seed,
            "trainer": dict(requested.trainer),
            "search": requested.searching,
        }
        name, source = requested.backbone, workspace.splits.source
        save_classifier(folder, adapted, task, backbone=name, test=test, protocol=protocol, source=source)
    print(f"saved: {label}, {plain_shots(shots)}-shot, seed {seed}, to {folder}; see {folder / 'README.md'}")
    return 0


def chosen(requested: Recipe, name: str) -> tuple[str, Spec]:
    """The label and spec of one method of a recipe, by its label, or by its name where that is only one's."""
    labels = requested.labels()
    matching = [label for label, spec in labels.items() if name in (label, spec.name)]
    if len(matching) != 1:
        raise ValueError(must_be("--method", matching or labels, name))
    return matching[0], labels[matching[0]]
