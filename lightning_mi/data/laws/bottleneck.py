r"""The information bottleneck of a Gaussian, in closed form.

For jointly Gaussian x and y the optimal representation z is a noisy linear map of x: the canonical variables of x, each
with its own noise. With the canonical correlations :math:`\rho_i` the optimum of :math:`I(Z; Y) - \beta \, I(X; Z)` is

.. math:: I(X; Z) = \frac{1}{2} \sum_i \ln \frac{(1 - \beta) \rho_i^2}{\beta (1 - \rho_i^2)}, \quad
    I(Z; Y) = I(X; Z) - \frac{1}{2} \sum_i \ln \frac{\rho_i^2}{\beta}

over the i with :math:`\rho_i^2 > \beta`. The source writes :math:`1 / \beta` for the weight of the other term.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_mi.data.laws.abstract_gaussian import AbstractGaussian
from lightning_mi.utilities.checks import check_finite


class BottleneckPoint(NamedTuple):
    """The result of :func:`gaussian_bottleneck`: a point of the information-bottleneck curve, nats.

    Attributes:
        rate: I(X; Z), the information kept on x.
        relevance: I(Z; Y), the highest at this rate.
    """

    rate: float
    relevance: float


def canonical_correlations(law: AbstractGaussian) -> Tensor:
    """(min(Dx, Dy),) float64 canonical correlations of x and y, in descending order.

    Args:
        law: A Gaussian law.

    Source: Hotelling 1936.

    Example:
        >>> from lightning_mi.data.laws import GaussianPairs
        >>> canonical_correlations(GaussianPairs(dim=2, rho=0.5))
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    covariance, dim_x = law.covariance_matrix(), law.sides[0]
    white_x, white_y = (
        torch.linalg.inv(torch.linalg.cholesky(block))
        for block in (covariance[:dim_x, :dim_x], covariance[dim_x:, dim_x:])
    )
    correlations: Tensor = torch.linalg.svdvals(white_x @ covariance[:dim_x, dim_x:] @ white_y.T)
    return correlations


def gaussian_bottleneck(law: AbstractGaussian, beta: float) -> BottleneckPoint:
    r"""The optimum of :math:`I(Z; Y) - \beta \, I(X; Z)` over all representations z of x.

    Args:
        law: A Gaussian law.
        beta: The weight of the rate, between 0 and 1; VIB's. For CEB's weight b it is b / (1 + b).

    Returns:
        Rate and relevance; both are 0 if beta is not below the largest squared canonical correlation.

    Raises:
        TypeError: The weight is not a number.
        ValueError: The weight is not between 0 and 1.

    Source: Chechik et al. 2005.

    Example:
        >>> from lightning_mi.data.laws import GaussianPairs
        >>> gaussian_bottleneck(GaussianPairs(dim=1, rho=0.9), beta=0.2)
        BottleneckPoint(rate=1.4182, relevance=0.7188)
    """
    check_finite("beta", beta, "the weight of the rate")
    if not 0 < beta < 1:
        raise ValueError(
            f"Got beta={beta}: it is between 0 and 1. At 0 the rate is unlimited, and from 1 on the optimum is 0."
        )
    squares = canonical_correlations(law).square()
    squares = squares[squares > beta]
    rate = 0.5 * float(((1 - beta) * squares / (beta * (1 - squares))).log().sum())
    return BottleneckPoint(rate, rate - 0.5 * float((squares / beta).log().sum()))


def gaussian_bottleneck_at(law: AbstractGaussian, rate: float) -> BottleneckPoint:
    """The point of the curve with this rate: the highest I(Z; Y) of any representation z of x with I(X; Z) = rate.

    Args:
        law: A Gaussian law with dependent x and y.
        rate: I(X; Z), nats, at least 0.

    Raises:
        TypeError: The rate is not a number.
        ValueError: The rate is negative or not finite, or x and y are independent.

    Source: Chechik et al. 2005.

    Example:
        >>> from lightning_mi.data.laws import GaussianPairs
        >>> gaussian_bottleneck_at(GaussianPairs(dim=1, rho=0.9), rate=100.0).relevance  # I(X; Y)
        0.8304
    """
    check_finite("rate", rate, "I(X; Z) in nats")
    if rate < 0:
        raise ValueError(f"Got rate={rate}: I(X; Z) is at least 0.")
    squares = canonical_correlations(law).square()
    squares = squares[squares > 1e-12]  # rounding of a zero
    if len(squares) == 0:
        raise ValueError(f"Got {law.describe()}: x and y are independent, so no representation of x tells of y.")
    # The sum of log(r / (1 - r)) over the first n, plus n log((1 - beta) / beta), is twice the rate. The n-th variable
    # enters at beta = r_n, so the right n is the last with r_n > beta.
    logits = squares.logit()
    counts = torch.arange(1, len(squares) + 1, dtype=torch.float64)
    logit_beta = (logits.cumsum(0) - 2 * rate) / counts
    active = int((logits > logit_beta).sum())
    if active == 0:
        return BottleneckPoint(rate, 0.0)
    log_beta = torch.nn.functional.logsigmoid(logit_beta[active - 1])
    return BottleneckPoint(rate, rate - 0.5 * float((squares[:active].log() - log_beta).sum()))
