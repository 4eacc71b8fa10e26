"""Private or undocumented names of other packages: one typed function for each fact, read in Lightning 2.6.6."""

import warnings

import lightning.pytorch as L
import torch
from torch import Tensor

from lightning_mi.exceptions import MIWarning


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


def is_functorch_active() -> bool:
    """True within ``torch.func`` transforms such as grad and vmap; read in torch 2.14.

    torch has no public test for it. If the private one is gone, this warns and returns False: a custom backward without
    ``setup_context`` then raises under a transform, it does not compute a wrong gradient.

    Example:
        >>> is_functorch_active(), torch.func.grad(lambda x: x * is_functorch_active())(torch.tensor(3.0))
        (False, tensor(1.))
    """
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is None:
        warn_missing("torch._C._are_functorch_transforms_active", "Keep all scores: tile_bytes=math.inf.")
    return active is not None and bool(active())


def is_forward_mode_active() -> bool:
    """True within ``torch.autograd.forward_ad.dual_level``; read in torch 2.14.

    If the private level counter is gone, this warns and returns False: a custom backward without ``jvp`` then raises in
    forward mode.

    Example:
        >>> with torch.autograd.forward_ad.dual_level():
        ...     is_forward_mode_active()
        True
    """
    level = getattr(torch.autograd.forward_ad, "_current_level", None)
    if level is None:
        warn_missing("torch.autograd.forward_ad._current_level", "Keep all scores: tile_bytes=math.inf.")
    return level is not None and int(level) >= 0


def is_tracing() -> bool:
    """True within ``torch.jit.trace``, which is deprecated in torch 2.14; False once it is gone.

    Example:
        >>> is_tracing()
        False
    """
    tracing = getattr(torch.jit, "is_tracing", None)
    return tracing is not None and bool(tracing())


def tensor_version(tensor: Tensor) -> int | None:
    """Number of in-place writes to a tensor so far, or None if torch has no such counter; read in torch 2.14.

    Reading it is no host-device sync, reading the tensor is.

    Example:
        >>> buffer = torch.zeros(())
        >>> before = tensor_version(buffer)
        >>> tensor_version(buffer.fill_(1)) - before
        1
    """
    version = getattr(tensor, "_version", None)
    return None if version is None else int(version)


def warn_missing(name: str, remedy: str) -> None:
    """Warn once that a private name is gone from an upgraded dependency."""
    warnings.warn(f"Got a version without {name}, which lightning_mi reads. {remedy}", MIWarning, stacklevel=3)
