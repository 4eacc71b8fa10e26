"""Mutual information and exact log-ratio of correlated Gaussian pairs, as pure functions.

The log-ratio log p(x, y) / (p(x) p(y)), in nats, is the optimal critic of the bounds: an oracle to test them with.
"""

import math

import torch
from torch import Tensor


def gaussian_rho(mi: float, dim: int) -> float:
    r"""Correlation at which ``dim`` independent Gaussian pairs have a mutual information of ``mi`` nats.

    .. math:: \rho = \sqrt{1 - e^{-2 I / d}}

    Args:
        mi: Mutual information I in nats, at least 0.
        dim: Number of pairs d, at least 1.

    Returns:
        A number in [0, 1).

    Raises:
        ValueError: If ``mi`` is negative, not finite, or so large that the correlation rounds to 1; if ``dim`` < 1.

    Source: Belghazi et al. 2018 (Gaussian benchmark); Choi and Lee 2022.

    Example:
        >>> gaussian_rho(2.0, dim=20)
        0.4257
    """
    _check_dim(dim)
    if not (math.isfinite(mi) and mi >= 0):
        raise ValueError(f"Got mi={mi}: a mutual information in nats is finite and at least 0.")
    rho = math.sqrt(-math.expm1(-2 * mi / dim))
    if rho >= 1:
        raise ValueError(
            f"Got mi={mi} and dim={dim}: the correlation rounds to 1, where y is a function of x. Stay below about 18 "
            "nats for each dimension: lower mi or raise dim."
        )
    return rho


def gaussian_mi(rho: float, dim: int) -> float:
    r"""Mutual information, in nats, of ``dim`` independent Gaussian pairs with correlation ``rho``.

    .. math:: I = -\frac{d}{2} \ln(1 - \rho^2)

    Args:
        rho: Correlation, strictly between -1 and 1.
        dim: Number of pairs d, at least 1.

    Raises:
        ValueError: If ``rho`` is outside (-1, 1) or ``dim`` < 1.

    Source: Cover and Thomas 2006, chapter 8 (entropy of a Gaussian).

    Example:
        >>> gaussian_mi(gaussian_rho(2.0, dim=20), dim=20)
        2.0
    """
    _check_dim(dim)
    _check_rho(rho)
    return -0.5 * dim * math.log1p(-rho * rho) + 0.0  # + 0.0: no "-0.0" for independent pairs


def gaussian_log_ratio(x: Tensor, y: Tensor, rho: float) -> Tensor:
    r"""Exact log-ratio of each pair.

    .. math:: -\frac{d}{2} \ln(1 - \rho^2) + \frac{|y|^2}{2} - \frac{|y - \rho x|^2}{2 (1 - \rho^2)}

    Args:
        x: (N, D) standard normal coordinates.
        y: (N, D) standard normal coordinates, each correlated with that of ``x``.
        rho: Correlation, strictly between -1 and 1.

    Returns:
        (N,) nats, in the inputs' dtype.

    Raises:
        ValueError: If ``rho`` is outside (-1, 1), or the shapes are not (N, D) twice.

    Example:
        >>> gaussian_log_ratio(torch.zeros(1, 2), torch.zeros(1, 2), rho=0.5)
        tensor([0.2877])
    """
    _check_rho(rho)
    _check_shapes(x, y, paired=True)
    # log N(y; rho x, 1 - rho^2) - log N(y; 0, 1) as a difference of squares: exact for rho close to 1.
    noise_variance = 1 - rho * rho
    exponent = y.square() - (y - rho * x).square() / noise_variance
    return 0.5 * exponent.sum(1) - 0.5 * x.shape[1] * math.log(noise_variance)


def gaussian_log_ratio_matrix(x: Tensor, y: Tensor, rho: float) -> Tensor:
    """Exact log-ratio of every x with every y; its diagonal is :func:`gaussian_log_ratio`.

    Args:
        x: (N, D) standard normal coordinates.
        y: (M, D) standard normal coordinates.
        rho: Correlation, strictly between -1 and 1.

    Returns:
        (N, M) nats, in the inputs' dtype.

    Raises:
        ValueError: If ``rho`` is outside (-1, 1), or the shapes are not (N, D) and (M, D).

    Example:
        >>> gaussian_log_ratio_matrix(torch.zeros(2, 2), torch.zeros(3, 2), rho=0.5).shape
        torch.Size([2, 3])
    """
    _check_rho(rho)
    _check_shapes(x, y, paired=False)
    noise_variance = 1 - rho * rho
    # cdist: the expanded product x @ y.T cancels for rho close to 1, and all differences need N M D numbers.
    distance = torch.cdist(rho * x, y, compute_mode="donot_use_mm_for_euclid_dist")
    exponent = y.square().sum(1) - distance.square() / noise_variance
    return 0.5 * exponent - 0.5 * x.shape[1] * math.log(noise_variance)


def _check_dim(dim: int) -> None:
    if dim < 1:
        raise ValueError(f"Got dim={dim}: a law has at least one pair of coordinates.")


def _check_rho(rho: float) -> None:
    if not -1 < rho < 1:
        raise ValueError(f"Got rho={rho}: the mutual information is finite only for correlations inside (-1, 1).")


def _check_shapes(x: Tensor, y: Tensor, *, paired: bool) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or (paired and x.shape[0] != y.shape[0]):
        expected = "(N, D) and (N, D)" if paired else "(N, D) and (M, D)"
        raise ValueError(
            f"Got x and y of shapes {tuple(x.shape)} and {tuple(y.shape)}: the log-ratio needs {expected}."
        )
