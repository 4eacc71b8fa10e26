"""Integer pixels to the numbers an encoder takes: scaled, resized and standardized, a whole batch at once."""

from typing import final

import torch
from torch import Tensor
from torchvision.transforms import v2

from lightning_mi.data.images.sources import AbstractImages, MemoryImages

_SAMPLES = 1000  # of images that must be read one by one: a channel's mean to about a hundredth of its deviation
_CHUNK = 4096


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (..., C, H, W) to height and width ``size``, bilinear and without aliasing; the aspect ratio may change.

    Example:
        >>> resize(torch.zeros(2, 1, 8, 16), (4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    if tuple(images.shape[-2:]) == size:
        return images
    resized: Tensor = v2.functional.resize(images, list(size), antialias=True)
    return resized


def channel_statistics(images: AbstractImages, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, of pixels between 0 and 1: two of shape (C,), float64.

    Of images in memory, all are counted exactly; of others, 1,000 that are spread evenly over the dataset.

    Args:
        images: Integer images are divided by 255, floating-point images are taken as they are.
        size: What images that are read one by one are resized to first.

    Raises:
        ValueError: The images do not all have the same number of channels.

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
        shares = counts / counts.sum(dim=1, keepdim=True).double()
        mean, square = shares @ levels, shares @ levels.square()
        return mean, _deviation(mean, square)
    state = torch.get_rng_state()  # a dataset that augments would otherwise shift every draw that follows
    torch.default_generator.manual_seed(0)
    try:
        count = min(_SAMPLES, len(images))
        moments = [_moments(images.image(i * len(images) // count), size) for i in range(count)]
    finally:
        torch.set_rng_state(state)
    if len(channels_seen := {len(mean) for mean, _, _ in moments}) > 1:
        raise ValueError(f"Images have {sorted(channels_seen)} channels: convert them all to grey or all to color.")
    weights = torch.tensor([count for _, _, count in moments], dtype=torch.float64)
    weights /= weights.sum()
    mean = weights @ torch.stack([first for first, _, _ in moments])
    return mean, _deviation(mean, weights @ torch.stack([second for _, second, _ in moments]))


@final
class PixelScaling:
    """Scales, resizes and standardizes batches of images: (N, C, H, W), integers or floats, to floats.

    Args:
        mean: (C,) of pixels between 0 and 1; None leaves pixels there.
        deviation: (C,), a channel that is constant keeps its scale.
        size: Height and width; None keeps them.

    Example:
        >>> scaling = PixelScaling(torch.tensor([0.5]), torch.tensor([0.25]), size=(4, 4))
        >>> scaling(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))[0, 0, 0, 0]
        tensor(2.)
    """

    def __init__(
        self, mean: Tensor | None = None, deviation: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self.mean, self.deviation, self.size = mean, deviation, size
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Scale a batch, on its own device; integers become float32.

        Raises:
            TypeError: Integers other than bytes.
        """
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise TypeError(f"Images are {images.dtype}: give bytes (torch.uint8), or floating-point numbers.")
            images = images.float() / 255
        if self.size is not None:
            images = resize(images, self.size)
        if self.mean is None or self.deviation is None:
            return images
        if images.device not in self._moved:
            scale = torch.where(self.deviation > 0, self.deviation, 1.0)
            self._moved[images.device] = tuple(  # type: ignore[assignment]  # a pair in, a pair out
                value.float().view(-1, 1, 1).to(images.device) for value in (self.mean, scale)
            )
        mean, scale = self._moved[images.device]
        return (images - mean) / scale


def _moments(image: Tensor, size: tuple[int, int] | None) -> tuple[Tensor, Tensor, int]:
    image = PixelScaling(size=size)(image).double().flatten(1)
    return image.mean(dim=1), image.square().mean(dim=1), image.shape[1]


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    return (square - mean.square()).clamp(min=0).sqrt()
