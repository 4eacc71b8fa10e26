"""Train one cell of a sweep in this process, and write its metrics and their curves."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_mi.bench.loggers import finish
from lightning_mi.bench.results import write_curves
from lightning_mi.bench.step_progress import StepProgress
from lightning_mi.bench.sweep.cell import SweepCell
from lightning_mi.bench.train import download_hint, instantiate, tracker_config
from lightning_mi.bench.worker import quiet_process

# Callbacks of a recipe that a sweep drops: it reads the last weights, and has its own progress bar.
_DROPPED_CALLBACKS = ("ProgressBar", "Checkpoint")


@final
class MetricRecorder(L.Callback):
    """Records the logged metrics at every logged step, reports the progress, and stops at a loss that is not finite.

    Args:
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called at every step; the training stops once it returns True.

    Attributes:
        diverged_at: The step with a non-finite loss; None if every loss was finite.
    """

    handles_non_finite = True  # records the step, then stops the run: the other runs of the sweep go on

    def __init__(self, report: Callable[[float], None], stopped: Callable[[], bool]) -> None:
        self._progress = StepProgress(report, stopped)
        self._steps: defaultdict[str, list[int]] = defaultdict(list)
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self.diverged_at: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the metrics of training, and report.

        Raises:
            Interrupted: If ``stopped`` returned True.
        """
        self._progress.step(trainer)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not bool(torch.isfinite(loss).all()):
            self.diverged_at = trainer.global_step - 1
            trainer.should_stop = True
        if trainer.global_step % max(1, trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self._record(trainer, "train/")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the metrics of validation."""
        if not trainer.sanity_checking:
            self._record(trainer, "val/")

    def _record(self, trainer: L.Trainer, prefix: str) -> None:
        for name, value in scalars(trainer.callback_metrics).items():
            if name.startswith(prefix):
                self._steps[name].append(trainer.global_step)
                self._values[name].append(value)

    def curves(self) -> dict[str, Any]:
        """Steps and values by metric: ``steps:NAME`` and ``values:NAME``, arrays of the same length."""
        steps = {f"steps:{name}": np.array(each) for name, each in self._steps.items()}
        return steps | {f"values:{name}": np.array(each, dtype=np.float32) for name, each in self._values.items()}


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics with one value each, as numbers."""
    numbers = {name: torch.as_tensor(value) for name, value in metrics.items()}
    return {name: float(value) for name, value in numbers.items() if value.numel() == 1}


def train_point(
    folder: Path, cell: SweepCell, report: Callable[[float], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Train and test a cell, and write its metrics atomically under ``folder``.

    Validation is that of the recipe. A test follows if the module and the data have one; it reads the last weights.

    Args:
        folder: Results of the sweep.
        cell: The training.
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called at every step; the training stops once it returns True.

    Raises:
        Interrupted: If ``stopped`` returned True.
        DatasetNotFoundError: If the data set is missing; the message says how to download it.
    """
    with quiet_process(), download_hint(cell.config["data"].get("init_args", {})):
        cli = instantiate(
            cell.config,
            folder / "tensorboard",
            cell.name,
            tracker=tracker_config(cell, folder),
            dropped=_DROPPED_CALLBACKS,
            validate=True,
        )
        recorder = MetricRecorder(report, stopped)
        trainer, module, data = cli.trainer, cli.model, cli.datamodule
        trainer.callbacks.append(recorder)
        trainer.fit(module, datamodule=data)
        metrics = scalars(trainer.callback_metrics)
        has_test = is_overridden("test_step", module) and is_overridden("test_dataloader", data, L.LightningDataModule)
        if recorder.diverged_at is None and has_test:
            for tested in trainer.test(module, datamodule=data, verbose=False):
                metrics |= scalars(tested)
        finish(trainer.loggers)
    if trainer.is_global_zero:
        write_curves(folder, cell, recorder.curves(), diverged_at=recorder.diverged_at, metrics=metrics)
