"""Regularizers: a weighted distance of a bound's log-normalizer from its target."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.utilities.checks import check_choice, check_finite, check_instance, check_positive, check_whole
from lightning_mi.utilities.numerics import exp_linear, finite_checks_enabled

__all__ = [
    "Absolute",
    "AbstractRegularizer",
    "Huber",
    "LinearWarmup",
    "Squared",
    "check_target",
    "log_normalizer_target",
]

Scale = Literal["log", "linear"]
Weight = float | Callable[[int], float]


@final
class LinearWarmup:
    """A weight that rises linearly from 0 to ``weight`` over ``steps`` training steps, then stays constant.

    Args:
        weight: The final weight, at least 0.
        steps: The number of steps of the rise, at least 1.

    Raises:
        ValueError: The weight is negative or not finite, or ``steps`` is below 1.

    Example:
        >>> warmup = LinearWarmup(weight=0.1, steps=100)
        >>> warmup(0), warmup(50), warmup(1000)
        (0.0, 0.05, 0.1)
    """

    def __init__(self, weight: float, steps: int) -> None:
        self.weight = _check_weight(weight)
        check_whole("steps", steps, 1)
        self.steps = steps

    def __call__(self, step: int) -> float:
        """The weight at a training step."""
        return self.weight * min(step / self.steps, 1.0)


class AbstractRegularizer(nn.Module, ABC):
    r"""A penalty :math:`\lambda \, d(\ell, C^*)` that is 0 only if the log-normalizer equals its target.

    A subclass implements :meth:`distance`. The penalty is part of the loss, never of the bound's reported value.

    Args:
        weight: Lambda, at least 0, or a function that returns it for a training step. At 0 the penalty is a constant
            zero: gradients are bit-equal to those without a regularizer.
        target: C*, nats. Self-normalized bounds (NWJ, TUBA, JS, NCE, ...) admit 0 only; see :func:`check_target`.
        scale: ``"log"`` compares log-normalizers. ``"linear"`` compares their exponentials, as NWJ's regularizer is
            printed; it has the same optimum and overflows earlier.

    Attributes:
        step: The number of training batches before this one, passed to a scheduled weight; ``MILoss`` sets it.
        factor: Multiplies the weight, scheduled or not; 1 unless a callback adapts it, and part of the state dict.
        bounded_gradient: The gradient of the distance is bounded.

    Raises:
        ValueError: The weight is negative or not finite, the target is not finite, or the scale is unknown.

    Source: Choi and Lee 2022 (squared distance).
    """

    bounded_gradient: ClassVar[bool] = False

    def __init__(self, weight: Weight = 1.0, target: float = 0.0, *, scale: Scale = "log") -> None:
        super().__init__()
        check_choice("scale", scale, ("log", "linear"))
        check_finite("target", target, "the log-normalizer's target, in nats")
        self.weight = weight if callable(weight) else _check_weight(weight)
        self.target = target
        self.scale = scale
        self.step = 0
        self.factor = 1.0
        self.register_load_state_dict_pre_hook(_add_missing_factor)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def get_extra_state(self) -> Tensor:
        """The factor for ``state_dict``: a scalar on the CPU, so that saving needs no host-device sync."""
        return torch.tensor(self.factor, dtype=torch.float64)

    def set_extra_state(self, state: object) -> None:
        """Restore the result of :meth:`get_extra_state`.

        Raises:
            RuntimeError: The state is not a scalar tensor of at least 0.
        """
        self.factor = float(state) if isinstance(state, Tensor) and state.shape == () else math.nan
        if not 0 <= self.factor < math.inf:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}: Got {state} as the factor.")

    @abstractmethod
    def distance(self, deviation: Tensor) -> Tensor:
        """A scalar, at least 0, that is 0 only at a deviation of 0 (a scalar; nats on the log scale)."""

    @final
    def current_weight(self) -> float:
        """Lambda at :attr:`step`, times :attr:`factor`."""
        weight = _check_weight(self.weight(self.step)) if callable(self.weight) else self.weight
        return self.factor * weight

    def forward(self, terms: BoundTerms) -> Tensor:
        """The penalty for one batch: a scalar, at least 0.

        Args:
            terms: The result of a bound.

        Raises:
            TypeError: ``terms`` is not :class:`BoundTerms`.
            ValueError: A scheduled weight is negative or not finite.

        Warns:
            MINumericalWarning: The penalty is infinite although the log-normalizer is finite.
        """
        check_instance("terms", terms, BoundTerms, "bound(scores)")
        penalty = self.penalty(terms.log_normalizer)
        if finite_checks_enabled():
            self.warn_unless_finite(penalty, terms, stacklevel=5)  # two frames of nn.Module's call lie between
        return penalty

    @final
    def penalty(self, log_normalizer: Tensor) -> Tensor:
        """The penalty without checks or warnings, for ``torch.vmap``: a scalar for a scalar, in nats."""
        weight = self.current_weight()
        if weight == 0:
            return torch.zeros_like(log_normalizer, requires_grad=False)
        if self.scale == "linear":
            return weight * self.distance(exp_linear(log_normalizer, None) - math.exp(self.target))
        return weight * self.distance(log_normalizer - self.target)

    @final
    def warn_unless_finite(self, penalty: Tensor, terms: BoundTerms, stacklevel: int = 2) -> None:
        """Warn about a penalty that overflowed. One host-device sync.

        Args:
            penalty: The result of :meth:`forward`.
            terms: The argument of :meth:`forward`.
            stacklevel: As in :func:`warnings.warn`.

        Warns:
            MINumericalWarning: The penalty is infinite although the log-normalizer is finite.
        """
        log_normalizer = terms.log_normalizer
        if bool(log_normalizer.isfinite() & ~penalty.isfinite()):
            if self.scale == "linear":
                remedy = "Use scale='log'."
            elif self.bounded_gradient:
                remedy = "Lower its weight."
            else:
                remedy = "Use Huber or Absolute, whose gradient is bounded."
            warnings.warn(
                f"{type(self).__name__} gave {penalty.detach():g} for a log-normalizer of {log_normalizer.detach():g} "
                f"nats: the distance on the {self.scale} scale overflows. {remedy}",
                MINumericalWarning,
                stacklevel=stacklevel,
            )


@final
class Squared(AbstractRegularizer):
    """The squared distance: weight * (log-normalizer - target)^2.

    Source: Choi and Lee 2022.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> terms = bounds.DV()(Scores.from_matrix(torch.full((4, 4), 2.0)))
        >>> Squared(weight=0.1)(terms)  # 0.1 * 2^2
        tensor(0.4000)
    """

    def distance(self, deviation: Tensor) -> Tensor:
        """The square of the deviation."""
        return deviation.square()


@final
class Absolute(AbstractRegularizer):
    """The absolute distance: weight * abs(log-normalizer - target). Its gradient is constant up to the target.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> terms = bounds.DV()(Scores.from_matrix(torch.full((4, 4), 2.0)))
        >>> Absolute(weight=0.1)(terms)  # 0.1 * 2
        tensor(0.2000)
    """

    bounded_gradient: ClassVar[bool] = True

    def distance(self, deviation: Tensor) -> Tensor:
        """The absolute value of the deviation."""
        return deviation.abs()


@final
class Huber(AbstractRegularizer):
    """Half the squared distance within ``delta`` of the target, linear beyond: a gradient of at most weight * delta.

    Args:
        weight: As in :class:`AbstractRegularizer`.
        target: As in :class:`AbstractRegularizer`.
        scale: As in :class:`AbstractRegularizer`.
        delta: The deviation from which the distance is linear, in nats (on the linear scale, in its units).

    Raises:
        ValueError: ``delta`` is not positive and finite.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> terms = bounds.DV()(Scores.from_matrix(torch.full((4, 4), 2.0)))
        >>> Huber(weight=0.1)(terms)  # 0.1 * (2 - 1/2)
        tensor(0.1500)
    """

    bounded_gradient: ClassVar[bool] = True

    def __init__(self, weight: Weight = 1.0, target: float = 0.0, *, scale: Scale = "log", delta: float = 1.0) -> None:
        super().__init__(weight, target, scale=scale)
        check_positive("delta", delta, "the deviation from which the distance is linear")
        self.delta = delta

    def distance(self, deviation: Tensor) -> Tensor:
        """Huber's loss of the deviation."""
        return huber_loss(deviation, torch.zeros_like(deviation), delta=self.delta)


