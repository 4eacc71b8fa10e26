"""Pairings of views: row i of x and row i of y belong together."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic
from lightning_mi.pairs.base import AbstractPairing, check_two_or_more
from lightning_mi.scores import Scores


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
        check_two_or_more(x)
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
        check_two_or_more(x)
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


@final
class TwoViews(AbstractPairing):
    """Two views of each of N samples, taken as 2N samples: what contrastive learning with augmentations uses.

    The joint pairs are the two views of a sample, in both directions; the marginal pairs all pairs of different
    samples. For InfoNCE a row is a view against all others but itself, so its ceiling is log(2N - 1). One critic
    scores a view as x and as y, so both views have the same width, and usually share an encoder.

    Source: Chen et al. 2020 (SimCLR).

    Raises:
        ValueError: The batch has one sample, or the views differ in shape, or there are not two.

    Example:
        >>> from lightning_mi import critics
        >>> scores = TwoViews()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2))
        >>> scores.num_joint, scores.num_marginal
        (8, 48)
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of the 2N views x (N, D) and y (N, D)."""
        x, y = _joint_views(views, count=2, pairing="TwoViews")
        check_two_or_more(x)
        if x.shape != y.shape:
            raise ValueError(
                f"Got views of shape {tuple(x.shape)} and {tuple(y.shape)}: TwoViews scores each view as x and as y, "
                "so both have the same width. Use AllPairs for two unlike views."
            )
        both = torch.cat([x, y])
        sample = torch.arange(len(x), device=x.device).repeat(2)
        same = sample.unsqueeze(1) == sample
        itself = torch.eye(len(both), dtype=torch.bool, device=x.device)
        return Scores.from_matrix(critic.pairwise(both, both), joint=same & ~itself, marginal=~same, y=both)


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
