"""NCE: a critic trained to classify joint and marginal pairs of unequal numbers, with a lower bound as its value."""

import math
from typing import ClassVar, Literal, final

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores, self_normalized_terms
from lightning_mi.bounds.jensen_shannon import gan_means
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_finite

_MAX_SHIFT = 50.0  # exp(50) times a score of 1e4 is still finite in float32


@final
class NCE(AbstractBound):
    r"""Noise-contrastive estimation: a logistic loss with the batch's ratio of marginal to joint pairs.

    Training minimizes :math:`E_P[\mathrm{softplus}(s - T)] + e^s E_Q[\mathrm{softplus}(T - s)]`. The optimal critic is
    the log density ratio :math:`\log r` for every s. By default :math:`e^s` is the number of marginal pairs for each
    joint pair, N - 1 for all pairs of N samples: the loss is then the log-likelihood of a classifier of all pairs. With
    s = 0 it is :class:`JS`. As s rises, it approaches the objective of TUBA, and its gradient at a marginal pair is at
    most :math:`e^s` times that of JS: bounded, but less so.

    The value is that of JS, :math:`1 + E_P[T] - E_Q[e^T]`. Like all means of :math:`e^T` it has a heavy tail at high
    MI, and may overflow; the plug-in estimate has none.

    Source: Gutmann and Hyvärinen 2012; Poole et al. 2019 (value).

    Args:
        log_noise_ratio: s, from -50 to 50; by default that of each batch.

    Raises:
        ValueError: ``log_noise_ratio`` is outside of its range.

    Example:
        >>> import torch
        >>> NCE()(Scores.from_matrix(torch.zeros(4, 4))).objective  # -log 4 - 3 log(4 / 3)
        tensor(-2.2493)
        >>> NCE(log_noise_ratio=0.0)(Scores.from_matrix(torch.zeros(4, 4))).objective  # that of JS
        tensor(-1.3863)
    """

    is_lower_bound: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = True
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def __init__(self, log_noise_ratio: float | None = None) -> None:
        super().__init__()
        if log_noise_ratio is not None:
            check_finite("log_noise_ratio", log_noise_ratio, "the log of the number of marginal pairs for a joint pair")
            if abs(log_noise_ratio) > _MAX_SHIFT:
                raise ValueError(
                    f"Got log_noise_ratio={log_noise_ratio}: its exponential multiplies the loss and overflows beyond "
                    f"{_MAX_SHIFT:g}. Write math.log(n) for n marginal pairs for each joint pair, or None for the "
                    "batch's."
                )
        self.log_noise_ratio = log_noise_ratio

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is log E_Q[e^T]."""
        check_scores(scores)
        shift = self.log_noise_ratio
        if shift is None:  # over all ranks, if pooled
            shift = math.log(max(scores.num_marginal, 1) / max(scores.num_joint, 1))
        loss_joint, loss_marginal, joint, log_normalizer = scores.together(
            lambda s: (*gan_means(s, shift), s.joint_mean(), s.log_mean_exp())
        )
        terms = self_normalized_terms(1 + joint, log_normalizer, cap=None)
        return terms._replace(objective=-loss_joint - math.exp(shift) * loss_marginal)

    def marginal_at(self, target: float) -> float:
        """The marginal term is the exponential of the log-normalizer."""
        return math.exp(target)
