"""Regularizers: how far a bound's log-normalizer is from its target, times a weight."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.utilities.checks import check_instance, check_number, check_whole
from lightning_mi.utilities.numerics import exp_linear, finite_checks_enabled


@final
class LinearWarmup:
    """A weight that rises linearly from 0 to ``weight`` over ``steps`` training steps and stays there.

    Args:
        weight: The final weight, at least 0.
        steps: The number of steps it takes to get there, at least 1.

    Raises:
        ValueError: The weight is negative or not finite, or there is less than one step.

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
    r"""A penalty :math:`\lambda \, d(\ell, C^*)` that vanishes only where the log-normalizer is at its target.

    A subclass implements :meth:`distance`. The penalty enters the loss; the bound's reported value never sees it.

    Source: Choi and Lee 2022, with the squared distance.

    Args:
        weight: Lambda, at least 0, or a function of the training step that gives it. At 0 the penalty is a constant
            zero, so that gradients are bit-equal to those without a regularizer.
        target: C*, where the log-normalizer is held, in nats; the bound's natural target by default. Bounds that are
            self-normalized (NWJ, TUBA, JS) admit no other.
        scale: ``"log"`` compares log-normalizers; ``"linear"`` their exponentials, as NWJ's regularizer is printed,
            which has the same optimum and overflows where the log scale does not.

    Attributes:
        step: How many training batches there were before this one: where a scheduled weight is read.
            ``MIEstimationModule`` sets it before each batch.
        factor: What the weight, scheduled or not, is multiplied with: 1, unless a callback adapts it. It is in the
            state dict.

    Raises:
        ValueError: The weight is negative or not finite, or the scale is unknown.
    """

    def __init__(
        self,
        weight: float | Callable[[int], float] = 1.0,
        target: float | None = None,
        scale: Literal["log", "linear"] = "log",
    ) -> None:
        super().__init__()
        if scale not in ("log", "linear"):
            raise ValueError(f"Got scale={scale!r}: log-normalizers are compared on the 'log' or the 'linear' scale.")
        if target is not None:
            check_number("target", target, "the log-normalizer to hold, in nats")
        if target is not None and not math.isfinite(target):
            raise ValueError(f"Got target={target}: the log-normalizer is held at a finite number of nats.")
        self.weight = weight if callable(weight) else _check_weight(weight)
        self.target = target
        self.scale = scale
        self.step = 0
        self.factor = 1.0

    def get_extra_state(self) -> Tensor:
        """The factor, as ``state_dict`` holds it: a scalar on the CPU, which no step has to wait for."""
        return torch.tensor(self.factor, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Put back what :meth:`get_extra_state` gave."""
        self.factor = float(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # What was saved without a regularizer can be loaded: the factor is then 1.
        state_dict.setdefault(f"{prefix}_extra_state", torch.tensor(1.0))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @abstractmethod
    def distance(self, deviation: Tensor) -> Tensor:
        """A scalar, at least 0, that is 0 only where the deviation from the target (a scalar, nats) is."""

    @final
    def current_weight(self) -> float:
        """Lambda at :attr:`step`."""
        weight = _check_weight(self.weight(self.step)) if callable(self.weight) else self.weight
        return self.factor * weight

    @final
    def target_of(self, bound: AbstractBound) -> float:
        """C* for a bound, in nats.

        Raises:
            ValueError: The target is not the natural one of a bound that is self-normalized.
        """
        if self.target is None or self.target == bound.natural_target:
            return bound.natural_target
        if bound.self_normalized:
            raise ValueError(
                f"Got target={self.target} for {type(bound).__name__}, which is self-normalized: its optimal critic is "
                f"unique and has log-normalizer {bound.natural_target:g}, so another target would move the optimum "
                "away from the mutual information. Leave `target` out, or use DV, MINE, SMILE or InfoNCE."
            )
        return self.target

    def forward(self, terms: BoundTerms, bound: AbstractBound) -> Tensor:
        """The penalty for one batch: a scalar, at least 0.

        Args:
            terms: What ``bound`` read on the batch.
            bound: Tells the natural target.

        Raises:
            TypeError: ``terms`` are no :class:`BoundTerms`, or ``bound`` is no bound.
            ValueError: The target does not suit the bound, or a scheduled weight is negative.

        Warns:
            MINumericalWarning: The penalty is infinite though the log-normalizer is not.
        """
        check_instance("terms", terms, BoundTerms, "bound(scores)")
        check_instance("bound", bound, AbstractBound, "bounds.DV()")
        penalty = self.penalty(terms.log_normalizer, bound)
        if finite_checks_enabled():
            self.warn_unless_finite(penalty, terms, stacklevel=5)  # past the two frames of nn.Module's call
        return penalty

    @final
    def warn_unless_finite(self, penalty: Tensor, terms: BoundTerms, stacklevel: int = 2) -> None:
        """Say that the penalty has left the range of floating-point numbers; it waits for the device.

        Args:
            penalty: For a batch.
            terms: What it was given.
            stacklevel: Whose line the warning names, as in :func:`warnings.warn`.

        Warns:
            MINumericalWarning: The penalty is infinite though the log-normalizer is not.
        """
        observed = terms.log_normalizer
        if bool(observed.isfinite() & ~penalty.isfinite()):
            warnings.warn(
                f"{type(self).__name__} gave {penalty.detach():g} for a log-normalizer of {observed.detach():g} nats: "
                f"the distance on the {self.scale} scale is too large for floating-point numbers. " + self._cure(),
                MINumericalWarning,
                stacklevel=stacklevel,
            )

    def _cure(self) -> str:
        if self.scale == "linear":
            return "Use scale='log'."
        bounded = isinstance(self, Huber | Absolute)
        return "Lower its weight." if bounded else "Use Huber or Absolute, whose gradient is bounded."

    @final
    def penalty(self, log_normalizer: Tensor, bound: AbstractBound) -> Tensor:
        """:meth:`forward` without its warning: tensors in, a tensor out, as ``torch.vmap`` needs it."""
        target, weight = self.target_of(bound), self.current_weight()
        if weight == 0:
            return torch.zeros_like(log_normalizer, requires_grad=False)
        if self.scale == "linear":
            return weight * self.distance(exp_linear(log_normalizer, None) - math.exp(target))
        return weight * self.distance(log_normalizer - target)


@final
class Squared(AbstractRegularizer):
    """The squared distance, the paper's: weight * (log-normalizer - target)^2.

    Source: Choi and Lee 2022.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> bound = bounds.DV()
        >>> Squared(weight=0.1)(bound(Scores.from_matrix(torch.full((4, 4), 2.0))), bound)  # 0.1 * 2^2
        tensor(0.4000)
    """

    def distance(self, deviation: Tensor) -> Tensor:
        """The square."""
        return deviation.square()


@final
class Absolute(AbstractRegularizer):
    """The absolute distance: weight * |log-normalizer - target|. Its pull does not fade near the target.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> bound = bounds.DV()
        >>> Absolute(weight=0.1)(bound(Scores.from_matrix(torch.full((4, 4), 2.0))), bound)  # 0.1 * 2
        tensor(0.2000)
    """

    def distance(self, deviation: Tensor) -> Tensor:
        """The absolute value."""
        return deviation.abs()


@final
class Huber(AbstractRegularizer):
    """Half the square within ``delta`` of the target, linear beyond: a pull of at most weight * delta.

    Args:
        weight: As in :class:`AbstractRegularizer`.
        target: As in :class:`AbstractRegularizer`.
        scale: As in :class:`AbstractRegularizer`.
        delta: Where the square turns linear, in nats (on the linear scale, in its units).

    Raises:
        ValueError: ``delta`` is not positive.

    Example:
        >>> from lightning_mi import bounds, Scores
        >>> bound = bounds.DV()
        >>> Huber(weight=0.1)(bound(Scores.from_matrix(torch.full((4, 4), 2.0))), bound)  # 0.1 * (2 - 1/2)
        tensor(0.1500)
    """

    def __init__(
        self,
        weight: float | Callable[[int], float] = 1.0,
        target: float | None = None,
        scale: Literal["log", "linear"] = "log",
        delta: float = 1.0,
    ) -> None:
        super().__init__(weight, target, scale)
        check_number("delta", delta, "where the square turns linear")
        if not (delta > 0 and math.isfinite(delta)):
            raise ValueError(f"Got delta={delta}: the square turns linear at a positive distance.")
        self.delta = delta

    def distance(self, deviation: Tensor) -> Tensor:
        """Huber's loss of the deviation."""
        return huber_loss(deviation, torch.zeros_like(deviation), delta=self.delta)


def target_under(bound: AbstractBound, regularizer: AbstractRegularizer | None) -> float:
    """Where a bound's log-normalizer belongs, with a regularizer or without; nats.

    Raises:
        ValueError: The regularizer's target does not suit the bound.
    """
    return bound.natural_target if regularizer is None else regularizer.target_of(bound)


def held_target(bound: AbstractBound, regularizer: AbstractRegularizer | None) -> float | None:
    """The same where something holds it there, the regularizer or a self-normalized bound itself; else None.

    Example:
        >>> from lightning_mi import bounds
        >>> held_target(bounds.DV(), None), held_target(bounds.NWJ(), None)
        (None, 0.0)
        >>> held_target(bounds.DV(), Squared(target=2.0))
        2.0
    """
    held = bound.self_normalized or regularizer is not None
    return target_under(bound, regularizer) if held else None


def _check_weight(weight: float) -> float:
    check_number("weight", weight, "lambda, or a callable that returns it for a training step")
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(
            f"Got weight={weight}: lambda is at least 0 and finite. A negative one would push the log-normalizer away "
            "from its target."
        )
    return weight
