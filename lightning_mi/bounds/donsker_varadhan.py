"""The Donsker-Varadhan family: DV, MINE and SMILE.

A constant added to all scores does not change DV and MINE, so the log-normalizer can drift in training.
"""

from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lightning_mi._compat.torch_names import KeepsPrecision
from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.bounds.jensen_shannon import gan_means
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_choice, check_number, check_positive
from lightning_mi.utilities.numerics import exp_linear, log_ema


class _AbstractDonskerVaradhan(AbstractBound):
    """Bounds with the value E_P[T] - log E_Q[e^T]; SMILE clips T in the second term."""

    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "log_mean_exp"

    def marginal_at(self, target: float) -> float:
        """The marginal term is the log-normalizer itself."""
        return target


@final
class DV(_AbstractDonskerVaradhan):
    r"""Donsker and Varadhan's bound: :math:`E_P[T] - \log E_Q[e^T]`.

    On a finite batch the log is biased: the mean over batches (macro) is too high even with a perfect critic.

    Source: Donsker and Varadhan 1983; Choi and Lee 2022.

    Example:
        >>> import torch
        >>> DV()(Scores.from_matrix(torch.eye(4))).value
        tensor(1.)
    """

    is_lower_bound: ClassVar[bool] = True

    def terms(self, scores: Scores) -> BoundTerms:
        """Value and objective are the same."""
        check_scores(scores)
        joint, marginal = scores.together(lambda s: (s.joint_mean(), s.log_mean_exp()))
        value = joint - marginal
        return BoundTerms(value, value, joint, marginal, marginal)


@final
class MINE(KeepsPrecision, _AbstractDonskerVaradhan):
    r"""DV with the bias of its gradient corrected by a moving average of :math:`E_Q[e^T]`.

    The gradient of the log term is :math:`E_Q[e^T \nabla T] / \mathrm{ema}` instead of
    :math:`E_Q[e^T \nabla T] / E_Q[e^T]`. The average is stored as a logarithm in ``state_dict`` and includes the
    current batch. It is updated only in training mode with gradients enabled, by batches with a finite log-normalizer.

    Source: Belghazi et al. 2018; Choi and Lee 2022.

    Args:
        ema_rate: The weight of the newest batch in the moving average, in (0, 1].

    Attributes:
        log_average: The log of the moving average, a scalar buffer, nats. It is float32 or wider: in half precision a
            slow average would not change.
        num_updates: The number of batches in the average, a scalar buffer.

    Raises:
        ValueError: The rate is outside (0, 1].

    Example:
        >>> import torch
        >>> bound = MINE()
        >>> bound(Scores.from_matrix(torch.eye(4))).value
        tensor(1.)
        >>> bound.log_average
        tensor(0.)
    """

    is_lower_bound: ClassVar[bool] = True
    log_average: Tensor
    num_updates: Tensor

    def __init__(self, ema_rate: float = 0.01) -> None:
        super().__init__()
        check_number("ema_rate", ema_rate, "the weight of the newest batch in the average")
        if not 0 < ema_rate <= 1:
            raise ValueError(f"Got ema_rate={ema_rate}: the weight of the newest batch is in (0, 1].")
        self.ema_rate = ema_rate
        self.register_buffer("log_average", torch.tensor(0.0))
        self.register_buffer("num_updates", torch.tensor(0))

    def terms(self, scores: Scores) -> BoundTerms:
        """The objective has DV's value and the corrected gradient."""
        check_scores(scores)
        joint, marginal = scores.together(lambda s: (s.joint_mean(), s.log_mean_exp()))
        current = marginal.detach()
        average = self._average(current)
        # In evaluation a batch far above the constant average would give infinity times zero.
        ratio = exp_linear(current - average, None).clamp(max=torch.finfo(current.dtype).max)
        corrected = current + ratio * (marginal - current)
        return BoundTerms(joint - marginal, joint - corrected, joint, marginal, marginal)

    def _average(self, current: Tensor) -> Tensor:
        started = self.num_updates > 0
        old = self.log_average.to(current.dtype)
        if not (self.training and torch.is_grad_enabled()):
            return torch.where(started, old, current)
        new = torch.where(started, log_ema(old, current, self.ema_rate) if self.ema_rate < 1 else current, current)
        # A batch that overflowed would otherwise stay in the average, and in every later gradient.
        finite = torch.isfinite(current)
        self.log_average.copy_(torch.where(finite, new, old))
        self.num_updates += finite
        return new


@final
class SMILE(_AbstractDonskerVaradhan):
    r"""DV with clipped scores in the log: :math:`E_P[T] - \log E_Q[e^{\mathrm{clip}(T, -\tau, \tau)}]`.

    Clipping lowers the variance, but the value may exceed the mutual information: SMILE is not a lower bound. The
    log-normalizer is not clipped, so a regularizer also penalizes clipped scores.

    Source: Song and Ermon 2020; Choi and Lee 2022.

    Args:
        tau: Scores of marginal pairs are clamped to [-tau, tau] in the value; nats.
        objective: ``"value"`` maximizes the value itself (Choi and Lee); ``"js"`` maximizes the Jensen-Shannon
            objective (Song and Ermon).
        clip_joint: Clamp the scores of joint pairs too, as Choi and Lee's released code does.

    Raises:
        ValueError: ``tau`` is not positive, or the objective is unknown.

    Example:
        >>> import torch
        >>> SMILE(tau=1.0)(Scores.from_matrix(9 * torch.eye(4))).value
        tensor(9.)
    """

    is_lower_bound: ClassVar[bool] = False

    def __init__(
        self, tau: float = 5.0, objective: Literal["value", "js"] = "value", *, clip_joint: bool = False
    ) -> None:
        super().__init__()
        check_positive("tau", tau, "the clamp of scores, in nats")
        check_choice("objective", objective, ("value", "js"))
        self.tau = tau
        self.objective = objective
        self.clip_joint = clip_joint

    def terms(self, scores: Scores) -> BoundTerms:
        """The value with clipped scores, the log-normalizer without."""
        check_scores(scores)
        joint, marginal, *gan, log_normalizer = scores.together(
            lambda s: (
                s.joint_mean(clip=self.tau if self.clip_joint else None),
                s.log_mean_exp(clip=self.tau),
                *(gan_means(s) if self.objective == "js" else ()),
                s.log_mean_exp(),
            )
        )
        value = joint - marginal
        objective = -gan[0] - gan[1] if gan else value
        return BoundTerms(value, objective, joint, marginal, log_normalizer)
