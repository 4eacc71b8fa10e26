"""Images with known mutual information: digits of noisy labels, and a map of vectors to images."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from lightning_mi.data.images.datasets import load_digits
from lightning_mi.data.images.sources import MemoryImages
from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.laws.discrete import SymmetricChannel
from lightning_mi.data.laws.maps import AbstractMap
from lightning_mi.utilities.checks import check_finite, check_whole


class _Digits(NamedTuple):
    """The digits of scikit-learn.

    Attributes:
        images: (1797, 1, 8, 8) float64 in [0, 1].
        labels: (1797,) int64.
        by_label: (1797,) indices of the images, sorted by label.
        counts: (10,) images of each label.
    """

    images: Tensor
    labels: Tensor
    by_label: Tensor
    counts: Tensor


@lru_cache(maxsize=1)
def _digits() -> _Digits:
    parts = load_digits()
    assert isinstance(parts.train, MemoryImages)
    assert isinstance(parts.test, MemoryImages)
    images = torch.cat([parts.train.images, parts.test.images]).double() / 255
    labels = torch.cat([parts.train.labels, parts.test.labels])
    return _Digits(images, labels, labels.argsort(stable=True), labels.bincount())


@final
@dataclass(frozen=True)
class DigitChannel(AbstractLaw):
    r"""Handwritten digits x and y, whose labels are input and output of a symmetric channel.

    The label of x is uniform; that of y is the same or, with probability e, one of the nine others. Both images are
    drawn from the digits of scikit-learn with these labels, independently given the labels. No image occurs with two
    labels, so an image determines its label, and the MI of the images is that of the labels:

    .. math:: I = \ln 10 - H_b(e) - e \ln 9

    Samples are images (n, 1, 8, 8), float64 in [0, 1]. With ``y_is_label``, y is the label itself, (n,) int64. The
    log-ratio takes the label of the nearest digit, which is exact for samples of this law.

    Args:
        error: e, from 0 to 1.
        y_is_label: Whether y is the label instead of an image.

    Raises:
        TypeError: If ``error`` is not a number.
        ValueError: If it is out of range.

    Source: Alpaydin and Kaynak 1998; Choi and Lee 2022 (images of equal labels).

    Example:
        >>> DigitChannel(error=0.0).true_mi  # log 10
        2.3026
    """

    error: float = 0.1
    y_is_label: bool = False

    def __post_init__(self) -> None:
        SymmetricChannel(10, self.error)  # raises for a wrong probability

    @property
    def true_mi(self) -> float:
        """I(x; y) in nats."""
        return self._channel.true_mi

    @property
    def num_y_labels(self) -> int | None:
        """10 if y is labels."""
        return 10 if self.y_is_label else None

    @property
    def exchangeable(self) -> bool:
        """Whether both sides are images."""
        return not self.y_is_label

    def describe(self) -> str:
        """One line of plain text."""
        return f"digits x and {'labels' if self.y_is_label else 'digits'} y of a channel with error {self.error:g}"

    @property
    def _channel(self) -> SymmetricChannel:
        return SymmetricChannel(10, self.error)

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        label_x, label_y = self._channel.sample(n, generator)
        x = _draw_images(label_x, generator)
        return x, label_y if self.y_is_label else _draw_images(label_y, generator)

    def _log_ratio(self, x: Tensor, y: Tensor) -> Tensor:
        return self._channel.log_ratio(_nearest_label(x), y if self.y_is_label else _nearest_label(y))

    def _log_ratio_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return self._channel.log_ratio_matrix(_nearest_label(x), y if self.y_is_label else _nearest_label(y))


def _draw_images(labels: Tensor, generator: torch.Generator) -> Tensor:
    digits = _digits()
    uniform = torch.rand(len(labels), generator=generator, dtype=torch.float64)
    position = (uniform * digits.counts[labels]).long()  # uniform is below 1
    first = digits.counts.cumsum(0) - digits.counts
    return digits.images[digits.by_label[first[labels] + position]]


def _nearest_label(images: Tensor) -> Tensor:
    digits = _digits()
    distance = torch.cdist(images.double().flatten(1), digits.images.flatten(1).to(images.device))
    return digits.labels.to(images.device)[distance.argmin(dim=1)]


@final
@dataclass(frozen=True)
class Plasma(AbstractMap):
    r"""Render vectors (n, K) as images (n, 1, S, S) of smooth clouds, injectively.

    The coordinates are the coefficients of the K cosine waves of lowest frequency, with amplitudes
    :math:`(1 + f^2)^{-d/2}` at frequency f. The sum passes a sigmoid, so pixels are in (0, 1). Standard normal
    coordinates give sums with variance 1, averaged over the pixels. The inverse is a logit and a projection on the
    waves.

    Args:
        num_modes: K, the dimension of the vectors, at most S squared.
        size: S, the side of the image, at least 2.
        decay: d; a larger one gives smoother images.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range; in use, if vectors have another dimension.

    Source: Ahmed et al. 1974 (cosine waves).

    Example:
        >>> plasma = Plasma(num_modes=5, size=8)
        >>> images = plasma.forward(torch.ones(2, 5).double())
        >>> images.shape, plasma.inverse(images)[0]
        (torch.Size([2, 1, 8, 8]), tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000], dtype=torch.float64))
    """

    num_modes: int = 5
    size: int = 16
    decay: float = 1.0

    def __post_init__(self) -> None:
        check_whole("num_modes", self.num_modes, 1)
        check_whole("size", self.size, 2)
        check_finite("decay", self.decay, "the exponent of the amplitudes")
        if self.num_modes > self.size**2:
            raise ValueError(
                f"Got num_modes={self.num_modes} and size={self.size}: an image has {self.size**2} pixels, so more "
                "coordinates cannot be read from it. Raise size."
            )

    def forward(self, value: Tensor) -> Tensor:
        """(n, 1, S, S) images."""
        if value.ndim != 2 or value.shape[1] != self.num_modes:
            raise ValueError(
                f"Got vectors of shape {tuple(value.shape)}: Plasma with num_modes={self.num_modes} takes the shape "
                f"(n, {self.num_modes})."
            )
        return torch.sigmoid(value @ self._waves.to(value)).reshape(-1, 1, self.size, self.size)

    def inverse(self, value: Tensor) -> Tensor:
        """(n, K) float64 coordinates."""
        info = torch.finfo(value.dtype)
        # Rounding a pixel to a shorter dtype may give 0 or 1, whose logit is infinite.
        field = torch.logit(value.clamp(info.tiny, 1 - info.eps / 2).double()).flatten(1)
        waves = self._waves.to(field)
        return field @ waves.T / waves.square().sum(1)  # the waves are orthogonal

    @cached_property
    def _waves(self) -> Tensor:
        """(K, S * S) orthogonal waves with their amplitudes."""
        sites = (torch.arange(self.size, dtype=torch.float64) + 0.5) * math.pi / self.size
        wave = torch.cos(torch.arange(self.size, dtype=torch.float64).unsqueeze(1) * sites)
        wave = wave / wave.norm(dim=1, keepdim=True)
        frequencies = sorted((i * i + j * j, i, j) for i in range(self.size) for j in range(self.size))
        chosen = frequencies[: self.num_modes]
        waves = torch.stack([torch.outer(wave[i], wave[j]).flatten() for _, i, j in chosen])
        squares = torch.tensor([square for square, _, _ in chosen], dtype=torch.float64)
        amplitudes = (1 + squares).pow(-self.decay / 2)
        # Each wave has the mean square 1 / S^2 over the pixels.
        scaled: Tensor = waves * (self.size * amplitudes / amplitudes.norm()).unsqueeze(1)
        return scaled
