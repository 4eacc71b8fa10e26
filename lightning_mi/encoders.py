"""Encoders: modules that turn a view of a batch into the representation a critic scores."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast, final

import torch
from torch import Tensor, nn
from torchvision.models import resnet18


@final
class OneHot(nn.Module):
    """Turns integer labels into one-hot vectors.

    Args:
        num_classes: C, at least 1; labels run from 0 to C - 1.

    Raises:
        ValueError: If ``num_classes`` < 1.

    Example:
        >>> OneHot(3)(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: one-hot vectors need at least one class.")
        self.num_classes = num_classes

    def forward(self, labels: Tensor) -> Tensor:
        """Encode labels: (N,) integers to (N, C) float32.

        Raises:
            ValueError: If ``labels`` are not integers, not of shape (N,), or outside 0 to C - 1.
        """
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(
                f"OneHot takes integer labels, but got {labels.dtype}. Convert class indices with .long()."
            )
        if labels.ndim != 1:
            raise ValueError(f"OneHot takes labels of shape (N,), but got {tuple(labels.shape)}. Flatten them first.")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            index = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"Label {int(labels[index])} at index {index} is out of range: OneHot({self.num_classes}) takes labels "
                f"from 0 to {self.num_classes - 1}. Raise num_classes or check the labels."
            )
        return nn.functional.one_hot(labels.long(), self.num_classes).float()

    def extra_repr(self) -> str:
        """The argument, for ``print(module)``."""
        return f"num_classes={self.num_classes}"


@final
class MLP(nn.Module):
    """A perceptron with ReLU units between its layers, over the flattened input.

    Args:
        in_dim: Number of features of one input, all its dimensions flattened.
        hidden: Width of the hidden layer, or one width for each; an empty list gives a linear map.
        out_dim: D, the features of the representation.
        bias: Whether the last layer has a bias.
        inplace: Whether ReLU overwrites the hidden features, which saves memory.

    Raises:
        ValueError: If a width is below 1.

    Example:
        >>> MLP(28 * 28, [64, 64], 16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self, in_dim: int, hidden: int | Sequence[int], out_dim: int, *, bias: bool = True, inplace: bool = False
    ) -> None:
        super().__init__()
        widths = [in_dim, *([hidden] if isinstance(hidden, int) else hidden), out_dim]
        if min(widths) < 1:
            raise ValueError(f"The layer widths {widths} (in_dim, hidden, out_dim) must all be at least 1.")
        self.in_dim = in_dim
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths[:-1]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=inplace)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], out_dim, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        """Encode inputs: (N, ...) with ``in_dim`` features each to (N, D).

        Raises:
            ValueError: If the inputs have another number of features.
        """
        features = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
        if features.shape[1] != self.in_dim:
            raise ValueError(
                f"MLP(in_dim={self.in_dim}) got inputs of shape {tuple(x.shape)}: {features.shape[1]} features each. "
                f"Set in_dim={features.shape[1]}, or check the batch."
            )
        encoded: Tensor = self.layers(features)
        return encoded


@final
class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions and a linear layer, for small images on a few CPU cores.

    Each convolution has a ReLU, the first two are followed by 2 x 2 max-pooling, the last by means over a grid.
    There is no normalization layer: a representation depends on its own image alone, in training too.

    Args:
        in_channels: C, channels of the images.
        out_dim: D, features of the representation; for logits, the number of classes.
        width: Channels of the first convolution, doubled in each of the next two.
        final_relu: Whether a ReLU ends the network, as it does the ResNet's features; False for logits.
        grid: Places along each side that the linear layer tells apart. 2 is light and suits the smallest images; 7 is
            all that is left of 28 x 28 pixels.

    Raises:
        ValueError: If a width is below 1.

    Source:
        A stand-in for the ResNet-18 of Choi & Lee (UAI 2022), whose features are 512 means of ReLU units.

    Example:
        >>> SmallCNN(1)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 512])
    """

    def __init__(
        self, in_channels: int, out_dim: int = 512, *, width: int = 32, final_relu: bool = True, grid: int = 2
    ) -> None:
        super().__init__()
        if min(in_channels, out_dim, width, grid) < 1:
            raise ValueError(
                f"in_channels={in_channels}, out_dim={out_dim}, width={width} and grid={grid} must all be at least 1."
            )
        self.in_channels = in_channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.head = nn.Linear(4 * width * grid**2, out_dim)
        self.activation = nn.ReLU() if final_relu else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Encode images: (N, C, H, W), at least 4 x 4, to (N, D).

        Raises:
            ValueError: If the images have another shape.
        """
        _check_images(self, images, self.in_channels, smallest=4)
        encoded: Tensor = self.activation(self.head(self.pool(self.convolutions(images)).flatten(1)))
        return encoded


@final
class ResNet18(nn.Module):
    """torchvision's ResNet-18 from scratch, without its classifier or with one of your width.

    ``network`` is torchvision's own module, into which its state dicts load.

    Args:
        out_dim: None gives the 512 features before the classifier, all >= 0; a number gives as many logits.
        stem: ``"imagenet"`` shrinks images four times before the first block (7 x 7 convolution of stride 2 and
            max-pooling), as suits 224 pixels; ``"cifar"`` keeps their size (3 x 3, stride 1, no pooling), as suits 32.
        in_channels: Channels of the images.

    Raises:
        ValueError: If ``out_dim`` or ``in_channels`` is below 1, or ``stem`` unknown.

    Source:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. The CIFAR stem is that of Chen et al.,
        "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix B.9.

    Example:
        >>> ResNet18(stem="cifar")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self, out_dim: int | None = None, stem: Literal["imagenet", "cifar"] = "imagenet", in_channels: int = 3
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={stem!r} is unknown: choose 'imagenet' (224 pixels) or 'cifar' (32 pixels).")
        if in_channels < 1 or (out_dim is not None and out_dim < 1):
            raise ValueError(f"in_channels={in_channels} and out_dim={out_dim} must be at least 1 (out_dim: or None).")
        self.in_channels = in_channels
        self.network = cast("nn.Module", resnet18(weights=None))
        features = cast("nn.Linear", self.network.fc).in_features
        if stem == "cifar":
            self.network.maxpool = nn.Identity()
        if stem == "cifar" or in_channels != 3:
            size, stride = (3, 1) if stem == "cifar" else (7, 2)
            first = nn.Conv2d(in_channels, 64, size, stride, padding=size // 2, bias=False)
            # As torchvision initializes the convolution that this one replaces.
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
            self.network.conv1 = first
        self.network.fc = nn.Identity() if out_dim is None else nn.Linear(features, out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images: (N, C, H, W) to (N, 512) or (N, ``out_dim``).

        Raises:
            ValueError: If the images have another shape.
        """
        _check_images(self, images, self.in_channels, smallest=1)
        return cast("Tensor", self.network(images))


def _check_images(encoder: nn.Module, images: Tensor, in_channels: int, smallest: int) -> None:
    name = type(encoder).__name__
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f"{name}(in_channels={in_channels}) got images of shape {tuple(images.shape)}: it takes "
            f"(N, {in_channels}, H, W). Set in_channels, or check the batch."
        )
    if min(images.shape[2:]) < smallest:
        raise ValueError(
            f"{name} got images of {images.shape[2]} x {images.shape[3]} pixels: it needs {smallest} x {smallest}. "
            "Resize the images, as ImageDataModule(image_size=...) does."
        )
