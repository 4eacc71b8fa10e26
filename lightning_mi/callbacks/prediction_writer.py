"""PredictionWriter: write predictions to files."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lightning_mi.utilities.atomic_files import write_atomically


@final
class PredictionWriter(BasePredictionWriter):
    """Writes the predictions of ``trainer.predict`` to one file per data loader and rank, atomically.

    A file is ``predictions.pt``; with several data loaders or ranks, ``predictions-dataloader_idx_1.pt`` or
    ``predictions-rank_1.pt``. ``torch.load(path, weights_only=True)`` returns a dictionary of tensors: the outputs of
    ``predict_step``, concatenated over batches (a single tensor under the name ``"predictions"``), and ``"indices"``
    (N,), the positions of the samples in the dataset, if the data loader has a sampler. With several ranks, each file
    contains the samples of its rank; ``indices`` gives their order.

    Args:
        dirpath: Folder of the files; by default the run's log folder, or the trainer's ``default_root_dir``.

    Attributes:
        paths: Files written by this rank in the last prediction.

    Example:
        >>> trainer = L.Trainer(callbacks=[PredictionWriter("runs")], logger=False, accelerator="cpu")
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.paths: list[Path] = []
        self._dirpath = dirpath

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the predictions of all batches.

        Raises:
            TypeError: ``predict_step`` returned neither a tensor nor a dictionary of tensors.
            OSError: A file cannot be written.
        """
        folder = Path(self._dirpath or trainer.log_dir or trainer.default_root_dir)
        by_loader = [predictions] if len(batch_indices) == 1 else predictions
        rank = f"-rank_{trainer.global_rank}" if trainer.world_size > 1 else ""
        several = len(by_loader) > 1
        self.paths = []
        for loader, batches in enumerate(by_loader):
            content = _concatenate(batches, type(pl_module).__name__)
            if indices := [index for batch in batch_indices[loader] for index in batch or ()]:
                content["indices"] = torch.tensor(indices)
            path = folder / f"predictions{f'-dataloader_idx_{loader}' if several else ''}{rank}.pt"
            write_atomically(path, partial(torch.save, content))
            self.paths.append(path)


def _concatenate(batches: Sequence[Any], module_name: str) -> dict[str, Tensor]:
    """Concatenate the predictions of several batches, by name."""
    named = [dict(batch) if isinstance(batch, Mapping) else {"predictions": batch} for batch in batches]
    for batch in named:
        for name, value in batch.items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"Got {name} of type {type(value).__name__} from `predict_step` of {module_name}: it returns a "
                    "tensor or a dictionary of tensors. Write other types with a BasePredictionWriter of your own."
                )
    return {name: torch.cat([batch[name] for batch in named]) for name in (named[0] if named else {})}
