"""MILoss: critic, pairing, bound and regularizer as one module, for any training loop."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple, cast, final

import torch
from torch import Tensor, nn

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.critics import AbstractCritic
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.pairs import AbstractPairing, AllPairs
from lightning_mi.regularizers import AbstractRegularizer, log_normalizer_target
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_instance
from lightning_mi.utilities.loss_sign import check_sign
from lightning_mi.utilities.protocols import NeedsCalibration

__all__ = ["MILoss", "MILossOutput"]

_CALIBRATION_SCORES = 2**20  # a subsample of this size gives the standard deviation to one part in a thousand


class MILossOutput(NamedTuple):
    """The output of :meth:`MILoss.compute` on one batch.

    Attributes:
        loss: The scalar to minimize, nats.
        terms: Terms of the bound; ``terms.value`` is the estimate of the mutual information, nats.
        penalty: The regularizer's part of the loss; a scalar, at least 0, or None without a regularizer.
        scores: Scores of the joint and marginal pairs.
    """

    loss: Tensor
    terms: BoundTerms
    penalty: Tensor | None
    scores: Scores


@final
class MILoss(nn.Module):
    r"""A mutual-information loss of two batches of representations.

    .. math:: L = -O(T) + \lambda \, d(\ell(T), C^*)

    with the critic's scores T, the bound's objective O (its value for most bounds), its log-normalizer
    :math:`\ell`, and the regularizer's weight :math:`\lambda`, distance d and target :math:`C^*`. Minimizing L
    maximizes a lower bound of I(x; y) over the critic and over the encoders of x and y.

    Give the parameters of this module to the optimizer together with the encoders'. With
    ``DistributedDataParallel``, wrap encoders and loss in one module: in training mode, pairs run over the samples of
    all ranks (unless the pairing has ``gather=False``), and the averaged gradient equals that of one process on the
    global batch. In evaluation mode, each rank pairs its own samples.

    Each call in training mode counts as one batch. A scheduled weight of the regularizer follows that count, which is
    part of the state dict. A :class:`~lightning_mi.critics.CalibratedCritic` is calibrated on the first batch in
    training mode. Between calls the module holds no tensor with an autograd graph.

    Args:
        critic: Computes the scores T(x, y).
        bound: Turns scores into a value and an objective.
        pairs: Turns a batch into joint pairs (positives) and marginal pairs (negatives); all pairs of the batch by
            default.
        regularizer: Holds the bound's log-normalizer at its target; none by default.

    Attributes:
        num_batches: Batches in training mode so far.

    Raises:
        TypeError: An argument has the wrong type, such as a class instead of an instance.
        ValueError: The regularizer or the critic does not suit the bound.

    Source: Choi and Lee 2022.

    Example:
        >>> import torch
        >>> from lightning_mi import MILoss, bounds, critics, regularizers
        >>> encoder = torch.nn.Linear(20, 8)
        >>> mi_loss = MILoss(critics.SeparableCritic(8, 8), bounds.DV(), regularizer=regularizers.Squared(weight=0.1))
        >>> optimizer = torch.optim.Adam([*encoder.parameters(), *mi_loss.parameters()])
        >>> for _ in range(3):
        ...     x = torch.randn(64, 20)
        ...     loss = mi_loss(encoder(x), encoder(x + 0.1 * torch.randn(64, 20)))
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> loss.shape, mi_loss.num_batches
        (torch.Size([]), 3)
        >>> mi_loss.eval().compute(encoder(x), encoder(x)).terms.value.shape  # the estimate, nats
        torch.Size([])
    """

    def __init__(
        self,
        critic: AbstractCritic,
        bound: AbstractBound,
        pairs: AbstractPairing | None = None,
        regularizer: AbstractRegularizer | None = None,
    ) -> None:
        super().__init__()
        check_instance("critic", critic, AbstractCritic, "critics.SeparableCritic(x_dim, y_dim)")
        check_instance("bound", bound, AbstractBound, "bounds.DV()")
        if pairs is not None:
            check_instance("pairs", pairs, AbstractPairing, "pairs.AllPairs()")
        if regularizer is not None:
            check_instance("regularizer", regularizer, AbstractRegularizer, "regularizers.Squared(weight=0.1)")
        log_normalizer_target(bound, regularizer)
        check_log_densities(critic, bound, regularizer)
        self.critic = critic
        self.bound = bound
        self.pairs = AllPairs() if pairs is None else pairs
        self.regularizer = regularizer
        self.num_batches = 0
        self._sign_is_checked = False

    @property
    def target(self) -> float:
        """The log-normalizer's target C*, nats."""
        return log_normalizer_target(self.bound, self.regularizer) or 0.0

    @property
    def holds_target(self) -> bool:
        """Whether the regularizer, or a self-normalized bound, holds the log-normalizer at its target."""
        return log_normalizer_target(self.bound, self.regularizer) is not None

    def forward(self, *views: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            views: Representations, as the pairing takes them: x (N, Dx) and y (N, Dy); then labels (N,), integers, if
                the pairing takes labels.

        Returns:
            A scalar, nats; the same on every rank if pairs run over all ranks.

        Raises:
            TypeError: A view is not a tensor.
            ValueError: Views or labels have the wrong number or shape; or, in the first ``backward``, the loss has a
                minus sign or a negative weight, and the critic trains.
        """
        return self.compute(*views).loss

    def compute(self, *views: Tensor) -> MILossOutput:
        """The loss of one batch with bound terms, penalty and scores; arguments and errors as in :meth:`forward`.

        Without joint pairs, ``terms.value`` and ``terms.joint_term`` are NaN; the loss stays finite, so that training
        continues. A batch of one sample in evaluation has no marginal pairs, and its loss is NaN. Both warn.
        """
        if self.training:
            self.calibrate(lambda: self.score(*views))
            self.set_num_batches(self.num_batches)
        scores = self.score(*views)
        terms, penalty = self.read(scores)
        if self.training:
            self.num_batches += 1
        loss = regularized_loss(terms, penalty)
        parameters = list(self.critic.parameters())
        if not parameters or any(parameter.requires_grad for parameter in parameters):
            check_sign(loss, self)
        _warn_without_pairs(scores)
        return MILossOutput(loss, reported_terms(terms, scores), penalty, scores)

    def score(self, *views: Tensor) -> Scores:
        """Score the joint and marginal pairs of one batch."""
        scores: Scores = self.pairs(self.critic, *views)
        return scores

    def read(self, scores: Scores) -> tuple[BoundTerms, Tensor | None]:
        """Bound terms and penalty of scores; the penalty is None without a regularizer."""
        terms: BoundTerms = self.bound(scores)
        penalty = None if self.regularizer is None else self.regularizer(terms)
        return terms, penalty

    def calibrate(self, score: Callable[[], Scores]) -> None:
        """Calibrate scale and offset of a critic that needs calibration; otherwise do nothing.

        Args:
            score: Scores a batch; called several times.
        """
        # By attribute: torch.compile wraps a critic in another class with the same attributes.
        if not getattr(self.critic, "needs_calibration", False):
            return
        with self.pairs.uncounted():
            cast("NeedsCalibration", self.critic).calibrate(
                marginal_scores=lambda: self._sample_marginal(score),
                log_normalizer=lambda: self.bound(score()).log_normalizer,
                target=self.target,
            )

    def _sample_marginal(self, score: Callable[[], Scores]) -> Tensor:
        """A sample of marginal scores that does not depend on how candidates come to this rank."""
        with self.pairs.all_gathered():
            return score().marginal_values(_CALIBRATION_SCORES)

    def set_num_batches(self, num_batches: int) -> None:
        """Set the number of batches so far: the step at which a scheduled weight is read."""
        self.num_batches = num_batches
        if self.regularizer is not None:
            self.regularizer.step = num_batches

    def get_extra_state(self) -> Tensor:
        """The number of batches for ``state_dict``: a scalar on the CPU, so that saving needs no host-device sync."""
        return torch.tensor(self.num_batches)

    def set_extra_state(self, state: object) -> None:
        """Restore the number of batches.

        Raises:
            RuntimeError: The state is not an integer scalar.
        """
        if not isinstance(state, Tensor) or state.shape != () or state.dtype != torch.int64:
            form = f"{state.dtype} {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise RuntimeError(f"Error(s) in loading state_dict for MILoss: Got {form} as the number of batches.")
        self.set_num_batches(int(state))


def _warn_without_pairs(scores: Scores) -> None:
    for kind, count, consequence in (
        ("joint", scores.num_joint, "the loss has no joint term"),
        ("marginal", scores.num_marginal, "the loss is NaN"),
    ):
        if not count:
            warnings.warn(
                f"Got a batch without {kind} pairs: it has no estimate, and {consequence}. Raise the batch size, or "
                "sample batches that have both kinds of pairs.",
                MINumericalWarning,
                stacklevel=3,
            )


def check_log_densities(
    critic: AbstractCritic, bound: AbstractBound, regularizer: AbstractRegularizer | None = None
) -> None:
    """Check that a bound of log-densities gets them, and no regularizer.

    Raises:
        ValueError: The bound's scores are log-densities, and the critic's are not, or there is a regularizer.

    Example:
        >>> from lightning_mi import bounds, critics
        >>> check_log_densities(critics.InnerProductCritic(), bounds.L1Out())
        Traceback (most recent call last):
        ValueError: Got InnerProductCritic for L1Out: this bound needs log-densities log q(y | x) as scores. Use ...
    """
    if not bound.needs_log_density:
        return
    name = type(bound).__name__
    if not critic.is_log_density:
        raise ValueError(
            f"Got {type(critic).__name__} for {name}: this bound needs log-densities log q(y | x) as scores. Use "
            "critics.GaussianConditional, or another bound."
        )
    if regularizer is not None:
        raise ValueError(
            f"Got {type(regularizer).__name__} for {name}: log-densities are normalized, so there is nothing to "
            "regularize. Leave the regularizer out."
        )


def reported_terms(terms: BoundTerms, scores: Scores) -> BoundTerms:
    """The terms of a batch as they are reported: without joint pairs, value and joint term are NaN.

    The loss keeps the terms with means of 0, so that it stays finite and training continues.

    Example:
        >>> terms = BoundTerms(*torch.zeros(5))
        >>> none = Scores.from_matrix(torch.zeros(2, 2), joint=torch.zeros(2, 2, dtype=torch.bool), allow_no_joint=True)
        >>> reported_terms(terms, none).value
        tensor(nan)
    """
    if scores.num_joint:
        return terms
    undefined = torch.full_like(terms.value, math.nan)
    return terms._replace(value=undefined, joint_term=undefined)


def regularized_loss(terms: BoundTerms, penalty: Tensor | None) -> Tensor:
    """The scalar to minimize, penalty - objective, nats; without a regularizer, -objective.

    Example:
        >>> regularized_loss(BoundTerms(*torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])), torch.tensor(0.5))
        tensor(-1.5000)
    """
    return -terms.objective if penalty is None else penalty - terms.objective
