"""The methods of the benchmark of minimization: a critic with a bound for each penalty."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from lightning_mi import bounds
from lightning_mi.bench.minimize.task import DIM_NUISANCE, DIM_Z, NUISANCE_ENTROPY, GaussianTask
from lightning_mi.bench.minimize.training import PenaltyFunction, PenaltyValue
from lightning_mi.critics.base import AbstractCritic
from lightning_mi.critics.gaussian_conditional import GaussianConditional
from lightning_mi.critics.separable import SeparableCritic
from lightning_mi.encoders import MLP
from lightning_mi.minimizer import MIMinimizer
from lightning_mi.pairs.derangement import Derangement
from lightning_mi.regularizers import Squared

NO_PENALTY = "none"
EXACT = "exact"  # the exact I(z; s) as the penalty: what no estimate can better
WITHOUT_CRITIC = (NO_PENALTY, EXACT)

_HIDDEN = (64, 64)
_EMBED_DIM = 16


class Penalty(NamedTuple):
    """A penalty, as the parts of a :class:`~lightning_mi.MIMinimizer`.

    Attributes:
        critic: Creates the critic of z (N, 6) and s (N, 4).
        bound: Creates the bound.
        options: Further arguments of the minimizer, made anew for each.
    """

    critic: Callable[[], AbstractCritic]
    bound: Callable[[], bounds.AbstractBound]
    options: Callable[[], dict[str, Any]] = dict

    def minimizer(self, weight: float, steps: int) -> MIMinimizer:
        """The minimizer with a factor of the penalty and a number of critic steps for each batch."""
        return MIMinimizer(self.critic(), self.bound(), weight=weight, steps=steps, **self.options())

    @property
    def settings(self) -> str:
        """What determines the result beside the cell's other settings, for its digest."""
        return f"{self.critic.__name__}, hidden={_HIDDEN}, embed_dim={_EMBED_DIM}"


def _separable() -> AbstractCritic:
    return SeparableCritic(DIM_Z, DIM_NUISANCE, hidden=_HIDDEN, embed_dim=_EMBED_DIM)


def _gaussian() -> AbstractCritic:
    """The density q(s | z), an adversary that predicts s."""
    return GaussianConditional(MLP(DIM_Z, _HIDDEN, out_dim=2 * DIM_NUISANCE))


METHODS: Mapping[str, Penalty] = MappingProxyType(
    {
        "DV": Penalty(_separable, bounds.DV),
        "DV-regularized": Penalty(_separable, bounds.DV, lambda: {"regularizer": Squared(0.1)}),
        "InfoNCE": Penalty(_separable, bounds.InfoNCE),
        "JS": Penalty(_separable, bounds.JS),
        "BA": Penalty(_gaussian, lambda: bounds.BA(NUISANCE_ENTROPY)),
        "CLUB": Penalty(_gaussian, bounds.CLUB),
        "CLUBSample": Penalty(_gaussian, bounds.CLUBSample, lambda: {"pairs": Derangement()}),
        "L1Out": Penalty(_gaussian, bounds.L1Out),
    }
)


def make_penalty(
    method: str, task: GaussianTask, *, weight: float, critic_steps: int | None = None
) -> PenaltyFunction | None:
    """The penalty of a method; None for the method without one.

    Args:
        method: A method of ``METHODS``, or ``none`` or ``exact``.
        task: Source of the exact values.
        weight: Factor of the penalty in the loss.
        critic_steps: Critic steps for each batch, for a method of ``METHODS``.
    """
    if method == NO_PENALTY:
        return None
    if method == EXACT:
        return lambda z, nuisance, encoder: PenaltyValue(weight * task.mi_nuisance(encoder), None)
    assert critic_steps is not None
    minimizer = METHODS[method].minimizer(weight, critic_steps)

    def estimated(z: Tensor, nuisance: Tensor, encoder: Tensor) -> PenaltyValue:
        output = minimizer.compute(z, nuisance)
        return PenaltyValue(output.penalty, (output.terms.value, output.terms_before.value))

    return estimated
