"""Crops and blurs of a batch as products with one matrix for each image."""

from typing import NamedTuple

import torch
from torch import Tensor


class Boxes(NamedTuple):
    """Crop boxes of N images in pixels, each (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def crop_and_resize(images: Tensor, boxes: Boxes, size: tuple[int, int], flips: Tensor) -> Tensor:
    """Crop each image to its box, resize the crop and mirror it if chosen: bilinear with antialiasing.

    Args:
        images: (N, C, H, W) floats.
        boxes: The boxes, on the CPU.
        size: Height and width of the result.
        flips: (N,) booleans on the CPU: images to mirror from left to right.

    Returns:
        (N, C, *size).

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 1, 4)
        >>> box = Boxes(*torch.tensor([[0.0], [2.0], [1.0], [2.0]]))
        >>> crop_and_resize(image, box, (1, 2), torch.tensor([True]))
        tensor([[[[3., 2.]]]])
    """
    vertical = _resize_weights(boxes.top, boxes.height, images.shape[-2], size[0])
    horizontal = _resize_weights(boxes.left, boxes.width, images.shape[-1], size[1])
    horizontal = torch.where(flips.view(-1, 1, 1), horizontal.flip(1), horizontal)
    return _resample(images, vertical, horizontal)


def blur(images: Tensor, sigmas: Tensor, chosen: Tensor) -> Tensor:
    """Gaussian blur of the chosen images with reflected borders; the kernel has a tenth of the height and width.

    Args:
        images: (N, C, H, W) floats.
        sigmas: (N,) standard deviations in pixels, on the CPU.
        chosen: (N,) booleans on the CPU: images to blur.

    Returns:
        (N, C, H, W).

    Example:
        >>> point = torch.zeros(1, 1, 20, 20)
        >>> point[..., 10, 10] = 1.0
        >>> blur(point, torch.tensor([1.0]), torch.tensor([True]))[0, 0, 10, 9:12]
        tensor([0.1238, 0.2042, 0.1238])
    """
    radii = [length // 10 // 2 for length in images.shape[-2:]]
    rows = chosen.nonzero().flatten()
    if not len(rows) or not any(radii):
        return images
    vertical, horizontal = (
        _blur_weights(sigmas[rows], radius, length) for radius, length in zip(radii, images.shape[-2:], strict=True)
    )
    rows = rows.to(images.device)
    return images.index_copy(0, rows, _resample(images[rows], vertical, horizontal))


def _resample(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(N, C, H, W) images times (N, H', H) and (N, W', W) weights: (N, C, H', W')."""
    vertical, horizontal = (weights.to(images).unsqueeze(1) for weights in (vertical, horizontal))
    return vertical @ images @ horizontal.transpose(-1, -2)


def _resize_weights(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """(N, out, size) weights of a triangle filter, which is as wide as a pixel of the larger of crop and result."""
    scale = (length / out).view(-1, 1, 1)
    width = scale.clamp(min=1.0)
    centers = scale * (torch.arange(out).view(-1, 1) + 0.5)
    positions = torch.arange(size) - start.view(-1, 1, 1)
    weights = (1 - ((positions + 0.5 - centers) / width).abs()).clamp(min=0.0)
    weights = weights * ((positions >= 0) & (positions < length.view(-1, 1, 1)))
    return weights / weights.sum(dim=2, keepdim=True)


def _blur_weights(sigmas: Tensor, radius: int, size: int) -> Tensor:
    """(N, size, size) weights of Gaussian kernels of 2 radius + 1 pixels, with reflected borders."""
    offsets = torch.arange(-radius, radius + 1)
    kernels = torch.softmax(-0.5 * (offsets / sigmas.unsqueeze(1)).square(), dim=1)
    sources = (torch.arange(size).unsqueeze(1) + offsets).abs()
    sources = size - 1 - (size - 1 - sources).abs()  # reflected at both borders
    weights = kernels.new_zeros(len(sigmas), size, size)
    return weights.scatter_add_(2, sources.expand(len(sigmas), -1, -1), kernels.unsqueeze(1).expand(-1, size, -1))
