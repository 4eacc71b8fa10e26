"""Scale, resize and standardize batches of images."""

from typing import final

import torch
from torch import Tensor
from torchvision.transforms import v2

from lightning_mi.data.images.sources import AbstractImages, MemoryImages

_SAMPLES = 1000  # images read one by one for the statistics: means are exact to about 0.01 standard deviations
_CHUNK = 4096


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (..., C, H, W) to height and width ``size``, bilinear with antialiasing; the aspect ratio may change.

    Example:
        >>> resize(torch.zeros(2, 1, 8, 16), (4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    if tuple(images.shape[-2:]) == size:
        return images
    resized: Tensor = v2.functional.resize(images, list(size), antialias=True)
    return resized


def channel_statistics(images: AbstractImages, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel for pixels between 0 and 1: two tensors (C,), float64.

    All images in memory are used; from other datasets, 1,000 evenly spaced images are read.

    Args:
        images: Images; integers are divided by 255, floats are used as they are.
        size: Height and width to which images that are read one by one are resized first.

    Raises:
        ValueError: If the images have different numbers of channels.

    Example:
        >>> pixels = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).view(1, 1, 2, 2)
        >>> channel_statistics(MemoryImages(pixels, torch.tensor([0])))
        (tensor([0.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    if isinstance(images, MemoryImages):
        channels = images.images.shape[1]
        counts = torch.zeros(channels, 256, dtype=torch.int64)
        for chunk in torch.split(images.images, _CHUNK):
            for channel in range(channels):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        levels = torch.arange(256, dtype=torch.float64) / 255
        frequencies = counts / counts.sum(dim=1, keepdim=True).double()
        mean, square = frequencies @ levels, frequencies @ levels.square()
        return mean, _deviation(mean, square)
    state = torch.get_rng_state()  # a random augmentation of the dataset must not change later draws
    torch.default_generator.manual_seed(0)
    try:
        count = min(_SAMPLES, len(images))
        moments = [_moments(images.image(i * len(images) // count), size) for i in range(count)]
    finally:
        torch.set_rng_state(state)
    if len(channel_counts := {len(mean) for mean, _, _ in moments}) > 1:
        raise ValueError(f"Got images with {sorted(channel_counts)} channels: convert all to grey or all to color.")
    weights = torch.tensor([count for _, _, count in moments], dtype=torch.float64)
    weights /= weights.sum()
    mean = weights @ torch.stack([first for first, _, _ in moments])
    return mean, _deviation(mean, weights @ torch.stack([second for _, second, _ in moments]))


@final
class PixelScaling:
    """Scale, resize and standardize batches of images: (N, C, H, W) bytes or floats to floats.

    Args:
        mean: Mean of each channel (C,), for pixels between 0 and 1; None does not standardize.
        deviation: Standard deviation of each channel (C,); 0 leaves the scale of the channel.
        size: Height and width; None does not resize.

    Example:
        >>> scaling = PixelScaling(torch.tensor([0.5]), torch.tensor([0.25]), size=(4, 4))
        >>> scaling(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))[0, 0, 0, 0]
        tensor(2.)
    """

    def __init__(
        self, mean: Tensor | None = None, deviation: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self.mean, self.deviation, self.size = mean, deviation, size
        self._statistics_on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Scale, resize and standardize a batch on its device; bytes become float32.

        Raises:
            TypeError: If the images are integers other than bytes.
        """
        return self.standardize(self.scale(images))

    def scale(self, images: Tensor) -> Tensor:
        """Scale bytes to floats between 0 and 1, and resize."""
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise TypeError(f"Got images of {images.dtype}: give bytes (torch.uint8) or floating-point numbers.")
            images = images.float() / 255
        return images if self.size is None else resize(images, self.size)

    def standardize(self, images: Tensor) -> Tensor:
        """Subtract the mean of each channel, and divide by its standard deviation."""
        if self.mean is None or self.deviation is None:
            return images
        if images.device not in self._statistics_on:
            scale = torch.where(self.deviation > 0, self.deviation, 1.0)
            self._statistics_on[images.device] = tuple(  # type: ignore[assignment]  # a pair in, a pair out
                value.float().view(-1, 1, 1).to(images.device) for value in (self.mean, scale)
            )
        mean, scale = self._statistics_on[images.device]
        return (images - mean) / scale


def _moments(image: Tensor, size: tuple[int, int] | None) -> tuple[Tensor, Tensor, int]:
    image = PixelScaling(size=size)(image).double().flatten(1)
    return image.mean(dim=1), image.square().mean(dim=1), image.shape[1]


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    return (square - mean.square()).clamp(min=0).sqrt()
