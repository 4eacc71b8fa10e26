"""Pairings: how a batch becomes joint and marginal pairs, and their scores."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from lightning_mi.critics import AbstractCritic
from lightning_mi.scores import Scores


class AbstractPairing(nn.Module, ABC):
    """Turns the representations of a batch into scores of joint and marginal pairs.

    Attributes:
        num_views: How many leading entries of a batch are views, to be encoded; None if all are.
        takes_labels: Whether the labels, the entry after the views, are passed on after the representations.
    """

    num_views: ClassVar[int | None] = None
    takes_labels: ClassVar[bool] = False

    @abstractmethod
    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Score the batch.

        Args:
            critic: Gives T(x, y).
            views: The representations, x and y first.
        """


@final
class AllPairs(AbstractPairing):
    """Row i of x and row i of y are a joint pair; all N (N - 1) other combinations are marginal pairs.

    For InfoNCE a row is x_i against every y, its own included.

    Raises:
        ValueError: The batch has one sample, or x and y differ in length, or there are not two views.

    Example:
        >>> from lightning_mi import critics
        >>> AllPairs()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        12
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of x (N, Dx) and y (N, Dy)."""
        x, y = _joint_views(views, count=2, pairing="AllPairs")
        _check_two_or_more(x)
        return Scores.from_matrix(critic.pairwise(x, y), y=y)


@final
class Derangement(AbstractPairing):
    """Row i of x and row i of y are a joint pair; N marginal pairs come from a shuffle of y without fixed points.

    The shuffle is one random cycle, so no marginal pair is a joint one. Cheaper than all pairs for a joint critic,
    and noisier. Without rows: InfoNCE cannot use it.

    Raises:
        ValueError: The batch has one sample, or x and y differ in length, or there are not two views.

    Example:
        >>> from lightning_mi import critics
        >>> Derangement()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        4
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with y shuffled."""
        x, y = _joint_views(views, count=2, pairing="Derangement")
        _check_two_or_more(x)
        order = torch.randperm(len(x), device=x.device)
        shuffle = torch.empty_like(order)
        shuffle[order] = order.roll(1)
        return Scores.from_samples(critic.paired(x, y), critic.paired(x, y[shuffle]), y=y, marginal_columns=shuffle)


@final
class IndependentMarginal(AbstractPairing):
    """The batch brings its own marginal pairs: views x, y of joint pairs and x', y' of independently drawn ones.

    Without rows: InfoNCE cannot use it.

    Raises:
        ValueError: x and y, or x' and y', differ in length, or there are not four views.

    Example:
        >>> from lightning_mi import critics
        >>> x = torch.ones(4, 2)
        >>> IndependentMarginal()(critics.InnerProductCritic(), x, x, x[:3], x[:3]).num_marginal
        3
    """

    num_views: ClassVar[int | None] = 4

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and of x' (K, Dx) with y' (K, Dy)."""
        x, y, x_marginal, y_marginal = _joint_views(views, count=4, pairing="IndependentMarginal")
        if len(x_marginal) != len(y_marginal):
            raise ValueError(
                f"Got {len(x_marginal)} marginal x and {len(y_marginal)} marginal y: row i of both is one pair."
            )
        return Scores.from_samples(
            critic.paired(x, y), critic.paired(x_marginal, y_marginal), y=torch.cat([y, y_marginal])
        )


def _joint_views(views: tuple[Tensor, ...], count: int, pairing: str) -> tuple[Tensor, ...]:
    if len(views) != count:
        names = ("x", "y", "x_marginal", "y_marginal")[:count]
        raise ValueError(
            f"Got {len(views)} view{'s' * (len(views) != 1)} of the batch: {pairing} takes {count}, "
            f"{', '.join(names)}. Choose another pairing, or override `unpack_batch` to return them."
        )
    x, y = views[0], views[1]
    if len(x) != len(y):
        raise ValueError(f"Got {len(x)} x and {len(y)} y: row i of both is one joint pair, so they are equally long.")
    return views


def _check_two_or_more(x: Tensor) -> None:
    if len(x) < 2:
        raise ValueError(
            f"Got a batch of {len(x)}: marginal pairs combine different samples, so a batch holds two or more. "
            "Raise the batch size, or drop the last, smaller batch with `drop_last=True`."
        )
