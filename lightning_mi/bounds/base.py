"""Base class of bounds, and their result: five scalars."""

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.scores.scores import Scores
from lightning_mi.utilities.checks import check_finite, check_instance
from lightning_mi.utilities.numerics import exp_linear, finite_checks_enabled, full_precision


class BoundTerms(NamedTuple):
    """The result of a bound on one batch of scores: five scalars in nats.

    Without joint pairs (positives) the terms are finite but no estimate: a mean over joint pairs counts as 0, with a
    zero gradient; so do all terms of InfoNCE, which runs over the rows of joint pairs. Without marginal pairs
    (negatives), as in a batch of one sample, value and objective are NaN.

    Attributes:
        value: The reported estimate. It never contains a regularizer.
        objective: The quantity that training maximizes. Its gradient may differ from the value's (MINE, SMILE, JS, a
            capped NWJ), and it need not estimate the mutual information (NCE, Hellinger, RPC, DCL).
        joint_term: The mean over joint pairs.
        marginal_term: The mean over marginal pairs: value = joint_term - marginal_term.
        log_normalizer: The log-normalizer. It is constant at the optimum and drifts or explodes in practice; a
            regularizer penalizes its distance from a target.

    Example:
        >>> from lightning_mi import Scores, bounds
        >>> bounds.DV()(Scores.from_matrix(torch.eye(4))).joint_term
        tensor(1.)
    """

    value: Tensor
    objective: Tensor
    joint_term: Tensor
    marginal_term: Tensor
    log_normalizer: Tensor


