"""What a training that goes on needs besides Lightning's checkpoint: random streams and metrics that are half done."""

from lightning_mi.exceptions import InexactResumeWarning

import random
from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_mi.checkpoints.batch_end import pending_after_batch, epoch_has_ended, finish_batch, clear_restart_flags
from lightning_mi.utilities.distributed import gather_objects
from lightning_mi.metrics._buffer import BufferedMetrics

_ENTRY = "lightning_mi"  # of a checkpoint




@final
class Resuming:
    """Keeps in a module's checkpoints what makes a training that goes on bitwise that of an uninterrupted one.

    Example:
        >>> resuming = Resuming()
        >>> resuming.load(L.Trainer(logger=False, accelerator="cpu"), {"lightning_mi": {}})  # it takes the weights only
        >>> resuming.pending
        False
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._random: dict[str, Any] = {}
        self._at_epoch_end = False

    @property
    def pending(self) -> bool:
        """Whether a checkpoint was loaded to go on from, and the training has not started."""
        return self._state is not None

    def save(self, trainer: L.Trainer, metrics: BufferedMetrics, checkpoint: dict[str, Any], skipped: int) -> None:
        """Add to a checkpoint; all processes must call it."""
        random = self._random if trainer.validating and self._random else random_state()
        state = collect_state(trainer, metrics, random)
        checkpoint[_ENTRY] = state | {"skipped": skipped, "due": pending_after_batch(trainer)}

    def load(self, trainer: L.Trainer | None, checkpoint: dict[str, Any]) -> None:
        """Remember it until training starts; a checkpoint of which only the weights are taken changes nothing else."""
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        self._state = checkpoint.get(_ENTRY)
        if self._state is not None and (pending := self._state["due"]) is not None:
            finish_batch(checkpoint["loops"]["fit_loop"], pending)

    def start(self, trainer: L.Trainer, metrics: BufferedMetrics) -> int:
        """Go on with the random numbers, the metrics and the logs where they were.

        Returns:
            The number of skipped steps; 0 in a training that starts anew.
        """
        state, self._state = self._state, None
        # Tuner.lr_find and scale_batch_size put a checkpoint back and leave without a training: it is not this one's.
        if state is None or trainer.ckpt_path is None:
            return 0
        restore_state(trainer, metrics, state)
        self._at_epoch_end = state["due"] == "epoch end"
        clear_restart_flags(trainer, state["due"])
        return int(state["skipped"])

    def epoch_ends(self, trainer: L.Trainer) -> None:
        """At the end of an epoch: go on as ever after one that was all that was left of it."""
        if self._at_epoch_end:
            self._at_epoch_end = False
            epoch_has_ended(trainer)

    def validation_starts(self) -> None:
        """Remember where the random numbers are: validation takes none from training, which may go on without it."""
        self._random = random_state()

    def validation_ends(self) -> None:
        """Put them back there, unless a subclass has a start of its own."""
        if self._random:
            set_random_state(self._random)
            self._random = {}


def collect_state(trainer: L.Trainer, metrics: BufferedMetrics, random: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of each process the random streams and the metrics, and what is not logged yet; plain data and tensors.

    The random streams are where they are now, unless their state is given: during validation, that before it.

    All processes must call it. After an error, which may have struck one process alone, it tells of this one only.

    Example:
        >>> state = collect_state(L.Trainer(accelerator="cpu", logger=False), BufferedMetrics({}))
        >>> state["row"], [sorted(process) for process in state["processes"]]
        (None, [['metrics', 'random']])
    """
    own = {"random": random_state() if random is None else random, "metrics": metrics.snapshot()}
    alone = trainer.interrupted and not trainer.received_sigterm
    return {"processes": [own] if alone else gather_objects(own), "row": _unwritten_row(trainer)}


def restore_state(trainer: L.Trainer, metrics: BufferedMetrics, state: dict[str, Any]) -> None:
    """Put this process's state back, and log what was not.

    Warns:
        InexactResumeWarning: The checkpoint is of another number of processes; the random streams stay as they are.
    """
    if state["row"] is not None:
        for logger in trainer.loggers:
            logger.log_metrics(state["row"]["values"], state["row"]["step"])
    if len(state["processes"]) != trainer.world_size:
        rank_zero_warn(
            f"The checkpoint holds the random states of {len(state['processes'])} process(es), and there are "
            f"{trainer.world_size} now: weights and data go on where they were, but random numbers differ from an "
            "uninterrupted run's, and the training metrics of this epoch are those of its remaining batches.",
            category=InexactResumeWarning,
        )
        return
    own = state["processes"][trainer.global_rank]
    set_random_state(own["random"])
    metrics.restore(own["metrics"])


def random_state() -> dict[str, Any]:
    """Where the random streams of this process are: of torch, its device, NumPy and Python; plain data and tensors.

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
        # The stream of this process's device alone: processes of one machine see all of them.
        "torch.cuda": torch.cuda.get_rng_state().cpu() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": [version, list(words), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the random streams of this process where :func:`random_state` found them."""
    torch.set_rng_state(state["torch"].cpu())
    if state["torch.cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch.cuda"].cpu())
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def _unwritten_row(trainer: L.Trainer) -> dict[str, Any] | None:
    """What the loggers are about to be given, since callbacks save just before.

    What they have been given is written out: the death of the process must not take along what was before the save.
    """
    for logger in trainer.loggers:
        logger.save()
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.flush()
    if trainer.interrupted or not trainer.training or not trainer.loggers:
        return None
    logs, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    of_epoch = logs._first_loop_iter is None
    if not of_epoch and (loop._should_accumulate() or not logs.should_update_logs):
        return None
    values = convert_tensors_to_scalars(logs.metrics["log"]) | {"epoch": trainer.current_epoch}
    return {"values": values, "step": loop._batches_that_stepped - of_epoch}
