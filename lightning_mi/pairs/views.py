"""Pairings of two views, or of what a batch brings as independent."""

from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_mi.bounds import AbstractBound
from lightning_mi.columns import Columns
from lightning_mi.critics import AbstractCritic
from lightning_mi.distributed import own_generator
from lightning_mi.pairs.base import AbstractPairing, AbstractTiledPairing, check_count, check_two_or_more
from lightning_mi.pairs.known_law import known_mi
from lightning_mi.pooling import Pool
from lightning_mi.scores import Scores


@final
class AllPairs(AbstractTiledPairing):
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
        check_count(views, "x", "y", pairing="AllPairs")
        share = self.share(*views)
        check_two_or_more(share, self.training)
        x, y = views[0], share.gather(views[1])
        return self.score_all(critic, x, y, Columns.of_diagonal(x, share.start), share)


@final
class Derangement(AbstractPairing):
    """Row i of x and row i of y are a joint pair; N marginal pairs come from a shuffle of y without fixed points.

    The shuffle is one random cycle, so no marginal pair is a joint one. Cheaper than all pairs for a joint critic,
    and noisier. Without rows: InfoNCE cannot use it. Each process shuffles its own samples, and averages run over the
    pairs of all processes.

    Raises:
        ValueError: The batch, or a process's share of it, has one sample, or x and y differ in length, or there are
            not two views.

    Example:
        >>> from lightning_mi import critics
        >>> Derangement()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2)).num_marginal
        4
    """

    num_views: ClassVar[int | None] = 2

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of x (N, Dx) with y (N, Dy), and with y shuffled."""
        check_count(views, "x", "y", pairing="Derangement")
        share = self.share(*views)
        check_two_or_more(share, self.training)
        if self.training and 1 in share.counts:
            raise ValueError(
                f"Got batches of {', '.join(map(str, share.counts))} on the processes: Derangement shuffles within "
                "each, so each holds two or more samples, or none. Choose another batch size, or drop the last, "
                "smaller batch: DataLoader(..., drop_last=True)."
            )
        x, y = views
        order = torch.randperm(len(x), device=x.device, generator=own_generator(x.device))
        shuffle = torch.empty_like(order)
        shuffle[order] = order.roll(1)
        pooled = share.pooled and Pool(share.total, share.total, share.total, copies=len(share.counts))
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x, y[shuffle]) if len(x) > 1 else x.new_empty(0),
            y=y,
            marginal_columns=shuffle if len(x) > 1 else shuffle[:0],
            allow_no_marginal=not self.training,
            pooled=pooled,
        )


@final
class IndependentMarginal(AbstractPairing):
    """The batch brings its own marginal pairs: views x, y of joint pairs and x', y' of independently drawn ones.

    Without rows: InfoNCE cannot use it. Averages run over the pairs of all processes.

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
        names = ("x", "y", "x_marginal", "y_marginal")
        check_count(views, *names, pairing="IndependentMarginal")
        for first, second in (0, 2), (1, 3):
            _check_alike(names[first], views[first], names[second], views[second])
        share, _, marginal, _ = self.shares(*views)
        x, y, x_marginal, y_marginal = views
        pooled = share.pooled and Pool(share.total, marginal.total, marginal.total, copies=len(share.counts))
        return Scores.from_samples(
            critic.paired(x, y),
            critic.paired(x_marginal, y_marginal),
            y=torch.cat([y, y_marginal]),
            pooled=pooled,
        )


@final
class TwoViews(AbstractTiledPairing):
    """Contrastive pairing: two views of each sample, and every view against every other.

    The 2 N views of a batch are put into one list z. The two views of a sample are joint pairs, in both directions;
    views of different samples are the marginal pairs, 4 N (N - 1) of them. For InfoNCE a row is a view against all
    others but itself, so its ceiling is log(2 N - 1). The critic scores x against x too: both are of the same kind.

    A joint pair is (x, y) or (y, x), each with probability 1/2, and both sides of a marginal pair are drawn from the
    mixture of p(x) and p(y). So what is estimated is I(x; y) if the two views are exchangeable, that is
    p(x, y) = p(y, x) (the data module states ``exchangeable = True``), and one encoder takes both. Otherwise it is
    another number: log 2 more than I(x; y) where every x can be told from every y, and less where both have the same
    law and p(x, y) is not symmetric.

    Source: Chen et al. 2020 (SimCLR).

    Raises:
        ValueError: The batch has one sample, or x and y differ in shape, or there are not two views.

    Example:
        >>> from lightning_mi import critics
        >>> scores = TwoViews()(critics.InnerProductCritic(), torch.ones(4, 2), torch.ones(4, 2))
        >>> scores.num_joint, scores.num_marginal, scores.num_candidates
        (8, 48, 7)
    """

    num_views: ClassVar[int | None] = 2
    mixes_views: ClassVar[bool] = True

    def true_value(self, data: object, bound: AbstractBound) -> float | None:
        """I(x; y) of exchangeable views; None of others."""
        return known_mi(data) if getattr(data, "exchangeable", False) else None

    def forward(self, critic: AbstractCritic, *views: Tensor) -> Scores:
        """Scores of all pairs of the views x (N, D) and y (N, D) of N samples."""
        check_count(views, "x", "y", pairing="TwoViews")
        x, y = views
        if x.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"Got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: TwoViews scores every view against "
                "every other, so they are alike. Use one encoder for both, or AllPairs."
            )
        share = self.share(x, y)
        check_two_or_more(share, self.training)
        candidates = torch.cat(share.gather_together(x, y))
        first = torch.arange(share.start, share.start + len(x), device=x.device)
        second = share.total + first
        columns = Columns(torch.cat([second, first]), left_out=torch.cat([first, second]))
        return self.score_all(critic, torch.cat([x, y]), candidates, columns, share)


def _check_alike(name: str, view: Tensor, marginal_name: str, marginal: Tensor) -> None:
    """Check that independent samples are of the type and width of the joint ones."""
    if marginal.shape[1:] != view.shape[1:]:
        raise ValueError(
            f"Got {name} of shape {tuple(view.shape)} and {marginal_name} of shape {tuple(marginal.shape)}: both are "
            "samples of one variable, so they differ in length alone. Check the order of the batch: x, y, x', y'."
        )
    if marginal.dtype != view.dtype:
        raise TypeError(
            f"Got {name} of type {view.dtype} and {marginal_name} of type {marginal.dtype}: both are samples of one "
            f"variable. Write {marginal_name}.to({view.dtype})."
        )
