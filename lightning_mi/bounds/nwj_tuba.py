"""NWJ and TUBA: bounds that are linear in E_Q[e^T]. The optimal critic is unique; a cap keeps training finite."""

import math
from typing import ClassVar, Literal, final

from torch import Tensor, nn

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_cap, check_scores, self_normalized_terms
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_positive
from lightning_mi.utilities.numerics import full_precision, upcast


class _AbstractSelfNormalized(AbstractBound):
    """Bounds with value joint_term - exp(log_normalizer)."""

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def __init__(self, cap: float | None = 1.0) -> None:
        super().__init__()
        check_cap(cap)
        self.cap = cap

    def marginal_at(self, target: float) -> float:
        """The marginal term is the exponential of the log-normalizer."""
        return math.exp(target)


@final
class NWJ(_AbstractSelfNormalized):
    r"""Nguyen, Wainwright and Jordan's bound: :math:`E_P[T] - E_Q[e^{T-1}]`, with :math:`T^* = 1 + \log r`.

    Training maximizes :math:`E_P[T] - g(\ell)` with :math:`\ell = \log E_Q[e^{T-1}]` and :math:`g` the exponential,
    continued linearly above ``cap``: :math:`g(\ell) = e^c (1 + \ell - c)` for :math:`\ell > c`. The optimum is the same
    (:math:`\ell = 0`) and the gradient stays finite. This continuation is not from a paper. The value is always the
    literal bound.

    Source: Nguyen et al. 2010; Choi and Lee 2022.

    Args:
        cap: The log-normalizer above which the exponential is linear, at least 0, nats; None for the literal form.

    Raises:
        ValueError: The cap is negative or not finite.

    Example:
        >>> import torch
        >>> NWJ()(Scores.from_matrix(torch.ones(4, 4))).value  # T = 1 everywhere: no information
        tensor(0.)
    """

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T] - 1."""
        check_scores(scores)
        joint, marginal = scores.together(lambda s: (s.joint_mean(), s.log_mean_exp()))
        return self_normalized_terms(joint, marginal - 1, self.cap)


@final
class TUBA(_AbstractSelfNormalized):
    r"""The tractable unnormalized bound: :math:`1 + E_P[T - \log a(y)] - E_Q[e^T / a(y)]`.

    With a = e it is NWJ. A learned baseline a(y) normalizes the critic for each candidate.

    Source: Barber and Agakov 2003; Poole et al. 2019; Choi and Lee 2022.

    Args:
        baseline: The constant a > 0, or a module that maps candidates (M, D) to log a(y), of shape (M,) or (M, 1).
        cap: The log-normalizer above which the exponential is linear, at least 0, nats; None for the literal form.

    Raises:
        ValueError: The cap is negative, or the baseline is not positive; in ``forward``, the baseline's output has a
            wrong shape, or the scores have no candidates ``y``.

    Example:
        >>> import torch
        >>> TUBA()(Scores.from_matrix(torch.zeros(4, 4))).value
        tensor(0.)
    """

    def __init__(self, baseline: float | nn.Module = 1.0, cap: float | None = 1.0) -> None:
        super().__init__(cap)
        if not isinstance(baseline, nn.Module):
            check_positive("baseline", baseline, "or a module that returns log a(y)")
        self.baseline = baseline

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T / a(y)]."""
        check_scores(scores)
        log_a = self._log_baseline(scores)
        offset = None if isinstance(log_a, float) else log_a
        joint, log_normalizer = scores.together(lambda s: (s.joint_mean(offset=log_a), s.log_mean_exp(offset=offset)))
        if isinstance(log_a, float):
            log_normalizer = log_normalizer - log_a
        return self_normalized_terms(1 + joint, log_normalizer, self.cap)

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) the scores minus log a(y) and the log-normalizer, nats."""
        log_a = self._log_baseline(scores)
        if isinstance(log_a, float):
            return super().log_ratio(scores)
        return scores.joint - log_a[scores.joint_columns] - scores.log_mean_exp(offset=log_a)

    def _log_baseline(self, scores: Scores) -> float | Tensor:
        if not isinstance(self.baseline, nn.Module):
            return math.log(self.baseline)
        if scores.y is None:
            raise ValueError(
                "Got scores without candidates `y`, which TUBA's learned baseline a(y) needs. Pass `y` of shape (M, D) "
                "to the constructor of Scores, or use TUBA(baseline=1.0)."
            )
        with full_precision(scores.joint.device.type):
            log_a: Tensor = self.baseline(self._in_baseline_dtype(scores.y))
        if log_a.shape not in ((len(scores.y),), (len(scores.y), 1)):
            raise ValueError(
                f"Got a baseline of shape {tuple(log_a.shape)} for candidates of shape {tuple(scores.y.shape)}: the "
                f"module returns one log a(y) for each, ({len(scores.y)},) or ({len(scores.y)}, 1)."
            )
        return upcast(log_a.reshape(-1))

    def _in_baseline_dtype(self, y: Tensor) -> Tensor:
        # The formula runs without autocast, but under autocast the encoder gives candidates in half precision.
        parameter = next(self.parameters(), None)
        return y if parameter is None or not y.is_floating_point() else y.to(parameter.dtype)
