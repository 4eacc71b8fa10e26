"""What can be wrong with image files, as errors that name the file or the folder."""

from typing import final


@final
class DatasetNotFoundError(FileNotFoundError):
    """No dataset, or an incomplete or empty one, in the folder that the message names.

    Example:
        >>> raise DatasetNotFoundError("No CIFAR-10 in data/cifar-10-batches-py.")
        Traceback (most recent call last):
        lightning_mi.data.errors.DatasetNotFoundError: No CIFAR-10 in data/cifar-10-batches-py.
    """


@final
class DatasetDownloadError(OSError):
    """A dataset could not be fetched.

    Example:
        >>> raise DatasetDownloadError("Could not download CIFAR-10.")
        Traceback (most recent call last):
        lightning_mi.data.errors.DatasetDownloadError: Could not download CIFAR-10.
    """


@final
class CorruptImageError(ValueError):
    """An image file could not be read; the message names it.

    Example:
        >>> raise CorruptImageError("The image data/cat/1.png could not be read.")
        Traceback (most recent call last):
        lightning_mi.data.errors.CorruptImageError: The image data/cat/1.png could not be read.
    """
