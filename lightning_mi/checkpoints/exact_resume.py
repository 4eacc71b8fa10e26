"""State that an exact resume needs besides Lightning's checkpoint: RNG states, partial metrics, the pending log row.

Three things are lost if a training resumes from Lightning's checkpoint alone:

1. RNG states and metrics of the current epoch, which differ between ranks (:func:`collect_state`);
2. the row that the loggers receive right after the hook in which the checkpoint is saved (``"row"``);
3. the validation or the epoch end that is pending if the checkpoint is saved at the end of a batch (``"pending"``).
"""

import random
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_mi._compat.lightning_logs import pending_log_row
from lightning_mi._compat.lightning_loops import (
    clear_restart_flags,
    close_batch,
    finish_restarted_epoch,
    pending_after_batch,
)
from lightning_mi.exceptions import InexactResumeWarning
from lightning_mi.metrics._buffer import BufferedMetrics
from lightning_mi.utilities.distributed import gather_objects

_ENTRY = "lightning_mi"  # key in a checkpoint


@final
class Resuming:
    """Makes a resumed training bitwise equal to an uninterrupted one.

    A module saves this state with each checkpoint, and calls the hooks at the start of training and around validation.

    Example:
        >>> resuming = Resuming()
        >>> resuming.load(L.Trainer(logger=False, accelerator="cpu"), {"lightning_mi": {}})  # weights only: no resume
        >>> resuming.pending
        False
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._rng_before_validation: dict[str, Any] = {}
        self._only_epoch_end_pending = False

    @property
    def pending(self) -> bool:
        """True if a checkpoint was loaded to resume from and training has not started yet."""
        return self._state is not None

    def save(self, trainer: L.Trainer, metrics: BufferedMetrics, checkpoint: dict[str, Any], skipped: int) -> None:
        """Add the state to a checkpoint. Every rank must call it."""
        rng = self._rng_before_validation if trainer.validating and self._rng_before_validation else random_state()
        state = collect_state(trainer, metrics, rng)
        checkpoint[_ENTRY] = state | {"skipped": skipped, "pending": pending_after_batch(trainer)}

    def load(self, trainer: L.Trainer | None, checkpoint: dict[str, Any]) -> None:
        """Store a checkpoint's state until training starts, unless only its weights are loaded."""
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        self._state = checkpoint.get(_ENTRY)
        if self._state is not None and (pending := self._state["pending"]) is not None:
            close_batch(checkpoint["loops"]["fit_loop"], pending)

    def start(self, trainer: L.Trainer, metrics: BufferedMetrics) -> int:
        """Restore RNG states, metric state and the pending log row.

        Returns:
            The number of skipped steps; 0 if nothing is resumed.
        """
        state, self._state = self._state, None
        # Tuner.lr_find and scale_batch_size load a checkpoint without training on from it: no resume.
        if state is None or trainer.ckpt_path is None:
            return 0
        restore_state(trainer, metrics, state)
        self._only_epoch_end_pending = state["pending"] == "epoch end"
        clear_restart_flags(trainer, state["pending"])
        return int(state["skipped"])

    def epoch_ends(self, trainer: L.Trainer) -> None:
        """At the end of an epoch: finish the restart, if only this end was pending."""
        if self._only_epoch_end_pending:
            self._only_epoch_end_pending = False
            finish_restarted_epoch(trainer)

    def validation_starts(self) -> None:
        """Save the RNG states: validation must not change the random numbers of training."""
        self._rng_before_validation = random_state()

    def validation_ends(self) -> None:
        """Restore the RNG states, if :meth:`validation_starts` saved them."""
        if self._rng_before_validation:
            set_random_state(self._rng_before_validation)
            self._rng_before_validation = {}


def collect_state(trainer: L.Trainer, metrics: BufferedMetrics, rng: dict[str, Any] | None = None) -> dict[str, Any]:
    """The RNG states and the metric state of each rank, and the pending log row; plain data and tensors.

    Every rank must call it. After an exception it contains the state of this rank only, since the others may not reach
    the collective.

    Args:
        trainer: The trainer.
        metrics: The metrics of the current training epoch.
        rng: A result of :func:`random_state`; the current RNG states by default.

    Example:
        >>> state = collect_state(L.Trainer(accelerator="cpu", logger=False), BufferedMetrics({}))
        >>> state["row"], [sorted(rank) for rank in state["ranks"]]
        (None, [['metrics', 'rng']])
    """
    local = {"rng": random_state() if rng is None else rng, "metrics": metrics.snapshot()}
    failed = trainer.interrupted and not trainer.received_sigterm
    return {"ranks": [local] if failed else gather_objects(local), "row": _flush_loggers(trainer)}


def restore_state(trainer: L.Trainer, metrics: BufferedMetrics, state: dict[str, Any]) -> None:
    """Restore this rank's state, and log the row that was pending.

    Warns:
        InexactResumeWarning: The checkpoint was saved with another world size; the RNG states stay as they are.
    """
    if state["row"] is not None:
        for logger in trainer.loggers:
            logger.log_metrics(state["row"]["values"], state["row"]["step"])
    ranks = state["ranks"]
    if len(ranks) != trainer.world_size:
        rank_zero_warn(
            f"Got a checkpoint of world size {len(ranks)} at world size {trainer.world_size}: weights and data resume "
            "where they were, but random numbers differ from those of an uninterrupted run, and this epoch's training "
            f"metrics cover its remaining batches only. For an exact resume, train on {len(ranks)} rank(s).",
            category=InexactResumeWarning,
        )
        return
    local = ranks[trainer.global_rank]
    set_random_state(local["rng"])
    metrics.restore(local["metrics"])


def random_state() -> dict[str, Any]:
    """The RNG states of this process: torch, its device, NumPy and Python; plain data and tensors.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(2)
        >>> set_random_state(state)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # Only this rank's device: all ranks of a machine see all of its devices.
        "torch.cuda": torch.cuda.get_rng_state().cpu() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": [version, list(words), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the RNG states of this process to those that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["torch.cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch.cuda"].cpu())
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def _flush_loggers(trainer: L.Trainer) -> dict[str, Any] | None:
    """Flush the loggers; return the row that Lightning logs next, if any.

    If the process dies after the checkpoint, earlier rows must be on disk: a resumed training does not log them again.
    """
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.flush()
    if trainer.interrupted or not trainer.training or not trainer.loggers:
        return None
    row = pending_log_row(trainer)
    return None if row is None else {"values": row[0], "step": row[1]}
