"""Bounds of a conditional density: the scores are log q(y | x), as of ``critics.GaussianConditional``.

Training maximizes the mean log-density of joint pairs, which fits q; the value is what each bound reads with that q.
"""

from typing import ClassVar, Literal, NamedTuple, final

from torch import Tensor

from lightning_mi.bounds.base import AbstractBound, BoundTerms, check_scores
from lightning_mi.bounds.infonce import InfoNCE
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_finite


class _AbstractLogDensity(AbstractBound):
    """Bounds with objective E_P[log q(y | x)]. The marginal term takes the place of a log-normalizer."""

    is_lower_bound: ClassVar[bool] = False
    needs_log_density: ClassVar[bool] = True
    self_normalized: ClassVar[bool] = False
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]] = "mean"

    def marginal_at(self, target: float) -> float:
        """The marginal term itself."""
        return target

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) log q(y | x) minus the log of its mean over the x of the row, nats."""
        return scores.joint - scores.joint_row_log_mean_exp()


@final
class BA(_AbstractLogDensity):
    r"""Barber and Agakov's lower bound: :math:`H(Y) + E_P[\log q(y | x)]`, for any q.

    The entropy is an argument: of labels it is known, for example log C; of continuous y it is mostly not, and the
    value is then the bound up to the error of the stated number. The difference of two values needs no entropy. For
    labels, InfoNCE with ``pairs.EnumeratedLabels`` is the same bound with the softmax as q.

    Source: Barber and Agakov 2003.

    Args:
        entropy: H(Y), nats: the differential entropy of continuous y, the entropy of labels.

    Raises:
        TypeError: The entropy is not a number.
        ValueError: The entropy is not finite.

    Example:
        >>> import torch
        >>> BA(entropy=2.0)(Scores.from_matrix(torch.full((4, 4), -1.5))).value
        tensor(0.5000)
    """

    is_lower_bound: ClassVar[bool] = True

    def __init__(self, entropy: float) -> None:
        super().__init__()
        check_finite("entropy", entropy, "H(Y) in nats")
        self.entropy = entropy

    def terms(self, scores: Scores) -> BoundTerms:
        """The marginal term is -H(Y)."""
        check_scores(scores)
        joint = scores.joint_mean()
        marginal = joint.new_tensor(-self.entropy)
        return BoundTerms(joint - marginal, joint, joint, marginal, marginal)


@final
class L1Out(_AbstractLogDensity):
    r"""The leave-one-out upper bound: each joint pair against the other pairs of its row.

    .. math:: \frac{1}{N} \sum_i \Big[ \log q(y_i | x_i) - \log \frac{1}{N-1} \sum_{k \ne i} q(y_i | x_k) \Big]

    It is an upper bound with the exact conditional density. With a learned q that is behind, the value may be below the
    mutual information. With InfoNCE on the same scores it encloses the mutual information: :func:`sandwich`. A joint
    pair without a marginal pair in its row does not count in value and marginal term.

    The code released with CLUB adds arrays of shapes (B, B) and (B, B, 1) and returns CLUB instead.

    Source: Poole et al. 2019; Cheng et al. 2020 (baseline).

    Raises:
        ValueError: The scores have no rows: the pairing does not score all pairs.

    Example:
        >>> import torch
        >>> L1Out()(Scores.from_matrix(2 * torch.eye(4))).value
        tensor(2.)
    """

    is_upper_bound: ClassVar[bool] = True
    normalized_by_row: ClassVar[bool] = True

    def terms(self, scores: Scores) -> BoundTerms:
        """The marginal term is the mean of the rows' log-mean-exps over marginal pairs."""
        check_scores(scores)
        value, marginal = scores.row_means("leave_one_out")
        joint = scores.joint_mean()
        return BoundTerms(value, joint, joint, marginal, marginal)


@final
class CLUB(_AbstractLogDensity):
    r"""A surrogate for minimization: the mean of :math:`\log q(y_i | x_i) - \frac{1}{N} \sum_j \log q(y_i | x_j)`.

    The sum contains the joint pair, as in the paper. **It is not an estimate.** With the exact conditional density its
    expectation is (N - 1) / N times the sum of mutual and lautum information, which grows without limit with the
    dependence: at 2, 6 and 10 nats of a 20-dimensional Gaussian it reads 4.4, 16.2 and 33.9. With a learned q that is
    behind, it may be below the mutual information, and negative.

    Source: Cheng et al. 2020.

    Raises:
        ValueError: The scores have no rows: the pairing does not score all pairs.

    Example:
        >>> import torch
        >>> CLUB()(Scores.from_matrix(4 * torch.eye(4))).value
        tensor(3.)
    """

    is_upper_bound: ClassVar[bool] = True
    normalized_by_row: ClassVar[bool] = True

    def terms(self, scores: Scores) -> BoundTerms:
        """The marginal term is the mean score of all pairs."""
        check_scores(scores)
        value, marginal, joint = scores.together(lambda s: (*s.row_means("mean"), s.joint_mean()))
        return BoundTerms(value, joint, joint, marginal, marginal)


@final
class CLUBSample(_AbstractLogDensity):
    r"""CLUB with sampled pairs: :math:`E_P[\log q(y | x)] - E_Q[\log q(y | x)]`. A surrogate, not an estimate.

    With ``pairs.Derangement`` the marginal pairs are one permutation without fixed points; the paper's permutation may
    have some. So the expectation is N / (N - 1) times that of CLUB: with the exact density, the sum of mutual and
    lautum information.

    Source: Cheng et al. 2020.

    Example:
        >>> import torch
        >>> CLUBSample()(Scores.from_samples(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -3.0]))).value
        tensor(4.)
    """

    is_upper_bound: ClassVar[bool] = True

    def terms(self, scores: Scores) -> BoundTerms:
        """The marginal term is the mean over marginal pairs."""
        check_scores(scores)
        joint, marginal = scores.together(lambda s: (s.joint_mean(), s.marginal_mean()))
        return BoundTerms(joint - marginal, joint, joint, marginal, marginal)

    def log_ratio(self, scores: Scores) -> Tensor:
        """(J,) as of CLUB with rows; otherwise the score minus the log of the mean density of marginal pairs, nats."""
        return super().log_ratio(scores) if scores.has_rows else scores.joint - scores.log_mean_exp()


class Sandwich(NamedTuple):
    """The result of :func:`sandwich`: a lower and an upper bound from one batch of log-densities; scalars, nats.

    Attributes:
        lower: InfoNCE, at most log N; a lower bound for any q.
        upper: L1Out; an upper bound with the exact conditional density.
    """

    lower: Tensor
    upper: Tensor


def sandwich(scores: Scores) -> Sandwich:
    """InfoNCE and L1Out of the same log-densities log q(y | x).

    Their expectations enclose the mutual information if q is the exact conditional density, as of an encoder that is a
    known density: I(x; z) of a stochastic encoder. Both come from one matrix; only the joint pair moves from the
    normalizer's sum to outside of it.

    Args:
        scores: With rows of one y and every x, as ``pairs.AllPairs`` makes of a critic of log-densities.

    Raises:
        TypeError: ``scores`` is not :class:`Scores`.
        ValueError: The scores have no rows.

    Source: Poole et al. 2019.

    Example:
        >>> import torch
        >>> sandwich(Scores.from_matrix(2 * torch.eye(4)))
        Sandwich(lower=tensor(1.0455), upper=tensor(2.))
    """
    return Sandwich(InfoNCE()(scores).value, L1Out()(scores).value)
