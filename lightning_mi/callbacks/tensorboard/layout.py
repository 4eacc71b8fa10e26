"""What TensorBoard shows of a training beside the plain curves, and what other loggers can show of it."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_mi._compat import is_accumulating, is_logged, logged_step
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.callbacks._step_outputs import observed
from lightning_mi.callbacks.tensorboard import hparams_table as table
from lightning_mi.callbacks.tensorboard.feature_projection import FeatureMap
from lightning_mi.callbacks.tensorboard.figures import feature_figure, score_figure
from lightning_mi.callbacks.tensorboard.media import log_histogram, log_picture
from lightning_mi.module import MIEstimationModule
from lightning_mi.scores.dense import stride
from lightning_mi.scores.scores import Scores
from lightning_mi.training.charts import Charts, charts_of
from lightning_mi.training.epoch_metrics import loader_name
from lightning_mi.training.step import references, term_logs

_MOST_SCORES = 10_000  # in a histogram: more would show the same and take longer


@final
class TensorBoardLayout(L.Callback):
    """Arranges a training in TensorBoard: charts, histograms of the scores, figures, and a row in the HPARAMS table.

    *Custom scalars*: the estimate with the truth and the ceiling, both terms, the log-normalizer with its target and
    band, and where they are logged the curves of stability, of the regularizer's weight and of the probes.
    *Histograms*: the critic's scores of joint and of marginal pairs. *Images*: both in one figure, and the first
    representation in two dimensions, colored by label: of the validation and test samples, or of the training batch
    where nothing is validated. *HPARAMS*: the bound, regularizer, weight, target, critic, batch size, optimizer and
    learning rate of each run, with metrics that are declared before the first step, so that runs compare there.

    It works on any module whose training step returns ``{"loss": loss, "terms": terms, "scores": scores}``. One that
    is no ``MIEstimationModule`` has its terms logged under the same names (``train/mi``, ``train/joint_term``, ...),
    but for those that it logs itself. Every logger gets the curves; one with a ``log_image`` (Weights & Biases) or a
    client with a ``log_figure`` (MLflow) the figures too. No logger is needed.

    Only the first process draws, from its own samples, and nothing waits for the others.

    Args:
        histograms_every_n_steps: Training steps between two histograms, the first step's included; None for none.
        figures_every_n_steps: Training steps between two figures, which take a tenth of a second, and one of the last
            step; None for none.
        band: How far from its target the log-normalizer may be, in nats: two lines of its chart.
        hparams: More columns of the HPARAMS table, or other values for those that are there.
        metrics: The columns of results in the HPARAMS table; by default the estimates and accuracies of the stages
            that the trainer has. All runs in a folder should have the same.

    Raises:
        ValueError: An interval is less than one step, or the band is not positive.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[TensorBoardLayout(hparams={"trial": 3})])
    """

    def __init__(
        self,
        histograms_every_n_steps: int | None = 200,
        figures_every_n_steps: int | None = 5000,
        band: float = 0.5,
        hparams: Mapping[str, table.Plain] | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        for name, every in (
            ("histograms_every_n_steps", histograms_every_n_steps),
            ("figures_every_n_steps", figures_every_n_steps),
        ):
            if every is not None and every < 1:
                raise ValueError(f"Got {name}={every}: give a number of training steps, at least 1, or None for none.")
        if not band > 0:
            raise ValueError(f"Got band={band}: the log-normalizer may be a positive number of nats from its target.")
        self._histograms_every, self._figures_every, self._band = histograms_every_n_steps, figures_every_n_steps, band
        self._hparams = table.checked(hparams or {})
        self._metrics = metrics
        self._charts: Charts = {}
        self._names: set[str] = set()  # of what was logged since the training began
        self._last_step = -1.0
        self._next_map = 0
        self._maps: dict[int, FeatureMap] | None = None  # of each data loader
        self._verified = False
        self._logged_by_module: frozenset[str] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Declare the metrics of the HPARAMS table, before the logger's own entry: TensorBoard keeps the first."""
        row = self._hparams | table.row(trainer, pl_module) | self._hparams  # the user's come first
        metrics = table.default_metrics(trainer, pl_module) if self._metrics is None else self._metrics
        for logger in trainer.loggers if trainer.is_global_zero else ():
            table.declare(logger, row, metrics, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out which step is the last."""
        self._charts, self._names, self._logged_by_module, self._verified = {}, set(), None, False
        self._next_map = logged_step(trainer)
        self._last_step = float(trainer.estimated_stepping_batches) - 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log and draw what is due at this step.

        Raises:
            TypeError: The first step returned no terms or no scores.
        """
        if not outputs:
            return  # The module skipped this batch.
        if not self._verified:
            observed(outputs, pl_module, "TensorBoardLayout")
            self._verified = True
        if is_accumulating(trainer):
            return
        step = logged_step(trainer)
        if is_logged(trainer):
            self._log_terms(trainer, pl_module, *observed(outputs, pl_module, "TensorBoardLayout"), outputs["loss"])
            if not self._charts:
                self._arrange(trainer)
        last = step == self._last_step
        if self._histograms_every is not None and (last or step % self._histograms_every == 0):
            self._log_histograms(trainer, pl_module, outputs["scores"], step)
            self._arrange(trainer)
        if self._figures_every is not None and (last or (step + 1) % self._figures_every == 0):
            self._draw_step(trainer, outputs, step)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a map of the features, where one is due."""
        due = self._figures_every is not None and not trainer.sanity_checking and logged_step(trainer) >= self._next_map
        self._maps = {} if due and trainer.is_global_zero else None

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a map of the features."""
        self._maps = {} if self._figures_every is not None and trainer.is_global_zero else None

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
        if self._maps is not None:
            self._maps.setdefault(dataloader_idx, FeatureMap()).add(outputs)

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
        """Draw the map, and the charts of what was logged for the first time."""
        if self._maps is not None and self._figures_every is not None:
            self._next_map = logged_step(trainer) + self._figures_every
            self._draw_maps(trainer, "features/validation")
        if self._charts:
            self._arrange(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the map, and the charts of what was logged for the first time."""
        self._draw_maps(trainer, "features/test")
        if self._charts:  # Without a training there may be its layout in the same folder.
            self._arrange(trainer)

    def _log_terms(
        self, trainer: L.Trainer, pl_module: L.LightningModule, terms: BoundTerms, scores: Scores, loss: Tensor
    ) -> None:
        """The curves of a module that does not log them itself."""
        if isinstance(pl_module, MIEstimationModule):
            return
        if self._logged_by_module is None:
            self._logged_by_module = frozenset(trainer.callback_metrics)
        logs: dict[str, Any] = dict(term_logs(BoundTerms(*(term.detach() for term in terms)), scores, loss))
        logs |= references(trainer, pl_module, table.part(pl_module, AbstractBound), scores)
        named = {f"train/{name}": value for name, value in logs.items()}
        pl_module.log_dict({name: value for name, value in named.items() if name not in self._logged_by_module})

    def _log_histograms(self, trainer: L.Trainer, pl_module: L.LightningModule, scores: Scores, step: int) -> None:
        if not trainer.is_global_zero or not trainer.loggers:
            return
        joint, marginal = _sampled(scores)
        target = table.target_of(pl_module)
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
            log_picture(trainer.loggers, "scores/joint_and_marginal", figure, step)
        if not trainer.enable_validation:
            feature_map = FeatureMap()
            feature_map.add(outputs)
            self._draw_map(trainer, "features/training", feature_map, step)

    def _draw_maps(self, trainer: L.Trainer, name: str) -> None:
        maps, self._maps = self._maps or {}, None
        for loader, feature_map in maps.items():
            self._draw_map(trainer, loader_name(name, loader, len(maps)), feature_map, logged_step(trainer))

    def _draw_map(self, trainer: L.Trainer, name: str, feature_map: FeatureMap, step: int) -> None:
        if trainer.loggers and (points := feature_map.points()) is not None:
            log_picture(trainer.loggers, name, feature_figure(*points, title=f"step {step}"), step)

    def _arrange(self, trainer: L.Trainer) -> None:
        """Write the charts that have a curve, when there is a new one: TensorBoard shows the last layout of a run."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        self._names.update(trainer.callback_metrics)  # which a test starts anew
        charts = charts_of(self._names)
        if charts != self._charts:
            self._charts = charts
            for logger in loggers:
                logger.experiment.add_custom_scalars(charts)


@torch.no_grad()
def _sampled(scores: Scores) -> tuple[Tensor, Tensor]:
    """Joint and marginal scores that are finite, evenly thinned, in float32 on the CPU."""
    thinned = []
    for values in (scores.joint[:: stride(len(scores.joint), _MOST_SCORES)], scores.marginal_values(_MOST_SCORES)):
        thinned.append(values[values.isfinite()].detach().float().cpu())
    return thinned[0], thinned[1]
