"""MIEstimationModule: the LightningModule that users subclass."""

from typing import Any, Literal, get_args

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_mi._compat.lightning_logs import is_logged
from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.bounds import AbstractBound
from lightning_mi.checkpoints.exact_resume import Resuming
from lightning_mi.critics import AbstractCritic
from lightning_mi.loss import MILoss
from lightning_mi.metrics._buffer import digest
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.training.epoch_metrics import LoaderMetrics, StageMetrics, training_metrics
from lightning_mi.training.first_step import FirstStep
from lightning_mi.training.gradient_cache import check_chunk_size
from lightning_mi.training.hparams import save_plain_hyperparameters
from lightning_mi.training.networks import check_head, momentum_encoder, network_list
from lightning_mi.training.non_finite import NonFiniteGuard, Policy
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.training.optimizer import plan
from lightning_mi.training.parts import part_names
from lightning_mi.training.prediction import PointwiseMI, Prediction, name_features
from lightning_mi.training.step import StepOutput, log_evaluation_step, log_training_step, references
from lightning_mi.training.step_hooks import StepHooks
from lightning_mi.utilities.checks import check_choice, check_instance

__all__ = ["MIEstimationModule", "StepOutput"]


class MIEstimationModule(StepHooks):
    """Estimates or maximizes the mutual information of two views, with any encoder, critic, bound and regularizer.

    The steps of a batch are hooks; each can be overridden alone::

        batch - unpack_batch -> views - encode -> x, y - project -> outputs of the head - scores -> Scores
            - bound -> BoundTerms - regularizer -> penalty - loss -> loss

    Training logs ``train/mi`` (the value), ``train/joint_term``, ``train/marginal_term``, ``train/log_normalizer``,
    ``train/loss`` and ``train/penalty`` at each step, ``train/true_mi`` if the true value is known
    (:meth:`AbstractPairing.true_value`), and ``train/log_n``, the ceiling of InfoNCE (:meth:`Scores.row_ceiling`).
    Each epoch of training, validation and test logs ``<stage>/mi`` (micro; ``train/mi_micro`` in training),
    ``<stage>/mi_macro``, ``<stage>/mi_plug_in``, ``<stage>/log_normalizer`` and ``<stage>/effective_sample_fraction``,
    exact over batches and ranks; validation and test also the standard error of each estimate, as
    ``<stage>/mi_standard_error``. All in nats. A step without joint pairs logs NaN as ``train/mi`` and
    ``train/joint_term``; averages exclude it.

    With DDP, training scores pairs across all ranks, unless the pairing has ``gather=False``: terms, loss and averaged
    gradient equal those of one process on the global batch. In validation and test each rank pairs its own samples.

    Labels are the entry of a batch after the views that the pairing declares. A pairing that takes labels gets them
    (``train/joint_pairs`` counts the joint pairs of a step), and so does the probe (``train/probe_loss``, nats;
    ``probe/online_accuracy`` in evaluation). If the pairing predicts labels, evaluation logs ``<stage>/accuracy``.

    Args:
        critic: Computes the scores T(x, y).
        bound: Turns scores into a value and an objective.
        pairs: Turns a batch into joint pairs (positives) and marginal pairs (negatives); all pairs of the batch by
            default.
        regularizer: Holds the bound's log-normalizer at its target; none by default.
        encoder: One module for all views, or a list of two, for x and for y; none by default.
        head: A projection head: the loss reads ``head(encoder(view))``; features, probes and predictions read the
            encoder. One module for all views, or a list of two; none by default.
        encoder_momentum: Encode the second view without gradient by the moving average of encoder and head with this
            momentum; none by default.
        optimizer: Creates the optimizer of the module's parameters; Adam with a learning rate of 1e-3 by default,
            fused if possible.
        scheduler: Creates a learning-rate scheduler for the optimizer; none by default.
        scheduler_interval: The scheduler steps each ``"epoch"`` or each ``"step"``.
        probe: A linear classifier of the first representation. It trains with the same optimizer and does not change
            the encoder's gradients or their clipping; none by default.
        encoder_chunk_size: Samples that an encoder processes at a time (gradient cache): exact gradients of a batch of
            any size in the memory of one chunk, at the cost of one more forward pass. The whole batch by default.
        on_non_finite: The policy for a training step whose batch, scores, loss or gradients are not finite.
            ``"raise"`` ends training before any parameter changes. ``"skip"`` skips the step on all ranks, including
            averages and metrics, and logs ``train/skipped_steps``. ``"off"`` disables the check, as does a callback
            with ``handles_non_finite``, such as ``StabilityMonitor`` unless it only warns.
        prediction: ``predict_step`` returns ``"features"`` (representations), ``"pmi"`` (pointwise mutual information
            of the joint pairs) or ``"both"``. By default features if there is an encoder, otherwise pmi.

    Attributes:
        mi_loss: The :class:`~lightning_mi.MILoss` that holds ``critic``, ``bound``, ``pairs`` and ``regularizer``.

    Raises:
        TypeError: An argument has the wrong type, such as a class instead of an instance.
        ValueError: A choice is unknown, the target does not suit the bound, or there are more than two encoders.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
        >>> from lightning_mi import MIEstimationModule, bounds, critics, regularizers
        >>> module = MIEstimationModule(
        ...     critics.SeparableCritic(20, 20), bounds.NWJ(), regularizer=regularizers.Squared(weight=1.0)
        ... )
        >>> module.step((torch.randn(64, 20), torch.randn(64, 20))).terms.value.shape
        torch.Size([])
    """

    def __init__(
        self,
        critic: AbstractCritic,
        bound: AbstractBound,
        *,
        pairs: AbstractPairing | None = None,
        regularizer: AbstractRegularizer | None = None,
        encoder: nn.Module | list[nn.Module] | None = None,
        head: nn.Module | list[nn.Module] | None = None,
        encoder_momentum: float | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        probe: OnlineLinearProbe | None = None,
        encoder_chunk_size: int | None = None,
        on_non_finite: Policy = "raise",
        prediction: Prediction | None = None,
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if probe is not None:
            check_instance("probe", probe, OnlineLinearProbe, "OnlineLinearProbe(num_features, num_classes)")
        if encoder_chunk_size is not None:
            check_chunk_size(encoder_chunk_size)
        if prediction is not None:
            check_choice("prediction", prediction, get_args(Prediction))
        self.mi_loss = MILoss(critic, bound, pairs, regularizer)
        self.encoders = nn.ModuleList(network_list("encoder", encoder))
        self.heads = nn.ModuleList(network_list("head", head))
        check_head(self.heads, self._encodes)
        self.momentum_encoder = momentum_encoder(self.encoders, self.heads, self.pairs, encoder_momentum)
        self.probe = probe
        self.encoder_chunk_size = encoder_chunk_size
        self.prediction = prediction
        loss_parts = {"critic": critic, "bound": bound, "pairs": pairs, "regularizer": regularizer}
        self._part_names = part_names(loss_parts | {"encoder": encoder, "head": head, "probe": probe})
        self._optimizers = plan(optimizer, scheduler, scheduler_interval)
        self._guard = NonFiniteGuard(on_non_finite)
        self._pointwise = PointwiseMI()
        self._resuming = Resuming()
        self._first_step = FirstStep()
        target, holds_target = self.mi_loss.target, self.mi_loss.holds_target
        self.train_metrics = training_metrics(bound, target, holds_target)
        arguments = (bound, target, holds_target, self.pairs, probe)
        self.val_metrics, self.test_metrics = (StageMetrics(LoaderMetrics(s, *arguments)) for s in ("val", "test"))

    # Steps: Lightning calls these.

    def forward(self, *views: Any) -> Any:
        """Representations: of one view, its representation by the first encoder; of several views, a tuple.

        Set ``example_input_array`` to a view for layer shapes in the model summary and for export.
        """
        representations = tuple(self.encode(*views))
        return representations[0] if len(views) == 1 else representations

    def step(self, batch: Any) -> StepOutput:
        """Compute scores, bound terms, penalty and loss of a batch; the same in training, validation and test.

        Raises:
            NonFiniteBatchError: A view contains NaN or an infinite value.
            TypeError: Pairing or probe needs labels, and the batch contains none.
        """
        encoded = self._encode_batch(batch, self.probe)
        views = self._scored_entries(encoded)
        if self.training:
            self.mi_loss.calibrate(lambda: self.scores(*views))
        self._first_step.check_scale(self.critic, views)
        scores = self.scores(*views)
        terms, penalty = self.mi_loss.read(scores)
        return StepOutput(scores, terms, penalty, self.loss(terms, penalty), encoded.views[0].detach(), encoded.labels)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One training step; callbacks get ``scores``, ``terms``, ``features`` and ``labels`` in its outputs."""
        self.mi_loss.set_num_batches(batches_done(self.trainer))
        self._guard.begin_step(self, self.train_metrics, self.mi_loss.num_batches)
        with self._guard.defer_checks():
            output = self.step(batch)
        self.mi_loss.num_batches += 1
        self._first_step.check_sign(self, output)
        batch_digest = digest(output.terms, output.scores)
        self.train_metrics.append(batch_digest)
        probe_loss = None
        if self.probe is not None and output.labels is not None:
            probe_loss = self.probe.loss(output.features, output.labels)
        logs = output.logs(probe_loss, count_pairs=self.pairs.takes_labels)
        logged = is_logged(self.trainer)
        if logged:  # constants, which may need a collective
            logs |= references(self.trainer, self, self.bound, output.scores)
        if self._guard.policy == "skip":
            logs["skipped_steps"] = float(self._guard.skipped)
        log_training_step(self, logs)
        outputs = output.for_callbacks(probe_loss)
        loss = self._guard.watch_loss(output, outputs["scores"], batch_digest.numbers, outputs["loss"], logged)
        return outputs | {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Update the validation metrics; outputs as in :meth:`training_step`."""
        return self._evaluate(batch, "val", self.val_metrics, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Update the test metrics; outputs as in :meth:`training_step`."""
        return self._evaluate(batch, "test", self.test_metrics, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Representations, pointwise mutual information, or both, depending on ``prediction``.

        Returns:
            ``"x"``, ``"y"``, ...: (N, D) representation of each view. ``"pmi"``: (J,) log p(x, y) / (p(x) p(y)) of the
            joint pairs up to the critic's error, nats; see :class:`PointwiseMI`. ``"labels"``: (N,) integers, if the
            batch contains labels.

        Raises:
            ValueError: The batch has no marginal pairs to normalize pointwise mutual information.
        """
        prediction = self.prediction or ("features" if self._encodes else "pmi")
        encoded = self._encode_batch(batch, None, labels_required=prediction != "features")
        outputs = {} if prediction == "pmi" else name_features(encoded.views[: self.pairs.num_views])
        if prediction != "features":
            views = self._scored_entries(encoded)
            outputs["pmi"] = self._pointwise(views, self.scores, self.bound, batch_idx, dataloader_idx)
        return outputs if encoded.labels is None else outputs | {"labels": encoded.labels}

    def _evaluate(self, batch: Any, stage: str, metrics: StageMetrics, loader: int) -> dict[str, Any]:
        output = self.step(batch)
        metrics.update(output, self.critic, self.pairs, self.probe, loader)
        log_evaluation_step(self, stage, output, references(self.trainer, self, self.bound, output.scores))
        return output.for_callbacks()
