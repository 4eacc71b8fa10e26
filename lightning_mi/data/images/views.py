"""Batches of views of labelled images, and an augmentation for contrastive learning."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from lightning_mi.data.images.pixels import resize
from lightning_mi.data.images.sources import AbstractImages, MemoryImages
from lightning_mi.data.stream import MAX_STEP, Batch, Split, batch_seed


@final
class ImageViews(Dataset[Batch]):
    """Batches (view, label) or (view1, view2, label), each sample's random transform a function of its key.

    Views are (N, C, H, W) as the images and the transform give them, labels (N,) int64. The transform draws from
    torch's global generator, which is seeded by (``seed``, ``split``, key) for each sample and put back after the
    batch: the views are the same with any number of workers and after a resume. Images in memory without a transform
    are taken a whole batch at a time.

    Args:
        images: Where the samples come from.
        transform: Makes a view of an image (C, H, W); None takes the image itself.
        num_views: 1 or 2, of each sample.
        size: Height and width to which views are resized one by one, for images of different sizes.
        seed: Chooses the random transforms.
        split: A name that keeps the random transforms of training and evaluation apart.

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
        size: tuple[int, int] | None = None,
        seed: int = 0,
        split: Split = "train",
    ) -> None:
        self.images = images
        self.transform = transform
        self.num_views = num_views
        self.size = size
        self.seed = seed
        self.split = split

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int) -> Batch:
        return tuple(part[0] for part in self.__getitems__([key]))

    def __getitems__(self, keys: list[int]) -> Batch:
        """The batch of some keys.

        Raises:
            ValueError: Its images have different shapes.
            CorruptImageError: The file of one of them could not be read.
        """
        indices = torch.tensor(keys) % len(self)
        labels = self.images.labels[indices]
        if self.transform is None and isinstance(self.images, MemoryImages):
            return *[self.images.images[indices]] * self.num_views, labels
        state = torch.get_rng_state()
        try:
            samples = [self._views(key) for key in keys]
        finally:
            torch.set_rng_state(state)
        return *(_stack(views) for views in zip(*samples, strict=True)), labels

    def _views(self, key: int) -> list[Tensor]:
        # Not torch.manual_seed, which would seed the GPU's generator as well.
        torch.default_generator.manual_seed(batch_seed(self.seed, self.split, key % MAX_STEP))
        image = self.images.image(key % len(self))
        views = [image if self.transform is None else self.transform(image) for _ in range(self.num_views)]
        return views if self.size is None else [resize(view, self.size) for view in views]


@final
class ContrastiveTransform:
    """A random crop, flip and change of color of one image: the augmentation of contrastive learning, without blur.

    Color is changed in images of three channels; those of one channel change in brightness and contrast.

    Args:
        size: Height and width of the crop, one number for a square.
        min_scale: Smallest share of the image's area that a crop shows.
        flip: Whether half of the crops are mirrored; not for digits or text.
        jitter: Strength of the change of color, 0 for none.

    Raises:
        ValueError: If ``min_scale`` is not in (0, 1] or ``jitter`` not in [0, 1.25].

    Source:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix A and
        B.9: their CIFAR-10 setting has ``min_scale`` 0.08, ``jitter`` 0.5 and no blur.

    Example:
        >>> ContrastiveTransform(32)(torch.zeros(3, 40, 48, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self, size: int | tuple[int, int], min_scale: float = 0.2, flip: bool = True, jitter: float = 0.5
    ) -> None:
        if not 0 < min_scale <= 1:
            raise ValueError(f"min_scale={min_scale} is the smallest share of the area that a crop shows: 0 to 1.")
        if not 0 <= jitter <= 1.25:
            raise ValueError(f"jitter={jitter} is out of range: it must be between 0 (no change) and 1.25.")
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self._crop = v2.RandomResizedCrop(self.size, scale=(min_scale, 1.0), antialias=True)
        self._flip = v2.RandomHorizontalFlip() if flip else None
        change = 0.8 * jitter  # Chen et al.: brightness, contrast and saturation 0.8, hue 0.2, times the strength
        self._color = v2.Compose(
            [v2.RandomApply([v2.ColorJitter(change, change, change, 0.2 * jitter)], p=0.8), v2.RandomGrayscale(p=0.2)]
        )
        self._grey = v2.RandomApply([v2.ColorJitter(change, change)], p=0.8)
        self._jitters = jitter > 0

    def __call__(self, image: Tensor) -> Tensor:
        """A view of an image: (C, H, W) to (C, *size)."""
        view: Tensor = self._crop(image)
        if self._flip is not None:
            view = self._flip(view)
        if self._jitters:
            view = self._color(view) if len(view) == 3 else self._grey(view)
        return view


def _stack(views: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(view.shape) for view in views})
    if len(shapes) > 1:
        raise ValueError(
            f"Images of one batch have the shapes {shapes[0]} and {shapes[1]} (C, H, W). Set image_size, to resize "
            "them to one, and convert them all to grey or all to color."
        )
    return torch.stack(list(views))
