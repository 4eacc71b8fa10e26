"""Hellinger and RPC: objectives that learn the density ratio, with the plug-in estimate as value."""

import math
from typing import ClassVar, Literal, final

from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_cap, check_scores
from lightning_mi.scores.pair_functions import SquaredSigmoid
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_finite, check_positive
from lightning_mi.utilities.numerics import exp_linear


class _AbstractDensityRatio(AbstractBound):
    """Bounds with the value E_P[T]: the mutual information at the optimal critic, neither bound at any other."""

    is_lower_bound: ClassVar[bool] = False
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def marginal_at(self, target: float) -> float:
        """The marginal term is 0: the value is the plug-in estimate."""
        return 0.0


@final
class Hellinger(_AbstractDensityRatio):
    r"""HD-DIME, from the squared Hellinger distance: :math:`2 - E_P[e^{-T/2}] - E_Q[e^{T/2}]`.

    The optimal critic is :math:`T^* = \log r`. The value is the plug-in estimate :math:`E_P[T]`, neither a lower nor an
    upper bound: it is as right as the critic's level. A regularizer holds that level, with log-normalizer
    :math:`\log E_Q[e^T]` and target 0.

    The exponentials are those of half a score, so the tail at marginal pairs is lighter than NWJ's. The objective
    saturates at 2: above about 6 nats its gradient is small. Joint pairs with low scores dominate it; as in NWJ, each
    of the two exponentials is continued linearly above ``cap``, which keeps the optimum, where both are at most 1.

    GAN-DIME is :class:`JS` and KL-DIME is :class:`TUBA` with baseline 1, both read by their plug-in estimate.

    Source: Letizia et al. 2024.

    Args:
        cap: The log of a mean of exponentials above which it is continued linearly, at least 0, nats; None for the
            literal form.

    Raises:
        ValueError: The cap is negative or not finite.

    Example:
        >>> import torch
        >>> Hellinger()(Scores.from_matrix(torch.full((4, 4), 2.0))).value
        tensor(2.)
    """

    def __init__(self, cap: float | None = 1.0) -> None:
        super().__init__()
        check_cap(cap)
        self.cap = cap

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T]."""
        check_scores(scores)
        joint, log_joint, log_marginal, log_normalizer = scores.together(
            lambda s: (s.joint_mean(), s.joint_log_mean_exp(-0.5), s.log_mean_exp(power=0.5), s.log_mean_exp())
        )
        objective = 2 - exp_linear(log_joint, self.cap) - exp_linear(log_marginal, self.cap)
        return _plug_in_terms(joint, objective, log_normalizer)


@final
class RPC(_AbstractDensityRatio):
    r"""Relative predictive coding: a relative chi-squared divergence whose optimal function gives the density ratio.

    .. math:: E_P[f] - \alpha E_Q[f] - \frac{\beta}{2} E_P[f^2] - \frac{\gamma}{2} E_Q[f^2]

    The scores are logits: :math:`f = (e^T - \alpha) / (\beta e^T + \gamma)`, which takes exactly the values from
    :math:`-\alpha / \gamma` to :math:`1 / \beta` that the optimal f can have, so that :math:`T^* = \log r`. With
    :math:`u = \sigma(T - s)`, :math:`s = \log(\gamma / \beta)` and :math:`c = 1 + \alpha \beta / \gamma` the objective
    is

    .. math:: \frac{c^2}{2 \beta} (1 - E_P[(1 - u)^2] - e^s E_Q[u^2]) + \text{constant}

    So it is :class:`NCE` with the Brier score in place of the logistic loss. Its gradient is bounded, and vanishes at
    joint pairs with scores far below s: a critic that starts far below the ratio learns slowly. ``alpha`` changes only
    the scale.

    The value is the plug-in estimate :math:`E_P[T]`, the mean of the log of the ratio, neither a lower nor an upper
    bound. (The mean of f inside the log, as RPC's code reports, is below the mutual information at high MI even with
    the exact ratio.) The objective is a relative chi-squared divergence, not nats of mutual information.

    Source: Tsai et al. 2021.

    Args:
        alpha: The weight of the mean over marginal pairs, at least 0.
        beta: The weight of the squares of joint pairs.
        gamma: The weight of the squares of marginal pairs.

    Raises:
        ValueError: A weight is not finite, ``alpha`` is negative, or another weight is not positive.

    Example:
        >>> import torch
        >>> RPC()(Scores.from_matrix(torch.full((4, 4), 2.0))).value
        tensor(2.)
    """

    def __init__(self, alpha: float = 0.01, beta: float = 0.005, gamma: float = 0.995) -> None:
        super().__init__()
        check_finite("alpha", alpha, "the weight of the mean over marginal pairs")
        if alpha < 0:
            raise ValueError(f"Got alpha={alpha}: the weight of the mean over marginal pairs is at least 0.")
        check_positive("beta", beta, "the weight of the squares of joint pairs")
        check_positive("gamma", gamma, "the weight of the squares of marginal pairs")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T]."""
        check_scores(scores)
        shift = math.log(self.gamma / self.beta)
        u = (scores.joint - shift).sigmoid()
        gain = u * (2 - u)  # 1 - (1 - u)^2, precise for small u
        joint, gain_joint, loss_marginal, log_normalizer = scores.together(
            lambda s: (
                s.joint_mean(),
                s.mean_over_joint(gain),
                s.mean_over_marginal(SquaredSigmoid(shift)),
                s.log_mean_exp(),
            )
        )
        least = self.alpha / self.gamma  # f is above -least
        scale = (1 + least * self.beta) ** 2 / (2 * self.beta)
        constant = self.alpha * least / 2 - least - self.beta * least**2 / 2
        objective = constant + scale * (gain_joint - self.gamma / self.beta * loss_marginal)
        return _plug_in_terms(joint, objective, log_normalizer)


def _plug_in_terms(joint: Tensor, objective: Tensor, log_normalizer: Tensor) -> BoundTerms:
    return BoundTerms(joint, objective, joint, joint.new_zeros(()), log_normalizer)
