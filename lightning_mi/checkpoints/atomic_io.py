"""AtomicCheckpointIO: atomic checkpoint writes, and loading that cannot run code."""

from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lightning_mi.checkpoints.loading import local_path, read_plain
from lightning_mi.exceptions import CheckpointError
from lightning_mi.utilities.atomic_files import sweep, write_atomically


@final
class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically, and loads plain data and tensors only.

    A checkpoint is written to a hidden temporary file in its folder, synced to disk and renamed. A process that is
    killed while it saves, a full disk or a power cut leave the earlier checkpoint of that name intact. A temporary file
    that a killed process left is removed on the next load from that folder or save to it.

    Lightning's default writes to ``TMPDIR``; on another file system the rename becomes a copy, which is not atomic.
    ``lightning-mi fit`` uses this plugin by default. Paths must be local: Lightning loads URLs without
    ``weights_only=True``, which can run code.

    Example:
        >>> trainer = L.Trainer(plugins=[AtomicCheckpointIO()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._swept: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: The write failed, as on a full disk. An earlier checkpoint of that name is intact.
        """
        target = local_path(path)
        if storage_options is not None:
            raise CheckpointError(
                f"Got storage_options={storage_options!r}: a local file, such as {target}, has none. Leave them out."
            )
        self._sweep(target.parent)
        try:
            write_atomically(target, lambda file: torch.save(checkpoint, file))
        except (OSError, RuntimeError) as problem:  # torch's writer raises a RuntimeError in the context of an OSError
            reason = problem if isinstance(problem, OSError) else problem.__context__
            if not isinstance(reason, OSError):
                raise
            raise CheckpointError(
                f"The checkpoint {target} could not be written: {reason}. An earlier checkpoint of that name is "
                "intact, and no temporary file is left. Free disk space or choose another folder, and resume from "
                "the last checkpoint that was written (ckpt_path)."
            ) from problem

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint with its tensors on the CPU; the strategy moves them (``map_location`` has no effect).

        Raises:
            CheckpointError: It is missing, damaged, a URL, or contains anything but plain data and tensors.
        """
        if weights_only is False:
            raise CheckpointError(
                f"Got weights_only=False: loading {path} could run code in the file. Omit the argument. To load a file "
                "of objects that you trust, use a Trainer without AtomicCheckpointIO."
            )
        target = local_path(path)
        self._sweep(target.parent)
        # Not read_checkpoint: Lightning also transfers the bare weights of spawned ranks through this method.
        content: dict[str, Any] = read_plain(target)
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if it exists.

        Raises:
            CheckpointError: The path is a folder or contains ``..``. A callback may have loaded it from a checkpoint.
        """
        target = local_path(path)
        if ".." in target.parts or target.is_dir():
            raise CheckpointError(
                f"Got {path} to remove: a checkpoint is a file, named without `..`. The name may come from a "
                "checkpoint that was loaded; do not resume from that unless you know its source."
            )
        target.unlink(missing_ok=True)

    def _sweep(self, folder: Path) -> None:
        """Remove stale temporary files, once for each folder: this process leaves none behind while it runs."""
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(folder)


def use_atomic_checkpoints(trainer: L.Trainer) -> None:
    """Make a trainer write its checkpoints with :class:`AtomicCheckpointIO`, unless it has another ``CheckpointIO``.

    Strategies that shard a model write folders, with another ``CheckpointIO``, which does not change.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu")
        >>> use_atomic_checkpoints(trainer)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'AtomicCheckpointIO'
    """
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy | DDPStrategy) and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
