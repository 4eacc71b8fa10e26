"""Batches of views of images, and an augmentation of single images for contrastive learning."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from lightning_mi.data.images.batch_transform import BatchedContrastiveTransform
from lightning_mi.data.images.pixels import PixelScaling, resize
from lightning_mi.data.images.sources import AbstractImages, MemoryImages
from lightning_mi.data.stream import MAX_STEP, Batch, Split, batch_seed


@final
class ImageViews(Dataset[Batch]):
    """Dataset of batches (view, label) or (view1, view2, label); the random transform of a sample depends on its key.

    Views are (N, C, H, W), labels (N,) int64. With ``num_draws`` a batch is (image, draws, label): uniform numbers for
    a transform of the whole batch on its device, an array (N, V, ``num_draws``) for V views, which no data transfer
    moves. Without ``labelled`` a batch ends before the labels.

    The transform draws from torch's global generator, which is seeded by
    (``seed``, ``split``, key) for each sample and restored after the batch: the views do not depend on the number of
    workers or on a resume. Images in memory without a transform are indexed as a whole batch.

    Args:
        images: The labelled images.
        transform: Maps an image (C, H, W) to a view; None returns the image itself.
        num_views: Number of views V of each sample, 1 or 2.
        num_draws: Uniform numbers of each view for a transform of the whole batch; 0 for none.
        labelled: Whether a batch contains the labels.
        size: Height and width to which views are resized one by one; needed for images of different sizes.
        seed: Seed of the random transforms.
        split: Split; training and evaluation have different random transforms.

    Example:
        >>> images = MemoryImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([3, 1, 0, 2]))
        >>> view, label = ImageViews(images).__getitems__([1, 3])
        >>> view.shape, label
        (torch.Size([2, 1, 8, 8]), tensor([1, 2]))
    """

    def __init__(
        self,
        images: AbstractImages,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        num_views: int = 1,
        num_draws: int = 0,
        labelled: bool = True,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        split: Split = "train",
    ) -> None:
        self.images = images
        self.transform = transform
        self.num_views = num_views
        self.num_draws = num_draws
        self.labelled = labelled
        self.size = size
        self.seed = seed
        self.split = split

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int) -> Batch:
        return tuple(part[0] for part in self.__getitems__([key]))

    def __getitems__(self, keys: list[int]) -> Batch:
        """The batch with these keys.

        Raises:
            ValueError: If its images have different shapes.
            CorruptImageError: If an image file cannot be read.
        """
        indices = torch.tensor(keys) % len(self)
        labels = [self.images.labels[indices]] if self.labelled else []
        num_views = 1 if self.num_draws else self.num_views
        if self.transform is None and isinstance(self.images, MemoryImages):
            views = [self.images.images[indices]] * num_views
        else:
            state = torch.get_rng_state()
            try:
                samples = [self._views(key, num_views) for key in keys]
            finally:
                torch.set_rng_state(state)
            views = [_stack(each) for each in zip(*samples, strict=True)]
        return *views, *([self._draws(keys)] if self.num_draws else []), *labels

    def _draws(self, keys: list[int]) -> Any:
        generator = torch.Generator()
        draws = np.empty((len(keys), self.num_views, self.num_draws), dtype=np.float32)
        for sample, key in zip(torch.from_numpy(draws), keys, strict=True):
            torch.rand(sample.shape, generator=generator.manual_seed(self._seed(key)), out=sample)
        return draws

    def _seed(self, key: int) -> int:
        return batch_seed(self.seed, self.split, key % MAX_STEP)

    def _views(self, key: int, num_views: int) -> list[Tensor]:
        # Not torch.manual_seed, which would also seed the generators of GPUs.
        torch.default_generator.manual_seed(self._seed(key))
        image = self.images.image(key % len(self))
        views = [image if self.transform is None else self.transform(image) for _ in range(num_views)]
        return views if self.size is None else [resize(view, self.size) for view in views]


@final
class ContrastiveTransform:
    """Random crop, flip and color jitter of one image: the augmentation of contrastive learning, without blur.

    Images of three channels get color jitter and random grey; images of one channel get brightness and contrast jitter.

    Args:
        size: Height and width of the crop, one number for a square.
        min_scale: Smallest area of a crop, as a fraction of the image.
        flip: Whether to mirror half of the crops; False for digits and text.
        jitter: Strength of the color jitter; 0 for none.

    Raises:
        ValueError: If ``min_scale`` is not in (0, 1] or ``jitter`` not in [0, 1.25].

    The CIFAR-10 setting of Chen et al. has ``min_scale`` 0.08, ``jitter`` 0.5 and no blur.

    Source: Chen et al. 2020, appendix A; Chen et al. 2020, appendix B.9.

    Example:
        >>> ContrastiveTransform(32)(torch.zeros(3, 40, 48, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self, size: int | tuple[int, int], min_scale: float = 0.2, *, flip: bool = True, jitter: float = 0.5
    ) -> None:
        if not 0 < min_scale <= 1:
            raise ValueError(f"Got min_scale={min_scale}: the smallest area of a crop is above 0 and at most 1.")
        if not 0 <= jitter <= 1.25:
            raise ValueError(f"Got jitter={jitter}: the strength of the color jitter is between 0 (none) and 1.25.")
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self._crop = v2.RandomResizedCrop(self.size, scale=(min_scale, 1.0), antialias=True)
        self._flip = v2.RandomHorizontalFlip() if flip else None
        change = 0.8 * jitter  # Chen et al.: brightness, contrast, saturation 0.8 s and hue 0.2 s for strength s
        self._color = v2.Compose(
            [v2.RandomApply([v2.ColorJitter(change, change, change, 0.2 * jitter)], p=0.8), v2.RandomGrayscale(p=0.2)]
        )
        self._grey = v2.RandomApply([v2.ColorJitter(change, change)], p=0.8)
        self._jitters = jitter > 0

    def __call__(self, image: Tensor) -> Tensor:
        """Augment an image: (C, H, W) to (C, *size)."""
        view: Tensor = self._crop(image)
        if self._flip is not None:
            view = self._flip(view)
        if self._jitters:
            view = self._color(view) if len(view) == 3 else self._grey(view)
        return view


def device_views(
    batch: Sequence[Any], scaling: PixelScaling, transform: BatchedContrastiveTransform | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The views of a batch of :class:`ImageViews` on its device, and a list of the labels, if there are any.

    Views are scaled, transformed if the batch contains draws, and standardized.

    Example:
        >>> views, labels = device_views([torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])], PixelScaling(), None)
        >>> len(views), labels
        (1, [tensor([0, 1])])
    """
    images = [entry for entry in batch if isinstance(entry, Tensor) and entry.ndim == 4]
    draws = next((torch.from_numpy(entry) for entry in batch if isinstance(entry, np.ndarray)), None)
    labels = [entry for entry in batch if isinstance(entry, Tensor) and entry.ndim == 1]
    views = [scaling.scale(image) for image in images]
    if transform is not None and draws is not None:
        views = [transform(views[0], each) for each in draws.unbind(1)]
    return [scaling.standardize(view) for view in views], labels


def _stack(views: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(view.shape) for view in views})
    if len(shapes) > 1:
        raise ValueError(
            f"Got images of shapes {shapes[0]} and {shapes[1]} (C, H, W) in one batch: set image_size to resize them, "
            "and convert all to grey or all to color."
        )
    return torch.stack(list(views))
