"""One line per critic: the generic tests run over all lines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lightning_mi import critics
from tests.helpers import critic_formulas


@dataclass(frozen=True)
class CriticSpec:
    """A critic of two representations of ``dim`` features.

    Attributes:
        name: The critic, with the options that differ from the defaults.
        make: Returns a new critic for representations of that width.
        reference: The scores (N, M) of the critic, x (N, dim) and y (M, dim), by the definition in float64 NumPy.
    """

    name: str
    make: Callable[[int], critics.AbstractCritic]
    reference: critic_formulas.Formula

    @property
    def has_tiles(self) -> bool:
        view = torch.zeros(2, 3)
        return self.make(3).tiles(view, view) is not None


def _calibrated(dim: int) -> critics.AbstractCritic:
    critic = critics.CalibratedCritic(critics.BilinearCritic(dim, dim), scale=True, offset_unit=1.0)
    with torch.no_grad():
        critic.offset.fill_(-1.5)
        critic.log_scale.fill_(0.4)
    return critic


def _gaussian(dim: int) -> critics.AbstractCritic:
    """With canonical variables, and a residual as after training."""
    critic = critics.GaussianCopulaCritic(dim, dim)
    x = torch.randn(50, dim, generator=torch.Generator().manual_seed(0))
    y = x.roll(1, 1) + torch.randn(50, dim, generator=torch.Generator().manual_seed(1))
    critic.fit((x, y), (x, y))
    assert isinstance(critic.residual, critics.SeparableCritic)
    for parameter in critic.residual.y_net[-1].parameters():
        nn.init.constant_(parameter, 0.1)
    return critic


def _conditional(dim: int) -> critics.AbstractCritic:
    """With log-variances of -0.1 to 0.3 beyond a narrow range."""
    network = nn.Sequential(nn.Linear(dim, 7), nn.ReLU(), nn.Linear(7, 2 * dim))
    return critics.GaussianConditional(network, log_variance_range=(-0.1, 0.1))


# fmt: off
CRITICS = [
    CriticSpec("inner product", lambda dim: critics.InnerProductCritic(), critic_formulas.inner_product),
    CriticSpec("cosine", lambda dim: critics.InnerProductCritic(normalize=True, temperature=0.2, scaled=True),
               critic_formulas.inner_product),
    CriticSpec("learnable temperature", lambda dim: critics.InnerProductCritic(temperature=0.2, learnable=True),
               critic_formulas.inner_product),
    CriticSpec("bilinear", lambda dim: critics.BilinearCritic(dim, dim), critic_formulas.bilinear),
    CriticSpec("separable", lambda dim: critics.SeparableCritic(dim, dim, hidden=(8, 7), embed_dim=2),
               critic_formulas.separable),
    CriticSpec("joint", lambda dim: critics.JointCritic(dim, dim, hidden=(8, 7)), critic_formulas.joint),
    CriticSpec("joint, no output bias", lambda dim: critics.JointCritic(dim, dim, hidden=(8,), output_bias=False),
               critic_formulas.joint),
    CriticSpec("Gaussian conditional", _conditional, critic_formulas.gaussian_conditional),
    CriticSpec("joint and separable", lambda dim: critics.JointCritic(dim, dim, hidden=(8,), separable_dim=2),
               critic_formulas.joint),
    CriticSpec("Gaussian copula", _gaussian, critic_formulas.gaussian_copula),
    CriticSpec("calibrated", _calibrated, partial(critic_formulas.calibrated, formula=critic_formulas.bilinear)),
]
# fmt: on