def check_target(bound: AbstractBound, regularizer: AbstractRegularizer | None) -> None:
    """Check that a regularizer's target does not move the bound's optimum.

    The optimal critic of a self-normalized bound is unique and has log-normalizer 0.

    Raises:
        ValueError: The bound is self-normalized and the target is not 0.

    Example:
        >>> from lightning_mi import bounds
        >>> check_target(bounds.NWJ(), Squared(target=2.0))
        Traceback (most recent call last):
        ValueError: Got target=2.0 for NWJ: a self-normalized bound has log-normalizer 0 at its optimal critic, so ...
    """
    if regularizer is not None and bound.self_normalized and regularizer.target != 0:
        raise ValueError(
            f"Got target={regularizer.target} for {type(bound).__name__}: a self-normalized bound has log-normalizer 0 "
            "at its optimal critic, so another target would move the optimum away from the mutual information. Use "
            "target=0.0, or DV, MINE, SMILE or InfoNCE."
        )


def log_normalizer_target(bound: AbstractBound, regularizer: AbstractRegularizer | None) -> float | None:
    """The target of the log-normalizer in training, nats; None if there is none.

    It is the regularizer's target or, without a regularizer, 0 for a self-normalized bound.

    Raises:
        ValueError: The target moves the bound's optimum; see :func:`check_target`.

    Example:
        >>> from lightning_mi import bounds
        >>> log_normalizer_target(bounds.DV(), None), log_normalizer_target(bounds.NWJ(), None)
        (None, 0.0)
        >>> log_normalizer_target(bounds.DV(), Squared(target=2.0))
        2.0
    """
    check_target(bound, regularizer)
    if regularizer is not None:
        return regularizer.target
    return 0.0 if bound.self_normalized else None


def _add_missing_factor(module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    # A checkpoint saved without a regularizer can be loaded: the factor is then 1.
    state_dict.setdefault(f"{prefix}_extra_state", torch.tensor(1.0))


def _check_weight(weight: float) -> float:
    check_finite("weight", weight, "the regularizer's weight, or a callable that returns it for a training step")
    if weight < 0:
        raise ValueError(
            f"Got weight={weight}: it must be at least 0. A negative weight pushes the log-normalizer away from its "
            "target."
        )
    return weight
