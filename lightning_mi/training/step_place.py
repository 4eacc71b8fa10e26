"""Where a value that is not finite was found, and what has changed by then, for error messages."""

import lightning.pytorch as L
from torch.optim import LBFGS, Optimizer

_STAGES = {
    "validate": "validation",
    "sanity_check": "the sanity check before training",
    "test": "test",
    "predict": "prediction",
}


def place(module: L.LightningModule) -> str:
    """The training step, or the stage, or that no Trainer runs.

    Example:
        >>> place(L.LightningModule())
        'a step outside a Trainer'
    """
    trainer = module._trainer
    if trainer is None:
        return "a step outside a Trainer"
    stage = _STAGES.get(str(trainer.state.stage.value if trainer.state.stage else ""), "")
    where = f"{stage} after training step" if stage else "training step"
    return f"{where} {module.global_step} on process {module.global_rank}"


def unchanged(module: L.LightningModule) -> str:
    """The sentence that no parameter has changed, with a space before it; empty where that is not known.

    LBFGS and optimizers from elsewhere may evaluate the loss several times within a step; in manual optimization,
    another optimizer may have stepped.

    Example:
        >>> unchanged(L.LightningModule())
        ''
    """
    trainer = module._trainer
    if trainer is None or not trainer.training or not module.automatic_optimization:
        return ""
    if all(_evaluates_once(optimizer) for optimizer in trainer.optimizers):
        return " No parameter has changed in this step."
    names = ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in trainer.optimizers))
    return f" {names} may evaluate the loss several times within a step, so parameters may have changed in it."


def _evaluates_once(optimizer: Optimizer) -> bool:
    kind = type(getattr(optimizer, "_optimizer", optimizer))
    return kind.__module__.startswith("torch.optim") and not issubclass(kind, LBFGS)
