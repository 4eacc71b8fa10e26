"""The task of the benchmark of minimization as a LightningModule with its data, for the recipe `minimize/gaussian`."""

from dataclasses import dataclass
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_mi.bench.minimize.task import DIM_TARGET, DIM_X, DIM_Z, ENCODER_NOISE, GaussianTask
from lightning_mi.data.stream import Batch, Split, StreamLoader
from lightning_mi.encoders import GaussianNoise
from lightning_mi.utilities.checks import check_positive, check_whole


@final
class GaussianTaskModule(L.LightningModule):
    """A linear encoder with noise and a linear head that predicts the target of :class:`GaussianTaskData`.

    It knows nothing of a penalty. Each 50 steps it logs the exact I(z; s) and I(z; t) of its encoder, nats.

    Args:
        lr: Learning rate of Adam.
        task_weight: Factor of the mean squared error.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is not positive.

    Source: Cover and Thomas 2006, section 8.4 (entropy of a Gaussian).

    Example:
        >>> module = GaussianTaskModule()
        >>> module(torch.zeros(3, 20)).shape
        torch.Size([3, 2])
    """

    def __init__(self, lr: float = 1e-3, task_weight: float = 5.0) -> None:
        super().__init__()
        check_positive("lr", lr, "the learning rate of Adam")
        check_positive("task_weight", task_weight, "the factor of the mean squared error")
        self.save_hyperparameters()
        self.lr, self.task_weight = lr, task_weight
        self.linear = nn.Linear(DIM_X, DIM_Z, bias=False)
        self.encoder = nn.Sequential(self.linear, GaussianNoise(ENCODER_NOISE))
        self.head = nn.Linear(DIM_Z, DIM_TARGET)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) predictions of x (N, 20)."""
        predictions: Tensor = self.head(self.encoder(x))
        return predictions

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The weighted mean squared error of x, t, s."""
        loss = nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("train/mse", loss)
        if batch_idx % 50 == 0:
            self._log_exact("train")
        return self.task_weight * loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the error, and the exact values of the encoder."""
        self.log("test/mse", nn.functional.mse_loss(self(batch[0]), batch[1]))
        self._log_exact("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def _log_exact(self, stage: str) -> None:
        task: GaussianTask = self.trainer.datamodule.task  # type: ignore[attr-defined]
        weights = self.linear.weight, self.head.weight, self.head.bias
        exact = task.exact(*(weight.detach().cpu().unsqueeze(0) for weight in weights))
        self.log(f"{stage}/exact_mi_nuisance", exact.mi_nuisance[0].float())
        self.log(f"{stage}/exact_mi_target", exact.mi_target[0].float())


@final
@dataclass(frozen=True)
class _Draw:
    """Draws batches. Picklable, because worker processes get a copy."""

    task: GaussianTask

    def __call__(self, step: int, num_rows: int, generator: torch.Generator) -> Batch:
        del step  # the law is the same at every step
        return tuple(self.task.sample(num_rows, generator))


@final
class GaussianTaskData(L.LightningDataModule):
    """Batches of x (N, 20), the target t (N, 2) and the nuisance s (N, 4), drawn anew in each step.

    Args:
        batch_size: N, on each rank.
        steps: Batches of an epoch.
        seed: Of the task and of all samples.

    Raises:
        TypeError: An argument is not a whole number.
        ValueError: An argument is below 1; the seed below 0.

    Example:
        >>> data = GaussianTaskData(batch_size=8, steps=2)
        >>> [tuple(part.shape) for part in next(iter(data.train_dataloader()))]
        [(8, 20), (8, 2), (8, 4)]
    """

    def __init__(self, batch_size: int = 128, steps: int = 3000, seed: int = 0) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 1)
        check_whole("steps", steps, 1)
        check_whole("seed", seed, 0)
        self.save_hyperparameters()
        self._batch_size, self._steps, self._seed = batch_size, steps, seed
        self.task = GaussianTask.draw(torch.Generator().manual_seed(seed))

    def train_dataloader(self) -> StreamLoader:
        """New samples in each batch."""
        return self._loader("train", self._batch_size, self._steps)

    def test_dataloader(self) -> StreamLoader:
        """A fixed test set of 5,000 samples."""
        return self._loader("test", 500, 10)

    def _loader(self, split: Split, batch_size: int, num_batches: int) -> StreamLoader:
        return StreamLoader(
            _Draw(self.task),
            seed=self._seed,
            split=split,
            batch_size=batch_size,
            num_batches=num_batches,
            trainer=self.trainer,
        )
