"""SaveAtTermination: save and exit when SIGINT, SIGTERM or SIGHUP arrives during training."""

import os
import signal
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_mi._compat.lightning_loops import pending_after_batch
from lightning_mi.module import MIEstimationModule
from lightning_mi.utilities.distributed import all_gather_ints, world_size
from lightning_mi.utilities.interrupts import exit_status, handle_signals, restore_signals

FILE = "last-terminated.ckpt"


@final
class SaveAtTermination(Checkpoint):
    """Saves after the current batch on SIGINT, SIGTERM or SIGHUP, and exits with status 128 + signal number.

    Schedulers send SIGTERM before they preempt a job (status 143), Ctrl-C sends SIGINT (130), a terminal that closes
    SIGHUP (129). Lightning itself saves nothing on these signals. A second Ctrl-C ends the process at once. A signal
    that is ignored when training starts, as SIGHUP is under ``nohup``, stays ignored.

    ``lightning-mi fit`` adds this callback if it saves checkpoints; ``--ckpt_path last`` resumes from its file. If one
    rank receives a signal, all ranks save and exit.

    During validation, an :class:`~lightning_mi.MIEstimationModule` on one rank saves after the current validation
    batch, with the state before that validation; the resumed training repeats it. The callback waits for the end of the
    validation on several ranks (they share no collective there), with other modules, and with callbacks that validate
    averaged weights. After the last batch, training ends as usual, and the process exits with the signal's status.

    Args:
        dirpath: Folder of the checkpoint; the folder of the first ``ModelCheckpoint`` by default.

    Attributes:
        saved: The path of the checkpoint, or None if none was saved.

    Example:
        >>> trainer = L.Trainer(callbacks=[SaveAtTermination("runs")], logger=False, accelerator="cpu")
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        self.saved: Path | None = None
        self._dirpath = dirpath
        self._received = 0
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle the signals in place of Lightning, whose handler runs a collective."""
        self.saved, self._received = None, 0
        self._previous_handlers = handle_signals(self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit, if any rank received a signal.

        Raises:
            SystemExit: With status 130, 143 or 129.
        """
        received = max(number for (number,) in all_gather_ints([self._received], pl_module.device))
        if received:
            self._save_and_exit(trainer, received)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and exit without the rest of a validation, if resuming is exact.

        Raises:
            SystemExit: With status 130, 143 or 129.
        """
        exact = isinstance(pl_module, MIEstimationModule) and not _validates_other_weights(trainer)
        if self._received and exact and world_size() == 1 and pending_after_batch(trainer) == "validation":
            self._save_and_exit(trainer, self._received)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the handlers.

        Raises:
            SystemExit: A signal arrived after the last batch, with status 130, 143 or 129.
        """
        restore_signals(self._previous_handlers)
        self._previous_handlers = {}
        if stage == "fit" and self._received:
            raise SystemExit(exit_status(self._received))

    def _receive(self, number: signal.Signals) -> None:
        self._received = number
        # Dataloader workers may have received it too and ended: torch's SIGCHLD handler would raise during the save.
        # Not SIG_DFL: Python prints an OSError if it replaces the handler of a pending signal.
        if hasattr(signal, "SIGCHLD"):
            self._previous_handlers.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _do_nothing))
        if os.environ.get("LOCAL_RANK", "0") == "0":
            # Not print: a signal handler may interrupt another print.
            os.write(2, f"\nReceived {number.name}: saving after this batch. Ctrl-C ends at once.\n".encode())

    def _save_and_exit(self, trainer: L.Trainer, received: int) -> None:
        path = self._folder(trainer) / FILE
        trainer.save_checkpoint(path)
        self.saved = path
        self._received = 0
        name = signal.Signals(received).name
        rank_zero_info(f"Ended by {name}: saved {path} at step {trainer.global_step}.")
        raise SystemExit(exit_status(received))

    def _folder(self, trainer: L.Trainer) -> Path:
        if self._dirpath is not None:
            return Path(self._dirpath)
        folders = [c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
        return Path(folders[0] if folders else trainer.default_root_dir)


def _do_nothing(*_: Any) -> None:
    pass


def _validates_other_weights(trainer: L.Trainer) -> bool:
    averages = (L.callbacks.WeightAveraging, L.callbacks.StochasticWeightAveraging)
    return any(isinstance(callback, averages) for callback in trainer.callbacks)  # type: ignore[attr-defined]  # set by its connector
