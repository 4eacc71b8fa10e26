"""Digits with a planted nuisance, and a plain classifier of them, for the recipe `minimize/digits_fairness`."""

from typing import Any, final

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_mi.encoders import MLP, GaussianNoise
from lightning_mi.utilities.checks import check_positive, check_whole

_NUM_CLASSES, _NUM_PIXELS = 10, 64


@final
class NuisanceDigits(L.LightningDataModule):
    """scikit-learn's digits, each with and without a faint pattern of pixels: batches of image, digit and nuisance.

    The nuisance, 1 for images with the pattern, is independent of the digit, as a scanner would be. Half of the images
    train, the others test. Images are (N, 64), pixels 0 to 1 before the pattern is added.

    Args:
        batch_size: Images of a training batch.
        strength: The pattern's largest pixel.
        seed: Of the split, the pattern and the order of the batches.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The strength is not positive, or a number is too small.

    Source: Alpaydin and Kaynak 1998.

    Example:
        >>> image, digit, nuisance = next(iter(NuisanceDigits(batch_size=4).train_dataloader()))
        >>> image.shape, digit.shape, nuisance.shape
        (torch.Size([4, 64]), torch.Size([4]), torch.Size([4]))
    """

    def __init__(self, batch_size: int = 100, strength: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        check_whole("batch_size", batch_size, 1)
        check_positive("strength", strength, "the pattern's largest pixel")
        check_whole("seed", seed, 0)
        self.save_hyperparameters()
        self._batch_size, self._seed = batch_size, seed
        from sklearn.datasets import load_digits  # half a second

        pixels, digits = load_digits(return_X_y=True)
        rng = np.random.default_rng(seed)
        pattern = strength * rng.random(_NUM_PIXELS)
        order = rng.permutation(len(pixels))
        half = len(order) // 2
        self.train, self.test = (
            _with_and_without(pixels[rows] / 16, digits[rows], pattern) for rows in (order[:half], order[half:])
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; the last, smaller one is dropped."""
        generator = torch.Generator().manual_seed(self._seed)
        return DataLoader(self.train, self._batch_size, shuffle=True, drop_last=True, generator=generator)

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images with and without the pattern."""
        return DataLoader(self.test, 500)


def _with_and_without(pixels: np.ndarray[Any, Any], digits: np.ndarray[Any, Any], pattern: Any) -> Dataset[Any]:
    images = np.concatenate([pixels, pixels + pattern])
    nuisance = np.repeat([0, 1], len(pixels))
    return TensorDataset(
        torch.from_numpy(images).float(), torch.from_numpy(np.tile(digits, 2)).long(), torch.from_numpy(nuisance)
    )


@final
class DigitsClassifier(L.LightningModule):
    """An encoder with noise and a linear head that minimize the cross-entropy of the digit; it knows no penalty.

    Without noise the nuisance could stay at a scale that a penalty's critic overlooks, and another classifier reads.

    Args:
        hidden: Widths of the encoder's hidden layers.
        dim: Width of the representation.
        noise: Standard deviation of the noise of the representation.
        lr: Learning rate of Adam.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is not positive.

    Example:
        >>> DigitsClassifier()(torch.zeros(3, 64)).shape
        torch.Size([3, 10])
    """

    def __init__(self, hidden: tuple[int, ...] = (128,), dim: int = 32, noise: float = 1.0, lr: float = 1e-3) -> None:
        super().__init__()
        check_positive("lr", lr, "the learning rate of Adam")
        self.save_hyperparameters()
        self.lr = lr
        self.encoder = nn.Sequential(MLP(_NUM_PIXELS, hidden, out_dim=dim), GaussianNoise(noise))
        self.head = nn.Linear(dim, _NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 10) logits of (N, 64) images."""
        logits: Tensor = self.head(self.encoder(images))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The cross-entropy."""
        images, digits, _ = batch
        loss = nn.functional.cross_entropy(self(images), digits)
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy."""
        images, digits, _ = batch
        self.log("test/accuracy", (self(images).argmax(1) == digits).float().mean(), batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)
