"""``--report mlflow``: an MLflow run for each cell, in an experiment named like the recipe.

``MLFLOW_TRACKING_URI`` says where they go; otherwise they are files in ``mlflow`` beside the records. MLflow wants to
be told that files are meant: ``MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri RESULTS/mlflow`` shows them.
"""

import os

from adaptkit import hookimpl
from adaptkit.io.shots import plain_shots
from adaptkit.runs.reporters import reporting_to

reporter = requires = "mlflow"
LONGEST = 500  # characters of a parameter, which MLflow takes


@hookimpl
def report(result):
    from mlflow import MlflowClient

    told = reporting_to()
    place = os.environ.get("MLFLOW_TRACKING_URI") or (told.folder / "mlflow").absolute().as_uri()
    if place.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would take SQLAlchemy
    client = MlflowClient(tracking_uri=place)
    name = told.recipe or "adaptkit"
    there = client.get_experiment_by_name(name)
    experiment = there.experiment_id if there else client.create_experiment(name)
    step = f", step {result.step}" if result.step else ""
    shots = plain_shots(result.shots)
    run = client.create_run(experiment, run_name=f"{result.method}, {shots}-shot, seed {result.seed}{step}").info.run_id
    told_of = {"method": result.method, "shots": shots, "seed": result.seed, "tag": result.tag}
    asked = {key: value for key, value in result.protocol.items() if isinstance(value, str | int | float)}
    for key, value in {**asked, **told_of, "options": result.options}.items():
        client.log_param(run, key, str(value)[:LONGEST])
    for metric, value in result.metrics.items():
        client.log_metric(run, metric, value, step=result.step)
    client.set_terminated(run)
