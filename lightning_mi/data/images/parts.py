"""The training, validation and test part of an image dataset."""

from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from torch.utils.data import Dataset

from lightning_mi.data.images.datasets import ImageSetName, load_image_set, pair_digits
from lightning_mi.data.images.sources import AbstractImages
from lightning_mi.data.images.splits import split_by_class, subsample_by_class
from lightning_mi.data.stream import Split

_PAIRS_PER_CLASS: dict[Split, int] = {"train": 100, "val": 10, "test": 20}  # of each of the 100 classes of digit pairs
_TEST_SEED = 0  # the test part of digit pairs does not depend on the user's seed


class ImageParts(NamedTuple):
    """Images by split, and the names of the classes."""

    splits: dict[Split, AbstractImages]
    class_names: list[str]


def load_parts(
    dataset: ImageSetName | Dataset[Any],
    root: str | Path,
    *,
    test_dataset: Dataset[Any] | None,
    val_fraction: float,
    limit_train: int | None,
    seed: int,
    labelled: bool = True,
) -> ImageParts:
    """Load a dataset and split it; the arguments are those of :class:`~lightning_mi.data.ImageDataModule`.

    Raises:
        DatasetNotFoundError: If the dataset is not under ``root``.
        ValueError: If a class has too few samples to be split.

    Example:
        >>> parts = load_parts("digits", "data", test_dataset=None, val_fraction=0.1, limit_train=100, seed=0)
        >>> {split: len(images) for split, images in parts.splits.items()}
        {'train': 100, 'val': 143, 'test': 359}
    """
    whole = load_image_set(dataset, root, test_dataset, labelled=labelled)
    names = whole.class_names
    generator = torch.Generator().manual_seed(seed)
    splits: dict[Split, AbstractImages] = {"train": whole.train}
    if val_fraction > 0:
        name = f"val_fraction={val_fraction}"
        train, val = split_by_class(whole.train.labels, val_fraction, generator, name)
        splits = {"train": whole.train.subset(train), "val": whole.train.subset(val)}
    if whole.test is not None:
        splits["test"] = whole.test
    if dataset == "digit_pairs":  # paired after the split, so that no digit is in two splits
        splits = {split: _pair(split, digits, seed) for split, digits in splits.items()}
        names = [left + right for left in names for right in names]
    images = splits["train"]
    if limit_train is not None and limit_train < len(images):
        splits["train"] = images.subset(subsample_by_class(images.labels, limit_train, generator))
    return ImageParts(splits, names)


def current_split(trainer: L.Trainer | None) -> Split:
    """The split that a trainer reads; the training part without one.

    Example:
        >>> current_split(None)
        'train'
    """
    if trainer is None or trainer.state.fn is None:
        return "train"
    if trainer.validating or trainer.sanity_checking:
        return "val"
    return "test" if trainer.testing or trainer.predicting else "train"


def _pair(split: Split, digits: AbstractImages, seed: int) -> AbstractImages:
    generator = torch.Generator().manual_seed(_TEST_SEED if split == "test" else seed)
    return pair_digits(digits, _PAIRS_PER_CLASS[split], generator)
