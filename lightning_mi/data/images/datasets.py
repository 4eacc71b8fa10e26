"""Named image datasets, each with a training and a test part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets

from lightning_mi.data.images.sources import AbstractImages, DatasetImages, MemoryImages
from lightning_mi.data.images.splits import split_by_class
from lightning_mi.data.images.unlabelled import UnlabelledDataset, UnlabelledFolder
from lightning_mi.exceptions import DatasetDownloadError, DatasetNotFoundError

ImageSetName = Literal["digits", "digit_pairs", "fashion_mnist", "cifar10", "cifar100", "image_folder"]

_TEST_FRACTION = 0.2  # for datasets without an official test part
_TEST_SEED = 0  # the test part does not depend on the user's seed
_FOLDERS = {
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


class ImageSet(NamedTuple):
    """A dataset with a training and a test part.

    Attributes:
        train: The training part, before validation samples are split off.
        test: The test part; None if there is none.
        class_names: Names of the C classes.
    """

    train: AbstractImages
    test: AbstractImages | None
    class_names: list[str]


def check_image_set(dataset: object, test_dataset: object) -> None:
    """Check the arguments of :func:`load_image_set` without reading any file.

    Raises:
        ValueError: If the name is unknown, or a named dataset is combined with ``test_dataset``.

    Example:
        >>> check_image_set("digits", None)
    """
    if not isinstance(dataset, str):
        return
    if dataset not in get_args(ImageSetName):
        raise ValueError(
            f"Got dataset={dataset!r}: it is one of {', '.join(map(repr, get_args(ImageSetName)))}, or a torch Dataset."
        )
    if test_dataset is not None:
        raise ValueError(f"Got test_dataset with dataset={dataset!r}, which has a test part: drop test_dataset.")


def load_image_set(
    dataset: ImageSetName | Dataset[Any],
    root: str | Path,
    test_dataset: Dataset[Any] | None = None,
    labelled: bool = True,
) -> ImageSet:
    """Load a named dataset (for ``digit_pairs`` the unpaired digits), or wrap the user's dataset.

    Without ``labelled`` the images of a folder and of the user's dataset have label 0.

    Raises:
        DatasetNotFoundError: If the dataset is not under ``root``.
        TypeError: If the user's dataset is not a map-style dataset, or its labels are not integers.
        ValueError: If labels are not whole numbers from 0.

    Example:
        >>> load_image_set("digits", "data").class_names[-1]
        '9'
    """
    if dataset == "digits" or dataset == "digit_pairs":
        return load_digits()
    if dataset == "image_folder":
        return load_folder(root) if labelled else load_unlabelled_folder(root)
    if isinstance(dataset, str):
        return load_torchvision(dataset, root)
    if not labelled:
        test = None if test_dataset is None else DatasetImages(UnlabelledDataset(test_dataset))
        return ImageSet(DatasetImages(UnlabelledDataset(dataset)), test, [])
    train = DatasetImages(dataset)
    test = None if test_dataset is None else DatasetImages(test_dataset)
    num_classes = 1 + max(int(part.labels.max()) for part in (train, test) if part is not None)
    names = [str(name) for name in getattr(dataset, "classes", [])]
    return ImageSet(train, test, names if len(names) >= num_classes else [str(i) for i in range(num_classes)])


def load_digits() -> ImageSet:
    """The 1,797 handwritten digits of scikit-learn: (1, 8, 8) uint8, 10 classes; the test part is a fixed 20 percent.

    Source: Alpaydin and Kaynak 1998.

    Example:
        >>> digits = load_digits()
        >>> len(digits.train), len(digits.test), digits.train.image(0).shape
        (1438, 359, torch.Size([1, 8, 8]))
    """
    from sklearn.datasets import load_digits as load  # half a second, only for this dataset

    data = load()
    # Pixels count the inked points of a 4 x 4 block, 0 to 16; scaled to the range of bytes.
    pixels = torch.from_numpy(np.round(data.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    return _split_off_test(MemoryImages(pixels, torch.from_numpy(data.target).long()), [str(i) for i in range(10)])


def pair_digits(digits: AbstractImages, per_class: int, generator: torch.Generator) -> MemoryImages:
    """Put two digits side by side with label 10 a + b: equally many pairs of each of the 100 classes, all different.

    Args:
        digits: N images of digits in memory, (1, H, W).
        per_class: Pairs of each class; fewer if there are not enough.
        generator: Generator of the choice.

    Returns:
        At most 100 ``per_class`` images of shape (1, H, 2 W).

    Example:
        >>> pairs = pair_digits(load_digits().test, 3, torch.Generator())
        >>> pairs.images.shape, pairs.labels.bincount().unique()
        (torch.Size([300, 1, 8, 16]), tensor([3]))
    """
    assert isinstance(digits, MemoryImages)
    members = [(digits.labels == label).nonzero().flatten() for label in range(10)]
    smallest = min(len(group) for group in members)
    count = min(per_class, smallest**2)  # equal for all classes, so that H(Y) = log 100
    images, labels = [], []
    for label in range(100):
        left, right = members[label // 10], members[label % 10]
        chosen = torch.randperm(len(left) * len(right), generator=generator)[:count]
        sides = digits.images[left[chosen // len(right)]], digits.images[right[chosen % len(right)]]
        images.append(torch.cat(sides, dim=3))
        labels.append(torch.full((count,), label))
    return MemoryImages(torch.cat(images), torch.cat(labels))


def load_torchvision(name: str, root: str | Path) -> ImageSet:
    """Fashion-MNIST, CIFAR-10 or CIFAR-100 in memory, with their official test parts.

    Args:
        name: ``fashion_mnist``, ``cifar10`` or ``cifar100``.
        root: Folder of torchvision's datasets.

    Raises:
        DatasetNotFoundError: If the files are missing, incomplete or damaged.

    Source: Xiao et al. 2017 (Fashion-MNIST); Krizhevsky 2009 (CIFAR).

    Example:
        >>> load_torchvision("cifar10", "nowhere")
        Traceback (most recent call last):
        lightning_mi.exceptions.DatasetNotFoundError: Found no usable cifar10 in .../nowhere/cifar-10-batches-py ...
    """
    try:
        parts = [_torchvision(name)(_absolute(root), train=train) for train in (True, False)]
    except Exception as error:  # torchvision raises errors of many kinds for damaged files
        raise DatasetNotFoundError(
            f"Found no usable {name} in {_absolute(root) / _FOLDERS[name]} ({type(error).__name__}: {error}). Download "
            "it with --data.download=true (ImageDataModule(download=True)), or set root to the folder above it."
        ) from error
    train, test = (MemoryImages(_channels_first(part.data), torch.as_tensor(part.targets).long()) for part in parts)
    return ImageSet(train, test, list(parts[0].classes))


def download_torchvision(name: str, root: str | Path) -> None:
    """Download Fashion-MNIST, CIFAR-10 or CIFAR-100 if it is missing; do nothing for other datasets.

    Raises:
        DatasetDownloadError: If the download fails.

    Example:
        >>> download_torchvision("digits", "data")
    """
    if name not in _FOLDERS:
        return
    try:
        for train in (True, False):
            _torchvision(name)(_absolute(root), train=train, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetDownloadError(
            f"Download of {name} to {_absolute(root) / _FOLDERS[name]} failed ({reason}). Check the network and the "
            "write permission of the folder, or copy the files from another machine."
        ) from error


def load_folder(root: str | Path) -> ImageSet:
    """Load image files from one folder for each class.

    The training part is ``root/train``, or ``root`` if there is no such folder. The test part is ``root/test`` or
    ``root/val``; without these, it is a fixed 20 percent of each class of the training part.

    Raises:
        DatasetNotFoundError: If the folder is missing, has no class, or a class has no images.
        ValueError: If the test part has a class that the training part lacks, or a class is too small to be split.

    Example:
        >>> load_folder("nowhere")
        Traceback (most recent call last):
        lightning_mi.exceptions.DatasetNotFoundError: Found no images in .../nowhere...
    """
    root = _absolute(root)
    train = _read_folder(root / "train" if (root / "train").is_dir() else root)
    names: list[str] = train.classes
    images = DatasetImages(train, torch.as_tensor(train.targets))
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if train.root == str(root) or test_folder is None:
        return _split_off_test(images, names)
    test = _read_folder(test_folder)
    if unknown := sorted(set(test.classes) - set(names)):
        raise ValueError(
            f"Got the classes {', '.join(unknown)} in {test_folder}: {train.root} has no such folders. Both need the "
            "same folders."
        )
    class_indices = torch.tensor([names.index(name) for name in test.classes])
    return ImageSet(images, DatasetImages(test, class_indices[torch.as_tensor(test.targets)]), names)


def load_unlabelled_folder(root: str | Path) -> ImageSet:
    """Load the image files at any depth of a folder, without labels.

    The training part is ``root/train``, or ``root`` if there is no such folder. The test part is ``root/test`` or
    ``root/val`` beside ``root/train``; without these, it is a fixed 20 percent of the training part.

    Raises:
        DatasetNotFoundError: If there is no image file.

    Example:
        >>> load_unlabelled_folder("nowhere")
        Traceback (most recent call last):
        lightning_mi.exceptions.DatasetNotFoundError: Found no images in .../nowhere: ...
    """
    root = _absolute(root)
    whole = root if not (root / "train").is_dir() else root / "train"
    images = DatasetImages(UnlabelledFolder(whole))
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if whole == root or test is None:
        return _split_off_test(images, [])
    return ImageSet(images, DatasetImages(UnlabelledFolder(test)), [])


def _torchvision(name: str) -> Callable[..., Any]:
    classes: dict[str, Callable[..., Any]] = {
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    return classes[name]


def _absolute(root: str | Path) -> Path:
    return Path(root).expanduser().absolute()


def _read_folder(folder: Path) -> Any:
    try:
        return datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"Found no images in {folder} ({error}). Set root to a folder that contains one folder of image files for "
            "each class, or to the folder above its train and test folders."
        ) from error


def _split_off_test(images: AbstractImages, class_names: list[str]) -> ImageSet:
    generator = torch.Generator().manual_seed(_TEST_SEED)
    train, test = split_by_class(images.labels, _TEST_FRACTION, generator, "the test part (20 percent)")
    return ImageSet(images.subset(train), images.subset(test), class_names)


def _channels_first(pixels: Any) -> Tensor:
    tensor = torch.as_tensor(pixels)
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
