"""DCL: InfoNCE's value, trained with the joint pair left out of the denominator."""

from typing import ClassVar, Literal, final

from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.scores.scores import Scores


@final
class DCL(AbstractBound):
    r"""Decoupled contrastive learning: :math:`T_{ij} - \log \frac{1}{K} \sum_k e^{T_{ik}}` over marginal pairs alone.

    An objective, not an estimate. With the exact critic it reads 6 nats too high at 10 nats and a batch of 64, so the
    value is that of :class:`InfoNCE` on the same scores: a lower bound, at most log N. The objective keeps its gradient
    where InfoNCE's vanishes because the joint pair fills the denominator: in small batches, and near log N. It has no
    maximum on a batch whose joint scores exceed all others; a regularizer or normalized representations limit it.

    FlatNCE, the mean of the exponentials of these differences, each divided by its own detached value, has the same
    gradient, so it has no class of its own.

    The regularizer holds the mean log-normalizer of InfoNCE's rows. If the pairing counts the joint pair among the
    marginal pairs of its row (``SameLabel``, ``EnumeratedLabels``), nothing is left out; nor is it in a row without
    marginal pairs.

    Source: Yeh et al. 2022; Chen et al. 2021 (FlatNCE).

    Raises:
        ValueError: The scores have no rows: the pairing does not score all pairs.

    Example:
        >>> import torch
        >>> terms = DCL()(Scores.from_matrix(100 * torch.eye(4)))
        >>> terms.value, terms.objective  # log 4, and no estimate
        (tensor(1.3863), tensor(100.))
    """

    is_lower_bound: ClassVar[bool] = True
    normalized_by_row: ClassVar[bool] = True
    capped_at_log_n: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def terms(self, scores: Scores) -> BoundTerms:
        """The value and the log-normalizer of InfoNCE."""
        check_scores(scores)
        # Not Scores.row_means: of scores in tiles, both kinds of rows then share one deferred gradient.
        negatives, rows = (scores.joint_row_log_mean_exp(joint=joint) for joint in (False, True))
        values = scores.joint - rows, scores.joint - negatives, scores.joint, rows
        value, objective, joint, log_normalizer = scores.together(lambda s: map(s.mean_over_joint, values))
        return BoundTerms(value, objective, joint, log_normalizer, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """The marginal term is InfoNCE's log-normalizer."""
        return target

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) each joint score minus the log-normalizer of its row, nats."""
        return scores.joint - scores.joint_row_log_mean_exp()
