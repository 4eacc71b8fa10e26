"""MIEstimationModule: the LightningModule that users subclass."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_mi._compat import batches_done, is_logged, log_step
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.checkpoints.allowed_classes import check_loadable
from lightning_mi.checkpoints.exact_resume import Resuming
from lightning_mi.checkpoints.loading import naming_misfits
from lightning_mi.critics import AbstractCritic, CalibratedCritic
from lightning_mi.metrics._buffer import digest
from lightning_mi.pairs import AbstractPairing, AllPairs
from lightning_mi.regularizers import AbstractRegularizer, log_normalizer_target
from lightning_mi.scores.scores import Scores
from lightning_mi.training.batch import split_batch
from lightning_mi.training.batch_entries import check_entries, not_a_tuple
from lightning_mi.training.charts import add_charts
from lightning_mi.training.epoch_metrics import StageMetrics, num_val_loaders, training_metrics
from lightning_mi.training.first_step import FirstStep
from lightning_mi.training.gradient_cache import check_chunk_size, encode_in_chunks
from lightning_mi.training.hparams import save_plain_hyperparameters
from lightning_mi.training.non_finite import NonFiniteGuard, Policy
from lightning_mi.training.online_probe import OnlineLinearProbe, clip_apart
from lightning_mi.training.optimizer import gradients_are_scaled, plan
from lightning_mi.training.parts import check_parts, encoder_list
from lightning_mi.training.step import StepOutput
from lightning_mi.training.step_logs import forget_unlogged, references
from lightning_mi.utilities.labels import check_num_classes

_MOST_SCORES = 2**20  # whose standard deviation is that of all, to a thousandth

__all__ = ["MIEstimationModule", "StepOutput"]


class MIEstimationModule(L.LightningModule):
    """Estimates or maximizes the mutual information of two views, with any encoder, critic, bound and regularizer.

    The steps of a batch are hooks, each small enough to be overridden alone::

        batch - unpack_batch -> views - encode -> x, y - scores -> Scores - bound -> BoundTerms - regularizer -> loss

    Training logs ``train/mi`` (the value), ``train/joint_term``, ``train/marginal_term``, ``train/log_normalizer``,
    ``train/loss`` and ``train/penalty`` at each logged step, with ``train/true_mi`` where data module and pairing know
    what is estimated (:meth:`AbstractPairing.true_value`) and ``train/log_n``, InfoNCE's ceiling
    (:meth:`Scores.row_ceiling`). Every epoch of training, validation and test logs ``<stage>/mi`` (micro;
    ``train/mi_micro`` in training), ``<stage>/mi_macro``, ``<stage>/mi_plug_in``, ``<stage>/log_normalizer`` and
    ``<stage>/effective_sample_fraction``, exact over batches and processes; validation and test also log the standard error
    of each estimate, as ``<stage>/mi_standard_error``. All in nats. A batch without joint pairs is in none of the
    averages.

    Where several processes train together, the pairs of a training step run over the samples of all of them, unless the
    pairing has ``gather=False``: its terms, its loss and the averaged gradient are those of one process on the whole
    batch, and the same on each. In validation and test each process pairs its own samples.

    Labels are the entry of a batch after the views that the pairing declares. They go to a pairing that takes labels
    (``train/joint_pairs`` then says how many pairs a logged step had) and to the probe (``train/probe_loss``, nats;
    ``probe/online_accuracy`` in validation and test). Where the pairing predicts labels, validation and test log
    ``<stage>/accuracy``.

    Args:
        critic: Gives T(x, y).
        bound: Turns scores into a value and an objective.
        pairs: Turns a batch into joint and marginal pairs; all pairs of the batch by default.
        regularizer: Holds the bound's log-normalizer at a target; none by default.
        encoder: One module for all views, or a list of two, for x and for y; none by default.
        optimizer: Makes the optimizer of the module's parameters; Adam with a learning rate of 1e-3 by default, fused
            where it can be.
        scheduler: Makes a learning-rate scheduler of the optimizer; none by default.
        scheduler_interval: Whether the scheduler steps each ``"epoch"`` or each ``"step"``.
        probe: A linear classifier of the first representation that trains alongside, by the same optimizer, and
            changes nothing for the encoder: not its gradients, not their clipping; none by default.
        encoder_chunk_size: How many samples the encoders take at a time: exact gradients of a batch of any size, in the
            memory of one chunk, for one more forward pass (gradient cache). The whole batch by default.
        on_non_finite: What a training step does whose batch, scores, loss or gradients are not finite. ``"raise"``
            ends the training before any parameter changes. ``"skip"`` leaves the step out, on all processes, its
            averages and metrics too, and logs ``train/skipped_steps``. ``"off"`` looks at nothing; so does any policy
            beside a callback that responds itself (``handles_non_finite``), as ``StabilityMonitor`` does unless it only
            warns.

    Raises:
        TypeError: An argument is not of its type, such as a class instead of an instance.
        ValueError: The policy is unknown, the regularizer's target does not suit the bound, or there are more than two
            encoders.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
        >>> from lightning_mi import MIEstimationModule, bounds, critics, regularizers
        >>> module = MIEstimationModule(
        ...     critic=critics.SeparableCritic(20, 20), bound=bounds.NWJ(), regularizer=regularizers.Squared(weight=1.0)
        ... )
        >>> module.step((torch.randn(64, 20), torch.randn(64, 20))).terms.value.shape
        torch.Size([])
    """

    def __init__(
        self,
        critic: AbstractCritic,
        bound: AbstractBound,
        pairs: AbstractPairing | None = None,
        regularizer: AbstractRegularizer | None = None,
        encoder: nn.Module | list[nn.Module] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: str = "epoch",
        probe: OnlineLinearProbe | None = None,
        encoder_chunk_size: int | None = None,
        on_non_finite: Policy = "raise",
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        check_parts(critic, bound, pairs, regularizer, probe)
        encoders = encoder_list(encoder)
        if encoder_chunk_size is not None:
            check_chunk_size(encoder_chunk_size)
        target = log_normalizer_target(bound, regularizer)
        self.encoders = nn.ModuleList(encoders)
        self.critic = critic
        self.pairs = AllPairs() if pairs is None else pairs
        self.bound = bound
        self.regularizer = regularizer
        self.probe = probe
        self.target = target or 0.0
        self.encoder_chunk_size = encoder_chunk_size
        self._optimizers = plan(optimizer, scheduler, scheduler_interval)
        self._guard = NonFiniteGuard(on_non_finite)
        self._predicted: tuple[int, list[Tensor]] = (0, [])  # the data loader and the last batch that was predicted
        self._resuming = Resuming()
        self._first_step = FirstStep()
        held = target is not None
        self.train_metrics = training_metrics(bound, self.target, held)
        self.val_metrics = StageMetrics("val", bound, self.target, held, self.pairs, probe)
        self.test_metrics = StageMetrics("test", bound, self.target, held, self.pairs, probe)

    # Hooks: override these in a subclass.

    def unpack_batch(self, batch: Any) -> Sequence[Any]:
        """Take the views out of a batch: x and y, or what else the pairing takes, and then the labels, if any.

        Override it where a batch is not a tuple of views::

            class CaptionMI(MIEstimationModule):
                def unpack_batch(self, batch):
                    return batch["image"], batch["caption"]

        Raises:
            TypeError: The batch is not a tuple or a list.
        """
        if not isinstance(batch, tuple | list):
            raise not_a_tuple(batch)
        return batch

    def encode(self, *views: Any) -> Sequence[Tensor]:
        """Turn views into representations, x by the first encoder and y by the second, if there are two.

        Views beyond the second alternate, as the independent pairs (x', y') do. Override it where the views need more
        than a call each::

            class TokenMI(MIEstimationModule):
                def encode(self, tokens, image):
                    return self.encoders[0](tokens).mean(dim=1), self.encoders[1](image)

        Returns:
            A representation for each view, usually of shape (N, D).
        """
        if not self.encoders:
            return views
        encoders = [self.encoders[i % len(self.encoders)] for i in range(len(views))]
        if (size := self.encoder_chunk_size) is not None:
            return [encode_in_chunks(encoder, view, size) for encoder, view in zip(encoders, views, strict=True)]
        return [encoder(view) for encoder, view in zip(encoders, views, strict=True)]

    def scores(self, *representations: Tensor) -> Scores:
        """Score the joint and marginal pairs of representations; labels come last where the pairing takes them.

        Override it to score in another way, as with a bank of earlier representations::

            class BankMI(MIEstimationModule):
                def scores(self, x, y):
                    matrix = self.critic.pairwise(x, torch.cat([y, self.bank]))
                    joint = torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)
                    return Scores.from_matrix(matrix, joint=joint, marginal=~joint)
        """
        scores: Scores = self.pairs(self.critic, *representations)
        return scores

    def loss(self, terms: BoundTerms, penalty: Tensor | None) -> Tensor:
        """What is minimized.

        Override it to add a loss of your own::

            class TaskAndMI(MIEstimationModule):
                def loss(self, terms, penalty):
                    return self.task_loss + 0.1 * super().loss(terms, penalty)
        """
        return -terms.objective if penalty is None else penalty - terms.objective

    # The rest: what Lightning calls.

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, as torch's modules do, but quickly where Lightning notes which hook it calls.

        It does so 24 times a step, which cost a twentieth of a small critic's.
        """
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
        """Load a module with the weights and hyper-parameters of a checkpoint; ``kwargs`` replace the latter.

        A module built in Python records plain values alone: name its parts again. One that the command line built
        records its parts by name; they must be imported already, or be parts of torch or this package.

        Raises:
            CheckpointError: The file is missing, damaged, an address, holds objects other than plain data and tensors,
                names code, or does not fit the module.
        """
        runs_code = hparams_file is not None or weights_only is False
        path = check_loadable(checkpoint_path, kwargs, cls, runs_code=runs_code)
        with naming_misfits(path):
            return super().load_from_checkpoint(path, map_location, None, strict, True, **kwargs)

    def step(self, batch: Any) -> StepOutput:
        """Everything from a batch to its loss, the same in training, validation and test.

        Raises:
            NonFiniteBatchError: A view holds a value that is infinite or not a number.
            TypeError: The pairing or the probe needs labels and the batch holds none.
        """
        representations, labels = self._represent(batch, self.probe)
        paired = self._paired(representations, labels)
        if self.training and getattr(self.critic, "needs_calibration", False):
            self._calibrate(paired)
        self._first_step.check_scale(self.critic, paired)
        scores = self.scores(*paired)
        terms: BoundTerms = self.bound(scores)
        penalty = None if self.regularizer is None else self.regularizer(terms)
        features = representations[0].detach()
        return StepOutput(scores, terms, penalty, self.loss(terms, penalty), features, labels)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step; callbacks find ``scores``, ``terms``, ``features`` and ``labels`` in its outputs."""
        if self.regularizer is not None:
            self.regularizer.step = batches_done(self.trainer)
        self._guard.begin(self, self.train_metrics)
        with self._guard.looking_later():
            output = self.step(batch)
        self._first_step.check_sign(self, output)
        read = digest(output.terms, output.scores)
        self.train_metrics.append(read)
        probe_loss = None
        if self.probe is not None and output.labels is not None:
            probe_loss = self.probe.loss(output.features, output.labels)
        logs = output.logs(probe_loss, count_pairs=self.pairs.takes_labels)
        logged = is_logged(self.trainer)
        if logged:  # constants, which may take a collective
            logs |= references(self.trainer, self, self.bound, output.scores)
        if self._guard.policy == "skip":
            logs["skipped_steps"] = float(self._guard.skipped)
        has_bar = self.trainer.progress_bar_callback is not None
        for name, value in logs.items():
            log_step(self, f"train/{name}", value, prog_bar=has_bar and name == "mi")
        forget_unlogged(self.trainer, "training_step", logs)
        outputs = output.for_callbacks(probe_loss)
        outputs["loss"] = self._guard.watch(output, outputs["scores"], read.numbers, outputs["loss"], logged)
        return outputs

    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]  # asked at every step

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Let a step that is not finite change nothing."""
        self._guard.decide(self, optimizer, self.train_metrics)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Read the held-out estimate; nothing trains. The outputs are those of :meth:`training_step`."""
        return self._evaluate(batch, "val", self.val_metrics, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Read the estimate on the test set; nothing trains. The outputs are those of :meth:`training_step`."""
        return self._evaluate(batch, "test", self.test_metrics, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> Tensor:
        """Pointwise mutual information of the batch's joint pairs, log p(x, y) / (p(x) p(y)).

        It is normalized by the marginal pairs of the batch. A batch of one sample, which has none, is paired with the
        samples of the batch before it in its data loader, as if it were the last of that batch.

        Returns:
            (J,) nats.

        Raises:
            ValueError: Neither the batch nor one before it has marginal pairs.
        """
        representations, labels = self._represent(batch, None)
        paired = self._paired(representations, labels)
        scores = self.scores(*paired)
        if scores.num_marginal or not scores.num_joint:
            self._predicted = dataloader_idx, [one.detach() for one in paired]
            return self.bound.log_ratio(scores)
        loader, before = self._predicted
        if batch_idx == 0 or loader != dataloader_idx or not before:
            raise ValueError(
                "Got a batch without marginal pairs to predict, and no batch before it in its data loader: pointwise "
                "mutual information is normalized by the scores of marginal pairs. Raise the batch size to two or more."
            )
        ratios = self.bound.log_ratio(self.scores(*map(torch.cat, zip(before, paired, strict=True))))
        # One block of joint pairs, or one for each view: of each, those of this batch come last.
        count = len(paired[0])
        return ratios.view(scores.num_joint // count, -1)[:, -count:].flatten()

    def on_predict_end(self) -> None:
        """Drop the last batch."""
        self._predicted = 0, []

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of all parameters that train, and its scheduler.

        Raises:
            ValueError: Nothing trains.
        """
        parameters = [p for p in self.parameters() if p.requires_grad]
        if all(any(p is own for own in self._probe_parameters()) for p in parameters):
            raise ValueError(
                f"Neither the encoder nor {type(self.critic).__name__} has a parameter that trains. "
                "Give an encoder, or a critic with parameters."
            )
        return self._optimizers.make(parameters, self._trainer is not None and gradients_are_scaled(self.trainer))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the probe's gradients by themselves: in one norm, the probe would shorten the encoder's steps."""
        clip_apart(self._probe_parameters(), self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._resuming.epoch_ends(self.trainer)
        if self.train_metrics.has_batches:  # none where a training_step of one's own calls `step` alone
            self.log_dict(dict(self.train_metrics.items()))

    def on_validation_start(self) -> None:
        """Let validation take no random numbers from training."""
        self._resuming.validation_starts()

    def on_validation_epoch_end(self) -> None:
        """Log the held-out metrics."""
        self._resuming.validation_ends()
        self._log_metrics(self.val_metrics, num_val_loaders(self.trainer))

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test set."""
        self._log_metrics(self.test_metrics, len(self.trainer.num_test_batches))

    def on_fit_start(self) -> None:
        """Lay out the TensorBoard charts, and say so where several processes each pair their own samples.

        Where there is no GPU, torch is told not to look for its driver at every step.

        Raises:
            ValueError: The pairing or the probe has another number of classes than the data module.
        """
        data = getattr(self.trainer, "datamodule", None)
        check_num_classes((self.pairs, self.probe), data)
        self.pairs.prepare(data)
        if self.trainer.world_size > 1 and not self.pairs.gather:
            rank_zero_info(
                f"{type(self.pairs).__name__} has gather=False: each of the {self.trainer.world_size} processes pairs "
                "its own samples, so the loss is the mean of theirs and not that of the whole batch."
            )
        add_charts(self.loggers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what makes a training that goes on bitwise that of an uninterrupted one."""
        if self._trainer is not None:  # else it was trained in processes that have ended; only the weights came back
            self._resuming.save(self.trainer, self.train_metrics, checkpoint, self._guard.skipped)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember it until training starts."""
        self._resuming.load(self._trainer, checkpoint)
        if self.regularizer is None:  # StabilityMonitor may have installed one, and installs it again
            checkpoint.get("state_dict", {}).pop("regularizer._extra_state", None)

    def on_train_end(self) -> None:
        """Drop what was kept of the last steps."""
        self._guard.finish()

    def on_train_start(self) -> None:
        """Go on with the random numbers, the metrics and the logs where they were."""
        self._first_step.start()
        self._guard.start(self.trainer)
        self._guard.skipped = self._resuming.start(self.trainer, self.train_metrics)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch; one that goes on in its middle does not come by here."""
        self.train_metrics.reset()

    def _represent(self, batch: Any, probe: OnlineLinearProbe | None) -> tuple[list[Tensor], Tensor | None]:
        """The representations, with what no pairing takes after them, and the labels."""
        entries = self.unpack_batch(batch)
        tensors = len(self.encoders) < 2 and type(self).encode is MIEstimationModule.encode
        check_entries(entries, self.pairs, type(self).__name__, tensors)
        self._guard.look(self, entries)
        views, labels, surplus = split_batch(entries, self.pairs, probe, training=self.training, device=self.device)
        return [*self.encode(*views), *surplus], labels

    def _paired(self, representations: list[Tensor], labels: Tensor | None) -> list[Tensor]:
        return [*representations, labels] if self.pairs.takes_labels and labels is not None else representations

    def _probe_parameters(self) -> list[nn.Parameter]:
        return [] if self.probe is None else list(self.probe.parameters())

    def _evaluate(self, batch: Any, stage: str, metrics: StageMetrics, loader: int) -> dict[str, Any]:
        output = self.step(batch)
        metrics.update(output, self.critic, self.pairs, self.probe, loader)
        # A batch without marginal pairs has no loss: it counts as nothing in the mean.
        counted = output.scores.num_joint if output.scores.num_marginal else 0
        loss = output.loss if output.scores.num_marginal else torch.zeros_like(output.loss)
        means = {"loss": loss} | references(self.trainer, self, self.bound, output.scores)
        logs = {f"{stage}/{name}": value for name, value in means.items()}
        self.log_dict(logs, on_epoch=True, sync_dist=True, batch_size=counted)
        return output.for_callbacks()

    def _log_metrics(self, metrics: StageMetrics, num_loaders: int) -> None:
        has_bar = self.trainer.progress_bar_callback is not None
        for name, metric in metrics.named(num_loaders).items():
            in_bar = has_bar and name == "val/mi"
            self.log(name, metric, metric_attribute=name, add_dataloader_idx=False, prog_bar=in_bar)

    def _calibrate(self, representations: Sequence[Tensor]) -> None:
        with self.pairs.uncounted():  # the batch is scored several times
            # By name: torch.compile wraps a critic in a module of another class, which passes attributes on.
            cast("CalibratedCritic", self.critic).calibrate(
                marginal_scores=lambda: self.scores(*representations).marginal_values(_MOST_SCORES),
                log_normalizer=lambda: self.bound(self.scores(*representations)).log_normalizer,
                target=self.target,
            )
