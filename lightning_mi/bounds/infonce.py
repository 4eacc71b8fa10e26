"""InfoNCE: the log-softmax of each joint pair among the candidates of its row."""

from typing import ClassVar, Literal, final

from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.scores.scores import Scores


@final
class InfoNCE(AbstractBound):
    r"""Contrastive predictive coding: the mean over joint pairs of :math:`T_{ij} - \log \frac{1}{N} \sum_k e^{T_{ik}}`.

    The row includes the joint pair, so the value is at most log N, with N candidates in a row. A constant added to a
    row does not change it. A row counts once for each of its joint pairs. With log-densities q(y | x) as scores it is
    the lower bound of a known conditional; :func:`sandwich` adds the upper one.

    Source: van den Oord et al. 2018; Poole et al. 2019; Choi and Lee 2022.

    Raises:
        ValueError: The scores have no rows: the pairing does not score all pairs.

    Example:
        >>> import torch
        >>> InfoNCE()(Scores.from_matrix(100 * torch.eye(4))).value  # log 4
        tensor(1.3863)
    """

    is_lower_bound: ClassVar[bool] = True
    normalized_by_row: ClassVar[bool] = True
    capped_at_log_n: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is the mean of the rows' log-normalizers."""
        check_scores(scores)
        value, log_normalizer, joint = scores.together(lambda s: (*s.row_means(), s.joint_mean()))
        return BoundTerms(value, value, joint, log_normalizer, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """The marginal term is the log-normalizer itself."""
        return target

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) each joint score minus the log-normalizer of its row, nats."""
        return scores.joint - scores.joint_row_log_mean_exp()
