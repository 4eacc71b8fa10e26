"""AtomicCheckpointIO: checkpoints that survive the death of their writer, and that cannot run code."""

from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lightning_mi.exceptions import CheckpointError
from lightning_mi.checkpoints.loading import local_path, read_plain
from lightning_mi.utilities.atomic_files import sweep, write_atomically


@final
class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint whole or not at all, and reads plain data and tensors alone.

    A checkpoint is written to a hidden file in its own folder, brought to the disk and then renamed: a process killed
    while saving, a full disk or a power cut leave the earlier checkpoint of that name as it was. What a killed process
    left is removed when the next one reads from that folder or saves to it. Lightning's own way goes by ``TMPDIR``,
    from where a rename becomes a copy if that is another file system. ``lightning-mi fit`` uses this one by default.

    Paths of this machine only: Lightning would run code in a checkpoint that it loads from a web address.

    Example:
        >>> trainer = L.Trainer(plugins=[AtomicCheckpointIO()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._swept: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: It could not be written, as on a full disk; an earlier one of that name is intact.
        """
        place = local_path(path)
        if storage_options is not None:
            raise CheckpointError(
                f"storage_options={storage_options!r} mean nothing to a file of this machine, {path}."
            )
        self._sweep(place.parent)
        try:
            write_atomically(place, lambda file: torch.save(checkpoint, file))
        except (OSError, RuntimeError) as problem:  # torch's writer hides the system's error in one of its own
            reason = problem if isinstance(problem, OSError) else problem.__context__
            if not isinstance(reason, OSError):
                raise
            raise CheckpointError(
                f"the checkpoint {place} could not be written: {reason}. An earlier checkpoint of that name, if "
                "there is one, is intact, and nothing unfinished is left. Make room or name another folder, and resume "
                "from the last checkpoint that was written (ckpt_path)."
            ) from problem

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, tensors on the CPU, whatever ``map_location`` says: the strategy moves them from there.

        Raises:
            CheckpointError: It is missing, damaged, from a web address, or holds anything but plain data and tensors.
        """
        if weights_only is False:
            raise CheckpointError(
                f"weights_only=False would run whatever code {path} holds. Leave it out; to load a file of objects "
                "that you trust, use a Trainer without AtomicCheckpointIO."
            )
        place = local_path(path)
        self._sweep(place.parent)
        content: dict[str, Any] = read_plain(place)  # spawned processes give their weights back alone, by this way too
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint; nothing happens if it is gone.

        Raises:
            CheckpointError: The path, which a callback may have from a checkpoint's content, is not that of a file
                within its folder.
        """
        place = local_path(path)
        if ".." in place.parts or place.is_dir():
            raise CheckpointError(
                f"refused to remove {path}: a checkpoint is a file, named without `..`. A checkpoint that was loaded "
                "may have recorded that name; do not go on with it unless you know where it comes from."
            )
        place.unlink(missing_ok=True)

    def _sweep(self, folder: Path) -> None:
        """Once for each folder: a process leaves nothing behind while it lives."""
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(folder)


def use_atomic_checkpoints(trainer: L.Trainer) -> None:
    """Let a trainer write its checkpoints with :class:`AtomicCheckpointIO`, unless it was given another way.

    Strategies that cut a model into pieces write folders, in a way of their own, and keep it.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu")
        >>> use_atomic_checkpoints(trainer)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'AtomicCheckpointIO'
    """
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy | DDPStrategy) and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
