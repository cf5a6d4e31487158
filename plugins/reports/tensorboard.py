"""``--report tensorboard``: event files in ``tensorboard`` beside the records, a run for each cell.

``tensorboard --logdir RESULTS/tensorboard`` shows them; options and protocol stand under hyperparameters.
"""

from adaptkit import hookimpl
from adaptkit.io.shots import plain_shots
from adaptkit.runs.reporters import reporting_to

reporter = requires = "tensorboard"


@hookimpl
def report(result):
    from torch.utils.tensorboard import SummaryWriter

    safe = "".join(c if c.isalnum() or c in "-=" else "_" for c in result.method)[:60]
    name = f"{safe}.{plain_shots(result.shots)}-shot.seed-{result.seed}.{result.tag}"
    with SummaryWriter(str(reporting_to().folder / "tensorboard" / name)) as writer:
        for metric, value in result.metrics.items():
            writer.add_scalar(metric, value, result.step)
        for part, seconds in result.seconds.items():
            writer.add_scalar(f"seconds/{part}", seconds, result.step)
        writer.add_text("options", result.options, result.step)
