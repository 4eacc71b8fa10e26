"""SmallCNN and ResNet18: encoders of images."""

from typing import Literal, cast, final

from torch import Tensor, nn
from torchvision.models import resnet18

from lightning_mi.utilities.checks import check_choice, check_whole


@final
class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions and a linear layer, for small images on a few CPU cores.

    A ReLU follows each convolution, 2 x 2 max-pooling the first two, average pooling to a ``grid`` x ``grid`` map the
    third. There is no normalization layer: each image is encoded independently of its batch, in training too. It is a
    small substitute for the ResNet-18 of Choi and Lee, whose 512 features are average-pooled ReLUs.

    Args:
        in_channels: C, channels of the images.
        out_dim: D, features of the representation; for logits, the number of classes.
        width: Channels of the first convolution, doubled in each of the next two.
        final_relu: Whether the network ends with a ReLU, like the features of a ResNet; False for logits.
        grid: Height and width of the pooled map. 2 is cheap and suits the smallest images; 7 keeps the full map of
            28 x 28 pixels.

    Raises:
        TypeError: If a size is not a whole number.
        ValueError: If a size is below 1.

    Source: Choi and Lee 2022 (average-pooled features).

    Example:
        >>> import torch
        >>> SmallCNN(1)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 512])
    """

    def __init__(
        self, in_channels: int, out_dim: int = 512, *, width: int = 32, final_relu: bool = True, grid: int = 2
    ) -> None:
        super().__init__()
        for name, size in {"in_channels": in_channels, "out_dim": out_dim, "width": width, "grid": grid}.items():
            check_whole(name, size, 1)
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
    """ResNet-18 of torchvision, randomly initialized, with or without a linear classifier.

    Attribute ``network`` is torchvision's module; torchvision's state dicts load into it.

    Args:
        out_dim: Number of logits; None gives the 512 features before the classifier, all >= 0.
        stem: ``"imagenet"`` downsamples four times before the first block (7 x 7 convolution of stride 2, max-pooling),
            for 224 pixels; ``"cifar"`` keeps the image size (3 x 3, stride 1, no pooling), for 32 pixels.
        in_channels: Channels of the images.

    Raises:
        TypeError: If ``out_dim`` or ``in_channels`` is not a whole number.
        ValueError: If ``out_dim`` or ``in_channels`` is below 1, or ``stem`` is unknown.

    Source: He et al. 2016; Chen et al. 2020, appendix B.9 (CIFAR stem).

    Example:
        >>> import torch
        >>> ResNet18(stem="cifar")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self, out_dim: int | None = None, stem: Literal["imagenet", "cifar"] = "imagenet", *, in_channels: int = 3
    ) -> None:
        super().__init__()
        check_choice("stem", stem, ("imagenet", "cifar"))
        check_whole("in_channels", in_channels, 1)
        if out_dim is not None:
            check_whole("out_dim", out_dim, 1)
        self.in_channels = in_channels
        self.network = cast("nn.Module", resnet18(weights=None))
        features = cast("nn.Linear", self.network.fc).in_features
        if stem == "cifar":
            self.network.maxpool = nn.Identity()
        if stem == "cifar" or in_channels != 3:
            size, stride = (3, 1) if stem == "cifar" else (7, 2)
            first = nn.Conv2d(in_channels, 64, size, stride, padding=size // 2, bias=False)
            # The initialization of torchvision for the convolution that this one replaces (He et al., 2015).
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
            f"Got images of shape {tuple(images.shape)}: {name}(in_channels={in_channels}) encodes "
            f"(N, {in_channels}, H, W). Set in_channels, or check the batch."
        )
    if min(images.shape[2:]) < smallest:
        raise ValueError(
            f"Got images of {images.shape[2]} x {images.shape[3]} pixels: {name} needs {smallest} x {smallest} or "
            "more. Resize them, for example with ImageDataModule(image_size=...)."
        )
