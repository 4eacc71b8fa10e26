"""NWJ, TUBA and JS as in Choi and Lee's released code, which differs from the printed method.

Use them to reproduce published numbers; otherwise prefer NWJ, TUBA and JS.
"""

import math
from typing import ClassVar, Literal, final

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.bounds.jensen_shannon import gan_means
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_positive
from lightning_mi.utilities.numerics import exp_linear


class _AbstractClipped(AbstractBound):
    """The value of a clipped critic; the log-normalizer is not clipped."""

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"
    shift: ClassVar[float]

    def __init__(self, clip: float = 10.0) -> None:
        super().__init__()
        check_positive("clip", clip, "the clamp of scores, in nats")
        self.clip = clip

    def terms(self, scores: Scores) -> BoundTerms:
        """The value with clipped scores, the log-normalizer without."""
        check_scores(scores)
        joint, marginal, log_normalizer = scores.together(
            lambda s: (s.joint_mean(clip=self.clip), s.log_mean_exp(clip=self.clip), s.log_mean_exp())
        )
        joint, marginal = 1 - self.shift + joint, exp_linear(marginal - self.shift, None)
        value = joint - marginal
        return BoundTerms(value, value, joint, marginal, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """The marginal term at log E_Q[e^T] = target."""
        return math.exp(target - self.shift)


@final
class ReleasedNWJ(_AbstractClipped):
    """NWJ with clipped joint and marginal scores, and with the unclipped log E_Q[e^T] as log-normalizer.

    At NWJ's optimum this log-normalizer is 1, but a regularizer's target is 0: with weight 1 the regularized optimum is
    0.217 nats too low, with weight 0.1 it is 0.015 too low.

    Source: Choi and Lee 2022, released code.

    Args:
        clip: Scores are clamped to [-clip, clip] in the value and the objective.

    Raises:
        ValueError: The clip is not positive.

    Example:
        >>> import torch
        >>> ReleasedNWJ()(Scores.from_matrix(torch.zeros(4, 4))).log_normalizer
        tensor(0.)
    """

    shift: ClassVar[float] = 1.0


@final
class ReleasedTUBA(_AbstractClipped):
    """TUBA with baseline 1 and with clipped joint and marginal scores; the log-normalizer is not clipped.

    Source: Choi and Lee 2022, released code.

    Args:
        clip: Scores are clamped to [-clip, clip] in the value and the objective.

    Raises:
        ValueError: The clip is not positive.

    Example:
        >>> import torch
        >>> ReleasedTUBA()(Scores.from_matrix(torch.zeros(4, 4))).value
        tensor(0.)
    """

    shift: ClassVar[float] = 0.0


@final
class ReleasedJS(AbstractBound):
    """JS with NWJ's value at T instead of T + 1, E_P[T] - E_Q[e^(T-1)]: a perfect critic gives I - 1/e.

    Its log-normalizer is E_Q[softplus(T)]. The released code sets the target 0 on the Gaussian task and 1 on CIFAR. The
    plug-in estimate does not depend on the target.

    Source: Choi and Lee 2022, released code.

    Example:
        >>> import torch
        >>> ReleasedJS()(Scores.from_matrix(torch.zeros(4, 4))).value  # -1/e
        tensor(-0.3679)
    """

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is E_Q[softplus(T)]."""
        check_scores(scores)
        softplus_joint, log_normalizer, joint, marginal = scores.together(
            lambda s: (*gan_means(s), s.joint_mean(), s.log_mean_exp())
        )
        marginal = exp_linear(marginal - 1, None)
        return BoundTerms(joint - marginal, -softplus_joint - log_normalizer, joint, marginal, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """E_Q[e^(T-1)] of a perfect critic, for any target."""
        return math.exp(-1)
