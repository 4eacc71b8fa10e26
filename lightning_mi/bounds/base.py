"""What every bound has in common: scores go in, five scalars come out."""

import math
import warnings
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_instance
from lightning_mi.utilities.numerics import exp_linear, finite_checks_enabled, full_precision


class BoundTerms(NamedTuple):
    """A bound, read on one batch of scores: five scalars in nats.

    Of scores without a joint pair they are finite but no estimate: the average over joint pairs in them counts as 0,
    with a zero gradient, and so do all of InfoNCE's, whose rows are read for their joint pairs. Of scores without a
    marginal pair, as of a batch of one sample, value and objective are not a number.

    Attributes:
        value: The estimate that is reported. It never contains a regularizer.
        objective: What training ascends. Its gradient may differ from the value's (MINE, SMILE, JS, a capped NWJ).
        joint_term: The part of the value that averages over joint pairs.
        marginal_term: The part that averages over marginal pairs: value = joint_term - marginal_term.
        log_normalizer: What is constant at the optimum, and drifts or explodes in practice: a regularizer holds it.
    """

    value: Tensor
    objective: Tensor
    joint_term: Tensor
    marginal_term: Tensor
    log_normalizer: Tensor


class AbstractBound(nn.Module, ABC):
    """A variational bound on mutual information, as a function of scores alone.

    A subclass implements :meth:`terms` and :meth:`marginal_at`, and declares itself in class attributes, which the
    documentation, the metrics and the generic tests read.

    Attributes:
        is_lower_bound: With exact expectations, the value at any critic is at most the mutual information.
        capped_at_log_n: The value cannot exceed the log of the number of candidates in a row.
        self_normalized: The optimal critic is unique, so its log-normalizer is too and no other target is possible.
        natural_target: The log-normalizer at the optimum; for the others, where any constant will do, the default.
        marginal_pooling: How the marginal terms of several batches combine into that of all their pairs.
    """

    is_lower_bound: ClassVar[bool]
    capped_at_log_n: ClassVar[bool] = False
    self_normalized: ClassVar[bool]
    natural_target: ClassVar[float] = 0.0
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]]

    @abstractmethod
    def terms(self, scores: Scores) -> BoundTerms:
        """The bound's formula. Autocast is off here and the scores are float32 or wider.

        Means that are asked for by :meth:`Scores.together` cost several processes one collective and not one each.
        """

    @abstractmethod
    def marginal_at(self, target: float) -> float:
        """The marginal term once the log-normalizer equals ``target``."""

    def forward(self, scores: Scores) -> BoundTerms:
        """Read the bound on a batch of scores.

        Raises:
            TypeError: They are not :class:`Scores`.

        Warns:
            MINumericalWarning: A term is infinite or not a number.
        """
        check_scores(scores)
        with full_precision(scores.joint.device.type):
            terms = self.terms(scores)
        if scores.num_marginal == 0:
            nothing = torch.full_like(terms.value, math.nan)
            return terms._replace(value=nothing, objective=nothing)
        if finite_checks_enabled():
            self.warn_unless_finite(
                terms, stacklevel=5
            )  # past the two frames of nn.Module's call: who called the bound
        return terms

    @final
    def warn_unless_finite(self, terms: BoundTerms, stacklevel: int = 2) -> None:
        """Say which of the terms that this bound read are infinite or not a number; it waits for the device.

        Args:
            terms: Of a batch.
            stacklevel: Whose line the warning names, as in :func:`warnings.warn`.

        Warns:
            MINumericalWarning: A term is infinite or not a number.
        """
        values = torch.stack(terms).detach()
        if bool(torch.isfinite(values).all()):
            return
        read = zip(terms._fields, values.tolist(), strict=True)
        found = ", ".join(f"{name} = {value:g}" for name, value in read if not math.isfinite(value))
        warnings.warn(
            f"{type(self).__name__} read {found}: the scores hold a value that is not finite, or one whose exponential "
            "is too large for floating-point numbers. A regularizer holds the log-normalizer, and a `cap` keeps the "
            "objective finite where the bound is linear in the exponential.",
            MINumericalWarning,
            stacklevel=stacklevel,
        )

    @final
    def plug_in(self, joint_term: Tensor, target: float | None = None) -> Tensor:
        """The estimate that trusts the regularizer: the joint term, with the marginal one replaced by its target.

        Valid when the log-normalizer is held at ``target``; free of the heavy-tailed average over marginal pairs.

        Args:
            joint_term: A joint term of :class:`BoundTerms`, or a mean of several; any shape, nats.
            target: Where the log-normalizer is held; the bound's natural target by default.
        """
        return joint_term - self.marginal_at(self.natural_target if target is None else target)

    def log_ratio(self, scores: Scores) -> Tensor:
        """Pointwise mutual information of the joint pairs, log p(x, y) / (p(x) p(y)) up to the critic's error.

        The scores minus the log-normalizer of this batch, so that exp of it averages to 1 over marginal pairs.

        Returns:
            (J,) nats.
        """
        return scores.joint - scores.log_mean_exp()


def check_scores(scores: object) -> None:
    """Check that a bound is given scores, and not the critic's matrix.

    Raises:
        TypeError: They are not :class:`Scores`.
    """
    check_instance("scores", scores, Scores, "Scores.from_matrix(matrix)")


def self_normalized_terms(joint_term: Tensor, log_normalizer: Tensor, cap: float | None) -> BoundTerms:
    """Terms of a bound whose marginal term is exp(log_normalizer), ascended with ``exp_linear`` above ``cap``."""
    marginal_term = exp_linear(log_normalizer, None)
    value = joint_term - marginal_term
    objective = value if cap is None else joint_term - exp_linear(log_normalizer, cap)
    return BoundTerms(value, objective, joint_term, marginal_term, log_normalizer)
