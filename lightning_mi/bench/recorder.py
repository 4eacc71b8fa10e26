"""Records what a bound reads at every training step, so that a run can be tabulated and drawn afterwards."""

import math
import time
from collections.abc import Callable
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from lightning_mi.bench.grid import Interrupted
from lightning_mi.callbacks.tensorboard.feature_projection import FeatureMap
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.step import true_value

FIELDS = ("value", "joint_term", "marginal_term", "log_normalizer", "plug_in", "true_mi")
PROBE_EVERY = 20  # training steps


def truth_of(trainer: L.Trainer, module: MIEstimationModule) -> float:
    """What is estimated on the batch that was trained on, nats; NaN where it is not known."""
    truth = true_value(trainer, module, module.bound)
    return math.nan if truth is None else truth


@final
class Recorder(L.Callback):
    """Keeps the terms of every step, ends a run whose loss is no longer finite, and tells how far it is.

    Args:
        report: Called a few times a second with the fraction of the steps done.
        stopped: Asked at every step whether the grid was interrupted.
        probe: Called every ``PROBE_EVERY`` steps with the module; what it returns is kept.

    Attributes:
        diverged_at: The step whose loss was not finite; None if all were.
    """

    handles_non_finite = True  # it ends the run, after recording what there was

    def __init__(
        self,
        report: Callable[[float], None] = lambda fraction: None,
        stopped: Callable[[], bool] = lambda: False,
        probe: Callable[[MIEstimationModule], Tensor] | None = None,
    ) -> None:
        self._report, self._stopped = report, stopped
        self._last_report = 0.0
        self._probe = probe
        self._rows: list[Tensor] = []
        self._truth: list[float] = []
        self._probes: list[Tensor] = []
        self._map = FeatureMap()
        self.diverged_at: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep this step's terms.

        Raises:
            Interrupted: ``stopped`` returned True.
        """
        assert isinstance(pl_module, MIEstimationModule)
        if self._stopped():
            raise Interrupted
        if (now := time.monotonic()) - self._last_report > 0.3:
            self._last_report = now
            self._report(trainer.global_step / float(trainer.estimated_stepping_batches))
        terms = outputs["terms"]
        plug_in = pl_module.bound.plug_in(terms.joint_term, pl_module.target)
        kept = torch.stack((terms.value, terms.joint_term, terms.marginal_term, terms.log_normalizer, plug_in)).detach()
        if outputs["scores"].num_joint == 0:
            kept[[0, 1, 4]] = torch.nan  # what rests on joint pairs: without any there is no estimate
        self._rows.append(kept)
        self._truth.append(truth_of(trainer, pl_module))
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
        """Keep the features of the first labelled test samples."""
        self._map.add(outputs)

    def curves(self) -> dict[str, np.ndarray[Any, Any]]:
        """One float32 array of length steps for each of ``FIELDS``, ``probe`` of shape (probes, ...) if any, and a map.

        The map is ``map`` (samples, 2), the first two principal components of test features, and ``map_labels``.
        """
        columns = dict(zip(FIELDS, torch.stack(self._rows, dim=1).float().cpu().numpy(), strict=False))
        columns["true_mi"] = np.array(self._truth, dtype=np.float32)
        if self._probes:
            columns["probe"] = torch.stack(self._probes).float().cpu().numpy()
        if (points := self._map.points()) is not None:
            columns["map"], columns["map_labels"] = (tensor.numpy() for tensor in points)
        return columns