class AbstractBound(nn.Module, ABC):
    """A variational bound of mutual information, as a function of scores alone.

    A subclass implements :meth:`terms` and :meth:`marginal_at`, and declares its properties in class attributes, which
    metrics, pairings and generic tests use.

    Attributes:
        is_lower_bound: With exact expectations, the value of any critic is at most the mutual information; with
            ``needs_log_density``, that of any log-density. If neither this nor ``is_upper_bound``, the value may be on
            either side.
        is_upper_bound: With the exact log-density of y given x as critic, the expectation over batches is at least the
            mutual information. With a learned density it may be below.
        needs_log_density: The scores are log-densities, log q(y | x). They are normalized by construction, so a
            regularizer of the log-normalizer is an error.
        normalized_by_row: Both terms are means over joint pairs: of the score, and of a statistic of its row.
        capped_at_log_n: The value is at most the log of the number of candidates in a row.
        self_normalized: The optimal critic is unique and has log-normalizer 0, so no other target is possible.
        marginal_pooling: How the marginal terms of batches combine into that of all their pairs: the log of the mean
            of exponentials, or the mean; weighted by numbers of pairs.
    """

    is_lower_bound: ClassVar[bool]
    is_upper_bound: ClassVar[bool] = False
    needs_log_density: ClassVar[bool] = False
    normalized_by_row: ClassVar[bool] = False
    capped_at_log_n: ClassVar[bool] = False
    self_normalized: ClassVar[bool]
    marginal_pooling: ClassVar[Literal["log_mean_exp", "mean"]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check that a bound declares its properties; a class whose name begins with Abstract need not.

        Raises:
            TypeError: A class attribute without a default is missing.
        """
        super().__init_subclass__(**kwargs)
        declared = ("is_lower_bound", "self_normalized", "marginal_pooling")
        missing = [name for name in declared if not hasattr(cls, name)]
        if missing and not cls.__name__.lstrip("_").startswith("Abstract"):
            raise TypeError(
                f"Got bound {cls.__name__} without {', '.join(missing)}: metrics and pairings use these declarations. "
                f"Set {'them as class attributes' if len(missing) > 1 else 'it as a class attribute'}; AbstractBound "
                "describes each."
            )

    @abstractmethod
    def terms(self, scores: Scores) -> BoundTerms:
        """The bound's formula. Autocast is disabled and the scores are float32 or wider.

        Use :meth:`Scores.together` for several means: with several ranks they then share one collective.
        """

    @abstractmethod
    def marginal_at(self, target: float) -> float:
        """The marginal term if the log-normalizer equals ``target`` (nats)."""

    def forward(self, scores: Scores) -> BoundTerms:
        """Evaluate the bound on a batch of scores.

        Raises:
            TypeError: ``scores`` is not :class:`Scores`.

        Warns:
            MINumericalWarning: A term is infinite or NaN.
        """
        check_scores(scores)
        with full_precision(scores.joint.device.type):
            terms = self.terms(scores)
        if scores.num_marginal == 0:
            undefined = torch.full_like(terms.value, math.nan)
            return terms._replace(value=undefined, objective=undefined)
        if finite_checks_enabled():
            self.warn_unless_finite(terms, stacklevel=5)  # two frames of nn.Module's call lie between
        return terms

    @final
    def warn_unless_finite(self, terms: BoundTerms, stacklevel: int = 2) -> None:
        """Warn about infinite or NaN terms. One host-device sync.

        Args:
            terms: The result of :meth:`forward`.
            stacklevel: As in :func:`warnings.warn`.

        Warns:
            MINumericalWarning: A term is infinite or NaN.
        """
        values = torch.stack(terms).detach()
        if bool(torch.isfinite(values).all()):
            return
        named = zip(terms._fields, values.tolist(), strict=True)
        found = ", ".join(f"{name} = {value:g}" for name, value in named if not math.isfinite(value))
        warnings.warn(
            f"{type(self).__name__} gave {found}: a score is not finite, or its exponential overflows. If inputs and "
            "weights are finite, a regularizer limits the log-normalizer, and a `cap` (NWJ, TUBA) keeps the objective "
            "finite.",
            MINumericalWarning,
            stacklevel=stacklevel,
        )

    @final
    def plug_in(self, joint_term: Tensor, target: float = 0.0) -> Tensor:
        """The plug-in estimate: the joint term minus the marginal term at the log-normalizer's target.

        It is valid if a regularizer holds the log-normalizer at the target, and free of the heavy-tailed mean over
        marginal pairs.

        Args:
            joint_term: The joint term of :class:`BoundTerms`, or means of it; any shape, nats.
            target: The log-normalizer's target, nats.
        """
        return joint_term - self.marginal_at(target)

    def log_ratio(self, scores: Scores) -> Tensor:
        """Pointwise mutual information of the joint pairs, log p(x, y) / (p(x) p(y)), up to the critic's error.

        It is the score minus the batch's log E_Q[e^T], so that its exponential has mean 1 over marginal pairs.

        Returns:
            (J,) nats.
        """
        return scores.joint - scores.log_mean_exp()


def check_scores(scores: object) -> None:
    """Check the argument of a bound.

    Raises:
        TypeError: ``scores`` is not :class:`Scores`, but, for example, the critic's matrix.
    """
    check_instance("scores", scores, Scores, "Scores.from_matrix(matrix)")


def check_cap(cap: float | None) -> None:
    """Check the log of a mean of exponentials above which an objective continues the exponential linearly.

    Raises:
        TypeError: The cap is neither a number nor None.
        ValueError: The cap is negative or not finite.
    """
    if cap is not None:
        check_finite("cap", cap, "the log-normalizer above which the exponential is linear, in nats, or None")
    if cap is not None and cap < 0:
        raise ValueError(f"Got cap={cap}: the cap is at least 0. None gives the literal exponential.")


def self_normalized_terms(joint_term: Tensor, log_normalizer: Tensor, cap: float | None) -> BoundTerms:
    """Terms of a bound with marginal term exp(log_normalizer), which the objective continues linearly above ``cap``."""
    marginal_term = exp_linear(log_normalizer, None)
    value = joint_term - marginal_term
    objective = value if cap is None else joint_term - exp_linear(log_normalizer, cap)
    return BoundTerms(value, objective, joint_term, marginal_term, log_normalizer)
