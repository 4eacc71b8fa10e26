"""InnerProductCritic: the inner product of two representations."""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_mi.critics.base import AbstractCritic, check_shapes
from lightning_mi.scores.tiles import ProductTiles
from lightning_mi.utilities.checks import check_number, check_positive


@final
class InnerProductCritic(AbstractCritic):
    r"""Inner product :math:`T(x, y) = x \cdot y / \tau`, for representations in one space.

    By default it has no parameters. A learnable temperature is stored as its logarithm, ``log_temperature``, which the
    optimizer trains with the other parameters. It starts at ``temperature`` and, in training, is set to the logarithm
    of ``min_temperature`` at the start of a forward pass if an optimizer step moved it below. So it is the same on
    every rank, and a gradient can raise it again. After the last optimizer step it may be below the minimum;
    :attr:`temperature` is not.

    Another critic gets a learnable scale from :class:`CalibratedCritic`, which initializes it from the first batch.

    Source: Choi and Lee 2022 (plain); Chen et al. 2020 (normalized, with a temperature); Radford et al. 2021 (learnable
    temperature of at least 0.01).

    Args:
        normalize: Scale x and y to unit length first, so that scores are cosines.
        temperature: Divides the scores; its initial value if it is learnable.
        scaled: Divide the scores by sqrt(D) as well, which keeps their variance the same at any width D.
        learnable: Learn the temperature.
        min_temperature: Minimum of a learnable temperature; none by default.

    Attributes:
        log_temperature: Scalar parameter, the logarithm of the temperature; None if it is constant.

    Raises:
        TypeError: A temperature is not a number; in use, x differs in dtype from a learnable temperature.
        ValueError: A temperature is not positive, the minimum exceeds the temperature or is given for a constant one;
            in use, x and y differ in width.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> InnerProductCritic().paired(x, x), InnerProductCritic(normalize=True, temperature=0.5).paired(x, x)
        (tensor([25.]), tensor([2.]))
        >>> critic = InnerProductCritic(normalize=True, temperature=0.07, learnable=True, min_temperature=0.01)
        >>> critic.temperature
        0.07
    """

    def __init__(
        self,
        *,
        normalize: bool = False,
        temperature: float = 1.0,
        scaled: bool = False,
        learnable: bool = False,
        min_temperature: float | None = None,
    ) -> None:
        super().__init__()
        check_number("temperature", temperature, "which divides the scores")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Got temperature={temperature}: it divides the scores. Choose a positive number.")
        if min_temperature is not None:
            _check_minimum(min_temperature, temperature, learnable)
        self.normalize = normalize
        self.scaled = scaled
        self.min_temperature = min_temperature
        self._temperature = 1.0 if learnable else temperature  # a setting, as far as it is constant
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learnable else None

    @property
    def temperature(self) -> float:
        """The current temperature; if it is learnable, reading it needs a host-device sync."""
        if self.log_temperature is None:
            return self._temperature
        temperature = self.log_temperature.detach().cpu().double().exp().item()
        return temperature if self.min_temperature is None else max(temperature, self.min_temperature)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        x, y = self._prepare(x, y)
        return (x * y).sum(-1)

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self.tiles(x, y).matrix()

    def tiles(self, x: Tensor, y: Tensor) -> ProductTiles:
        """Inner products of x and y, normalized and scaled."""
        return ProductTiles(*self._prepare(x, y))

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        check_shapes(x, y, None, None, self.log_temperature)
        if self.normalize:
            x, y = normalize(x, dim=-1), normalize(y, dim=-1)
        scale = math.sqrt(x.shape[-1]) if self.scaled else 1.0
        if self.log_temperature is not None:
            return x * ((-self._clamped(self.log_temperature)).exp() / scale), y
        factor = 1 / (self._temperature * scale)
        return (x if factor == 1.0 else x * factor), y

    def _clamped(self, log_temperature: nn.Parameter) -> Tensor:
        """The logarithm of the temperature, at least that of the minimum."""
        if self.min_temperature is None:
            return log_temperature
        minimum = math.log(self.min_temperature)
        if not self.training:
            return log_temperature.clamp(min=minimum)
        # In place, as after each optimizer step: a clamp in the graph has a gradient of 0 below the minimum, and the
        # temperature would never rise again. Autograd saves the exponential and not the parameter.
        with torch.no_grad():
            log_temperature.copy_(log_temperature.clamp(min=minimum))  # torch.vmap has no clamp_
        return log_temperature


def _check_minimum(minimum: float, temperature: float, learnable: bool) -> None:
    check_positive("min_temperature", minimum, "the minimum of a learnable temperature")
    if not learnable:
        raise ValueError(
            f"Got min_temperature={minimum} for a constant temperature: only a learnable one has a minimum. Set "
            "learnable=True, or leave it out."
        )
    if minimum > temperature:
        raise ValueError(
            f"Got min_temperature={minimum} above temperature={temperature}: training starts at the temperature. Lower "
            "the minimum, or raise the temperature."
        )
