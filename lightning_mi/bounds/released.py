"""NWJ, TUBA and JS as Choi and Lee's released code has them, which departs from the printed method.

They are here so that published numbers can be repeated and told apart; prefer the forms without the prefix.
"""

import math
from typing import ClassVar, Literal, final

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.bounds.jensen_shannon import gan_means
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_number
from lightning_mi.utilities.numerics import exp_linear


class _AbstractClipped(AbstractBound):
    """Scores clipped in the value, which is the bound of a clipped critic; unclipped in the log-normalizer."""

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"
    shift: ClassVar[float]

    def __init__(self, clip: float = 10.0) -> None:
        super().__init__()
        check_number("clip", clip, "the clamp of scores, in nats")
        if not (clip > 0 and math.isfinite(clip)):
            raise ValueError(f"Got clip={clip}: scores are clamped to [-clip, clip], so it is a positive number.")
        self.clip = clip

    def terms(self, scores: Scores) -> BoundTerms:
        """The value clips, the log-normalizer does not."""
        check_scores(scores)
        joint, marginal, log_normalizer = scores.together(
            lambda own: (own.joint_mean(clip=self.clip), own.log_mean_exp(clip=self.clip), own.log_mean_exp())
        )
        joint, marginal = 1 - self.shift + joint, exp_linear(marginal - self.shift, None)
        value = joint - marginal
        return BoundTerms(value, value, joint, marginal, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """The marginal term at log E_Q[e^T] = target."""
        return math.exp(target - self.shift)


@final
class ReleasedNWJ(_AbstractClipped):
    """NWJ with joint and marginal scores clipped, whose unclipped log E_Q[e^T] is what a regularizer pulls to 0.

    That is not NWJ's natural target (1): at weight 1 the regularized optimum reads 0.217 nats low, at 0.1 0.015 low.

    Source: the code released with Choi and Lee 2022.

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
    """TUBA with baseline 1 and with joint and marginal scores clipped, but not in its log-normalizer.

    Source: the code released with Choi and Lee 2022.

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
    """JS read as NWJ without the + 1, E_P[T] - E_Q[e^(T-1)], so that a perfect critic reads I - 1/e.

    What a regularizer holds is E_Q[softplus(T)], in the place of the log-normalizer: the released code pulls it to 0
    on the Gaussian task and to 1 on CIFAR. The plug-in estimate does not rest on that target.

    Source: the code released with Choi and Lee 2022.

    Example:
        >>> import torch
        >>> ReleasedJS()(Scores.from_matrix(torch.zeros(4, 4))).value  # -1/e
        tensor(-0.3679)
    """

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer's place is taken by E_Q[softplus(T)]."""
        check_scores(scores)
        softplus_joint, log_normalizer, joint, marginal = scores.together(
            lambda own: (*gan_means(own), own.joint_mean(), own.log_mean_exp())
        )
        marginal = exp_linear(marginal - 1, None)
        return BoundTerms(joint - marginal, -softplus_joint - log_normalizer, joint, marginal, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """E_Q[e^(T-1)] of a perfect critic, whatever the target."""
        return math.exp(-1)
