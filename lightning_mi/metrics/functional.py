"""The metrics as pure functions. The metric classes store the moments of many batches and call the same code."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.bounds import jensen_shannon_limit as limit_of
from lightning_mi.metrics._buffer import Batches
from lightning_mi.metrics.linear_probe import linear_probe_accuracy
from lightning_mi.metrics.moments import (
    Estimate,
    Mean,
    batch_moments,
    merge_moments,
    moments_dtype,
    no_moments,
    read_moments,
)
from lightning_mi.metrics.nearest_neighbor import nearest_neighbor_accuracy
from lightning_mi.metrics.readout import Average, Readout, log_normalizer_readout, mutual_information_readout
from lightning_mi.scores.scores import Scores

__all__ = [
    "effective_sample_fraction",
    "jensen_shannon_limit",
    "linear_probe_accuracy",
    "log_normalizer",
    "mutual_information",
    "nearest_neighbor_accuracy",
]

# log of the effective sample fraction: twice the log of the mean weight minus the log of the mean squared weight
# minus the objective of JS
_LOGISTIC_MEANS = (Mean("joint", factor=-1.0), Mean("marginal", factor=-1.0))
_FRACTION_MEANS = (Mean("marginal", log=True, factor=2.0), Mean("marginal", log=True, factor=-1.0))


def mutual_information(
    bound: AbstractBound, batches: Iterable[Scores], *, average: Average = "micro", target: float = 0.0
) -> Estimate:
    """Mutual information over batches of scores, as defined by :class:`~lightning_mi.metrics.MutualInformation`.

    Args:
        bound: Evaluated without gradient; its state does not change.
        batches: One :class:`Scores` a batch.
        average: ``"micro"``, ``"macro"`` or ``"plug-in"``.
        target: The log-normalizer's target, nats; for plug-in only.

    Returns:
        The estimate and its standard error (delta method), nats, float64.

    Raises:
        ValueError: There is no batch, or the average is unknown.

    Source: Choi and Lee 2022.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> batches = [Scores.from_matrix(torch.eye(4)), Scores.from_matrix(3 * torch.eye(4))]
        >>> mutual_information(DV(), batches)
        Estimate(value=tensor(2., dtype=torch.float64), standard_error=tensor(1., dtype=torch.float64))
    """
    return _estimate(mutual_information_readout(bound, average, target), bound, batches)


def log_normalizer(bound: AbstractBound, batches: Iterable[Scores]) -> Estimate:
    """The log-normalizer over batches of scores, as defined by :class:`~lightning_mi.metrics.LogNormalizer`.

    Args:
        bound: Evaluated without gradient; its state does not change.
        batches: One :class:`Scores` a batch.

    Returns:
        The log-normalizer and its standard error, nats, float64.

    Raises:
        ValueError: There is no batch.

    Source: Choi and Lee 2022.

    Example:
        >>> from lightning_mi.bounds import DV
        >>> log_normalizer(DV(), [Scores.from_matrix(torch.ones(4, 4))]).value
        tensor(1., dtype=torch.float64)
    """
    return _estimate(log_normalizer_readout(bound), bound, batches)


def effective_sample_fraction(scores: Scores) -> Tensor:
    """The effective sample size of E_Q[e^T], divided by the number of marginal pairs, of one batch.

    Defined by :class:`~lightning_mi.metrics.EffectiveSampleFraction`.

    Args:
        scores: One batch.

    Returns:
        A scalar in (0, 1], float64.

    Source: Kong 1992; Owen 2013, section 9.3.

    Example:
        >>> effective_sample_fraction(Scores.from_samples(torch.zeros(1), torch.tensor([9.0, -99.0, -99.0, -99.0])))
        tensor(0.2500, dtype=torch.float64)
    """
    return fraction_from_moments(fraction_moments(scores, moments_dtype(scores.joint.device)).squeeze(0))


def fraction_moments(scores: Scores | Batches, dtype: torch.dtype) -> Tensor:
    """(S, K) the moments for :func:`fraction_from_moments`, of the pairs of this rank in S batches."""
    local = scores.local()
    return batch_moments(
        _FRACTION_MEANS,
        (local.log_mean_exp(), local.log_mean_exp(power=2.0)),
        joint_weight=local.joint_weight,
        num_marginal=local.num_marginal,
        dtype=dtype,
    )


def fraction_from_moments(moments: Tensor) -> Tensor:
    """The effective sample fraction from (K,) moments of all batches."""
    return read_moments(_FRACTION_MEANS, moments).value.exp()


def jensen_shannon_limit(batches: Iterable[Scores]) -> Estimate:
    """A lower limit of the mutual information, as defined by :class:`~lightning_mi.metrics.JensenShannonLimit`.

    Args:
        batches: One :class:`Scores` a batch.

    Returns:
        The limit and its standard error (delta method), nats, float64.

    Raises:
        ValueError: There is no batch.

    Source: Dorent et al. 2025.

    Example:
        >>> jensen_shannon_limit([Scores.from_matrix(2 * torch.eye(4) - 1)]).value
        tensor(1.3838, dtype=torch.float64)
    """
    return limit_from_moments(_merge(limit_moments, batches))


@torch.no_grad()
def limit_moments(scores: Scores, dtype: torch.dtype) -> Tensor:
    """(1, K) the moments for :func:`limit_from_moments`, of the pairs of this rank in one batch."""
    local = scores.local()
    return batch_moments(
        _LOGISTIC_MEANS,
        (local.joint_mean_softplus(), local.mean_softplus()),
        joint_weight=local.joint_weight,
        num_marginal=local.num_marginal,
        dtype=dtype,
    )


def limit_from_moments(moments: Tensor) -> Estimate:
    """The Jensen-Shannon limit from (K,) moments of all batches."""
    objective, standard_error = read_moments(_LOGISTIC_MEANS, moments)
    value, slope = limit_of(objective)
    return Estimate(value, standard_error * slope)


def _estimate(readout: Readout, bound: AbstractBound, batches: Iterable[Scores]) -> Estimate:
    return readout.estimate(_merge(lambda scores, dtype: readout.moments(bound(scores), scores, dtype), batches))


@torch.no_grad()
def _merge(moments_of: Callable[[Scores, torch.dtype], Tensor], batches: Iterable[Scores]) -> Tensor:
    """(K,) the moments of all batches."""
    moments: Tensor | None = None
    for scores in batches:
        moments = no_moments(scores.joint.device) if moments is None else moments
        moments = merge_moments(torch.cat([moments.unsqueeze(0), moments_of(scores, moments.dtype)]))
    if moments is None:
        raise ValueError(
            "Got no batch of scores: there is nothing to average. An iterator gives its batches only once."
        )
    return moments
