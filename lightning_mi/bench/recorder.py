"""Record the terms of the bound at every training step, for tables and figures after the run."""

import math
from collections.abc import Callable
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from lightning_mi.bench.step_progress import StepProgress
from lightning_mi.callbacks import AveragedWeights
from lightning_mi.callbacks.tensorboard.feature_projection import FeatureProjection
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.step import true_value

FIELDS = ("value", "joint_term", "marginal_term", "log_normalizer", "plug_in", "true_mi")
AVERAGED_FIELDS = ("averaged_value", "averaged_plug_in", "averaged_normalized")  # with the callback AveragedWeights
PROBE_EVERY = 20  # training steps between two probes
_CHUNK = 1000  # rows


def last_true_mi(trainer: L.Trainer, module: MIEstimationModule) -> float:
    """True MI of the last training batch, nats; NaN if unknown."""
    truth = true_value(trainer, module, module.bound)
    return math.nan if truth is None else truth


@final
class RowBuffer:
    """Rows of equal length, in chunks.

    A small tensor kept from each step, between the large ones that the step frees, would fragment the heap: it grew by
    gigabytes in a training of 20,000 steps.

    Example:
        >>> rows = RowBuffer()
        >>> rows.append(torch.tensor([1.0, 2.0]))
        >>> rows.stack()
        tensor([[1., 2.]])
    """

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._count = 0

    def append(self, row: Tensor) -> None:
        """Copy a row (F,)."""
        if self._count % _CHUNK == 0:
            self._chunks.append(row.new_empty(_CHUNK, len(row)))
        self._chunks[-1][self._count % _CHUNK] = row
        self._count += 1

    def stack(self) -> Tensor:
        """All rows, (steps, F)."""
        return torch.cat(self._chunks)[: self._count]


@final
class Recorder(L.Callback):
    """Callback that records the terms of every step, stops a run with a non-finite loss, and reports the progress.

    Args:
        report: Called a few times a second with the fraction of the steps done.
        stopped: Called at every step; the training stops once it returns True.
        probe: Called with the module every ``PROBE_EVERY`` steps; its result is recorded.

    Attributes:
        diverged_at: The step with a non-finite loss; None if every loss was finite.
    """

    handles_non_finite = True  # records the non-finite step, then stops the run

    def __init__(
        self,
        report: Callable[[float], None] = lambda fraction: None,
        stopped: Callable[[], bool] = lambda: False,
        probe: Callable[[MIEstimationModule], Tensor] | None = None,
    ) -> None:
        self._progress = StepProgress(report, stopped)
        self._probe = probe
        self._rows = RowBuffer()
        self._truth: list[float] = []
        self._probes: list[Tensor] = []
        self._map = FeatureProjection()
        self.diverged_at: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the terms of this step.

        Raises:
            Interrupted: If ``stopped`` returned True.
        """
        assert isinstance(pl_module, MIEstimationModule)
        self._progress.step(trainer)
        terms = outputs["terms"]
        plug_in = pl_module.bound.plug_in(terms.joint_term, pl_module.target)
        row = torch.stack((terms.value, terms.joint_term, terms.marginal_term, terms.log_normalizer, plug_in)).detach()
        if outputs["scores"].num_joint == 0:
            row[[0, 1, 4]] = torch.nan  # value, joint term and plug-in are undefined without joint pairs
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it
            if isinstance(callback, AveragedWeights) and (averaged := callback.terms) is not None:
                averaged_plug_in = pl_module.bound.plug_in(averaged.joint_term, pl_module.target)
                row = torch.cat([row, torch.stack([averaged.value, averaged_plug_in, callback.normalized])])
        self._rows.append(row)
        self._truth.append(last_true_mi(trainer, pl_module))
        if self._probe is not None and (trainer.global_step - 1) % PROBE_EVERY == 0:
            self._probes.append(self._probe(pl_module))
        if not torch.isfinite(outputs["loss"]):
            self.diverged_at = trainer.global_step - 1
            trainer.should_stop = True

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record the features of the first labelled test samples."""
        self._map.add(outputs)

    def curves(self) -> dict[str, np.ndarray[Any, Any]]:
        """The recorded arrays by name: a float32 array (steps,) for each field, and probes and map if recorded.

        ``probe`` has shape (probes, ...). ``map`` (samples, 2) contains the first two principal components of the test
        features, ``map_labels`` (samples,) their labels.
        """
        names = (*FIELDS[:-1], *AVERAGED_FIELDS)
        columns = dict(zip(names, self._rows.stack().T.float().cpu().numpy(), strict=False))
        columns["true_mi"] = np.array(self._truth, dtype=np.float32)
        if self._probes:
            columns["probe"] = torch.stack(self._probes).float().cpu().numpy()
        if (points := self._map.points()) is not None:
            columns["map"], columns["map_labels"] = (tensor.numpy() for tensor in points)
        return columns
