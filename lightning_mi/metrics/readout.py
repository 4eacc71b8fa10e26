"""What a metric takes from a bound: plain data, so that no metric holds the bound's parameters a second time."""

from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.metrics._batches import Batches
from lightning_mi.metrics.moments import Estimate, Mean, batch_moments, read_moments
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_instance

Average = Literal["micro", "macro", "plug-in"]


@final
@dataclass(frozen=True)
class Reading:
    """Which of a bound's terms are averaged over batches, how, and what is subtracted from their sum.

    Attributes:
        name: What is read; readings of the same name keep the same moments.
        terms: Names of :class:`BoundTerms`, one for each mean.
        means: How each of them is averaged.
        constant: Subtracted from the sum; nats.
    """

    name: str
    terms: tuple[str, ...]
    means: tuple[Mean, ...]
    constant: float = 0.0

    def moments(self, terms: BoundTerms, scores: Scores | Batches, dtype: torch.dtype) -> Tensor:
        """(S, K) the moments of S batches, or of one."""
        values = [getattr(terms, name) for name in self.terms]
        return batch_moments(
            self.means,
            values,
            num_joint=scores.num_joint,
            num_marginal=scores.num_marginal,
            dtype=dtype,
            world_size=scores.world_size,
        )

    def estimate(self, moments: Tensor) -> Estimate:
        """The estimate that (K,) moments of all batches give."""
        value, standard_error = read_moments(self.means, moments)
        return Estimate(value - self.constant, standard_error)


def read_mutual_information(bound: AbstractBound, average: Average, target: float = 0.0) -> Reading:
    """How mutual information is read from a bound's terms; see :class:`~lightning_mi.metrics.MutualInformation`.

    Raises:
        TypeError: ``bound`` is not a bound.
        ValueError: The average is none of the three.
    """
    check_instance("bound", bound, AbstractBound, "bounds.DV()")
    if average not in get_args(Average):
        raise ValueError(
            f"Got average={average!r}, but batches are averaged in one of three ways: 'micro' pools the pairs of all "
            "batches, 'macro' takes the mean of the batches' values, 'plug-in' puts the target in the place of the "
            "marginal term."
        )
    if average == "macro":
        return Reading("macro", ("value",), (Mean("batch"),))
    if average == "plug-in":
        constant = -float(bound.plug_in(torch.zeros((), dtype=torch.float64), target))
        return Reading("plug_in", ("joint_term",), (Mean("joint"),), constant)
    if _averages_over_rows(bound):
        # Both terms count by joint pairs, so their difference may be pooled: it keeps digits that two means lose.
        return Reading("micro", ("value",), (Mean("row"),))
    marginal = Mean("marginal", log=bound.marginal_pooling == "log_mean_exp", factor=-1.0)
    return Reading("micro", ("joint_term", "marginal_term"), (Mean("joint"), marginal))


def read_log_normalizer(bound: AbstractBound) -> Reading:
    """How the log-normalizer is read from a bound's terms; see :class:`~lightning_mi.metrics.LogNormalizer`."""
    check_instance("bound", bound, AbstractBound, "bounds.DV()")
    if _averages_over_rows(bound):
        mean = Mean("row")
    else:
        mean = Mean("marginal", log=bound.self_normalized or bound.marginal_pooling == "log_mean_exp")
    return Reading("log_normalizer", ("log_normalizer",), (mean,))


def _averages_over_rows(bound: AbstractBound) -> bool:
    """A bound is capped at log N where it normalizes each row by itself; a row counts once for each joint pair."""
    return bound.capped_at_log_n
