"""NonFiniteGuard: what happens to a training step whose batch, scores, loss or gradients are not finite."""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast, final, get_args

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_mi.distributed import any_process
from lightning_mi.finite import NonFiniteStepError, check_finite
from lightning_mi.numerics import MINumericalWarning
from lightning_mi.resuming import restore_metrics, state_of_metrics
from lightning_mi.scores import Scores

Policy = Literal["raise", "skip", "off"]
_FLAT = 1e-6  # of float32's 6e-8, some times over


@final
class NonFiniteGuard:
    """Decides about each step between its gradients and its update, on all processes alike.

    The device is waited for once a step: for the sizes of the gradients and the loss. Over several processes a
    loss that is not finite spoils its gradients, which are averaged, so all of them see it and none waits for another.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"off"``.

    Attributes:
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
        self._before: dict[str, Any] | None = None
        self._step: tuple[Sequence[Any], Scores, Tensor] | None = None
        self._warned = False

    def begin(self, module: L.LightningModule, metrics: torch.nn.Module) -> None:
        """Before a step: remember the averages that it may move, where it may be taken back."""
        if self._before is None and (self.policy == "skip" or _scaler(module) is not None):
            buffers = [buffer.clone() for buffer in module.buffers()]
            self._before = {"buffers": buffers, "metrics": state_of_metrics(metrics)}

    def watch(self, module: L.LightningModule, views: Sequence[Any], scores: Scores, loss: Tensor) -> Tensor:
        """After the forward pass: the loss to go backward from."""
        if self.policy == "off" and _scaler(module) is None:
            return loss
        self._step = views, scores, loss.detach()
        if module.trainer.world_size == 1:
            return loss
        finite = torch.isfinite(loss.detach())
        for view in views:
            if isinstance(view, Tensor) and view.is_floating_point():
                finite = finite & torch.isfinite(view).all()
        return loss * torch.where(finite, 1.0, torch.nan)

    def decide(self, module: L.LightningModule, optimizer: Optimizer, metrics: torch.nn.Module) -> None:
        """Between gradients and update: let the step be, take it back, or refuse it.

        Raises:
            NonFiniteBatchError: The policy is ``"raise"`` and this process's batch is not finite.
            NonFiniteStepError: The same of its scores, its loss or its gradients.
        """
        if self._step is None:
            return
        (views, scores, loss), self._step, before = self._step, None, self._before
        self._before = None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        norms = torch._foreach_norm([cast("Tensor", p.grad) for p in parameters])
        # The only thing that waits for the device. A square may overflow where the gradient does not.
        *sizes, value = torch.stack([*(norm.to(loss) for norm in norms), loss]).tolist()
        if math.isfinite(value) and (math.isfinite(sum(sizes)) or not any(_count(p) for p in parameters)):
            self._warn_if_flat(module, scores, max(sizes))
            return
        culprit = self._culprit(module, views, scores, loss)
        if _scaler(module) is not None and not any_process(culprit is not None, loss.device):
            self._take_back(module, metrics, before)  # a scale too high for fp16, which the scaler lowers: no error
        elif self.policy == "skip":
            for parameter in parameters:
                parameter.grad = None  # an optimizer passes over it, its moments and its weight decay included
            self._take_back(module, metrics, before)
            self.skipped += 1
        elif self.policy == "raise":
            raise culprit or _of_gradients(module, parameters)

    def _culprit(
        self, module: L.LightningModule, views: Sequence[Any], scores: Scores, loss: Tensor
    ) -> ValueError | None:
        """What is wrong on this process before its gradients."""
        try:
            check_finite(views, where=_where(module))
        except ValueError as problem:
            return problem
        for name, tensor in (("Joint scores", scores.joint), ("Marginal scores", scores.marginal_values())):
            if bad := int((~torch.isfinite(tensor)).sum()):
                return _error(module, f"{name} hold {bad} of {tensor.numel()} values that are not finite")
        if torch.isfinite(loss):
            return None
        # Where scores are of all processes, so is the loss.
        whose = " on this process; another one may say more" if module.trainer.world_size > 1 else ""
        return _error(module, f"The loss is {float(loss)}, of finite scores{whose}")

    def _take_back(self, module: L.LightningModule, metrics: torch.nn.Module, before: dict[str, Any] | None) -> None:
        if before is not None:
            with torch.no_grad():
                for buffer, old in zip(module.buffers(), before["buffers"], strict=True):
                    buffer.copy_(old)
            restore_metrics(metrics, before["metrics"])

    def _warn_if_flat(self, module: L.LightningModule, scores: Scores, gradient: float) -> None:
        """Now and then: scores that are all alike, and no gradient but for rounding."""
        if self._warned or module.global_step % max(module.trainer.log_every_n_steps, 1):  # type: ignore[attr-defined]
            return
        low, high = torch.cat([scores.joint.detach(), scores.marginal_values().detach()]).aminmax()
        scale = max(abs(float(low)), abs(float(high)))
        if float(high - low) <= _FLAT * scale and gradient <= _FLAT * max(scale, 1.0):
            self._warned = True
            rank_zero_warn(
                f"All pairs have the same score and the gradient is zero at {_where(module)}: nothing is learned. "
                "Look for constant inputs, features that are all zero, or rows that are all the same.",
                category=MINumericalWarning,
            )


def _scaler(module: L.LightningModule) -> Any:
    return getattr(module.trainer.precision_plugin, "scaler", None)


def _where(module: L.LightningModule) -> str:
    return f"training step {module.global_step} on process {module.global_rank}"


def _error(module: L.LightningModule, what: str) -> NonFiniteStepError:
    return NonFiniteStepError(
        f"{what}, at {_where(module)}. No parameter has changed. A regularizer or a smaller learning rate keeps scores "
        'in range; on_non_finite="skip" leaves such steps out, "off" goes on.'
    )


def _count(parameter: torch.nn.Parameter) -> int:
    """How many values of its gradient are not finite."""
    return int((~torch.isfinite(cast("Tensor", parameter.grad))).sum())


def _of_gradients(module: L.LightningModule, parameters: list[torch.nn.Parameter]) -> NonFiniteStepError:
    names = {id(p): name for name, p in module.named_parameters()}
    bad = [(p, _count(p)) for p in parameters]
    first = next((names.get(id(p), "a parameter") for p, count in bad if count), "none")
    shared = ", averaged over processes of which another one may say more," if module.trainer.world_size > 1 else ""
    return _error(module, f"The gradients{shared} hold {sum(n for _, n in bad)} values that are not finite ({first})")
