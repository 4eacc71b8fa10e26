"""Labelled images, in memory or read one by one from a dataset, with a common interface."""

from abc import ABC, abstractmethod
from collections.abc import Sequence, Sized
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from lightning_mi.data.images.splits import check_labels
from lightning_mi.exceptions import CorruptImageError

# Exceptions of PIL for a truncated file, a file that is not an image, or a broken header.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)


class AbstractImages(ABC):
    """N labelled images.

    Args:
        labels: (N,) int64.

    Attributes:
        labels: (N,) int64.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """One image (C, H, W), as bytes or in the type of the dataset."""

    @abstractmethod
    def subset(self, indices: Tensor) -> "AbstractImages":
        """The images with these ``indices`` (M,), in this order."""


@final
class MemoryImages(AbstractImages):
    """Images of equal size in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.

    Example:
        >>> images = MemoryImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]))
        >>> images.subset(torch.tensor([2, 0])).labels, images.image(0).shape
        (tensor([1, 0]), torch.Size([1, 8, 8]))
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__(labels)
        self.images = images

    def image(self, index: int) -> Tensor:
        """One image (C, H, W), uint8."""
        return self.images[index]

    def subset(self, indices: Tensor) -> "MemoryImages":
        """The images with these indices, copied."""
        return MemoryImages(self.images[indices], self.labels[indices])


@final
class DatasetImages(AbstractImages):
    """Images of a map-style dataset of (image, label), read one by one.

    Args:
        dataset: Dataset of an image (a tensor (C, H, W) or (H, W), an array (H, W, C), or a PIL image) and the index
            of its class.
        labels: (N,) int64; by default read from the dataset.
        indices: Indices of the samples, (N,); by default all.

    Raises:
        TypeError: If the dataset has no length, or its labels are not integers.
        ValueError: If the dataset is empty, or its labels are not whole numbers from 0.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images = DatasetImages(TensorDataset(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1])))
        >>> images.labels, images.image(2).shape
        (tensor([0, 1, 1]), torch.Size([1, 8, 8]))
    """

    def __init__(self, dataset: Dataset[Any], labels: Tensor | None = None, indices: Tensor | None = None) -> None:
        self.dataset = dataset
        labels = read_labels(dataset) if labels is None else labels
        self.indices = torch.arange(len(labels)) if indices is None else indices
        super().__init__(labels)

    def image(self, index: int) -> Tensor:
        """One image (C, H, W).

        Raises:
            CorruptImageError: If its file cannot be read.
        """
        position = int(self.indices[index])
        try:
            image = _sample(self.dataset, position)[0]
        except _UNREADABLE as error:
            files = getattr(self.dataset, "samples", None)  # torchvision.datasets.ImageFolder
            if files is None:
                raise
            raise CorruptImageError(
                f"Got the image file {files[position][0]}, which cannot be read ({type(error).__name__}: {error}). "
                "Replace or remove it."
            ) from error
        return _as_tensor(image)

    def subset(self, indices: Tensor) -> "DatasetImages":
        """The images with these indices, in the same dataset."""
        return DatasetImages(self.dataset, self.labels[indices], self.indices[indices])


def read_labels(dataset: Any) -> Tensor:
    """The labels of a dataset, (N,) int64; without reading images if it has the attribute ``targets`` or ``labels``.

    Raises:
        TypeError: If the dataset has no length, or its labels are not integers.
        ValueError: If the dataset is empty, or its labels are not whole numbers from 0.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> read_labels(TensorDataset(torch.rand(2, 1, 8, 8), torch.tensor([4, 0])))
        tensor([4, 0])
    """
    if isinstance(dataset, Subset):
        return read_labels(dataset.dataset)[torch.as_tensor(dataset.indices)]
    if not isinstance(dataset, Dataset) or not isinstance(dataset, Sized):
        raise TypeError(
            f"Got a dataset of type {type(dataset).__name__}: give a map-style torch Dataset of (image, label) with a "
            "length."
        )
    if getattr(dataset, "target_transform", None) is None:
        for name in ("targets", "labels"):
            listed = getattr(dataset, name, None)
            if listed is not None and len(listed) == len(dataset):
                return check_labels(listed)
    state = torch.get_rng_state()  # a random augmentation of the dataset must not change later draws
    try:
        return check_labels([_sample(dataset, i)[1] for i in range(len(dataset))])
    finally:
        torch.set_rng_state(state)


def _sample(dataset: Dataset[Any], index: int) -> Sequence[Any]:
    sample = dataset[index]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        got = f"{len(sample)} parts" if isinstance(sample, tuple | list) else f"type {type(sample).__name__}"
        raise TypeError(f"Got sample {index} of the dataset with {got}: it must be a tuple (image, label).")
    return cast("Sequence[Any]", sample)


def _as_tensor(image: Any) -> Tensor:
    tensor: Tensor = image if isinstance(image, Tensor) else v2.functional.to_image(image)
    tensor = tensor.as_subclass(Tensor)
    tensor = tensor.unsqueeze(0) if tensor.ndim == 2 else tensor
    if tensor.ndim != 3:
        raise ValueError(f"Got an image of shape {tuple(tensor.shape)}: give (C, H, W) or (H, W).")
    return tensor
