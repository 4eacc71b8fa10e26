"""NonFiniteGuard: the policy for a training step whose batch, scores, loss or gradients are not finite."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, cast, final, get_args

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightning_mi._compat.lightning_loops import attached_trainer
from lightning_mi._compat.torch_names import supports_amp_scaling
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.metrics._buffer import BufferedMetrics
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.scores.scores import Scores
from lightning_mi.training.error_context import gradient_error, parameters_unchanged, step_error, step_location
from lightning_mi.training.finite_checks import all_finite, check_finite, count_non_finite, floating_tensors
from lightning_mi.training.flat_scores import FlatScoresCheck
from lightning_mi.training.optimizer import gradients_are_scaled
from lightning_mi.training.step import StepOutput
from lightning_mi.utilities.checks import check_choice
from lightning_mi.utilities.distributed import any_rank
from lightning_mi.utilities.numerics import disable_finite_checks
from lightning_mi.utilities.protocols import HandlesNonFinite

Policy = Literal["raise", "skip", "off"]
Action = Literal["proceed", "undo", "skip", "raise"]


class Findings(NamedTuple):
    """Finiteness flags of a training step, equal on every rank that may undo it.

    Attributes:
        forward: True if views, scores and loss are finite.
        gradients: True if the gradients, which DDP has averaged over ranks, are finite.
    """

    forward: bool
    gradients: bool


def choose_action(findings: Findings, policy: Policy, scaled: bool) -> Action:
    """Choose the action for a step between backward and the optimizer's update.

    Args:
        findings: The finiteness flags of the step.
        policy: The active policy; ``"off"`` if a callback handles such steps.
        scaled: Whether the trainer uses a gradient scaler, as for fp16.

    Returns:
        ``"undo"`` if only the gradients overflowed under a scaler: its scale was too large. The scaler skips the
        update and lowers its scale. This is not an error, but buffers and metrics are restored.

    Example:
        >>> choose_action(Findings(forward=True, gradients=False), "raise", scaled=True)
        'undo'
    """
    if findings.forward and findings.gradients:
        return "proceed"
    if scaled and findings.forward:
        return "undo"
    return "proceed" if policy == "off" else policy


class _Batch(NamedTuple):
    """The forward pass of one batch, without autograd graph."""

    terms: BoundTerms
    penalty: Tensor | None
    numbers: Tensor
    loss: Tensor


class _Snapshot(NamedTuple):
    """Buffers and metric state, so that a skipped step can be undone."""

    buffers: list[Tensor]
    metrics: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module, metrics: BufferedMetrics) -> "_Snapshot":
        return cls([buffer.clone() for buffer in module.buffers()], metrics.snapshot())

    @torch.no_grad()
    def restore(self, module: nn.Module, metrics: BufferedMetrics, flags: bool = True) -> None:
        """Restore buffers and metrics; boolean buffers, such as that of a calibrated critic, only with ``flags``."""
        for buffer, saved in zip(module.buffers(), self.buffers, strict=True):
            if flags or buffer.dtype != torch.bool:
                buffer.copy_(saved)
        metrics.restore(self.metrics)


@final
class NonFiniteGuard:
    """Checks each step between backward and update, and lets it proceed, skips it or raises, on all ranks.

    One host-device sync a step: a single flag over gradients, loss, views and bound terms. It replaces the checks of
    bound and regularizer (:meth:`defer_checks`). Ranks need no collective: a loss or a view that is not finite turns
    its rank's gradients into NaN, and DDP averages gradients, so that every rank detects it.

    LBFGS evaluates a batch several times. Buffers and metrics then count its last evaluation only.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"off"``.

    Attributes:
        policy: The policy.
        skipped: Number of skipped steps.
        updates: Whether the last step changes the weights.

    Raises:
        ValueError: The policy is unknown.

    Example:
        >>> NonFiniteGuard("ignore")
        Traceback (most recent call last):
        ValueError: Got on_non_finite='ignore': it is one of 'raise', 'skip', 'off'.
    """

    def __init__(self, policy: Policy) -> None:
        check_choice("on_non_finite", policy, get_args(Policy))
        self.policy = policy
        self.skipped = 0
        self.updates = True
        self._active_policy: Policy = policy  # "off" if a callback handles steps that are not finite
        self._defers = policy != "off"
        self._scaled, self._single_rank, self._reevaluates = False, True, False
        self._flat_scores = FlatScoresCheck()
        self.clear()

    def start(self, trainer: L.Trainer) -> None:
        """Begin a training. A callback with ``handles_non_finite`` replaces the policy."""
        callbacks = getattr(trainer, "callbacks", [])
        handled_by_callback = any(isinstance(each, HandlesNonFinite) and each.handles_non_finite for each in callbacks)
        self._active_policy = "off" if handled_by_callback else self.policy
        self._scaled = gradients_are_scaled(trainer)
        self._defers = handled_by_callback or self._scaled or self.policy != "off"
        self._single_rank = trainer.world_size == 1
        self._reevaluates = any(isinstance(optimizer, LBFGS) for optimizer in getattr(trainer, "optimizers", []))
        self._flat_scores.start()
        self.clear()

    def clear(self) -> None:
        """End a training: drop tensors and snapshots of its last steps."""
        self._views: Sequence[Tensor] = ()
        self._batches: list[_Batch] = []  # since the last update: several with gradient accumulation
        self._scores: Scores | None = None  # of the last batch
        self._logged = False
        self._batch_index = -1
        self._batch_start: _Snapshot | None = None
        self._step_start: _Snapshot | None = None
        self._new_step = True

    def begin_step(self, module: L.LightningModule, metrics: BufferedMetrics, batch_index: int) -> None:
        """Snapshot buffers and metrics before a batch if its step may be undone or its batch evaluated again."""
        self._views, self._scores = (), None
        repeated, self._batch_index = batch_index == self._batch_index, batch_index
        if self._reevaluates and repeated and self._batch_start is not None:
            self._batch_start.restore(module, metrics, flags=False)
        elif self._reevaluates or (self._new_step and (self._scaled or self.policy == "skip")):
            self._batch_start = _Snapshot.of(module, metrics)
            if self._new_step:
                self._step_start = self._batch_start
        self._new_step = False

    def check_views(self, module: L.LightningModule, views: Sequence[Any]) -> None:
        """Check the views of a batch: at once in evaluation and if no sync is needed, otherwise with the gradients.

        In evaluation there is no step to skip, so ``"skip"`` raises like ``"raise"``.

        Raises:
            NonFiniteBatchError: A view is not finite.
        """
        if not (module.training and attached_trainer(module) is not None):
            if self.policy != "off":
                check_finite(views, location=lambda: step_location(module))
        elif self._active_policy == "raise" and self._single_rank and module.device.type == "cpu":
            self._check_now(module, views)
        elif self._active_policy != "off" or self._scaled:
            self._views = [view.detach() for view in floating_tensors(views)]

    def defer_checks(self) -> AbstractContextManager[None]:
        """Context manager for the forward pass: the guard or a callback checks instead of bound and regularizer."""
        return disable_finite_checks() if self._defers else nullcontext()

    def watch_loss(self, output: StepOutput, scores: Scores, numbers: Tensor, loss: Tensor, logged: bool) -> Tensor:
        """Record a forward pass, and return the loss for backward.

        Args:
            output: Output of the step.
            scores: Its scores, detached: between steps the guard stores no autograd graph.
            numbers: Its terms and other numbers, detached; see :func:`digest`.
            loss: The loss, with a probe's.
            logged: Whether the step is logged.

        Returns:
            The loss; on several ranks, NaN if this rank's loss or views are not finite.
        """
        if self._active_policy == "off" and not self._scaled:
            return loss
        terms = BoundTerms(*(term.detach() for term in output.terms))
        penalty = None if output.penalty is None else output.penalty.detach()
        self._batches.append(_Batch(terms, penalty, numbers, loss.detach()))
        self._scores, self._logged = scores, logged
        if self._single_rank:
            return loss
        finite = torch.isfinite(loss.detach())
        for view in self._views:
            finite = finite & torch.isfinite(view).all()
        return loss * torch.where(finite, 1.0, torch.nan)

    def decide(self, module: L.LightningModule, optimizer: Optimizer, metrics: BufferedMetrics) -> None:
        """Let a step proceed, skip it or raise, between backward and the optimizer's update.

        It checks the gradients of all optimizers, before the first of them updates its parameters.

        Raises:
            NonFiniteBatchError: The policy is ``"raise"`` and this rank's batch is not finite.
            NonFiniteStepError: The policy is ``"raise"`` and scores, loss or gradients are not finite.
        """
        self._new_step = self.updates = True
        batches, self._batches = self._batches, []
        optimizers: Sequence[Any] = [optimizer] if module.automatic_optimization else module.trainer.optimizers
        parameters = [p for entry in optimizers for group in entry.param_groups for p in group["params"]]
        gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
        if not gradients or (self._active_policy == "off" and not self._scaled):
            return
        # On several ranks the gradients cover the views: `watch_loss` has turned them into NaN.
        views = self._views if self._single_rank else ()
        if all_finite([*gradients, *views, *(t for batch in batches for t in (batch.numbers, batch.loss))]):
            if batches and self._scores is not None:
                self._flat_scores(module, self._scores, gradients, self._logged)
            return
        _warn_of_terms(module, batches)
        finite = all_finite(gradients)
        if finite and all_finite([*views, *(batch.loss for batch in batches[-1:])]):
            return  # only a bound's value overflowed
        problem = self._forward_problem(module, batches[-1].loss) if batches else None
        failed = problem is not None
        if self._scaled and batches:  # without a scaler, a failure of the forward pass is in the gradients of all ranks
            failed = any_rank(failed, batches[-1].loss.device)
        action = choose_action(Findings(not failed, finite), self._active_policy, self._scaled)
        self.updates = action == "proceed"
        if action == "raise":
            raise problem or gradient_error(module, parameters)
        if action == "skip":
            self.skipped += 1
            for entry in optimizers:
                _skip_update(entry, fill_nan=self._scaled and supports_amp_scaling(entry))
        if action in ("skip", "undo") and self._step_start is not None:
            self._step_start.restore(module, metrics)

    def _check_now(self, module: L.LightningModule, views: Sequence[Any]) -> None:
        check_finite(views, location=lambda: step_location(module), changes=lambda: parameters_unchanged(module))

    def _forward_problem(self, module: L.LightningModule, loss: Tensor) -> ValueError | None:
        """The error of this rank's views, scores or loss; None if all are finite."""
        assert self._scores is not None
        scores = self._scores
        try:
            self._check_now(module, self._views)
        except ValueError as problem:
            return problem
        for name, tensor in (("Joint scores", scores.joint), ("Marginal scores", scores.marginal_values())):
            if bad := count_non_finite(tensor):
                return step_error(module, f"{name} hold {bad} of {tensor.numel()} values that are not finite")
        if torch.isfinite(loss):
            return None
        other = "" if self._single_rank else " on this rank; see the error of the other ranks"
        return step_error(module, f"The loss is {float(loss)} although all scores are finite{other}")


def _warn_of_terms(module: L.LightningModule, batches: Sequence[_Batch]) -> None:
    """Issue the deferred warnings of bound and regularizer."""
    bound, regularizer = cast("AbstractBound", module.bound), cast("AbstractRegularizer | None", module.regularizer)
    for batch in batches:
        bound.warn_unless_finite(batch.terms)
        if regularizer is not None and batch.penalty is not None:
            regularizer.warn_unless_finite(batch.penalty, batch.terms)


def _skip_update(optimizer: Optimizer, fill_nan: bool) -> None:
    """Make an optimizer's next step change nothing, including its moments and weight decay.

    Args:
        optimizer: The optimizer.
        fill_nan: Fill gradients with NaN instead: a fused optimizer skips a step by the scaler's non-finite flag.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if fill_nan and parameter.grad is not None:
                parameter.grad.fill_(torch.nan)
            else:
                parameter.grad = None
