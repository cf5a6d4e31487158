"""``--report wandb``: a Weights & Biases run for each cell, in one group for the recipe.

Without a login, ``WANDB_MODE=offline`` keeps them in ``wandb`` beside the records, and ``wandb sync`` sends them later.
``WANDB_PROJECT`` names the project; it is ``adaptkit`` otherwise.
"""

import os

from adaptkit import hookimpl
from adaptkit.io.shots import plain_shots
from adaptkit.runs.reporters import reporting_to

reporter = requires = "wandb"


@hookimpl
def report(result):
    import wandb

    told, shots = reporting_to(), plain_shots(result.shots)
    step = f", step {result.step}" if result.step else ""
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "adaptkit"),
        group=told.recipe or None,
        name=f"{result.method}, {shots}-shot, seed {result.seed}{step}",
        config={"method": result.method, "shots": shots, "seed": result.seed, "step": result.step}
        | {"tag": result.tag, "options": result.options, "protocol": dict(result.protocol)},
        dir=str(told.folder),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True),
    )
    run.log({**result.metrics, **{f"seconds/{part}": value for part, value in result.seconds.items()}})
    run.finish()
