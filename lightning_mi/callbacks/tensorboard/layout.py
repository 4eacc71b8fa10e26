"""TensorBoardLayout: charts, histograms, figures and the HPARAMS table of a training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor

from lightning_mi._compat.lightning_logs import is_logged, logged_step
from lightning_mi._compat.lightning_loops import is_accumulating
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.callbacks._step_outputs import read_step
from lightning_mi.callbacks.tensorboard.feature_projection import FeatureProjection
from lightning_mi.callbacks.tensorboard.figures import feature_figure, score_figure
from lightning_mi.callbacks.tensorboard.hparams_table import (
    Plain,
    check_plain,
    default_metrics,
    find_part,
    find_target,
    hparams_row,
    write_row,
)
from lightning_mi.callbacks.tensorboard.media import log_figure, log_histogram
from lightning_mi.module import MIEstimationModule
from lightning_mi.scores.dense import stride
from lightning_mi.scores.scores import Scores
from lightning_mi.training.charts import Charts, add_charts, select_charts
from lightning_mi.training.epoch_metrics import loader_name
from lightning_mi.training.step import references, term_logs
from lightning_mi.utilities.checks import check_number, check_whole

_MAX_SCORES = 10_000  # in a histogram: more take longer and look the same


@final
class TensorBoardLayout(L.Callback):
    """TensorBoard charts, histograms of the scores, figures, and a row in the HPARAMS table.

    *Custom scalars*: the estimate with the truth and the ceiling; both terms; the log-normalizer with its target and
    band; and, if they are logged, the curves of stability, of the regularizer's weight and of the probes.
    *Histograms*: the critic's scores of joint pairs (positives) and of marginal pairs (negatives). *Images*: both in
    one figure; and the first two principal components of the first representation, colored by label, for the validation
    and test samples, or for the training batch if there is no validation. *HPARAMS*: bound, regularizer, weight,
    target, critic, batch size, optimizer and learning rate of each run, with the metrics by which runs are compared.

    The callback works with any module whose training step returns ``{"loss": loss, "terms": terms, "scores": scores}``.
    If the module is not an ``MIEstimationModule``, the callback logs its terms under the same names (``train/mi``,
    ``train/joint_term``, ...), except those that the module logs. Every logger receives the curves; Weights & Biases
    (``log_image``) and MLflow (``log_figure``) also the figures. No logger is needed.

    Only rank 0 draws, from its samples, without a collective.

    Args:
        histograms_every_n_steps: Training steps between two histograms, from the first step on; None for none.
        figures_every_n_steps: Training steps between two figures; one takes about a tenth of a second. The last step
            has one too. None for none.
        band: Distance of the two band lines from the log-normalizer's target, nats.
        hparams: More columns of the HPARAMS table, or other values for its columns.
        metrics: The metric columns of the HPARAMS table; by default the estimates and accuracies of the trainer's
            stages. All runs in a folder should have the same.

    Raises:
        ValueError: An interval is less than one step, or the band is not positive.
        TypeError: An argument has the wrong type, or a column of ``hparams`` is not a plain value.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[TensorBoardLayout(hparams={"trial": 3})])
    """

    def __init__(
        self,
        histograms_every_n_steps: int | None = 200,
        figures_every_n_steps: int | None = 5000,
        *,
        band: float = 0.5,
        hparams: Mapping[str, Plain] | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        for name, every in (
            ("histograms_every_n_steps", histograms_every_n_steps),
            ("figures_every_n_steps", figures_every_n_steps),
        ):
            if every is not None:
                check_whole(name, every, 1)
        check_number("band", band, "the distance from the target in nats")
        if not band > 0:
            raise ValueError(f"Got band={band}: the distance of the band from the target is positive, in nats.")
        self._histograms_every, self._figures_every, self._band = histograms_every_n_steps, figures_every_n_steps, band
        self._hparams = check_plain(hparams or {})
        self._metrics = metrics
        self._charts: Charts = {}
        self._names: set[str] = set()  # logged since the start of training
        self._last_step = -1.0
        self._next_projection = 0
        self._projections: dict[int, FeatureProjection] | None = None  # by dataloader
        self._outputs_checked = False
        self._logged_by_module: frozenset[str] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the run's row of the HPARAMS table before the logger does: TensorBoard shows the first row only."""
        row = self._hparams | hparams_row(trainer, pl_module) | self._hparams  # user columns first, with their values
        metrics = default_metrics(trainer, pl_module) if self._metrics is None else self._metrics
        for logger in trainer.loggers if trainer.is_global_zero else ():
            write_row(logger, row, metrics, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the state; compute the index of the last step."""
        self._charts, self._names, self._logged_by_module, self._outputs_checked = {}, set(), None, False
        self._next_projection = logged_step(trainer)
        self._last_step = float(trainer.estimated_stepping_batches) - 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log and draw, if this step is scheduled.

        Raises:
            TypeError: The first step returned no terms or no scores.
        """
        if not outputs:
            return  # the module skipped this batch
        if not self._outputs_checked:
            read_step(outputs, pl_module, "TensorBoardLayout")
            self._outputs_checked = True
        if is_accumulating(trainer):
            return
        step = logged_step(trainer)
        if is_logged(trainer):
            self._log_terms(trainer, pl_module, *read_step(outputs, pl_module, "TensorBoardLayout"), outputs["loss"])
            if not self._charts:
                self._update_charts(trainer)
        last = step == self._last_step
        if self._histograms_every is not None and (last or step % self._histograms_every == 0):
            self._log_histograms(trainer, pl_module, outputs["scores"], step)
            self._update_charts(trainer)
        if self._figures_every is not None and (last or (step + 1) % self._figures_every == 0):
            self._draw_step(trainer, outputs, step)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the feature projections, if they are scheduled."""
        scheduled = not trainer.sanity_checking and logged_step(trainer) >= self._next_projection
        draws = self._figures_every is not None and trainer.is_global_zero
        self._projections = {} if scheduled and draws else None

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the feature projections."""
        self._projections = {} if self._figures_every is not None and trainer.is_global_zero else None

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect features."""
        if self._projections is not None:
            self._projections.setdefault(dataloader_idx, FeatureProjection()).add(outputs)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect features."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the feature projections; update the charts."""
        if self._projections is not None and self._figures_every is not None:
            self._next_projection = logged_step(trainer) + self._figures_every
            self._draw_projections(trainer, "features/validation")
        if self._charts:
            self._update_charts(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the feature projections; update the charts."""
        self._draw_projections(trainer, "features/test")
        if self._charts:  # without a training, the folder may contain the layout of an earlier one
            self._update_charts(trainer)

    def _log_terms(
        self, trainer: L.Trainer, pl_module: L.LightningModule, terms: BoundTerms, scores: Scores, loss: Tensor
    ) -> None:
        """Log the terms of a module that is not an MIEstimationModule, except those that it logs."""
        if isinstance(pl_module, MIEstimationModule):
            return
        if self._logged_by_module is None:
            self._logged_by_module = frozenset(trainer.callback_metrics)
        # Lightning repeats the last value of a name, so a step without joint pairs logs NaN.
        logs: dict[str, Any] = dict.fromkeys(("mi", "joint_term"), math.nan)
        logs |= term_logs(BoundTerms(*(term.detach() for term in terms)), scores, loss)
        logs |= references(trainer, pl_module, find_part(pl_module, AbstractBound), scores)
        named = {f"train/{name}": value for name, value in logs.items()}
        pl_module.log_dict({name: value for name, value in named.items() if name not in self._logged_by_module})

    def _log_histograms(self, trainer: L.Trainer, pl_module: L.LightningModule, scores: Scores, step: int) -> None:
        if not trainer.is_global_zero or not trainer.loggers:
            return
        joint, marginal = _sampled(scores)
        target = find_target(pl_module)
        lines = {} if target is None else {"target": target, "low": target - self._band, "high": target + self._band}
        for logger in trainer.loggers:
            log_histogram(logger, "scores/joint", joint, step)
            log_histogram(logger, "scores/marginal", marginal, step)
            if lines:
                logger.log_metrics({f"log_normalizer/{name}": value for name, value in lines.items()}, step)

    def _draw_step(self, trainer: L.Trainer, outputs: dict[str, Any], step: int) -> None:
        if not trainer.is_global_zero or not trainer.loggers:
            return
        joint, marginal = _sampled(outputs["scores"])
        if (figure := score_figure(joint, marginal, title=f"step {step}")) is not None:
            log_figure(trainer.loggers, "scores/joint_and_marginal", figure, step)
        if not trainer.enable_validation:
            projection = FeatureProjection()
            projection.add(outputs)
            self._draw_projection(trainer, "features/training", projection, step)

    def _draw_projections(self, trainer: L.Trainer, name: str) -> None:
        projections, self._projections = self._projections or {}, None
        for loader, projection in projections.items():
            self._draw_projection(
                trainer, loader_name(name, loader, len(projections)), projection, logged_step(trainer)
            )

    def _draw_projection(self, trainer: L.Trainer, name: str, projection: FeatureProjection, step: int) -> None:
        if trainer.loggers and (points := projection.points()) is not None:
            log_figure(trainer.loggers, name, feature_figure(*points, title=f"step {step}"), step)

    def _update_charts(self, trainer: L.Trainer) -> None:
        """Write the layout of the charts that have a curve, if it changed."""
        if not trainer.is_global_zero:
            return
        self._names.update(trainer.callback_metrics)  # Lightning resets callback_metrics before a test
        charts = select_charts(self._names)
        if charts != self._charts:
            self._charts = charts
            add_charts(trainer.loggers, charts)


@torch.no_grad()
def _sampled(scores: Scores) -> tuple[Tensor, Tensor]:
    """Finite joint and marginal scores, evenly subsampled, in float32 on the CPU."""
    sampled = []
    for values in (scores.joint[:: stride(len(scores.joint), _MAX_SCORES)], scores.marginal_values(_MAX_SCORES)):
        sampled.append(values[values.isfinite()].detach().float().cpu())
    return sampled[0], sampled[1]
