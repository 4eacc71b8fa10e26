"""Experiment trackers of a benchmark's trainings, by Lightning's own loggers: a group of runs for each benchmark."""

import os
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning_mi.exceptions import GridError

Tracker = Literal["wandb", "mlflow"]
CLASSES: dict[str, str] = {
    "wandb": "lightning.pytorch.loggers.WandbLogger",
    "mlflow": "lightning.pytorch.loggers.MLFlowLogger",
}


def prepare(tracker: str, group: str, folder: Path) -> None:
    """Check that a tracker is installed, and create the experiment of MLflow, before parallel runs would do so at once.

    Raises:
        GridError: If the package is not installed.
    """
    if find_spec(tracker) is None:
        raise GridError(
            f"Got --logger {tracker}: the package {tracker} is not installed. Run `pip install {tracker}`, or drop "
            "--logger: TensorBoard logs are always written."
        )
    if tracker == "mlflow":
        folder.mkdir(parents=True, exist_ok=True)
        client = import_module("mlflow").MlflowClient(_tracking_uri(folder))
        if client.get_experiment_by_name(group) is None:
            client.create_experiment(group)


def _tracking_uri(folder: Path) -> str:
    """Of MLflow: its own variable, or a database among the results, since MLflow 3 refuses folders of files."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"


def logger_config(tracker: str, group: str, run: str, folder: Path) -> dict[str, Any]:
    """The configuration of Lightning's logger for one run.

    Args:
        tracker: ``wandb`` or ``mlflow``.
        group: Name of the benchmark: the group of W&B in the project ``lightning_mi``, the experiment of MLflow.
        run: Name of the run.
        folder: Results of the benchmark. W&B writes to ``wandb`` in it, MLflow to ``mlflow.db`` in it or, if the
            variable ``MLFLOW_TRACKING_URI`` is set, there.

    Example:
        >>> logger_config("mlflow", "gaussian", "staircase-DV-original-seed0", Path("runs"))["init_args"]["run_name"]
        'staircase-DV-original-seed0'
    """
    if tracker == "wandb":
        arguments: dict[str, Any] = {"project": "lightning_mi", "name": run, "save_dir": str(folder)}
        return {"class_path": CLASSES[tracker], "init_args": arguments, "dict_kwargs": {"group": group}}
    arguments = {"experiment_name": group, "run_name": run, "tracking_uri": _tracking_uri(folder)}
    return {"class_path": CLASSES[tracker], "init_args": arguments}


def finish(loggers: Iterable[Any]) -> None:
    """End the runs of W&B: otherwise the next training of this process would log into the same run."""
    for logger in loggers:
        end = getattr(getattr(logger, "experiment", None), "finish", None)
        if callable(end):
            end()
