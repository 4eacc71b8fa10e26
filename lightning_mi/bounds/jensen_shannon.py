"""JS: a critic trained to classify joint and marginal pairs, with a lower bound as its value."""

import math
from typing import ClassVar, Literal, final

from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores, self_normalized_terms
from lightning_mi.scores.scores import Scores


def gan_objective(scores: Scores) -> Tensor:
    r"""The Jensen-Shannon objective :math:`-E_P[\mathrm{softplus}(-T)] - E_Q[\mathrm{softplus}(T)]`; a scalar, nats.

    Its maximum is at :math:`T^* = \log r`, with r the density ratio p(x, y) / (p(x) p(y)).

    Args:
        scores: Scores of a batch.

    Source: Nowozin et al. 2016; Hjelm et al. 2019.

    Example:
        >>> import torch
        >>> gan_objective(Scores.from_matrix(torch.zeros(4, 4)))  # -2 log 2
        tensor(-1.3863)
    """
    joint, marginal = scores.together(gan_means)
    return -joint - marginal


def gan_means(scores: Scores, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """E_P[softplus(shift - T)] and E_Q[softplus(T - shift)]."""
    return scores.joint_mean_softplus(shift), scores.mean_softplus(shift)


@final
class JS(AbstractBound):
    r"""The Jensen-Shannon critic with NWJ's value at T + 1: :math:`1 + E_P[T] - E_Q[e^T]`.

    Training maximizes :func:`gan_objective`, whose gradient is bounded. At its optimal critic the value equals the
    mutual information.

    Source: Poole et al. 2019; Choi and Lee 2022.

    Example:
        >>> import torch
        >>> JS()(Scores.from_matrix(torch.zeros(4, 4))).value
        tensor(0.)
    """

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T]."""
        check_scores(scores)
        softplus_joint, softplus_marginal, joint, log_normalizer = scores.together(
            lambda s: (*gan_means(s), s.joint_mean(), s.log_mean_exp())
        )
        terms = self_normalized_terms(1 + joint, log_normalizer, cap=None)
        return terms._replace(objective=-softplus_joint - softplus_marginal)

    def marginal_at(self, target: float) -> float:
        """The marginal term is the exponential of the log-normalizer."""
        return math.exp(target)
