"""InfoNCE: the log-softmax of each joint pair among the candidates of its row."""

import math
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_finite
from lightning_mi.utilities.numerics import log_mean_exp, log_sub_exp

_MAX_HARDNESS = 1000.0  # beyond, rounding of float32 decides between negatives


@final
class InfoNCE(AbstractBound):
    r"""Contrastive predictive coding: the mean over joint pairs of :math:`T_{ij} - \log \frac{1}{N} \sum_k e^{T_{ik}}`.

    The row includes the joint pair, so the value is at most log N, with N candidates in a row. A constant added to a
    row does not change it. A row counts once for each of its joint pairs. With log-densities q(y | x) as scores it is
    the lower bound of a known conditional; :func:`sandwich` adds the upper one.

    **Weighted negatives.** ``hardness`` and ``debias`` change the objective alone. The value stays that of plain
    InfoNCE: a lower bound of the mutual information, at most log N. Let row i have the joint pair j and K marginal
    pairs (negatives). The objective is the mean of :math:`T_{ij} - \log \frac{1}{K + 1} (e^{T_{ij}} + K g_i)` with

    .. math::
        g_i = \max\Big(\frac{a_i - \tau e^{T_{ij}}}{1 - \tau}, \, e^{l}\Big), \qquad
        a_i = \frac{\sum_k e^{(1 + \beta) T_{ik}}}{\sum_k e^{\beta T_{ik}}}

    over the marginal pairs k of the row, the hardness :math:`\beta`, the prior :math:`\tau` of ``debias`` and the
    lowest score l. With :math:`\beta = 0` the mean :math:`a_i` is that of InfoNCE; a larger one gives negatives with
    high scores more weight. A part :math:`\tau` of the marginal pairs is taken to be of the class of the joint pair
    (false negatives), and their share of the mean is subtracted. The debiased objective separates classes, not
    samples, so it is no estimate of the mutual information of the pairs.

    Source: van den Oord et al. 2018; Poole et al. 2019; Choi and Lee 2022; Robinson et al. 2021 (hardness); Chuang et
    al. 2020 (debias).

    Args:
        hardness: Beta, at least 0. It multiplies scores: for cosines divided by a temperature t, the concentration
            for cosines is beta / t.
        debias: Tau, the prior probability that a marginal pair has the class of the joint pair, at least 0 and below
            1; 1 / C for C equally frequent classes.
        lowest_score: The lowest score that the critic can give, nats: -1 / temperature for normalized inner products.
            Required with ``debias``, because the difference may be negative on a batch.

    Raises:
        TypeError: An argument is not a number.
        ValueError: ``hardness`` is negative or above 1000, ``debias`` is outside [0, 1), or one of ``debias`` and
            ``lowest_score`` is missing. In use: the scores have no rows, because the pairing does not score all pairs;
            or, with weighted negatives, the rows do not have one joint pair each, apart from their marginal pairs.

    Example:
        >>> InfoNCE()(Scores.from_matrix(100 * torch.eye(4))).value  # log 4
        tensor(1.3863)
        >>> scores = Scores.from_matrix(torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 2.0]]))
        >>> InfoNCE()(scores).objective, InfoNCE(hardness=1.0)(scores).objective
        (tensor(0.7470), tensor(0.7010))
    """

    is_lower_bound: ClassVar[bool] = True
    normalized_by_row: ClassVar[bool] = True
    capped_at_log_n: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def __init__(self, *, hardness: float = 0.0, debias: float = 0.0, lowest_score: float | None = None) -> None:
        super().__init__()
        check_finite("hardness", hardness, "the factor of the scores in the weights of negatives")
        if not 0 <= hardness <= _MAX_HARDNESS:
            raise ValueError(
                f"Got hardness={hardness}: a negative one gives easy negatives more weight, and from {_MAX_HARDNESS:g} "
                "on the hardest negative has all of it. Choose 0 to 2, at most "
                f"{_MAX_HARDNESS:g}."
            )
        check_finite("debias", debias, "the prior probability that a marginal pair is of the joint pair's class")
        if not 0 <= debias < 1:
            raise ValueError(
                f"Got debias={debias}: it is a probability, at least 0 and below 1. Choose 1 / C for C classes."
            )
        if lowest_score is not None:
            check_finite("lowest_score", lowest_score, "the lowest score that the critic can give, in nats")
        if (lowest_score is None) != (debias == 0):
            raise ValueError(
                f"Got debias={debias} and lowest_score={lowest_score}: the lowest score limits the debiased mean, "
                "which may be negative on a batch, so pass both or none. It is -1 / temperature for "
                "critics.InnerProductCritic(normalize=True, temperature=...)."
            )
        self.hardness, self.debias, self.lowest_score = hardness, debias, lowest_score

    def terms(self, scores: Scores) -> BoundTerms:
        """The log-normalizer is the mean of the rows' log-normalizers, without weights."""
        check_scores(scores)
        if not (self.hardness or self.debias):
            value, log_normalizer, joint = scores.together(lambda s: (*s.row_means(), s.joint_mean()))
            return BoundTerms(value, value, joint, log_normalizer, log_normalizer)
        # Not Scores.row_means: of scores in tiles, all reductions over rows then have deferred gradients.
        rows = scores.row_log_mean_exp()[scores.joint_rows]
        values = scores.joint - rows, scores.joint - self._weighted_rows(scores), scores.joint, rows
        value, objective, joint, log_normalizer = scores.together(lambda s: map(s.mean_over_joint, values))
        return BoundTerms(value, objective, joint, log_normalizer, log_normalizer)

    def marginal_at(self, target: float) -> float:
        """The marginal term is the log-normalizer itself."""
        return target

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) each joint score minus the log-normalizer of its row, nats."""
        return scores.joint - scores.joint_row_log_mean_exp()

    def _weighted_rows(self, scores: Scores) -> Tensor:
        """(J,) the log of the mean of the joint pair and the weighted marginal pairs of each row."""
        num_negatives = scores.negatives_per_row
        if num_negatives is None:
            raise ValueError(
                "Got scores whose joint pairs are given by masks: hardness and debias need one joint pair in each row, "
                "apart from its marginal pairs. Use pairs.AllPairs, TwoViews, LocalGlobal or TimeSteps, or "
                "Scores.from_columns."
            )
        if num_negatives == 0:  # the value of such a batch is NaN
            return scores.joint
        negatives = scores.row_log_mean_exp(joint=False, power=1 + self.hardness)
        if self.hardness:
            negatives = negatives - scores.row_log_mean_exp(joint=False, power=self.hardness)
        if self.lowest_score is not None:
            log_tau, log_rest = math.log(self.debias), math.log1p(-self.debias)
            low = self.lowest_score + log_rest
            negatives = log_sub_exp(negatives, scores.joint + log_tau, low) - log_rest
        both, counts = torch.stack([scores.joint, negatives]), scores.joint.new_tensor([[1], [num_negatives]])
        return log_mean_exp(both, count=1 + num_negatives, dim=0, log_weights=counts.log())
