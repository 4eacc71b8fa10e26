"""Families of critics that an estimation fits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lightning_mi.critics import AbstractCritic, JointCritic, SeparableCritic
from lightning_mi.pairs import AbstractPairing, AllPairs, Derangement


@dataclass(frozen=True)
class Family:
    """Critics of one architecture.

    Attributes:
        residual: Creates the critic that is added to the Gaussian's, from the numbers of columns of x and y.
        pairs: Creates the pairing that they train with.
        batch_size: Pairs of a batch.
        lr: Learning rate of AdamW.
        max_members: Critics of each fold at most; None for the number of the budget.
        products: Whether the Gaussian may describe the products of the ranks with the radius.
        canonical: Whether the residual sees canonical variables instead of all coordinates.
    """

    residual: Callable[[int, int], AbstractCritic]
    pairs: Callable[[], AbstractPairing]
    batch_size: int
    lr: float
    max_members: int | None = None
    products: bool = True
    canonical: bool = False


def _separable(x_dim: int, y_dim: int) -> AbstractCritic:
    return SeparableCritic(x_dim, y_dim, hidden=(64, 64), embed_dim=16)


def _joint(x_dim: int, y_dim: int) -> AbstractCritic:
    return JointCritic(x_dim, y_dim, hidden=(64, 32))


MAX_CANONICAL = 4  # canonical variables that a residual sees
MANY_COORDINATES = 30  # columns with their products and features: ranks alone are a third

SEPARABLE = Family(_separable, AllPairs, batch_size=256, lr=2e-3)
# A residual may find more from a lower start: the products can hold it where it improves no further.
SEPARABLE_RANKS = replace(SEPARABLE, products=False)
# With many columns the residual learns the noise of all; the canonical variables are few.
SEPARABLE_CANONICAL = replace(SEPARABLE, canonical=True)
# Sharp edges of a density, such as those of bounded noise, need a network of both; all pairs of a batch would cost too
# much.
JOINT = Family(_joint, Derangement, batch_size=1024, lr=1e-2, max_members=1)
