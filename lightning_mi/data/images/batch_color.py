"""Color changes of a batch with a separate amount for each image."""

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


def to_grey(images: Tensor) -> Tensor:
    """The luma of color images (N, 3, H, W) in all channels; images of one channel as they are.

    Example:
        >>> to_grey(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.2989, 0.2989, 0.2989])
    """
    return _luma(images).expand_as(images)


def jitter_in_order(images: Tensor, factors: Tensor, orders: Tensor, chosen: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of the chosen images, of each in its own order.

    Images of one channel have neither saturation nor hue.

    Args:
        images: (N, C, H, W) floats between 0 and 1.
        factors: (4, N) amounts of the four operations, on the CPU; 1, 1, 1, 0 change nothing.
        orders: (N, 4) permutations of the operations, on the CPU.
        chosen: (N,) booleans on the CPU.

    Returns:
        (N, C, H, W) between 0 and 1.

    Example:
        >>> image, order = torch.full((1, 1, 1, 1), 0.25), torch.arange(4).view(1, 4)
        >>> jitter_in_order(image, torch.tensor([[2.0], [1.0], [1.0], [0.0]]), order, torch.tensor([True])).item()
        0.5
    """
    operations = OPERATIONS if images.shape[1] == 3 else OPERATIONS[:2]
    images = images.clone()
    for position in range(orders.shape[1]):
        for index, operation in enumerate(operations):
            # Chosen on the CPU: the sizes of the subsets are known without a host-device sync.
            rows = ((orders[:, position] == index) & chosen).nonzero().flatten()
            if len(rows):
                amounts = factors[index, rows].view(-1, 1, 1, 1).to(images)
                rows = rows.to(images.device)
                images[rows] = operation(images[rows], amounts)
    return images


def _luma(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(1)


def _brightness(images: Tensor, factors: Tensor) -> Tensor:
    return (images * factors).clamp(0.0, 1.0)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(_luma(images).mean(dim=(1, 2, 3), keepdim=True), images, factors).clamp(0.0, 1.0)


def _saturation(images: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(_luma(images), images, factors).clamp(0.0, 1.0)


def _hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by a fraction of the circle, with value and chroma constant."""
    value, strongest = images.max(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    red, green, blue = images.unsqueeze(2).unbind(1)
    difference = torch.cat([green - blue, blue - red, red - green], dim=1).gather(1, strongest)
    # In units of a sixth of the circle. Grey pixels have no hue; with chroma 0 any number leaves them as they are.
    hue = 2 * strongest + difference / chroma.where(chroma > 0, 1.0) + 6 * shifts
    phases = torch.remainder(hue + torch.tensor([5.0, 3.0, 1.0], device=images.device).view(3, 1, 1), 6.0)
    return value - chroma * torch.minimum(phases, 4.0 - phases).clamp(0.0, 1.0)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
