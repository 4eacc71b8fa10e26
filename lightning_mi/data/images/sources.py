"""Labelled images, whole in memory or one by one from a dataset, behind one small interface."""

from abc import ABC, abstractmethod
from collections.abc import Sequence, Sized
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from lightning_mi.data.images.splits import check_labels
from lightning_mi.exceptions import CorruptImageError

# What PIL raises for a file that is cut short, is no image, or has a broken header.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)


class AbstractImages(ABC):
    """N images with a label each.

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
        """One image, (C, H, W), in integers or as the dataset gives it."""

    @abstractmethod
    def subset(self, indices: Tensor) -> "AbstractImages":
        """Some of the images, in the order of ``indices`` (M,)."""


@final
class MemoryImages(AbstractImages):
    """Images of one size held in memory.

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
        """One image, (C, H, W) uint8."""
        return self.images[index]

    def subset(self, indices: Tensor) -> "MemoryImages":
        """Some of the images, copied."""
        return MemoryImages(self.images[indices], self.labels[indices])


@final
class DatasetImages(AbstractImages):
    """The images of any map-style dataset of (image, label), fetched one by one.

    Args:
        dataset: Gives an image (a tensor of shape (C, H, W) or (H, W), an array of shape (H, W, C), or a PIL image)
            and the index of its class.
        labels: (N,) int64; by default the dataset's own.
        indices: The samples meant, (N,); by default all.

    Raises:
        TypeError: The dataset has no length, or its samples no integer label.
        ValueError: It is empty, or its labels are not whole numbers from 0.

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
        """One image, (C, H, W).

        Raises:
            CorruptImageError: Its file could not be read.
        """
        place = int(self.indices[index])
        try:
            image = _sample(self.dataset, place)[0]
        except _UNREADABLE as error:
            files = getattr(self.dataset, "samples", None)  # torchvision's folders
            if files is None:
                raise
            raise CorruptImageError(
                f"The image {files[place][0]} could not be read ({type(error).__name__}: {error}). Replace or remove "
                "the file."
            ) from error
        return _as_tensor(image)

    def subset(self, indices: Tensor) -> "DatasetImages":
        """Some of the images, of the same dataset."""
        return DatasetImages(self.dataset, self.labels[indices], self.indices[indices])


def read_labels(dataset: Any) -> Tensor:
    """The labels of a dataset, (N,) int64, without reading its images if it lists them as ``targets`` or ``labels``.

    Raises:
        TypeError: The dataset has no length, or its samples no integer label.
        ValueError: It is empty, or its labels are not whole numbers from 0.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> read_labels(TensorDataset(torch.rand(2, 1, 8, 8), torch.tensor([4, 0])))
        tensor([4, 0])
    """
    if isinstance(dataset, Subset):
        return read_labels(dataset.dataset)[torch.as_tensor(dataset.indices)]
    if not isinstance(dataset, Dataset) or not isinstance(dataset, Sized):
        raise TypeError(
            f"Got a dataset of type {type(dataset).__name__}: give a map-style torch Dataset, which has a length and "
            "whose items are (image, label)."
        )
    if getattr(dataset, "target_transform", None) is None:
        for name in ("targets", "labels"):
            listed = getattr(dataset, name, None)
            if listed is not None and len(listed) == len(dataset):
                return check_labels(listed)
    state = torch.get_rng_state()  # a dataset that augments would otherwise shift every draw that follows
    try:
        return check_labels([_sample(dataset, i)[1] for i in range(len(dataset))])
    finally:
        torch.set_rng_state(state)


def _sample(dataset: Dataset[Any], index: int) -> Sequence[Any]:
    sample = dataset[index]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        got = f"{len(sample)} parts" if isinstance(sample, tuple | list) else f"a {type(sample).__name__}"
        raise TypeError(f"Sample {index} of the dataset is {got}: it must be a tuple (image, label).")
    return cast("Sequence[Any]", sample)


def _as_tensor(image: Any) -> Tensor:
    tensor: Tensor = image if isinstance(image, Tensor) else v2.functional.to_image(image)
    tensor = tensor.as_subclass(Tensor)
    tensor = tensor.unsqueeze(0) if tensor.ndim == 2 else tensor
    if tensor.ndim != 3:
        raise ValueError(f"An image has shape {tuple(tensor.shape)}: give one of shape (C, H, W) or (H, W).")
    return tensor
