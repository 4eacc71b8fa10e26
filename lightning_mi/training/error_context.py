"""Errors for training steps that are not finite, with the step, the rank, and whether parameters have changed."""

from collections.abc import Sequence

import lightning.pytorch as L
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn
from torch.optim import LBFGS, Optimizer

from lightning_mi._compat.lightning_loops import attached_trainer
from lightning_mi.exceptions import NonFiniteStepError
from lightning_mi.training.finite_checks import count_non_finite

_STAGES = {
    "validate": "validation",
    "sanity_check": "the sanity check before training",
    "test": "test",
    "predict": "prediction",
}


def step_location(module: L.LightningModule) -> str:
    """The training step, or the stage of an evaluation, with the rank.

    Example:
        >>> step_location(L.LightningModule())
        'a step outside a Trainer'
    """
    trainer = attached_trainer(module)
    if trainer is None:
        return "a step outside a Trainer"
    stage = _STAGES.get(str(trainer.state.stage.value if trainer.state.stage else ""), "")
    where = f"{stage} after training step" if stage else "training step"
    return f"{where} {module.global_step} on rank {module.global_rank}"


def parameters_unchanged(module: L.LightningModule) -> str:
    """The sentence that no parameter has changed, with a leading space; empty if this is unknown.

    LBFGS and optimizers outside torch may evaluate the loss several times within a step. In manual optimization,
    another optimizer may have stepped.

    Example:
        >>> parameters_unchanged(L.LightningModule())
        ''
    """
    trainer = attached_trainer(module)
    if trainer is None or not trainer.training or not module.automatic_optimization:
        return ""
    if all(_evaluates_once(optimizer) for optimizer in trainer.optimizers):
        return " No parameter has changed in this step."
    names = ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in trainer.optimizers))
    return f" {names} may evaluate the loss several times within a step, so parameters may have changed in it."


def step_error(module: L.LightningModule, what: str) -> NonFiniteStepError:
    """The error of a training step whose scores, loss or gradients are not finite.

    Args:
        module: The module.
        what: The description of the non-finite values, the beginning of the message.
    """
    return NonFiniteStepError(
        f"{what}, at {step_location(module)}.{parameters_unchanged(module)} A regularizer or a smaller learning rate "
        'keeps scores in range; on_non_finite="skip" skips such steps, "off" disables the check.'
    )


def gradient_error(module: L.LightningModule, parameters: Sequence[nn.Parameter]) -> NonFiniteStepError:
    """The error of a training step whose gradients are not finite; it names the first such parameter."""
    names = {id(p): name for name, p in module.named_parameters()}
    with_grad = [(p, p.grad) for p in parameters if p.grad is not None]
    counts = [(names.get(id(p), "a parameter"), count_non_finite(grad)) for p, grad in with_grad]
    first = next((name for name, count in counts if count), "none")
    shared = ", averaged over ranks (see the error of the other ranks)," if module.trainer.world_size > 1 else ""
    several = f", of {n} accumulated batches," if (n := module.trainer.accumulate_grad_batches) > 1 else ""
    what = (
        f"The gradients{shared}{several} hold {sum(count for _, count in counts)} values that are not finite ({first})"
    )
    return step_error(module, what)


def _evaluates_once(optimizer: Optimizer | LightningOptimizer) -> bool:
    kind = type(optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer)
    return kind.__module__.startswith("torch.optim") and not issubclass(kind, LBFGS)
