"""NonFiniteGuard: what happens to a training step whose batch, scores, loss or gradients are not finite."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, cast, final, get_args

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.exceptions import MINumericalWarning, NonFiniteStepError
from lightning_mi.metrics._buffer import BufferedMetrics
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.scores.scores import Scores
from lightning_mi.training.finite_checks import all_finite, check_finite, count_non_finite, floating
from lightning_mi.training.optimizer import gradients_are_scaled
from lightning_mi.training.step import StepOutput
from lightning_mi.training.step_place import place, unchanged
from lightning_mi.utilities.distributed import any_rank
from lightning_mi.utilities.numerics import disable_finite_checks

Policy = Literal["raise", "skip", "off"]
_FLAT = 1e-6  # of float32's 6e-8, some times over


class _Watched(NamedTuple):
    """What a step made, without gradient; of several accumulated batches the last."""

    scores: Scores
    loss: Tensor
    logged: bool


class _Read(NamedTuple):
    """What was read of a batch, without gradient."""

    terms: BoundTerms
    penalty: Tensor | None
    looked_at: tuple[Tensor, Tensor]  # the terms among other numbers, and the loss, which the penalty is in


@final
class NonFiniteGuard:
    """Decides about each step between its gradients and its update, on all processes alike.

    The device is waited for once a step: for one number that tells of gradients, loss, views and what the bound read,
    which is in the place of the bound's and the regularizer's own looks (:meth:`looking_later`). Over several
    processes a loss or a view that is not finite spoils its process's gradients, which are averaged, so all of them see
    it and none waits for another.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"off"``.

    Attributes:
        policy: As given.
        skipped: Steps that were skipped.

    Raises:
        ValueError: The policy is none of these.

    Example:
        >>> NonFiniteGuard("ignore")
        Traceback (most recent call last):
        ValueError: Got on_non_finite='ignore': it is one of 'raise', 'skip', 'off'.
    """

    def __init__(self, policy: Policy) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"Got on_non_finite={policy!r}: it is one of {', '.join(map(repr, get_args(Policy)))}.")
        self.policy = policy
        self.skipped = 0
        # Read once at the start of a training: properties of a Trainer cost more than what is done with them.
        self._acts, self._scaled, self._alone = policy != "off", False, True
        self._responds = False  # a callback does
        self._views: Sequence[Tensor] = ()
        self._watched: _Watched | None = None
        self._read: list[_Read] = []  # of all accumulated batches
        self._before: dict[str, Any] | None = None
        self._decided = True
        self._first, self._said_flat = True, False

    def start(self, trainer: L.Trainer) -> None:
        """At the start of a training: leave what is not finite to a callback that responds itself, if there is one."""
        callbacks = getattr(trainer, "callbacks", [])
        self._responds = any(getattr(callback, "handles_non_finite", False) for callback in callbacks)
        self._acts = self.policy != "off" and not self._responds
        self._scaled = gradients_are_scaled(trainer)
        self._alone = trainer.world_size == 1
        self._decided, self._first, self._said_flat = True, True, False
        self.finish()

    def finish(self) -> None:
        """At the end of a training: drop what was kept of its last steps."""
        self._watched, self._before, self._views = None, None, ()
        self._read.clear()

    def begin(self, module: L.LightningModule, metrics: BufferedMetrics) -> None:
        """Before a batch: remember the averages that its step may move, where it may be taken back."""
        self._views, self._watched = (), None  # the last batch's scores make room for the next one's
        if self._decided and (self.policy == "skip" or self._scaled):
            buffers = [buffer.clone() for buffer in module.buffers()]
            self._before = {"buffers": buffers, "metrics": metrics.snapshot()}
        self._decided = False

    def look(self, module: L.LightningModule, views: Sequence[Any]) -> None:
        """At a batch: at once in evaluation and where nobody waits for it, else when its gradients are there.

        Evaluation has no step to skip: ``"skip"`` raises there as ``"raise"`` does.

        Raises:
            NonFiniteBatchError: A view is not finite.
        """
        if not (module.training and module._trainer is not None):
            if self.policy != "off":
                check_finite(views, where=lambda: place(module))
            return
        if self._acts and self._alone and self.policy == "raise" and module.device.type == "cpu":
            check_finite(views, where=lambda: place(module), after=lambda: unchanged(module))
        elif self._acts or self._scaled:
            self._views = [view.detach() for view in floating(views)]

    def looking_later(self) -> AbstractContextManager[None]:
        """Around the forward pass: bound and regularizer leave it to :meth:`decide` to look whether they are finite.

        Or to a callback that responds.
        """
        return disable_finite_checks() if self._acts or self._scaled or self._responds else nullcontext()

    def watch(self, output: StepOutput, scores: Scores, numbers: Tensor, loss: Tensor, logged: bool) -> Tensor:
        """After the forward pass: the loss to go backward from.

        Args:
            output: Of the step.
            scores: Its scores, detached: between steps nothing here holds a graph.
            numbers: Its terms among others, without gradient; see :func:`digest`.
            loss: With a probe's.
            logged: Whether the step is.
        """
        if not (self._acts or self._scaled):
            return loss
        read = loss.detach()
        terms = BoundTerms(*(term.detach() for term in output.terms))
        penalty = None if output.penalty is None else output.penalty.detach()
        self._watched = _Watched(scores, read, logged)
        self._read.append(_Read(terms, penalty, (numbers, read)))
        if self._alone:
            return loss
        finite = torch.isfinite(read)
        for view in self._views:
            finite = finite & torch.isfinite(view).all()
        return loss * torch.where(finite, 1.0, torch.nan)

    def decide(self, module: L.LightningModule, optimizer: Optimizer, metrics: BufferedMetrics) -> None:
        """Between gradients and update: let the step be, take it back, or refuse it.

        All optimizers' gradients are looked at, since after the update of the first the others' are too late.

        Raises:
            NonFiniteBatchError: The policy is ``"raise"`` and this process's batch is not finite.
            NonFiniteStepError: The same of its scores, its loss or its gradients.
        """
        self._decided = True
        read = self._read.copy()
        self._read.clear()
        optimizers = [optimizer] if module.automatic_optimization else module.trainer.optimizers
        parameters = [p for one in optimizers for group in one.param_groups for p in group["params"]]
        gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
        if not gradients:
            return
        if self._watched is None:  # a training_step of one's own, which calls `step` alone
            if self._acts and not self._scaled and not all_finite(gradients):  # too high a scale is the scaler's
                self._respond(module, optimizers, metrics, _of_gradients(module, parameters))
            return
        scores, loss, logged = self._watched
        # The sum of finite values may overflow, which is looked into; over several processes the loss tells of views.
        sums = [view.sum() for view in self._views] if self._alone else []
        if all_finite([*gradients, *sums, *(tensor for one in read for tensor in one.looked_at)]):
            if (logged or self._first) and not self._said_flat:
                self._warn_if_flat(module, scores, gradients)
            return
        _warn_of(read, module)
        if all_finite([*gradients, loss, *sums]):
            return
        culprit = self._culprit(module, scores, loss)
        if culprit is None and all_finite(gradients):
            return
        if self._scaled and not any_rank(culprit is not None, loss.device):
            self._take_back(module, metrics)  # a scale too high for fp16, which the scaler lowers: no error
        elif self._acts:
            self._respond(module, optimizers, metrics, culprit or _of_gradients(module, parameters))

    def _respond(
        self, module: L.LightningModule, optimizers: Sequence[Any], metrics: BufferedMetrics, problem: ValueError
    ) -> None:
        """Leave the step out, or raise the problem."""
        if self.policy != "skip":
            raise problem
        for one in optimizers:
            _leave_out(one, fused=self._scaled and getattr(one, "_step_supports_amp_scaling", False))
        self._take_back(module, metrics)
        self._watched = None
        self.skipped += 1

    def _culprit(self, module: L.LightningModule, scores: Scores, loss: Tensor) -> ValueError | None:
        """What is wrong on this process before its gradients."""
        try:
            check_finite(self._views, where=lambda: place(module), after=lambda: unchanged(module))
        except ValueError as problem:
            return problem
        for name, tensor in (("Joint scores", scores.joint), ("Marginal scores", scores.marginal_values())):
            if bad := count_non_finite(tensor):
                return _error(module, f"{name} hold {bad} of {tensor.numel()} values that are not finite")
        if torch.isfinite(loss):
            return None
        # Where scores are of all processes, so is the loss.
        whose = " on this process; another one may say more" if not self._alone else ""
        return _error(module, f"The loss is {float(loss)}, of finite scores{whose}")

    def _take_back(self, module: L.LightningModule, metrics: BufferedMetrics) -> None:
        if self._before is not None:
            with torch.no_grad():
                for buffer, old in zip(module.buffers(), self._before["buffers"], strict=True):
                    buffer.copy_(old)
            metrics.restore(self._before["metrics"])

    def _warn_if_flat(self, module: L.LightningModule, scores: Scores, gradients: list[Tensor]) -> None:
        """Now and then: scores that are all alike, and no gradient but for rounding."""
        self._first = False
        values = torch.cat([scores.joint.detach(), scores.marginal_values().detach()])
        if not values.numel():  # another process has the pairs
            return
        low, high = values.aminmax()
        scale = max(abs(float(low)), abs(float(high)))
        if float(high - low) <= _FLAT * scale and all(float(g.norm()) <= _FLAT * max(scale, 1.0) for g in gradients):
            self._said_flat = True
            rank_zero_warn(
                f"All pairs have the same score and the gradient is zero at {place(module)}: nothing is learned. "
                "Look for constant inputs, features that are all zero, or rows that are all the same.",
                category=MINumericalWarning,
            )


def _warn_of(read: Sequence[_Read], module: L.LightningModule) -> None:
    """What bound and regularizer would have said at once."""
    bound, regularizer = cast("AbstractBound", module.bound), cast("AbstractRegularizer | None", module.regularizer)
    for terms, penalty, _ in read:
        bound.warn_unless_finite(terms)
        if regularizer is not None and penalty is not None:
            regularizer.warn_unless_finite(penalty, terms)


def _leave_out(optimizer: Optimizer, fused: bool) -> None:
    """Let an optimizer's next step change nothing, its moments and its weight decay included."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if fused and parameter.grad is not None:
                parameter.grad.fill_(torch.nan)  # what a scaler must see before it lets a fused optimizer step
            else:
                parameter.grad = None


def _error(module: L.LightningModule, what: str) -> NonFiniteStepError:
    return NonFiniteStepError(
        f"{what}, at {place(module)}.{unchanged(module)} A regularizer or a smaller learning rate keeps scores in "
        'range; on_non_finite="skip" leaves such steps out, "off" goes on.'
    )


def _of_gradients(module: L.LightningModule, parameters: list[torch.nn.Parameter]) -> NonFiniteStepError:
    names = {id(p): name for name, p in module.named_parameters()}
    counts = {names.get(id(p), "a parameter"): count_non_finite(p.grad) for p in parameters if p.grad is not None}
    first = next((name for name, count in counts.items() if count), "none")
    shared = ", averaged over processes of which another one may say more," if module.trainer.world_size > 1 else ""
    several = f", of {n} accumulated batches," if (n := module.trainer.accumulate_grad_batches) > 1 else ""
    what = f"The gradients{shared}{several} hold {sum(counts.values())} values that are not finite ({first})"
    return _error(module, what)
