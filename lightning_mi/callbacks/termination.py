"""SaveAtTermination: a training that is told to end saves where it is, and says that it is not done."""

import signal
import threading
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_mi.distributed import any_process

FILE = "last-terminated.ckpt"
EXIT_STATUS = 128 + signal.SIGTERM  # as of a process that the signal killed: schedulers requeue it


@final
class SaveAtTermination(Checkpoint):
    """Saves after the step at hand when SIGTERM comes, and exits with status 143.

    Schedulers send it before they take a machine away. Lightning itself saves nothing then and exits with status 0, as
    if the training were done. ``lightning-mi fit`` uses this callback wherever checkpoints are kept; ``--ckpt_path
    last`` goes on from its file. One process that is told is enough: all save and end.

    Args:
        dirpath: Where to; the folder of the first ``ModelCheckpoint`` by default.

    Example:
        >>> trainer = L.Trainer(callbacks=[SaveAtTermination("runs")], logger=False, accelerator="cpu")
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        self._dirpath = dirpath
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen, instead of Lightning, which would talk to other processes from within the signal."""
        self._told = False
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, if any process was told.

        Raises:
            SystemExit: With status 143.
        """
        if any_process(self._told, pl_module.device):
            path = self._folder(trainer) / FILE
            trainer.save_checkpoint(path)
            rank_zero_info(f"Told to end (SIGTERM): saved {path} at step {trainer.global_step}.")
            raise SystemExit(EXIT_STATUS)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            if handler is not None:  # as of one that was not set by Python
                signal.signal(number, handler)
        self._before = {}

    def _note(self, *_: Any) -> None:
        self._told = True
        # Loader workers may have been told too, and have ended: torch would raise that in the middle of the save.
        if hasattr(signal, "SIGCHLD"):
            self._before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    def _folder(self, trainer: L.Trainer) -> Path:
        if self._dirpath is not None:
            return Path(self._dirpath)
        folders = [c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
        return Path(folders[0] if folders else trainer.default_root_dir)
