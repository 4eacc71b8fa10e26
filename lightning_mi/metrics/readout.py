"""Readout: how a metric averages a bound's terms. Plain data: metrics store no copy of the bound's parameters."""

from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.metrics._buffer import Batches
from lightning_mi.metrics.moments import Estimate, Mean, batch_moments, read_moments
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_choice, check_instance

Average = Literal["micro", "macro", "plug-in"]


@final
@dataclass(frozen=True)
class Readout:
    """A sum of means of a bound's terms over batches, minus a constant.

    Attributes:
        name: Readouts of the same name have the same moments.
        terms: Names of :class:`BoundTerms`, one for each mean.
        means: The mean of each term: its weight and its factor in the sum.
        constant: Subtracted from the sum; nats.
    """

    name: str
    terms: tuple[str, ...]
    means: tuple[Mean, ...]
    constant: float = 0.0

    def moments(self, terms: BoundTerms, scores: Scores | Batches, dtype: torch.dtype) -> Tensor:
        """(S, K) the moments of S batches, or of one."""
        return batch_moments(
            self.means,
            [getattr(terms, name) for name in self.terms],
            joint_weight=scores.joint_weight,
            num_marginal=scores.num_marginal,
            dtype=dtype,
            world_size=scores.world_size,
        )

    def estimate(self, moments: Tensor) -> Estimate:
        """The estimate from (K,) moments of all batches."""
        value, standard_error = read_moments(self.means, moments)
        return Estimate(value - self.constant, standard_error)


def mutual_information_readout(bound: AbstractBound, average: Average, target: float = 0.0) -> Readout:
    """The readout of :class:`~lightning_mi.metrics.MutualInformation`.

    Raises:
        TypeError: ``bound`` is not a bound.
        ValueError: The average is unknown.
    """
    check_instance("bound", bound, AbstractBound, "bounds.DV()")
    check_choice("average", average, get_args(Average))
    if average == "macro":
        return Readout("macro", ("value",), (Mean("batch"),))
    if average == "plug-in":
        constant = -float(bound.plug_in(torch.zeros((), dtype=torch.float64), target))
        return Readout("plug_in", ("joint_term",), (Mean("joint"),), constant)
    if bound.normalized_by_row:
        # Both terms have the weight of a row, so their difference is averaged. This is more precise
        # than the difference of two means of large terms.
        return Readout("micro", ("value",), (Mean("row"),))
    marginal = Mean("marginal", log=bound.marginal_pooling == "log_mean_exp", factor=-1.0)
    return Readout("micro", ("joint_term", "marginal_term"), (Mean("joint"), marginal))


def log_normalizer_readout(bound: AbstractBound) -> Readout:
    """The readout of :class:`~lightning_mi.metrics.LogNormalizer`.

    Raises:
        TypeError: ``bound`` is not a bound.
    """
    check_instance("bound", bound, AbstractBound, "bounds.DV()")
    if bound.normalized_by_row:
        mean = Mean("row")
    else:
        mean = Mean("marginal", log=bound.self_normalized or bound.marginal_pooling == "log_mean_exp")
    return Readout("log_normalizer", ("log_normalizer",), (mean,))
