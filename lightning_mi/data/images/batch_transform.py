"""BatchedContrastiveTransform: the augmentation of SimCLR for whole batches on their device."""

import math
from collections.abc import Mapping
from itertools import permutations
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.data.images.batch_color import OPERATIONS, jitter_in_order, to_grey
from lightning_mi.data.images.batch_resampling import Boxes, blur, crop_and_resize
from lightning_mi.utilities.checks import check_instance, check_whole
from lightning_mi.utilities.distributed import get_rank, world_size

NUM_DRAWS = 32  # uniform numbers of one view of one image
_TRIES = 10  # of a crop, before the central crop: as torchvision's RandomResizedCrop
_LOG_ASPECT = math.log(4 / 3)
_ORDERS = torch.tensor(list(permutations(range(len(OPERATIONS)))))
_SIGMA = (0.1, 2.0)
_TOLERANCE = 0.02  # an earlier resize may overshoot


class _Parameters(NamedTuple):
    """Parameters of one view of N images, on the CPU; each is (N,), orders are (N, 4)."""

    boxes: Boxes
    flips: Tensor
    jitters: Tensor
    factors: Tensor
    orders: Tensor
    greys: Tensor
    blurs: Tensor
    sigmas: Tensor


@final
class BatchedContrastiveTransform:
    """Random resized crop, flip, color jitter, grey and Gaussian blur of a batch, with separate draws for each image.

    The images are transformed together, on their device. Crops and blurs are products with one matrix for each image;
    color jitter acts on the images that share an operation. The parameters are functions of ``NUM_DRAWS`` uniform
    numbers for each image, which are drawn on the CPU: views are the same on every device, up to rounding.

    Each step has the law of its transform in ``torchvision.transforms.v2``: ``RandomResizedCrop`` (bilinear,
    antialiased, aspect ratio 3/4 to 4/3), ``RandomHorizontalFlip`` (probability 0.5), ``ColorJitter`` (0.8), in random
    order, ``RandomGrayscale`` (0.2) and ``GaussianBlur`` (0.5, sigma 0.1 to 2.0). Images of one channel get brightness
    and contrast jitter.

    Args:
        size: Height and width of the views, one number for a square; that of the images by default.
        min_scale: Smallest area of a crop, as a fraction of the image.
        flip: Whether to mirror half of the images; False for digits and text.
        jitter: Strength s of the color jitter, from 0 (none) to 1.25: brightness, contrast and saturation change by up
            to 0.8 s, hue by up to 0.2 s.
        grey: Whether to turn a fifth of the color images grey.
        blur: Whether to blur half of the images. The kernel has a tenth of the image's height and width, so images
            below 20 pixels do not change.

    Raises:
        TypeError: A size is not a whole number, or a switch is not a bool; in use, a batch contains no tensor of
            images.
        ValueError: An argument is out of range; in use, images have not 1 or 3 channels or no pixels, or the first
            batch of floats has values that are not between 0 and 1.

    The CIFAR-10 setting of Chen et al. has ``jitter=0.5`` and ``blur=False``.

    Source: Chen et al. 2020, appendix A; Chen et al. 2020, appendix B.9.

    Example:
        >>> transform = BatchedContrastiveTransform(32)
        >>> transform(torch.zeros(4, 3, 40, 48, dtype=torch.uint8)).shape
        torch.Size([4, 3, 32, 32])
        >>> [view.shape for view in transform.two_views((torch.rand(4, 1, 28, 28), torch.arange(4)))]
        [torch.Size([4, 1, 32, 32]), torch.Size([4, 1, 32, 32]), torch.Size([4])]
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        min_scale: float = 0.08,
        *,
        flip: bool = True,
        jitter: float = 1.0,
        grey: bool = True,
        blur: bool = True,
    ) -> None:
        if not 0 < min_scale <= 1:
            raise ValueError(f"Got min_scale={min_scale}: the smallest area of a crop is above 0 and at most 1.")
        if not 0 <= jitter <= 1.25:
            raise ValueError(f"Got jitter={jitter}: the strength of the color jitter is between 0 (none) and 1.25.")
        for name, switch in (("flip", flip), ("grey", grey), ("blur", blur)):
            check_instance(name, switch, bool, "False")
        self.size = size if size is None or isinstance(size, tuple | list) else (size, size)
        for length in self.size or ():
            check_whole("size", length, 1)
        self.min_scale = min_scale
        self.flip = flip
        self.jitter = jitter
        self.grey = grey
        self.blur = blur
        self._range_checked = False  # once, because it needs a host-device sync

    def __call__(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        """One view of each image.

        Args:
            images: (N, C, H, W) bytes, or floats between 0 and 1.
            draws: (N, ``NUM_DRAWS``) uniform numbers on the CPU; by default of :meth:`draw`.

        Returns:
            (N, C, *size) floats between 0 and 1; of the type of floating-point images.
        """
        _check_images(images)
        if images.is_floating_point() and not self._range_checked:
            _check_range(images)
            self._range_checked = True
        dtype = images.dtype if images.is_floating_point() else torch.float32
        images = images.float() if images.is_floating_point() else images.float() / 255
        chosen = self._parameters(self.draw(len(images)) if draws is None else draws, *images.shape[-2:])
        size = tuple(images.shape[-2:]) if self.size is None else self.size
        views = crop_and_resize(images, chosen.boxes, (size[0], size[1]), chosen.flips)
        if self.jitter:
            views = jitter_in_order(views, chosen.factors, chosen.orders, chosen.jitters)
        if self.grey and views.shape[1] == 3:
            views = torch.where(chosen.greys.to(views.device).view(-1, 1, 1, 1), to_grey(views), views)
        views = blur(views, chosen.sigmas, chosen.blurs) if self.blur else views
        return views.to(dtype)

    def two_views(self, batch: Any) -> tuple[Tensor, ...]:
        """Two views of each image of a batch; the other entries of the batch follow.

        For the hook ``on_after_batch_transfer`` of a module or a data module, with any loader::

            class SimCLR(MIEstimationModule):
                augment = BatchedContrastiveTransform(32)

                def on_after_batch_transfer(self, batch, dataloader_idx=0):
                    return self.augment.two_views(batch)

        The draws are those of :meth:`draw`.

        Args:
            batch: Images (N, C, H, W), or a tuple or list of images and other entries, such as labels.

        Raises:
            TypeError: The batch contains no tensor of images in the first place.
        """
        images, *others = batch if isinstance(batch, tuple | list) and batch else (batch,)
        if not isinstance(images, Tensor):
            kind = f"{type(images).__name__}"
            if isinstance(images, Mapping):
                kind += f" with the keys {', '.join(map(repr, images))}"
            raise TypeError(
                f"Got a batch of type {kind}: images are a tensor (N, C, H, W), alone or the first entry of a tuple. "
                "Let the loader return it, such as by a `map` of a WebDataset or a `collate_fn` of a DataLoader."
            )
        return self(images), self(images), *others

    def draw(self, num_images: int) -> Tensor:
        """Uniform numbers for one view of each image, (N, ``NUM_DRAWS``), from torch's global CPU generator.

        With several ranks the numbers are those of this rank's shard of the global batch, if all ranks have N images
        and the same seed. An exact resume restores the generator.
        """
        start = get_rank() * num_images
        return torch.rand(world_size() * num_images, NUM_DRAWS)[start : start + num_images]

    def _parameters(self, draws: Tensor, height: int, width: int) -> _Parameters:
        tries, (top, left), rest = draws[:, : 2 * _TRIES], draws[:, 20:22].T, draws[:, 22:].T
        flip, jitter, factors, order, grey, blur, sigma = (
            rest[0],
            rest[1],
            rest[2:6],
            rest[6],
            rest[7],
            rest[8],
            rest[9],
        )
        change = torch.tensor([0.8, 0.8, 0.8, 0.2]).view(-1, 1) * self.jitter
        factors = (2 * factors - 1) * change + torch.tensor([1.0, 1.0, 1.0, 0.0]).view(-1, 1)
        low = _SIGMA[0]
        return _Parameters(
            boxes=_boxes(tries.reshape(-1, 2, _TRIES), top, left, self.min_scale, height, width),
            flips=(flip < 0.5) & self.flip,
            jitters=jitter < 0.8,
            factors=factors,
            orders=_ORDERS[(order * len(_ORDERS)).long()],
            greys=grey < 0.2,
            blurs=blur < 0.5,
            sigmas=low + sigma * (_SIGMA[1] - low),
        )


def _boxes(tries: Tensor, top: Tensor, left: Tensor, min_scale: float, height: int, width: int) -> Boxes:
    """Crops with the law of torchvision's ``RandomResizedCrop``: the first of ten draws within the image."""
    areas = height * width * (min_scale + tries[:, 0] * (1 - min_scale))
    aspects = torch.exp((2 * tries[:, 1] - 1) * _LOG_ASPECT)
    widths, heights = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    # Without a draw that fits: the largest central crop with an aspect ratio in range.
    ratio = math.exp(_LOG_ASPECT)
    central_width = min(width, round(height * ratio))
    central_height = min(height, round(width * ratio))
    found = fits.any(dim=1)
    w = torch.where(found, widths.gather(1, first).squeeze(1), central_width)
    h = torch.where(found, heights.gather(1, first).squeeze(1), central_height)
    # A draw is below 1, and a product in float32 may round up to the next whole number.
    top = torch.where(found, torch.minimum((top * (height - h + 1)).floor(), height - h), (height - h) // 2)
    left = torch.where(found, torch.minimum((left * (width - w + 1)).floor(), width - w), (width - w) // 2)
    return Boxes(top, left, h, w)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(
            f"Got images of shape {tuple(images.shape)}: a batch is (N, C, H, W) with 1 or 3 channels and one pixel or "
            "more. Stack single images, and move the channels to the front."
        )
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise TypeError(f"Got images of {images.dtype}: give bytes (torch.uint8), or floats between 0 and 1.")


def _check_range(images: Tensor) -> None:
    if not images.numel():
        return
    low, high = (float(limit) for limit in torch.aminmax(images.detach()))
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"Got images with values from {low:.3g} to {high:.3g}: floats are between 0 and 1. Pass bytes, divide by "
            "255, or standardize after the views."
        )
