"""Trains cells of a grid that share a stream of batches, as one ensemble; each has the files it would have alone."""

from collections.abc import Callable, Sequence
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from lightning_mi._compat import is_logged
from lightning_mi.bench.recorder import FIELDS, PROBE_EVERY, Pulse, truth_of
from lightning_mi.callbacks import TensorBoardLayout
from lightning_mi.charts import add_charts
from lightning_mi.ensemble import EnsembleOutput, MIEnsemble
from lightning_mi.ensemble_groups import READINGS
from lightning_mi.module import MIEstimationModule
from lightning_mi.step_logs import references
from lightning_mi.step_output import StepOutput

HISTOGRAMS_EVERY = 200  # training steps; figures come at multiples of it


@final
class Seat:
    """The trainer as one member's logger and layout see it.

    Args:
        shared: The trainer of all.
        loggers: Of the member.
    """

    def __init__(self, shared: L.Trainer, loggers: Sequence[Any]) -> None:
        self._shared = shared
        self.loggers = loggers
        self.callback_metrics: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


@final
class RecorderOfAll(L.Callback):
    """What a ``Recorder`` and a layout are for one training, for all members of an ensemble.

    Args:
        layouts: One for each member.
        loggers: Those of each member.
        report: As for ``Recorder``.
        stopped: As for ``Recorder``.
        probe: As for ``Recorder``.
    """

    def __init__(
        self,
        layouts: Sequence[TensorBoardLayout],
        loggers: Sequence[Sequence[Any]],
        report: Callable[[float], None] = lambda fraction: None,
        stopped: Callable[[], bool] = lambda: False,
        probe: Callable[[MIEstimationModule], Tensor] | None = None,
    ) -> None:
        self._layouts, self._loggers = layouts, loggers
        self._pulse, self._probe = Pulse(report, stopped), probe
        self._seats: list[Any] = []
        self._readings: list[Tensor] = []
        self._truth: list[list[float]] = []
        self._probes: list[Tensor] = []
        self._alive = set(range(len(layouts)))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give each member its place in TensorBoard."""
        self._seats = [Seat(trainer, loggers) for loggers in self._loggers]
        for seat, layout, member in zip(self._seats, self._layouts, _members(pl_module), strict=True):
            add_charts(seat.loggers)
            layout.on_fit_start(seat, member)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the layouts find out which step is the last."""
        for seat, layout, member in zip(self._seats, self._layouts, _members(pl_module), strict=True):
            layout.on_train_start(seat, member)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep this step's terms, and log and draw what is due."""
        self._pulse.beat(trainer)
        output: EnsembleOutput = outputs["ensemble"]
        step, members = trainer.global_step - 1, _members(pl_module)
        self._readings.append(output.readings)
        self._truth.append([truth_of(trainer, member) for member in members])
        if self._probe is not None and step % PROBE_EVERY == 0:
            self._probes.append(torch.stack([self._probe(member) for member in members]))
        logged = is_logged(trainer)
        last = trainer.global_step == trainer.estimated_stepping_batches
        if logged or last or step % HISTOGRAMS_EVERY == 0:
            for index in sorted(self._alive):
                own, seat = output.member(output.names[index]), self._seats[index]
                if logged:
                    _log(seat, members[index], own)
                self._layouts[index].on_train_batch_end(seat, members[index], own.for_callbacks(), batch, batch_idx)
        self._alive &= {index for index, finite in enumerate(output.losses.isfinite().tolist()) if finite}
        if not self._alive:
            trainer.should_stop = True

    def curves(self, members: Sequence[MIEstimationModule]) -> list[tuple[dict[str, np.ndarray[Any, Any]], int | None]]:
        """For each member what ``Recorder.curves`` gives, up to the step whose loss was not finite, and that step."""
        readings = torch.stack(self._readings).float().cpu()  # (steps, M, 7)
        truth = np.array(self._truth, dtype=np.float32)
        probes = torch.stack(self._probes).float().cpu().numpy() if self._probes else None
        found = []
        for index, member in enumerate(members):
            lost = (~readings[:, index, -1].isfinite()).nonzero()
            diverged_at = int(lost[0]) if len(lost) else None
            rows = readings[: None if diverged_at is None else diverged_at + 1, index]
            terms = dict(zip(READINGS, rows.unbind(dim=1), strict=True))
            terms["plug_in"] = member.bound.plug_in(terms["joint_term"], member.target)
            columns = {name: terms[name].numpy() for name in FIELDS if name in terms}
            columns["true_mi"] = truth[: len(rows), index]
            if probes is not None:
                columns["probe"] = probes[: 1 + (len(rows) - 1) // PROBE_EVERY, index]
            found.append((columns, diverged_at))
        return found


def _log(seat: Any, member: MIEstimationModule, output: StepOutput) -> None:
    """What the member logs of a step in a training of its own."""
    logs = output.logs(None, count_pairs=False) | references(seat, member, member.bound, output.scores)
    metrics = {f"train/{name}": float(value) for name, value in logs.items()}
    seat.callback_metrics.update(metrics)
    for logger in seat.loggers:
        logger.log_metrics(metrics | {"epoch": seat.current_epoch}, seat.global_step - 1)


def _members(ensemble: L.LightningModule) -> list[MIEstimationModule]:
    assert isinstance(ensemble, MIEnsemble)
    return list(ensemble.members.values())
