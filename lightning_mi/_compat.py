"""Names of Lightning that are private or undocumented: one typed function for each fact, read in Lightning 2.6.6."""

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.optim import Optimizer


def logged_step(trainer: L.Trainer) -> int:
    """The x-axis position under which Lightning writes the metrics of the batch at hand.

    It counts batches that updated the parameters. ``trainer.global_step`` counts optimizer steps, of which a batch has
    as many as there are optimizers.

    Example:
        >>> logged_step(L.Trainer(barebones=True))
        0
    """
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def is_logged(trainer: L.Trainer) -> bool:
    """Whether Lightning writes the metrics of the training batch at hand to the loggers.

    Example:
        >>> is_logged(L.Trainer(log_every_n_steps=50, logger=False, accelerator="cpu"))
        False
    """
    return (logged_step(trainer) + 1) % max(trainer.log_every_n_steps, 1) == 0 or trainer.should_stop  # type: ignore[attr-defined]


def log_step(module: L.LightningModule, name: str, value: Tensor | float, prog_bar: bool) -> None:
    """Log a value of a training step, as ``LightningModule.log`` does.

    Its first call for a name in an epoch is that method. Later ones write into what it registered, which is the last
    thing that it does: before, it checks the arguments again and copies them, which takes 0.3 ms a value
    (benchmarks/trainer_overhead.py).

    Args:
        module: In its ``training_step``.
        name: The name.
        value: A scalar.
        prog_bar: Whether the progress bar shows it.
    """
    results = module.trainer._results if FAST_LOGS else None
    key = f"training_step.{name}"
    entry = None if results is None else results.get(key)
    if results is None or entry is None or entry.has_reset or entry.meta.prog_bar != prog_bar:
        module.log(name, value, prog_bar=prog_bar)
        return
    scalar = value.detach() if isinstance(value, Tensor) else torch.tensor(value, device=entry.value.device)
    results.update_metrics(key, scalar, 1)


FAST_LOGS = True  # False logs every value by LightningModule.log


def is_accumulating(trainer: L.Trainer) -> bool:
    """Whether the training batch at hand adds to the gradients without an update of the parameters."""
    return bool(trainer.fit_loop._should_accumulate())


def batches_done(trainer: L.Trainer | None) -> int:
    """The number of batches trained on so far, over all epochs and resumed runs; 0 without a trainer.

    Batches, not optimizer steps: ``trainer.global_step`` counts fewer with gradient accumulation and more with several
    optimizers.

    It is right from the moment the loops are restored, hence when a resumed training asks for its loader. Of
    Lightning's counters only ``processed`` is: ``completed`` lacks the last batch if the checkpoint was saved in
    ``on_train_batch_end``, and ``ready`` has one too many if it was saved after a failure within a step.

    Example:
        >>> batches_done(None)
        0
    """
    return 0 if trainer is None else int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]  # of its own kind of progress


def batch_in_force(trainer: L.Trainer) -> int:
    """The index of the batch being trained on or, between batches (validation, test), of the last one; 0 before any.

    ``epoch_loop.total_batch_idx`` means the same but stays one too high after resuming from a failure within a step.

    Example:
        >>> batch_in_force(L.Trainer(barebones=True))
        0
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    earlier_epochs = batches_done(trainer) - progress.current.processed  # type: ignore[attr-defined]  # the same
    return max(0, int(earlier_epochs + progress.current.ready - 1))


def attached_trainer(module: L.LightningModule) -> L.Trainer | None:
    """The trainer that a module is attached to; None without one, where ``module.trainer`` raises.

    Example:
        >>> attached_trainer(L.LightningModule()) is None
        True
    """
    return getattr(module, "_trainer", None)


def hyper_parameters(module: L.LightningModule) -> list[dict[str, Any]]:
    """Both dictionaries of saved hyper-parameters: ``hparams`` and ``hparams_initial``, which returns a copy only.

    Example:
        >>> hyper_parameters(L.LightningModule())
        []
    """
    found = (getattr(module, "_hparams", None), getattr(module, "_hparams_initial", None))
    return [saved for saved in found if saved is not None]


def supports_amp_scaling(optimizer: Optimizer) -> bool:
    """Whether an optimizer unscales gradients itself and skips a step by the gradient scaler's flag; torch 2.14.

    Example:
        >>> supports_amp_scaling(torch.optim.Adam([torch.zeros(1)], fused=True))
        True
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def uncompiled(module: Any) -> Any:
    """The module that ``torch.compile`` has wrapped, or the module itself; torch 2.14.

    Example:
        >>> linear = torch.nn.Linear(2, 2)
        >>> uncompiled(torch.compile(linear)) is linear, uncompiled(linear) is linear
        (True, True)
    """
    return getattr(module, "_orig_mod", module)
