"""LoopHooks: the hooks of MIEstimationModule that Lightning calls around steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as L
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer

from lightning_mi._compat.lightning_loops import attached_trainer
from lightning_mi.bounds import AbstractBound
from lightning_mi.checkpoints.allowed_classes import check_loadable
from lightning_mi.checkpoints.exact_resume import Resuming
from lightning_mi.checkpoints.loading import explain_mismatch, read_checkpoint
from lightning_mi.critics import AbstractCritic
from lightning_mi.loss import MILoss
from lightning_mi.metrics._buffer import BufferedMetrics
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.training.charts import add_charts
from lightning_mi.training.epoch_metrics import StageMetrics, log_metrics, num_val_loaders
from lightning_mi.training.first_step import FirstStep
from lightning_mi.training.networks import MomentumEncoder
from lightning_mi.training.non_finite import NonFiniteGuard
from lightning_mi.training.online_probe import OnlineLinearProbe, clip_separately
from lightning_mi.training.optimizer import OptimizerPlan, gradients_are_scaled
from lightning_mi.training.parts import PARTS_ENTRY, check_parts_given, warn_of_other_parts
from lightning_mi.training.prediction import PointwiseMI
from lightning_mi.training.sharding import average_whole_, check_strategy
from lightning_mi.utilities.labels import check_num_classes

_LOSS_PARTS = ("critic", "bound", "pairs", "regularizer")


class LoopHooks(L.LightningModule):
    """Base of MIEstimationModule: parts of the loss, optimizers, epochs and checkpoints.

    ``MIEstimationModule.__init__`` creates the attributes.
    """

    mi_loss: MILoss
    encoders: nn.ModuleList
    heads: nn.ModuleList
    momentum_encoder: MomentumEncoder | None
    probe: OnlineLinearProbe | None
    train_metrics: BufferedMetrics
    val_metrics: StageMetrics
    test_metrics: StageMetrics
    _part_names: dict[str, str]
    _optimizers: OptimizerPlan
    _guard: NonFiniteGuard
    _pointwise: PointwiseMI
    _resuming: Resuming
    _first_step: FirstStep

    # Parts of the loss. Assigning one replaces it in `mi_loss`.

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; parts of the loss by their property setters, which torch bypasses for modules."""
        if name in _LOSS_PARTS:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def critic(self) -> AbstractCritic:
        """The critic of ``mi_loss``."""
        return self.mi_loss.critic

    @critic.setter
    def critic(self, critic: AbstractCritic) -> None:
        self.mi_loss.critic = critic

    @property
    def bound(self) -> AbstractBound:
        """The bound of ``mi_loss``."""
        return self.mi_loss.bound

    @bound.setter
    def bound(self, bound: AbstractBound) -> None:
        self.mi_loss.bound = bound

    @property
    def pairs(self) -> AbstractPairing:
        """The pairing of ``mi_loss``."""
        return self.mi_loss.pairs

    @pairs.setter
    def pairs(self, pairs: AbstractPairing) -> None:
        self.mi_loss.pairs = pairs

    @property
    def regularizer(self) -> AbstractRegularizer | None:
        """The regularizer of ``mi_loss``, or None."""
        return self.mi_loss.regularizer

    @regularizer.setter
    def regularizer(self, regularizer: AbstractRegularizer | None) -> None:
        self.mi_loss.regularizer = regularizer

    @property
    def target(self) -> float:
        """The log-normalizer's target C*, nats."""
        return self.mi_loss.target

    # Optimizers.

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of all trainable parameters, and its scheduler.

        Raises:
            ValueError: No parameter of encoder or critic is trainable.
        """
        parameters = [p for p in self.parameters() if p.requires_grad]
        probe = {id(p) for p in self._probe_parameters()}
        if all(id(p) in probe for p in parameters):
            raise ValueError(
                f"Neither the encoder nor {type(self.critic).__name__} has a trainable parameter. "
                "Give an encoder, or a critic with parameters."
            )
        trainer = attached_trainer(self)
        return self._optimizers.make(parameters, trainer is not None and gradients_are_scaled(trainer))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the probe's gradients separately: in one norm, the probe would shorten the encoder's steps."""
        clip_separately(self._probe_parameters(), self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Average the gradients of parameters that are not sharded, and apply the policy ``on_non_finite``."""
        average_whole_(self)
        self._guard.decide(self, optimizer, self.train_metrics)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step the optimizer, then update the momentum encoder, unless ``on_non_finite`` skips the step.

        Lightning calls it in automatic optimization only. With manual optimization, call
        ``momentum_encoder.update(encoders[0], head)`` after each step of the optimizer.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.momentum_encoder is not None and self._guard.updates:
            self.momentum_encoder.update(self.encoders[0], next(iter(self.heads), None))

    # Start and end of fits and epochs.

    def on_fit_start(self) -> None:
        """Prepare the pairing and the TensorBoard charts.

        Raises:
            ShardingError: The strategy is DeepSpeed or FSDP1.
            ValueError: Pairing or probe and the data module differ in the number of classes.
        """
        check_strategy(self.trainer)
        data = getattr(self.trainer, "datamodule", None)
        check_num_classes((self.pairs, self.probe), data)
        self.pairs.prepare(data)
        if self.trainer.world_size > 1 and not self.pairs.gather:
            rank_zero_info(
                f"{type(self.pairs).__name__} has gather=False: each of the {self.trainer.world_size} ranks pairs "
                "its own samples. The loss is the mean over ranks, not that of the global batch."
            )
        add_charts(self.loggers)

    def on_train_start(self) -> None:
        """Restore RNG states, metric state and the pending log row of a resumed training."""
        self._first_step.start()
        self._guard.start(self.trainer)
        self._guard.skipped = self._resuming.start(self.trainer, self.train_metrics)

    def on_train_end(self) -> None:
        """Drop tensors of the last steps."""
        self._guard.clear()

    def on_train_epoch_start(self) -> None:
        """Reset the training metrics; Lightning skips this hook when it resumes within an epoch."""
        self.train_metrics.reset()

    def on_train_epoch_end(self) -> None:
        """Log the training metrics of the epoch."""
        self._resuming.epoch_ends(self.trainer)
        if self.train_metrics.has_batches:  # an overridden training_step may call `step` alone
            self.log_dict(dict(self.train_metrics.items()))

    def on_validation_start(self) -> None:
        """Save the RNG states, so that validation draws no random numbers from training."""
        self._resuming.validation_starts()

    def on_validation_epoch_end(self) -> None:
        """Restore the RNG states and log the validation metrics."""
        self._resuming.validation_ends()
        log_metrics(self, self.val_metrics, num_val_loaders(self.trainer))

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        log_metrics(self, self.test_metrics, len(self.trainer.num_test_batches))

    def on_predict_end(self) -> None:
        """Drop the previous batch of predictions."""
        self._pointwise.clear()

    # Checkpoints.

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's is a descriptor that mypy cannot compare
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a module with the weights and hyper-parameters of a checkpoint.

        A checkpoint of a module built in Python holds plain hyper-parameters only: give its parts again, all of them.
        A checkpoint of the command line records its parts by class name. The classes must be imported already, or be
        part of torch or this package.

        Args:
            checkpoint_path: A local file.
            map_location: As in :func:`torch.load`.
            hparams_file: Not supported.
            strict: Whether all weights must match.
            weights_only: Always True.
            **kwargs: Parts, and replacements for hyper-parameters. None drops a part.

        Raises:
            CheckpointError: The file is missing, damaged, a URL, or does not fit the module; it names code or contains
                objects other than plain data and tensors; or a part that it was saved with is not given.
        """
        runs_code = hparams_file is not None or weights_only is False
        path = check_loadable(checkpoint_path, kwargs, cls, runs_code=runs_code)
        try:
            with explain_mismatch(path):
                return super().load_from_checkpoint(path, map_location, None, strict, True, **kwargs)
        except TypeError:
            content = read_checkpoint(path)
            if "_instantiator" not in content.get("hyper_parameters", {}):
                check_parts_given(content.get(PARTS_ENTRY, {}), kwargs, cls)
            raise

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of the parts, and the state that makes a resumed training bitwise equal."""
        checkpoint[PARTS_ENTRY] = dict(self._part_names)
        trainer = attached_trainer(self)
        if trainer is not None:  # None after training in spawned processes, which return the weights only
            self._resuming.save(trainer, self.train_metrics, checkpoint, self._guard.skipped)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the state that is restored when training starts.

        Raises:
            CheckpointError: ``load_from_checkpoint`` was called without a part that the checkpoint was saved with.

        Warns:
            InexactResumeWarning: A training resumes with other parts.
        """
        trainer = attached_trainer(self)
        self._resuming.load(trainer, checkpoint)
        if trainer is None:  # called by `load_from_checkpoint`, which adds its arguments to the hyper-parameters
            given = {*self._part_names, *checkpoint.get("hyper_parameters", {})}
            check_parts_given(checkpoint.get(PARTS_ENTRY, {}), given, type(self))
        elif self._resuming.pending and PARTS_ENTRY in checkpoint:
            warn_of_other_parts(checkpoint[PARTS_ENTRY], self._part_names)
        if self.regularizer is None:  # StabilityMonitor may have installed one, and installs it again
            checkpoint.get("state_dict", {}).pop("mi_loss.regularizer._extra_state", None)

    def _probe_parameters(self) -> list[nn.Parameter]:
        return [] if self.probe is None else list(self.probe.parameters())
