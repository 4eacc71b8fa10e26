"""Map-style datasets of images without labels; every image has label 0."""

from collections.abc import Sized
from pathlib import Path
from typing import Any, final

from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader

from lightning_mi.exceptions import DatasetNotFoundError


@final
class UnlabelledFolder(Dataset[tuple[Any, int]]):
    """The image files at any depth of a folder, in color, in the order of their paths.

    Args:
        folder: The folder.

    Attributes:
        samples: Path and label 0 of each file.

    Raises:
        DatasetNotFoundError: If the folder is missing or has no image file.

    Example:
        >>> UnlabelledFolder(Path("/nowhere"))
        Traceback (most recent call last):
        lightning_mi.exceptions.DatasetNotFoundError: Found no images in /nowhere: ...
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
        if not files:
            problem = "it has no image file at any depth" if folder.is_dir() else "there is no such folder"
            raise DatasetNotFoundError(
                f"Found no images in {folder}: {problem}. Set root to a folder with image files "
                f"({', '.join(IMG_EXTENSIONS)}), directly or in folders."
            )
        self.samples = [(str(path), 0) for path in files]
        self.targets = [0] * len(files)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return default_loader(self.samples[index][0]), 0


@final
class UnlabelledDataset(Dataset[tuple[Any, int]]):
    """The images of a map-style dataset of images, or of tuples that start with one.

    Args:
        dataset: The dataset.

    Raises:
        TypeError: If the dataset has no length or no items, such as an iterable dataset.

    Example:
        >>> import torch
        >>> images = UnlabelledDataset(torch.zeros(3, 1, 8, 8))
        >>> len(images), images[0][1]
        (3, 0)
    """

    def __init__(self, dataset: Any) -> None:
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"Got a dataset of type {type(dataset).__name__}: it has no length or no items by index. For an "
                "iterable, pass its loader to `trainer.fit`, and make the views with "
                "`BatchedContrastiveTransform.two_views` in `on_after_batch_transfer` of your module."
            )
        self.dataset = dataset
        self.targets = [0] * len(dataset)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self.dataset[index]
        return (item[0] if isinstance(item, tuple | list) else item), 0
