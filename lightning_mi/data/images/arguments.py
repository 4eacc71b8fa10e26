"""Checks of the arguments of ImageDataModule."""

from typing import Any

from lightning_mi.data.images.batch_transform import BatchedContrastiveTransform
from lightning_mi.data.images.datasets import check_image_set
from lightning_mi.utilities.checks import check_instance, check_whole


def check_arguments(data: Any) -> None:
    """Check the arguments of an :class:`~lightning_mi.data.ImageDataModule`, its attributes, without reading any file.

    Raises:
        TypeError: If a number or the transform of batches is not of the right type.
        ValueError: If an argument is out of range, or two views have no random transform.
    """
    check_image_set(data.dataset, data.test_dataset)
    check_whole("batch_size", data.batch_size, 2)
    check_whole("eval_batch_size", data.eval_batch_size, 2)
    check_whole("limit_train", 2 if data.limit_train is None else data.limit_train, 2)
    check_whole("image_size", 1 if data.image_size is None else min(data.image_size), 1)
    check_whole("seed", data.seed, 0)
    check_whole("num_workers", data.num_workers, 0)
    if not 0 <= data.val_fraction < 1:
        raise ValueError(
            f"Got val_fraction={data.val_fraction}: the fraction of the training samples held out for validation is "
            "between 0 (none) and below 1."
        )
    if data.batch_transform is not None:
        example = "BatchedContrastiveTransform(32)"
        check_instance("batch_transform", data.batch_transform, BatchedContrastiveTransform, example)
    if data.two_views and data.transform is None and data.batch_transform is None:
        raise ValueError(
            "Got two_views=True without a transform: both views would be equal. Give a random transform, such as "
            "batch_transform=lightning_mi.data.BatchedContrastiveTransform()."
        )
